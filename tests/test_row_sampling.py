"""Which rows a budget buys: whole rows of all models, spread over layers, module kinds and experts, never too much."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from support.catalogs import catalog
from support.family import BASE, CODE, DOCS
from support.giant_layout import Layout, Repository

from reconstruct.checkpoints.alignment import AlignedTensor, align
from reconstruct.checkpoints.open import open_checkpoint
from reconstruct.errors import ConfigurationError
from reconstruct.row_sampling import may_vote, plan_rows, row_length

SMALL = {"layers": 16, "experts": 32, "hidden": 512, "intermediate": 128, "vocabulary": 4096, "shards": 3}


def aligned(fused: bool = False) -> tuple[AlignedTensor, ...]:
    """Three models of a mixture of experts, scaled down."""
    found = Repository("base", Layout(**SMALL, fused=fused)).catalog("base")
    return align(found, [found, found]).tensors


def family() -> tuple[AlignedTensor, ...]:
    first, *others = (open_checkpoint(str(folder)) for folder in (CODE, BASE, DOCS))
    return align(first, others).tensors


def flat(plan):
    return [item for stage in plan.stages for item in stage]


@pytest.mark.parametrize("tensors", [aligned(), aligned(fused=True), family()], ids=["experts", "fused", "dense"])
@pytest.mark.parametrize("budget", [100_000, 3_000_000, 20_000_000])
@pytest.mark.parametrize("requests", [60, 3000])
def test_whole_rows_once_and_within_the_limits(tensors, budget, requests):
    plan = plan_rows(tensors, budget, requests, 0)
    taken = flat(plan)
    widths = [2 * len(t.sources) for t in tensors]
    assert plan.bytes == sum((r.stop - r.start) * widths[r.tensor] for r in taken) <= budget
    assert plan.requests == 3 * len(taken) <= requests
    covered: dict[int, np.ndarray] = {}
    for item in taken:
        tensor = tensors[item.tensor]
        length = row_length(tensor)
        assert 0 <= item.start < item.stop <= tensor.elements
        assert item.start % length == item.stop % length == 0
        seen = covered.setdefault(item.tensor, np.zeros(tensor.elements // length, bool))
        assert not seen[item.start // length : item.stop // length].any()
        seen[item.start // length : item.stop // length] = True
        if may_vote(tensor):
            assert item.stop - item.start >= 1024
            assert (item.stop - item.start) // length >= 2


def test_the_seed_alone_decides():
    tensors = aligned()
    assert plan_rows(tensors, 10**6, 3000, 1) == plan_rows(tensors, 10**6, 3000, 1)
    assert plan_rows(tensors, 10**6, 3000, 1) != plan_rows(tensors, 10**6, 3000, 2)


@pytest.mark.parametrize("fused", [False, True], ids=["experts", "fused"])
def test_the_first_stage_is_spread_over_the_model(fused):
    tensors = aligned(fused)
    plan = plan_rows(tensors, 12_000_000, 3000, 0)
    first = [tensors[item.tensor] for item in plan.stages[0] if may_vote(tensors[item.tensor])]
    every = [t for t in tensors if may_vote(t)]
    assert {t.module.kind for t in first} == {t.module.kind for t in every}
    layers = {t.module.layer_label for t in first}
    assert len(layers) >= 0.8 * len({t.module.layer_label for t in every})
    visits = Counter(t.module.kind for t in first)
    inner = [visits[kind] for kind in visits if kind.startswith("mlp")]
    assert max(inner) - min(inner) <= 1


def test_later_visits_of_a_layer_take_other_experts():
    tensors = aligned()
    plan = plan_rows(tensors, 300_000_000, 30_000, 0)
    order = [tensors[r.tensor].name for r in flat(plan) if ".layers.3.mlp.experts." in tensors[r.tensor].name]
    down = [name for name in order if "down_proj" in name][:32]
    assert len(down) == len(set(down)) > 4


def test_no_range_straddles_two_fused_experts():
    tensors = aligned(fused=True)
    seen = Counter()
    for item in flat(plan_rows(tensors, 60_000_000, 30_000, 0)):
        tensor = tensors[item.tensor]
        if "experts" in tensor.module.kind.split("."):
            size = tensor.elements // tensor.shape[0]
            assert item.start // size == (item.stop - 1) // size
            seen[tensor.name, item.start // size] += 1
    assert len({expert for _, expert in seen}) >= 24


def test_vectors_take_a_twentieth_of_bytes_and_requests_at_most():
    tensors = aligned()
    plan = plan_rows(tensors, 6_000_000, 3000, 0)
    vectors = [item for item in flat(plan) if not may_vote(tensors[item.tensor])]
    assert vectors
    assert sum(6 * (item.stop - item.start) for item in vectors) <= 300_000
    assert 3 * len(vectors) <= 150
    assert all(item.stop - item.start == tensors[item.tensor].elements for item in vectors)


def test_a_budget_for_everything_reads_everything():
    tensors = family()
    size = sum(2 * t.elements * len(t.sources) for t in tensors)
    assert plan_rows(tensors, 2 * size, 10**6, 0).bytes == size


def test_stages_double_and_none_begins_with_too_little_to_decide():
    stages = plan_rows(aligned(), 100_000_000, 3000, 0).stages
    sizes = np.cumsum([sum(item.stop - item.start for item in stage) for stage in stages])
    assert len(stages) == 4
    np.testing.assert_allclose(sizes / sizes[-1], [1 / 8, 1 / 4, 1 / 2, 1], atol=0.03)
    few = plan_rows(family(), 300_000, 3000, 0).stages
    assert len(few) < 4
    assert len(few[0]) >= 16


def test_a_budget_for_nothing_is_refused_with_what_would_do():
    with pytest.raises(ConfigurationError, match=r"sampling.bytes: 100 B in 3000 requests.*3 models.*KB or more"):
        plan_rows(family(), 100, 3000, 0)
    with pytest.raises(ConfigurationError, match=r"2 requests"):
        plan_rows(family(), 10**6, 2, 0)


def test_models_in_different_dtypes_pay_for_what_they_store():
    shapes = {f"model.layers.{n}.mlp.up_proj.weight": ((64, 256), "BF16") for n in range(4)}
    wide = {name: (shape, "F32") for name, (shape, _) in shapes.items()}
    tensors = align(catalog("s", shapes), [catalog("p", wide)]).tensors
    plan = plan_rows(tensors, 200_000, 3000, 0)
    assert plan.bytes == sum(6 * (item.stop - item.start) for item in flat(plan))


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_a_plan_for_93_thousand_tensors_takes_seconds_and_little_memory():
    program = textwrap.dedent("""
        import re, time
        from pathlib import Path
        from support.giant_layout import Repository
        from reconstruct.checkpoints.alignment import align
        from reconstruct.row_sampling import plan_rows
        repository = Repository("base")
        start = time.perf_counter()
        models = [repository.catalog("base") for _ in range(3)]
        tensors = align(models[0], models[1:]).tensors
        plan = plan_rows(tensors, 230_000_000, 2600, 0)
        seconds = time.perf_counter() - start
        # Of this process alone: getrusage would show what the process before it had, which grows with the tests.
        peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]
        print(len(tensors), plan.bytes, plan.requests, seconds, peak)
    """)
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent)
    tensors, size, requests, seconds, memory = (float(word) for word in done.stdout.split())
    assert tensors > 92_000
    assert 200_000_000 < size <= 230_000_000
    assert requests <= 2600
    assert seconds < 20
    assert memory * 1024 < 1.5e9
