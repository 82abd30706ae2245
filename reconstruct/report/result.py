"""result.json: the answer of a run for other programs. Free of times and paths of this machine, so that a resumed or
repeated run gives the same bytes.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from reconstruct.evidence import PoolEvidence, RecipeProof
from reconstruct.report.wording import model_order
from reconstruct.statistics.mixture import DECISIVE, Spike

if TYPE_CHECKING:
    from reconstruct.reconstruction import Reconstruction

__all__ = ["RESULT_SCHEMA", "result_document", "to_json"]

RESULT_SCHEMA = 1


def to_json(run: Reconstruction) -> str:
    """As text, with a final newline."""
    return json.dumps(result_document(run), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def result_document(run: Reconstruction) -> dict[str, Any]:
    """Plain dicts, lists, numbers and strings; numbers that do not exist (no limit, no estimate) are null."""
    e, verdict = run.evidence, run.verdict
    estimate, names = e.estimate, e.sources.names
    replay = e.replay
    coefficients = {
        name: {
            "estimate": estimate.coefficients[j], "low": estimate.low[j], "high": estimate.high[j],
            "least_squares": estimate.least_squares[j], "sum_to_one": estimate.sum_to_one[j],
        }
        for j, name in enumerate(names)
    }  # fmt: skip
    twins = {name: kept for name, kept in e.sources.duplicates if name not in coefficients}
    coefficients |= {name: {"estimate": 0.0, "same_weights_as": kept} for name, kept in twins.items()}
    matrices = [t for t in e.tensors if t.measurement.is_matrix]
    layers = {str(p.layer): p for p in e.layers}
    document = {
        "schema": RESULT_SCHEMA,
        "suspect": run.suspect,
        "base": names[0] if e.sources.has_base else None,
        "revisions": dict(run.revisions),
        "verdict": {
            "kind": verdict.kind.value,
            "summary": verdict.summary,
            "reasons": [
                {"name": r.name, "value": r.value, "threshold": r.threshold, "passed": r.passed}
                for r in verdict.reasons
            ],
            "limits": list(verdict.limits),
        },
        "coefficients": coefficients,
        "coefficients_origin": estimate.origin,
        "explained": {"r_squared": estimate.explained, "decoy": e.controls.explained},
        "families": list(e.families),
        "fits": [
            {
                "family": f.hypothesis, "parameters": f.parameters, "standard_errors": f.standard_errors,
                "residual": math.sqrt(f.residual), "rounding_floor": math.sqrt(f.floor), "notes": list(f.notes),
            }
            for f in e.family_fits
        ],
        "arithmetic": e.arithmetic,
        "programs": list(e.programs),
        "novel": {
            "count": int(replay.novel[0]),
            "reproduced": int(replay.novel_exact[0]),
            "decoy": e.controls.hit_rate,
        },
        "decisive": {
            "count": e.spike.count, "reproduced": e.spike.reproduced, "spike_ratio": e.spike.ratio, "z": e.spike.z,
            "decoy_z": e.controls.spike_z,
            "strata": [_spike(s) | {"decisive": k >= DECISIVE} for k, s in enumerate(e.strata)],
        },
        "phase_test": {
            "difference": e.phases.difference.tolist(), "errors": e.phases.errors.tolist(), "z": e.phases.overall_z,
            "boundary_z": e.phases.boundary_z, "uniformity": e.phases.uniformity, "clusters": e.phases.clusters,
        },
        "rounding_phase": e.rounding,
        "overlap_of_movements": e.overlap,
        "rounding_box": {"inside": e.box, "decoy": e.controls.box},
        "untouched_share": {"value": e.spike.untouched, "z": e.spike.z},
        "agreement": [
            {"source": names[j + 1], "spread": a.spread, "q": a.q, "p": a.p, "i_squared": a.i_squared,
             "block_spread": e.block_agreement[j]}
            for j, a in enumerate(e.agreement)
        ],
        "orientations": [
            {"product": o.target, "coefficients": o.coefficients, "exact": o.exact, "novel_exact": o.novel_exact,
             "untouched_share": o.spike.untouched, "z": o.spike.z, "rounding_box": o.box}
            for o in e.orientations
        ],
        "lineage": {name: _spike(s) for name, s in zip(names, e.lineage, strict=True)},
        "compared": {
            "tensors": len(e.tensors), "matrices": len(matrices), "voting": len(e.voting),
            "elements": sum(t.measurement.elements for t in e.tensors), "every_element_replayed": e.exhaustive,
            "left_out": [
                {"name": item.name, "model": item.model, "elements": item.elements, "reason": item.reason}
                for item in run.left_out
            ],
        },
        "reading": _reading(run),
        "layers": [_pool(layers[label], names) for label in model_order(layers)],
        "module_kinds": [_pool(p, names) for p in e.kinds],
        "recipe": verdict.recipe.to_mergekit() if verdict.recipe is not None else None,
        "proof": _proof(e.proof) if e.proof is not None else None,
        "notes": list(e.notes),
    }  # fmt: skip
    cleaned: dict[str, Any] = _plain(document)
    return cleaned


def _proof(p: RecipeProof) -> dict[str, Any]:
    return {
        "program": p.program, "complete": p.complete, "failure": p.failure or None, "identical": p.identical,
        "weights": sum(t.total for t in p.tensors), "differing": list(p.differing), "uncompared": list(p.uncompared),
        "surplus": list(p.surplus), "threads": p.threads, "recipe": p.document,
    }  # fmt: skip


def _reading(run: Reconstruction) -> dict[str, Any] | None:
    """What a byte budget allowed to read; None where everything was."""
    return asdict(run.reading) | {"share": run.reading.coverage.share} if run.reading is not None else None


def _spike(s: Spike) -> dict[str, Any]:
    return {
        "from": s.low, "to": s.high, "count": s.count, "reproduced": s.reproduced, "smooth": s.smooth,
        "spike_ratio": s.ratio, "z": s.z, "untouched": s.untouched, "ripple": s.ripple,
    }  # fmt: skip


def _pool(p: PoolEvidence, names: tuple[str, ...]) -> dict[str, Any]:
    return {
        "layer": p.layer, "module_kind": p.kind, "tensors": p.tensors, "elements": p.elements,
        "coefficients": {
            name: {"estimate": p.coefficients[j], "low": p.low[j], "high": p.high[j],
                   "least_squares": p.least_squares[j]}
            for j, name in enumerate(names)
        },
        "certified": p.certified, "residual": p.residual, "rounding_floor": p.floor,
        "decoy_residual": p.decoy_residual, "exact": p.exact / p.elements if p.elements else None,
        "novel": {"count": p.novel, "reproduced": p.novel_exact}, "untouched_share": p.spike.untouched, "z": p.spike.z,
    }  # fmt: skip


def _plain(value: Any) -> Any:
    """numpy scalars -> Python numbers; NaN and infinities -> null."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value
