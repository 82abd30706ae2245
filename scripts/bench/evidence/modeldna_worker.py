"""Runs inside the peer's own environment: prints what `modeldna.merge` says of each case, one JSON line a case.

    peer-environment/bin/python modeldna_worker.py MODELS < CASES

Lines of CASES are {name, suspect, parents, base}, with paths relative to MODELS. Nothing of this project is imported.
Fingerprints are kept, because most cases share their candidates. They are taken in fast mode, as the peer's own command
`decompose` does: full mode samples the same elements and gives the same decomposition to the last digit, but computes
spectra of whole tensors too, which decomposition does not use.
"""

from __future__ import annotations

import json
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

from modeldna.fingerprint.extract import Fingerprint, extract_fingerprint
from modeldna.io.source import open_source
from modeldna.merge import decompose_fingerprints

KEPT = 64  # fingerprints, of some 20 MB each


@lru_cache(maxsize=KEPT)
def fingerprint(models: Path, path: str) -> Fingerprint:
    """Of one folder; raises what the peer raises."""
    return extract_fingerprint(open_source(str(models / path)), mode="fast", model_id=path)


def examine(models: Path, case: dict[str, Any]) -> dict[str, Any]:
    """The peer's answer, or the words with which it refuses."""
    answer = {"case": case["name"], "summary": None, "alphas": {}, "gain_vs_single": None, "recon_cos": None}
    try:
        found = decompose_fingerprints(
            fingerprint(models, case["suspect"]),
            [fingerprint(models, path) for path in case["parents"]],
            fingerprint(models, case["base"]) if case["base"] else None,
        )
    except Exception as error:
        return {**answer, "error": f"{type(error).__name__}: {error}".replace(str(models), "MODELS")}
    return {**answer, **{key: getattr(found, key) for key in answer if key != "case"}, "error": None}


def main() -> None:
    models = Path(sys.argv[1])
    for line in sys.stdin:
        print(json.dumps(examine(models, json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
