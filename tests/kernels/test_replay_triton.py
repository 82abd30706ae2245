"""`replay` in Triton against torch's own operations: interpreted (TRITON_INTERPRET=1), and on a GPU where one is."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.kernel_inputs import DTYPES, MIXTURES, encode, part, related, trained

pytest.importorskip("triton")

from reconstruct.kernels import replay_reference, replay_triton
from reconstruct.kernels.device import DeviceView, interpreted, on_device
from reconstruct.kernels.formulas import FORMULAS, WORKING_FORMATS, Formula
from reconstruct.kernels.lattice import Lattice
from reconstruct.kernels.results import ReplayResult, View

BF16 = Lattice.of_dtype("BF16")
DELTA = Formula("delta", "float32")
ON_GPU = torch.cuda.is_available() and not interpreted()
COUNTS = ("total", "exact", "close", "inside_box", "novel", "steps")

pytestmark = pytest.mark.skipif(not (interpreted() or ON_GPU), reason="needs TRITON_INTERPRET=1 or a GPU")


def defined_pairs() -> Iterator[Formula]:
    for order, working in itertools.product(FORMULAS, WORKING_FORMATS):
        if working == "float32" or order in ({"delta", "sum"} if working == "float64" else {"stack", "task"}):
            yield Formula(order, working)


@pytest.fixture
def lanes(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> int:
    """Small programs of one or two tiles, so that few elements fill several; a tile takes the interpreter as long as
    a large one.
    """
    count = getattr(request, "param", 64)
    true_shape = replay_triton._shape
    monkeypatch.setattr(replay_triton, "_shape", lambda *a, **k: true_shape(*a, **k) | {"LANES": count})
    monkeypatch.setattr(replay_triton, "_run", lambda count, shape: 2 if shape["EACH"] > 2 else 4)
    return count


def vectors_for(sources: int, count: int, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coefficient vectors as merges have them (one with a source that takes no part), and divisors."""
    random = np.random.default_rng(seed)
    vectors = np.round(random.uniform(-0.2, 1.2, (count, sources)), 3)
    vectors[0] = 1 / sources
    vectors[-1, 0] *= sources == 1
    return vectors, np.where(np.arange(count) % 2 == 0, 1.0, vectors.sum(axis=1))


def lerp_vectors(*weights: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    t = np.array(weights)
    return np.stack([1 - t, t], axis=1), np.ones(len(t))


def assert_agree(
    models: list[View],
    vectors: NDArray[np.float64],
    divisors: NDArray[np.float64],
    formula: Formula = DELTA,
    lattice: Lattice = BF16,
) -> ReplayResult:
    fast = replay_triton.replay(models, vectors, divisors, formula, lattice)
    slow = replay_reference.replay(models, vectors, divisors, formula, lattice)
    for name in COUNTS:
        np.testing.assert_array_equal(getattr(fast, name), getattr(slow, name), err_msg=name)
    np.testing.assert_allclose(fast.energy, slow.energy, rtol=1e-6)
    return fast


@pytest.mark.parametrize("lanes", [256], indirect=True)
@pytest.mark.parametrize("formula", defined_pairs(), ids=lambda f: f"{f.order}-{f.working}")
def test_every_formula_agrees_with_torch_on_trained_weights(formula: Formula, lanes: int) -> None:
    models = part(trained(["ft-code-half", "base", "ft-code"]), 3000, 3000 + 2 * 8 * lanes + 33)
    vectors, divisors = lerp_vectors(0.3, 0.499, 0.5) if formula.order == "lerp" else vectors_for(2, 3)
    result = assert_agree(models, vectors, divisors, formula)
    assert (result.total == len(models[0])).all()
    assert (result.novel[:2] > 0).all()


@pytest.mark.parametrize("formula", defined_pairs(), ids=lambda f: f"{f.order}-{f.working}")
def test_every_formula_agrees_with_torch_in_float32_storage(formula: Formula, lanes: int) -> None:
    vectors, divisors = lerp_vectors(-0.7, 1.3) if formula.order == "lerp" else vectors_for(2, 2)
    assert_agree(related(["F32"] * 3, 250, seed=2), vectors, divisors, formula, Lattice.of_dtype("F32"))


@pytest.mark.parametrize("lanes", [128], indirect=True)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_agrees_with_the_reference(dtype: str, lanes: int) -> None:
    assert_agree(related([dtype] * 4, 600), *vectors_for(3, 1), lattice=Lattice.of_dtype(dtype))


@pytest.mark.parametrize("dtypes", MIXTURES, ids="-".join)
def test_models_of_different_dtypes_agree_with_the_reference(dtypes: tuple[str, ...], lanes: int) -> None:
    assert_agree(related(dtypes, 256), *vectors_for(len(dtypes) - 1, 2), lattice=Lattice.of_dtype(dtypes[0]))


@pytest.mark.parametrize("further", range(9))
def test_any_number_of_further_sources_agrees_with_the_reference(further: int, lanes: int) -> None:
    assert_agree(related(["BF16"] * (further + 2), 513, seed=further), *vectors_for(further + 1, 2))


@pytest.mark.parametrize("order", ["stack", "task"])
def test_eight_sources_are_summed_in_the_given_order(order: str, lanes: int) -> None:
    assert_agree(related(["BF16"] * 9, 257), *vectors_for(8, 2), formula=Formula(order, "bfloat16"))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 33])
