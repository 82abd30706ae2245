"""`replay`: prediction, rounding and counts of the fused pass against torch's own operations."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support import family
from support.kernel_inputs import DTYPES, LENGTHS, MIXTURES, encode, part, related, trained

from reconstruct.kernels import replay_processor, replay_reference
from reconstruct.kernels.formulas import FORMULAS, WORKING_FORMATS, Formula
from reconstruct.kernels.lattice import Lattice
from reconstruct.kernels.results import MAXIMUM_STEPS, ReplayResult, View

BF16 = Lattice.of_dtype("BF16")
DELTA = Formula("delta", "float32")


def defined_pairs() -> list[Formula]:
    pairs = []
    for order, working in itertools.product(FORMULAS, WORKING_FORMATS):
        try:
            pairs.append(Formula(order, working))
        except ValueError:
            continue
    return pairs


def vectors_for(sources: int, count: int = 4, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coefficient vectors as merges have them (one with a source that takes no part), and divisors."""
    random = np.random.default_rng(seed)
    vectors = np.round(random.uniform(-0.2, 1.2, (count, sources)), 3)
    vectors[0] = 1 / sources
    vectors[-1, 0] *= sources == 1
    return vectors, np.where(np.arange(count) % 2 == 0, 1.0, vectors.sum(axis=1))


def assert_agree(
    models: list[View],
    vectors: NDArray[np.float64],
    divisors: NDArray[np.float64],
    formula: Formula = DELTA,
    lattice: Lattice = BF16,
) -> ReplayResult:
    fast = replay_processor.replay(models, vectors, divisors, formula, lattice)
    slow = replay_reference.replay(models, vectors, divisors, formula, lattice)
    for name in ("total", "exact", "close", "inside_box", "novel", "steps"):
        np.testing.assert_array_equal(getattr(fast, name), getattr(slow, name), err_msg=name)
    np.testing.assert_allclose(fast.energy, slow.energy, rtol=1e-6)  # residuals are float32 in the fused loop
    np.testing.assert_array_equal(fast.steps.sum(axis=(1, 2)), fast.novel)
    return fast


