"""`pick` in Triton gives the very sample of its definition: interpreted on the processor, compiled for a GPU."""

from __future__ import annotations

import importlib
import itertools
import os
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.kernel_inputs import DTYPES, LENGTHS, MIXTURES, encode, part, related, trained

from reconstruct.kernels import pick_processor, pick_reference
from reconstruct.kernels.device import DeviceView, device_of, on_device
from reconstruct.kernels.pick_reference import EVERY_HASH, element_hash
from reconstruct.kernels.results import View

pytest.importorskip("triton")
pick_triton = importlib.import_module("reconstruct.kernels.pick_triton")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if not (INTERPRETED or torch.cuda.is_available()):
    pytest.skip("no GPU, and TRITON_INTERPRET is not 1", allow_module_level=True)

#: Runs of 96 elements in tiles of 32.
SMALL = {"LANES": 4, "TILES": 3}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pick_triton, "_SHAPE", SMALL)


def assert_agree(
    models: Sequence[View],
    *,
    seed: int = 5,
    offset: int = 0,
    below: int = EVERY_HASH,
    given: Sequence[View | DeviceView] = (),
) -> NDArray[np.int64]:
    fast: NDArray[np.int64] = pick_triton.pick(given or models, seed=seed, offset=offset, below=below)
    np.testing.assert_array_equal(fast, pick_reference.pick(models, seed=seed, offset=offset, below=below))
    assert fast.dtype == np.int64
    return fast


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_gives_the_reference_sample(dtype: str) -> None:
    assert len(assert_agree(related([dtype] * 4, 3001))) > 300


@pytest.mark.parametrize("dtypes", MIXTURES, ids="-".join)
def test_models_of_different_dtypes_give_the_reference_sample(dtypes: tuple[str, ...]) -> None:
    assert len(assert_agree(related(dtypes, 3001))) > 300


@pytest.mark.parametrize("further", range(9))
def test_any_number_of_further_sources_gives_the_reference_sample(further: int) -> None:
    assert (len(assert_agree(related(["BF16"] * (2 + further), 1500, seed=further))) > 0) == (further > 0)


@pytest.mark.parametrize("length", [*LENGTHS, 33_000])
def test_every_length_gives_the_reference_sample(length: int) -> None:
    assert_agree(related(["BF16"] * 3, length, seed=length))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("dtype", ["BF16", "F32", "F64"])  # eight, four and two elements in a wide load
@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 31, 32, 33, 95, 96, 97, 128, 191, 192, 193])
def test_every_length_around_the_edges_of_tiles_and_runs(length: int, dtype: str) -> None:
    assert_agree(related([dtype] * 3, length, seed=length, step=0.5))


@pytest.mark.parametrize("below", [0, 1, EVERY_HASH // 1000, EVERY_HASH // 2, EVERY_HASH - 1])
def test_any_bound_on_trained_weights(below: int) -> None:
    assert_agree(part(trained(["ft-code-half", "base", "ft-code"]), 0, 20_001), below=below)


@pytest.mark.parametrize(("seed", "offset"), [(0, 0), (1, 2**33), (2**63 - 1, 7), (2**64 - 1, 2**40)])
def test_seeds_and_positions_of_any_size(seed: int, offset: int) -> None:
    assert (assert_agree(related(["BF16"] * 3, 3000), seed=seed, offset=offset) >= offset).all()


@pytest.mark.parametrize("before", [1, 8, 1000, 1023, 1024, 2999, 3000])
def test_positions_that_pass_a_multiple_of_two_to_the_32(before: int) -> None:
    assert_agree(related(["BF16"] * 3, 3000), offset=3 * 2**32 - before)


@pytest.mark.parametrize("below", [0, 1, 2**24, 2**31 - 1, 2**31, EVERY_HASH - 1, EVERY_HASH])
def test_hashes_of_no_interest_are_left_out(below: int) -> None:
    models = related(["BF16"] * 3, 3000)
    result = assert_agree(models, below=below)
    assert (element_hash(result, 5) <= below).all()
    np.testing.assert_array_equal(result, pick_processor.pick(models, seed=5, below=below))


@pytest.mark.usefixtures("small")
def test_blocks_give_what_the_whole_gives() -> None:
    models = related(["BF16"] * 3, 1200)
    whole = assert_agree(models, seed=3, below=EVERY_HASH // 5)
    edges = itertools.pairwise([0, 5, 96, 700, 1200])
    blocks = [assert_agree(part(models, a, b), seed=3, offset=a, below=EVERY_HASH // 5) for a, b in edges]
    np.testing.assert_array_equal(np.concatenate(blocks), whole)


@pytest.mark.parametrize("more", [0, 2000])
def test_only_informative_elements_are_sampled(more: int) -> None:
    #          equal  moved  zero  cancelled  nan     inf     moved
    pivot = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, -2.0] + [1.0] * more
    other = [1.0, 2.0, 2.0, 2.0, np.nan, 2.0, -3.0] + [1.0] * more
    suspect = [1.0, 1.5, 0.0, 0.125, 1.5, np.inf, -2.5] + [1.0] * more
    models = [encode(np.asarray(row), "F32") for row in (suspect, pivot, other)]
    assert assert_agree(models).tolist() == [1, 6]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32", "F64", "F8_E5M2"])
def test_elements_that_are_not_finite_are_never_sampled(bad: float, dtype: str) -> None:
    for model, place in itertools.product(range(3), (0, 96, 99)):
        values = np.stack([np.full(100, 1.5), np.full(100, 1.0), np.full(100, 2.0)])
        values[model, place] = bad
        result = assert_agree([encode(row, dtype) for row in values])
        assert result.tolist() == [i for i in range(100) if i != place]


@pytest.mark.parametrize(("dtype", "smallest"), [("F32", 2.0**-149), ("BF16", 2.0**-133), ("F16", 2.0**-24)])
def test_subnormal_differences_are_informative(dtype: str, smallest: float) -> None:
    values = np.random.default_rng(4).integers(-9, 10, (3, 2000)) * smallest
    assert len(assert_agree([encode(row, dtype) for row in values])) > 500


def test_zeros_of_either_sign_do_not_differ() -> None:
    values = np.stack([np.ones(1030), np.zeros(1030), np.full(1030, -0.0)])
    assert len(assert_agree([encode(row, "BF16") for row in values])) == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_views_of_the_device_that_begin_anywhere(dtype: str) -> None:
    models = related([dtype] * 3, 1300)
    held = on_device(models, device_of(models))
    for start in (0, 1, 3, 8):
        given = [DeviceView(m.bits[start:], m.dtype) for m in held]
        assert_agree(part(models, start, 1300), offset=start, given=given)


def test_models_of_unequal_length_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        pick_triton.pick([*related(["BF16"] * 2, 10), *related(["BF16"], 9)], seed=0)


@pytest.mark.gpu
@pytest.mark.skipif(INTERPRETED or not torch.cuda.is_available(), reason="needs a CUDA device")
def test_many_elements_on_a_gpu() -> None:
    for dtypes in (*MIXTURES, *([dtype] * 3 for dtype in DTYPES), *(["BF16"] * count for count in range(2, 11))):
        models = related(dtypes, 5_000_003)
        held = on_device(models, torch.device("cuda"))
        for below in (EVERY_HASH // 1000, EVERY_HASH):
            assert_agree(models, below=below, given=held)
        given = [DeviceView(m.bits[5:70_001], m.dtype) for m in held]
        assert_agree(part(models, 5, 70_001), offset=2**40, given=given)