def test_any_number_of_vectors_agrees_with_the_reference(count: int, lanes: int) -> None:
    assert_agree(related(["BF16"] * 3, 512 if count > 5 else 1100), *vectors_for(2, count))


#: One element, the edges of a tile of the wide form (32), of the narrow form (128), of a program (2 tiles).
@pytest.mark.parametrize("lanes", [16], indirect=True)
@pytest.mark.parametrize("length", [0, 1, 31, 33, 127, 128, 129, 255, 256, 257, 547])
def test_every_length_agrees_with_the_reference(length: int, lanes: int) -> None:
    result = assert_agree(related(["BF16"] * 3, length, seed=length), *vectors_for(2, 1))
    assert (result.total == length).all()


@pytest.mark.parametrize("lanes", [256], indirect=True)
@pytest.mark.parametrize(
    "lattice",
    [Lattice(5, -133), Lattice(4, -9), Lattice(7, -12), Lattice(0, -149), Lattice(10, -24), Lattice(6, 3)],
    ids=str,
)
def test_another_lattice_than_the_dtype_allows_agrees_with_the_reference(lattice: Lattice, lanes: int) -> None:
    models = part(trained(["ft-code-half", "base", "ft-code"]), 0, 2 * 1024 + 1)
    assert_agree(models, *vectors_for(2, 2), lattice=lattice)
    assert_agree(models, *vectors_for(2, 1), formula=Formula("sum", "float64"), lattice=lattice)
    coarse = related(["F16", "F8_E4M3", "F16"], 2049, step=2.0**-6)
    assert_agree(coarse, *vectors_for(2, 1), lattice=lattice)


@pytest.mark.parametrize("exponent", [-14, -20, -24])
@pytest.mark.parametrize("formula", [DELTA, Formula("stack", "float16"), Formula("task", "float16")], ids=str)
def test_subnormal_halves_agree_with_the_reference(formula: Formula, exponent: int, lanes: int) -> None:
    values = np.random.default_rng(4).standard_normal((3, 512)) * 2.0**exponent
    assert_agree([encode(row, "F16") for row in values], *vectors_for(2, 2), formula, Lattice.of_dtype("F16"))


@pytest.mark.parametrize("lanes", [512], indirect=True)
@pytest.mark.parametrize("lattice", [BF16, Lattice(5, -133), Lattice(23, -149), Lattice(2, -140)], ids=str)
@pytest.mark.parametrize("formula", [DELTA, Formula("sum", "float64")], ids=str)
def test_subnormal_numbers_agree_with_the_reference(lattice: Lattice, formula: Formula, lanes: int) -> None:
    random = np.random.default_rng(3)
    values = random.integers(-(2**11), 2**11, (3, 1500)) * 2.0 ** random.integers(-149, -130, 1500)
    assert_agree(
        [encode(row, "BF16" if lattice == BF16 else "F32") for row in values], *vectors_for(2, 2), formula, lattice
    )


