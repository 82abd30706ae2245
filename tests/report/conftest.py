"""Evidence that reports are drawn from: a real merge, a checkpoint that is none, and distortions of the first."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from support.cases import dataset
from support.family import CODE, CODE_HALF, DOCS

from reconstruct.analysis import analyse
from reconstruct.evidence import ModelEvidence, PoolEvidence
from reconstruct.verdict import Verdict, VerdictKind, decide


@dataclass(frozen=True)
class Case:
    """What every report takes."""

    evidence: ModelEvidence
    verdict: Verdict
    suspect: str

    def named(self, names, suspect):
        table = replace(self.evidence.sources, names=tuple(names))
        return Case(replace(self.evidence, sources=table), self.verdict, suspect)

    def judged(self, kind):
        return Case(self.evidence, replace(self.verdict, kind=kind), self.suspect)


@pytest.fixture(scope="session")
def blend(blend_folder):
    evidence = analyse(dataset(blend_folder, [CODE, DOCS]))
    return Case(evidence, decide(evidence), "blend").named(["base", "ft-code", "ft-docs"], "lab/blend")


@pytest.fixture(scope="session")
def half():
    evidence = analyse(dataset(CODE_HALF, [CODE, DOCS]))
    return Case(evidence, decide(evidence), "half").named(["base", "ft-code", "ft-docs"], "lab/earlier-checkpoint")


@pytest.fixture(scope="session")
def alone(blend_folder):
    """One candidate and no base."""
    evidence = analyse(dataset(blend_folder, [CODE], base=None))
    return Case(evidence, decide(evidence), "blend").named(["ft-code"], "lab/blend")


@pytest.fixture(scope="session")
def nothing(blend):
    """No tensor could be compared."""
    evidence = blend.evidence
    empty = replace(evidence.replay, steps=np.zeros_like(evidence.replay.steps))
    strata = tuple(replace(s, count=0, reproduced=0, smooth=0.5, z=0.0) for s in evidence.strata)
    unknown = np.full(3, np.nan)
    estimate = replace(evidence.estimate, coefficients=unknown, low=unknown - np.inf, high=unknown + np.inf,
                       least_squares=unknown, sum_to_one=unknown, explained=float("nan"))  # fmt: skip
    bare = replace(evidence, tensors=(), voting=(), layers=(), kinds=(), cells=(), curve=(), orientations=(),
                   lineage=(), replay=empty, strata=strata, spike=replace(evidence.spike, count=0, reproduced=0),
                   recipe=None, estimate=estimate, arithmetic=None, programs=(), families=())  # fmt: skip
    return Case(bare, Verdict(VerdictKind.UNDETERMINED, "Nothing could be compared.", ()), "lab/blend")


@pytest.fixture(scope="session")
def broken(blend):
    """Infinite limits, NaN fits, residuals of zero and a curve without numbers."""
    evidence = blend.evidence

    def spoil(n: int, pool: PoolEvidence) -> PoolEvidence:
        unknown = np.full(3, np.inf)
        changes = [
            {"low": -unknown, "high": unknown},
            {"residual": 0.0, "decoy_residual": 0.0},
            {"floor": 0.0, "least_squares": unknown * np.nan},
            {"coefficients": unknown * np.nan, "residual": float("nan")},
        ]
        return replace(pool, **changes[n % len(changes)])

    def spoiled(pools):
        return tuple(spoil(n, pool) for n, pool in enumerate(pools))

    estimate = replace(evidence.estimate, low=np.full(3, -np.inf), high=np.full(3, np.inf))
    curve = tuple((x, float("nan"), float("nan")) for x, _, _ in evidence.curve)
    distorted = replace(evidence, layers=spoiled(evidence.layers), kinds=spoiled(evidence.kinds), curve=curve,
                        cells=spoiled(evidence.cells), estimate=estimate)  # fmt: skip
    return Case(distorted, blend.verdict, "lab/blend")


@pytest.fixture(scope="session")
def tall(half):
    """80 layers, 24 module kinds and names that are far too long."""
    evidence = half.evidence
    rng = np.random.default_rng(0)
    inner = [f"block_{'abcdefgh'[n % 8]}.experts_{n}.projection_with_a_long_name" for n in range(22)]
    layers = ["head", "embedding", *(str(n) for n in range(80))]
    pattern, whole = evidence.cells[-1], evidence.layers[-1]
    cells = []
    for layer in layers:
        outside = {"head": ["lm_head"], "embedding": ["embed_tokens"]}
        kinds = outside.get(layer) or (inner if int(layer) % 4 == 0 else inner[:16])
        for n, kind in enumerate(kinds):
            factor = float(np.exp(rng.normal(0, 0.1))) * (1 + n / 20)
            cells.append(replace(pattern, layer=layer, kind=kind, residual=pattern.floor * 5 * factor,
                                 elements=1000 * (n + 1), exact=100 * (n + 1)))  # fmt: skip
    pools = tuple(replace(whole, layer=layer) for layer in layers)
    kinds = tuple(replace(whole, layer=None, kind=kind) for kind in inner)
    prefix, suffix = "an-organisation-with-a-long-name/", "-Instruct-v2.5-2507-and-further-words"
    case = Case(replace(evidence, cells=tuple(cells), layers=pools, kinds=kinds), half.verdict, "")
    return case.named([f"{prefix}{name}{suffix}" for name in ("base", "ft-code", "ft-docs")], f"{prefix}merge{suffix}")
