"""Model forensics from weights alone: rebuild a suspect checkpoint from candidate parents.

import reconstruct

run = reconstruct.fit("./suspect", ["./a", "./b"], base="./base")
run.verdict.kind        # "reproduced", "related", ...
run.coefficients        # {"./base": 0.0, "./a": 0.565, "./b": 0.435}
run.table()             # one row a tensor, pandas
run.recipe.to_yaml()    # mergekit configuration, where one replays
run.plot("plots")       # PNG and SVG
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

# In a checkout the folders kernels/ and conf/ stand beside this one; they are installed as parts of the package. Python
# started in the checkout's root finds this folder first, and must find them too.
_ROOT = Path(__file__).resolve().parent.parent
if (_ROOT / "kernels" / "select.py").is_file() and (_ROOT / "conf" / "fit.yaml").is_file():
    __path__.append(str(_ROOT))

if TYPE_CHECKING:
    from reconstruct.api import fit, load_run, refit, resume
    from reconstruct.errors import ReconstructError
    from reconstruct.reconstruction import Reconstruction
    from reconstruct.scanning.result import Scan
    from reconstruct.scanning.run import load_scan, resume_scan, scan
    from reconstruct.verdict import Verdict, VerdictKind
    from reconstruct.verification.run import verify

__all__ = [
    "ReconstructError",
    "Reconstruction",
    "Scan",
    "Verdict",
    "VerdictKind",
    "fit",
    "load_run",
    "load_scan",
    "refit",
    "resume",
    "resume_scan",
    "scan",
    "verify",
]

_HOMES = {
    "fit": "api", "load_run": "api", "refit": "api", "resume": "api", "ReconstructError": "errors",
    "Reconstruction": "reconstruction", "Verdict": "verdict", "VerdictKind": "verdict", "verify": "verification.run",
    "Scan": "scanning.result", "load_scan": "scanning.run", "resume_scan": "scanning.run", "scan": "scanning.run",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """Load what is used, when it is used: `import reconstruct` alone costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'reconstruct' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"reconstruct.{_HOMES[name]}"), name)