@pytest.mark.parametrize("lanes", [256], indirect=True)
@pytest.mark.parametrize("scale", [1e-15, 1e-25, 1e-35, 1e15, 1e25])
def test_tiny_and_huge_numbers_agree_with_the_reference(scale: float, lanes: int) -> None:
    values = np.random.default_rng(8).standard_normal((3, 512))
    assert_agree([encode(row * scale, "BF16") for row in values], *vectors_for(2, 2))


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32", "F64", "F8_E5M2"])
def test_elements_that_are_not_finite_in_any_model_are_left_out(dtype: str, lanes: int) -> None:
    values = np.random.default_rng(5).standard_normal((3, 513))
    for place, bad in zip((0, 5, 255, 256, 500), (np.nan, np.inf, -np.inf, np.nan, np.inf), strict=True):
        values[place % 3, place] = bad
    values[2, [10, 512]] = np.nan
    models = [encode(row, dtype) for row in values]
    assert (assert_agree(models, *vectors_for(2, 2), lattice=Lattice.of_dtype(dtype)).total == 506).all()


@pytest.mark.parametrize("lanes", [256], indirect=True)
@pytest.mark.parametrize(
    ("formula", "dtype", "size"),
    [
        (DELTA, "BF16", 3e38),
        (Formula("sum", "float64"), "BF16", 3e38),
        (Formula("fused", "float32"), "F32", 3.3e38),
        (Formula("stack", "bfloat16"), "BF16", 3e38),
        (Formula("task", "bfloat16"), "BF16", 3e38),
        (Formula("stack", "float16"), "F32", 6e4),
        (Formula("task", "float16"), "F16", 6e4),
        (Formula("stack", "float16"), "BF16", 7e4),
    ],
    ids=str,
)
def test_predictions_that_overflow_count_in_total_alone(formula: Formula, dtype: str, size: float, lanes: int) -> None:
    values = np.random.default_rng(6).standard_normal((3, 513))
    values[1, :50], values[2, :50] = -size, size
    models = [encode(row, dtype) for row in values]
    vectors = np.array([[0.5, 3.0], [2.0, -1.5], [0.5, 0.5], [0.0, 1.0]])
    result = assert_agree(models, vectors, np.ones(4), formula, Lattice.of_dtype(dtype))
    assert (result.total == 513).all()
    assert np.isfinite(result.energy).all()


def test_large_coefficients_and_small_divisors_agree_with_the_reference(lanes: int) -> None:
    models = related(["BF16"] * 3, 256)
    vectors = np.array([[1e20, -1e20], [1e38, 1e38], [0.0, 0.0]])
    for formula in (DELTA, Formula("sum", "float32"), Formula("stack", "bfloat16")):
        assert_agree(models, vectors, np.array([1.0, 1e-20, 1.0]), formula)


def test_where_float32_would_be_absorbed_the_wide_form_decides(lanes: int) -> None:
    """The difference of 2 spacings and a number 2^-30 times smaller rounds to 2 spacings in float32, but is larger."""
    suspect = np.full(512, 2.0**-6)
    pivot, other = np.full(512, -(2.0**-36)), np.full(512, 1.0)
    models = [encode(row, "BF16") for row in (suspect, pivot, other)]
    assert (assert_agree(models, np.array([[1.0, 0.0]]), np.ones(1)).close == 0).all()
    swapped = [models[1], models[0], models[2]]
    assert (assert_agree(swapped, np.array([[1.0, 0.0]]), np.ones(1)).close == 0).all()


def test_zeros_agree_with_the_reference(lanes: int) -> None:
    values = np.random.default_rng(7).standard_normal((4, 600)) * np.random.default_rng(1).integers(0, 2, (4, 600))
    values[:, 100:400] = 0
    for dtype in ("BF16", "F16", "F8_E4M3"):
        models = [encode(row, dtype) for row in values]
        assert_agree(models, *vectors_for(3, 2), Formula("sum", "float32"), Lattice.of_dtype(dtype))


@pytest.mark.parametrize("offset", [1, 3, 7])
def test_unaligned_slices_and_device_views_agree_with_the_reference(offset: int, lanes: int) -> None:
    models = part(related(["BF16"] * 3, 540), offset, 540 - offset)
    expected = assert_agree(models, *vectors_for(2, 2))
    views: list[View | DeviceView] = [*on_device(models[:2]), models[2]]
    found = replay_triton.replay(views, *vectors_for(2, 2), DELTA, BF16)
    np.testing.assert_array_equal(found.steps, expected.steps)