@pytest.mark.parametrize("formula", defined_pairs(), ids=lambda f: f"{f.order}-{f.working}")
def test_every_formula_agrees_with_torch_on_trained_weights(formula: Formula) -> None:
    models = trained(["ft-code-half", "base", "ft-code"])
    if formula.order == "lerp":
        t = np.array([0.3, 0.499, 0.5, 0.81, -0.6])
        vectors, divisors = np.stack([1 - t, t], axis=1), np.ones(5)
    else:
        vectors, divisors = vectors_for(2)
    result = assert_agree(models, vectors, divisors, formula)
    assert (result.total == len(models[0])).all()
    assert (result.novel[:3] > 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_agrees_with_the_reference(dtype: str) -> None:
    assert_agree(related([dtype] * 4, 9001), *vectors_for(3), lattice=Lattice.of_dtype(dtype))


@pytest.mark.parametrize("dtypes", MIXTURES, ids="-".join)
def test_models_of_different_dtypes_agree_with_the_reference(dtypes: tuple[str, ...]) -> None:
    assert_agree(related(dtypes, 9001), *vectors_for(len(dtypes) - 1), lattice=Lattice.of_dtype(dtypes[0]))


@pytest.mark.parametrize("further", range(9))
def test_any_number_of_further_sources_agrees_with_the_reference(further: int) -> None:
    assert_agree(related(["BF16"] * (further + 2), 4097, seed=further), *vectors_for(further + 1))


@pytest.mark.parametrize("length", [1, 5, 31, 4099])
@pytest.mark.parametrize("order", ["stack", "task"])
def test_eight_sources_are_summed_in_the_given_order(order: str, length: int) -> None:
    assert_agree(related(["BF16"] * 9, length), *vectors_for(8, count=50), formula=Formula(order, "bfloat16"))


@pytest.mark.parametrize("length", LENGTHS)
def test_every_length_agrees_with_the_reference(length: int) -> None:
    result = assert_agree(related(["BF16"] * 3, length, seed=length), *vectors_for(2))
    assert (result.total == length).all()


@pytest.mark.parametrize(
    "lattice", [Lattice(5, -133), Lattice(7, -12), Lattice(3, -9), Lattice(0, -149), Lattice(10, -24)], ids=str
)
def test_another_lattice_than_the_dtype_allows_agrees_with_the_reference(lattice: Lattice) -> None:
    models = trained(["ft-code-half", "base", "ft-code"])
    assert_agree(models, *vectors_for(2), lattice=lattice)
    assert_agree(models, *vectors_for(2), formula=Formula("sum", "float64"), lattice=lattice)


@pytest.mark.parametrize("lattice", [BF16, Lattice(5, -133), Lattice(23, -149), Lattice(2, -140)], ids=str)
@pytest.mark.parametrize("formula", [DELTA, Formula("sum", "float64")], ids=lambda f: f.working)
def test_subnormal_numbers_agree_with_the_reference(lattice: Lattice, formula: Formula) -> None:
    random = np.random.default_rng(3)
    values = random.integers(-(2**11), 2**11, (3, 6000)) * 2.0 ** random.integers(-149, -130, 6000)
    models = [encode(row, "BF16" if lattice == BF16 else "F32") for row in values]
    fast = replay_processor.replay(models, *vectors_for(2), formula, lattice)
    slow = replay_reference.replay(models, *vectors_for(2), formula, lattice)
    for name in ("total", "exact", "close", "inside_box", "novel", "steps"):
        np.testing.assert_array_equal(getattr(fast, name), getattr(slow, name), err_msg=name)


def test_subnormals_of_the_working_format_agree_with_torch() -> None:
    values = np.random.default_rng(4).standard_normal((3, 6000)) * 2.0**-14
    models = [encode(row, "F16") for row in values]
    for order in ("stack", "task"):
        assert_agree(models, *vectors_for(2), formula=Formula(order, "float16"), lattice=Lattice.of_dtype("F16"))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_elements_that_are_not_finite_in_any_model_are_left_out(bad: float) -> None:
    values = np.random.default_rng(5).standard_normal((3, 5000))
    values[0, 10] = values[1, 4096] = values[2, [10, 4999]] = bad
    assert (assert_agree([encode(row, "BF16") for row in values], *vectors_for(2)).total == 4997).all()


@pytest.mark.parametrize(
    ("formula", "dtype", "size"),
    [
        (DELTA, "BF16", 3e38),
        (Formula("sum", "float64"), "BF16", 3e38),
        (Formula("fused", "float32"), "F32", 3.3e38),
        (Formula("stack", "bfloat16"), "BF16", 3e38),
        (Formula("stack", "float16"), "F32", 6e4),
        (Formula("task", "float16"), "F32", 6e4),
    ],
    ids=str,
)
def test_predictions_that_overflow_count_in_total_alone(formula: Formula, dtype: str, size: float) -> None:
    values = np.random.default_rng(6).standard_normal((3, 4000))
    values[1, :50], values[2, :50] = -size, size
    models = [encode(row, dtype) for row in values]
    vectors = np.array([[0.5, 3.0], [2.0, -1.5], [0.5, 0.5]])
    result = assert_agree(models, vectors, np.ones(3), formula, Lattice.of_dtype(dtype))
    assert (result.total == 4000).all()
    assert np.isfinite(result.energy).all()


def test_the_recipe_of_a_merge_is_exact_and_its_neighbour_is_not() -> None:
    base, code, docs = (family.load(name) for name in ("base", "ft-code", "ft-docs"))
    merged = family.blend([0.6, 0.4], [code, docs])
    flat = torch.cat([t.reshape(-1) for t in merged.values()]).double().numpy()
    models = [encode(flat, "BF16"), *trained(["base", "ft-code", "ft-docs"])]
    vectors = np.array([[0.0, 0.6, 0.4], [0.0, 0.62, 0.38]])
    result = assert_agree(models, vectors, np.ones(2), Formula("sum", "float32"))
    assert result.exact[0] == result.inside_box[0] == len(flat)
    assert result.novel_exact[0] == result.novel[0] > 1000
    assert result.novel_exact[1] < 0.95 * result.novel[1]
    assert base.keys() == merged.keys()


def test_vectors_replayed_together_give_what_each_gives_alone() -> None:
    models = trained(["ft-code-half", "base", "ft-code"])
    vectors, divisors = vectors_for(2, count=7)
    together = replay_processor.replay(models, vectors, divisors, DELTA, BF16)
    for v in range(7):
        alone = replay_processor.replay(models, vectors[v : v + 1], divisors[v : v + 1], DELTA, BF16)
        np.testing.assert_array_equal(alone.steps, together.vector(v).steps)
        np.testing.assert_array_equal(alone.exact, together.vector(v).exact)
        np.testing.assert_array_equal(alone.energy, together.vector(v).energy)


def test_results_of_disjoint_parts_add_up_to_the_whole() -> None:
    models = trained(["ft-code-half", "base", "ft-code"])
    vectors, divisors = vectors_for(2)
    total = ReplayResult.empty(4)
    for start, stop in itertools.pairwise([0, 1, 4096, 90_001, len(models[0])]):
        total = total + replay_processor.replay(part(models, start, stop), vectors, divisors, DELTA, BF16)
    whole = replay_processor.replay(models, vectors, divisors, DELTA, BF16)
    for name in ("total", "exact", "close", "inside_box", "novel", "steps"):
        np.testing.assert_array_equal(getattr(total, name), getattr(whole, name))
    np.testing.assert_allclose(total.energy, whole.energy, rtol=1e-7)  # chunks are summed in float32


def test_differences_beyond_the_histogram_are_kept_at_its_ends() -> None:
    suspect, pivot, other = np.array([[9.0, -9.0, 1.5], [1.0, 1.0, 1.0], [2.0, 2.0, 2.0]])
    models = [encode(row, "BF16") for row in (suspect, pivot, other)]
    result = assert_agree(models, np.array([[0.5, 0.5]]), np.ones(1))
    steps = result.steps[0].sum(axis=0)
    assert steps[0] == steps[2 * MAXIMUM_STEPS] == steps[MAXIMUM_STEPS] == 1


def test_arguments_that_do_not_fit_are_refused_by_both() -> None:
    models = related(["BF16"] * 4, 10)
    for module in (replay_processor, replay_reference):
        with pytest.raises(ValueError, match=r"3 sources need coefficients \[V, 3\] and divisors \[V\]"):
            module.replay(models, np.ones((1, 2)), np.ones(1), DELTA, BF16)
        with pytest.raises(ValueError, match="lerp is between the first two sources"):
            module.replay(models, np.ones((1, 3)), np.ones(1), Formula("lerp", "float32"), BF16)
        with pytest.raises(ValueError, match="cannot be compared"):
            module.replay([*models[:2], *related(["BF16"], 9)], np.ones((1, 2)), np.ones(1), DELTA, BF16)


@pytest.mark.parametrize(
    ("order", "working", "message"),
    [
        ("mean", "float32", "unknown formula 'mean'; there are delta, sum"),
        ("sum", "float8", "unknown working format 'float8'; there are float64"),
        ("lerp", "float64", "lerp is not defined in float64"),
        ("sum", "bfloat16", "sum is not defined in bfloat16"),
    ],
)
def test_formulas_that_are_not_defined_say_so(order: str, working: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Formula(order, working)
