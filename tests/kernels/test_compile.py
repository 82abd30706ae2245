"""The Triton kernels compile for GPUs that are not here, and keep their numbers in registers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is not installed")
SCRIPT = Path(__file__).parents[2] / "scripts/bench/compile_kernels.py"


@pytest.mark.parametrize(("kernel", "case"), [("gram", "3 BF16"), ("gram", "10 BF16"), ("pick", "3 BF16")])
def test_it_compiles_for_both_targets_without_spilling(kernel: str, case: str, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--kernel", kernel, "--case", case],
        env=environment | {"TRITON_CACHE_DIR": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    rows = re.findall(
        rf"^{kernel} +{case} +(sm_\d+) +(\d+) +(\d+) +(\d+) +\d+ +\d+ (yes|no)$", done.stdout, re.MULTILINE
    )
    assert [row[0] for row in rows] == ["sm_80", "sm_90"]
    for _, registers, spilled, accesses, flushes in rows:
        assert 0 < int(registers) <= 168
        assert (int(spilled), int(accesses), flushes) == (0, 0, "no")