def test_results_repeat_exactly_and_do_not_depend_on_the_other_vectors(lanes: int) -> None:
    models = related(["BF16"] * 3, 1100)
    vectors, divisors = vectors_for(2, 5)
    first = replay_triton.replay(models, vectors, divisors, DELTA, BF16)
    again = replay_triton.replay(models, vectors, divisors, DELTA, BF16)
    np.testing.assert_array_equal(first.energy, again.energy)
    alone = replay_triton.replay(models, vectors[4:], divisors[4:], DELTA, BF16)
    np.testing.assert_array_equal(alone.energy, first.energy[4:])
    for name in COUNTS:
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
        np.testing.assert_array_equal(getattr(alone, name), getattr(first, name)[4:])


def test_the_true_recipe_fills_the_column_of_step_0_without_the_histogram(lanes: int) -> None:
    random = np.random.default_rng(9)
    pivot, other = random.standard_normal((2, 1024))
    models = [encode(pivot, "BF16"), encode(other, "BF16")]
    a, b = (torch.from_numpy(m.bits.view(np.int16)).view(torch.bfloat16).float() for m in models)
    suspect = encode((a + torch.tensor(0.4) * (b - a)).numpy(), "BF16")
    result = assert_agree([suspect, *models], np.array([[0.6, 0.4], [0.5, 0.5]]), np.ones(2))
    assert result.exact[0] == 1024
    assert result.novel_exact[0] == result.novel[0] > 900


def test_ordinary_weights_need_the_wide_form_for_few_tiles(lanes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the wide kernel, only tiles are missing in which a residual lies at the box's very edge, and the rest."""
    models = related(["BF16"] * 3, 16 * 256 + 5, step=0.01)
    vectors, divisors = vectors_for(2, 1)
    monkeypatch.setattr(replay_triton, "wide", {(9, 1): lambda *a, **k: None})  # programs, vectors
    found = replay_triton.replay(models, vectors, divisors, DELTA, BF16)
    assert 15 * 256 <= found.total[0] <= 16 * 256


def test_a_lane_counts_a_whole_run_without_overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program's largest run, and all flags set, in one stratum."""
    monkeypatch.setattr(replay_triton, "_shape", lambda *a, **k: {"LANES": 16, "EACH": 4})
    monkeypatch.setattr(replay_triton, "_run", lambda count, shape: 62)
    n = 16 * 4 * 62 + 5
    models = [encode(np.full(n, value), "BF16") for value in (1.5, 1.0, 2.0)]
    result = assert_agree(models, np.array([[0.5, 0.5]]), np.ones(1))
    assert result.exact == result.novel_exact == n


def test_arguments_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"3 sources need coefficients \[V, 3\] and divisors \[V\]"):
        replay_triton.replay(related(["BF16"] * 4, 10), np.ones((1, 2)), np.ones(1), DELTA, BF16)


def test_cases_to_compile_name_every_argument_of_their_kernel() -> None:
    for label, kernel, signature, constants, options in replay_triton.aot_cases():
        assert list(signature) == list(kernel.arg_names), label
        assert set(constants) <= set(signature)
        assert options["enable_fp_fusion"] is False


@pytest.mark.gpu
@pytest.mark.skipif(not ON_GPU, reason="needs an NVIDIA GPU, and Triton not interpreted")
@pytest.mark.parametrize("formula", defined_pairs(), ids=lambda f: f"{f.order}-{f.working}")
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_gpu_agrees_with_the_reference(formula: Formula, dtype: str) -> None:
    models = related([dtype] * 4, 1_000_003, step=0.05)
    vectors, divisors = vectors_for(3, 5)
    if formula.order == "lerp":
        vectors[:, 2:] = 0
    assert_agree(models, vectors, divisors, formula, Lattice.of_dtype(dtype))
    unaligned = part(models, 3, 100_000)
    assert_agree(unaligned, vectors, divisors, formula, Lattice.of_dtype(dtype))
