"""The benchmark is a folder of scripts that import each other plainly: so do its tests."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts/bench/evidence"))
