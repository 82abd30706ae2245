"""Compiles the Triton kernels ahead of time, without a GPU, and prints what the assembler made of each.

    python scripts/bench/compile_kernels.py [--kernel gram] [--target 90] [--case "3 BF16"]

Exit code 1 if a kernel does not compile or spills registers to memory.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.pop("TRITON_INTERPRET", None)  # read when a kernel is declared, and an interpreted kernel does not compile

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

KERNELS = ("gram", "pick", "replay")
TARGETS = (80, 90)
_TOOLS = Path(triton.__file__).parent / "backends/nvidia/bin"
_ALIGNED = [["tt.divisibility", 16]]  # as the launcher finds the memory that torch allocates


@dataclass(frozen=True)
class Compiled:
    """`spilled`: bytes a thread keeps in local memory; `local_accesses`: instructions that read or write them."""

    registers: int
    spilled: int
    local_accesses: int
    shared: int
    instructions: int
    flushes_subnormals: bool


def compiled(
    kernel: Any, signature: dict[str, Any], constants: dict[str, Any], options: dict[str, Any], target: int
) -> Compiled:
    """One specialisation of a kernel for compute capability `target` / 10."""
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=_alignment(signature))
    binary = triton.compile(source, target=GPUTarget("cuda", target, 32), options=options)
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(binary.asm["cubin"])
        usage = _run("cuobjdump", "--dump-resource-usage", str(cubin))
        listing = _run("nvdisasm", "-c", str(cubin))
    found = dict(re.findall(r"(REG|STACK|LOCAL):(\d+)", usage))
    return Compiled(
        registers=int(found["REG"]),
        spilled=int(found["STACK"]) + int(found["LOCAL"]),
        local_accesses=len(re.findall(r"\b(?:STL|LDL)\b", listing)),
        shared=binary.metadata.shared,
        instructions=len(re.findall(r"^\s+/\*[0-9a-f]{4,}\*/", listing, re.MULTILINE)),
        flushes_subnormals=".ftz" in binary.asm["ptx"],
    )


def _alignment(signature: dict[str, Any]) -> dict[tuple[int, ...], list[list[Any]]]:
    paths: dict[tuple[int, ...], list[list[Any]]] = {}
    for i, kind in enumerate(signature.values()):
        if isinstance(kind, tuple):
            paths |= {(i, j): _ALIGNED for j, inner in enumerate(kind) if str(inner).startswith("*")}
        elif kind.startswith("*"):
            paths[(i,)] = _ALIGNED
    return paths


def _run(tool: str, *arguments: str) -> str:
    return subprocess.run([str(_TOOLS / tool), *arguments], check=True, capture_output=True, text=True).stdout


def cases(kernel: str) -> list[tuple[str, Any, dict[str, Any], dict[str, Any], dict[str, Any]]]:
    """What a kernel's module names: label, function, signature, constants, options."""
    name = f"reconstruct.kernels.{kernel}_triton"
    if importlib.util.find_spec(name) is None:
        return []
    module = importlib.import_module(name)
    return module.aot_cases() if hasattr(module, "aot_cases") else []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernel", choices=KERNELS, action="append")
    parser.add_argument("--target", type=int, choices=TARGETS, action="append")
    parser.add_argument("--case", action="append", help="a label as printed; all if left out")
    arguments = parser.parse_args()
    failures = 0
    print(f"Triton {triton.__version__}")
    print(f"{'kernel':7} {'specialisation':54} {'target':6} {'registers':>9} {'spilled':>7} {'LDL/STL':>7}", end=" ")
    print(f"{'shared':>7} {'instructions':>12} .ftz", flush=True)
    for name in arguments.kernel or KERNELS:
        for label, kernel, *specialisation in cases(name):
            if arguments.case and label not in arguments.case:
                continue
            for target in arguments.target or TARGETS:
                print(f"{name:7} {label:54} sm_{target:<3}", end=" ", flush=True)
                try:
                    result = compiled(kernel, *specialisation, target)
                except Exception as error:
                    print(f"does not compile: {error!r}"[:400], flush=True)
                    failures += 1
                    continue
                failures += bool(result.spilled or result.local_accesses)
                print(f"{result.registers:9} {result.spilled:7} {result.local_accesses:7} {result.shared:7}", end=" ")
                print(f"{result.instructions:12} {'yes' if result.flushes_subnormals else 'no'}", flush=True)
    return min(failures, 1)


if __name__ == "__main__":
    sys.exit(main())
