"""End to end on trained weights: merges are rebuilt, and none of the controls is accused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.cases import cut, dataset, merged, trained_further
from support.family import BASE, CODE, CODE_HALF, CODE_SEED2, DOCS, blend, load, save

from reconstruct.analysis import analyse
from reconstruct.verdict import VerdictKind, decide

ACCUSATIONS = {VerdictKind.REPRODUCED, VerdictKind.MERGE_THEN_MODIFIED, VerdictKind.MERGE_CONSISTENT}


def examine(suspect, parents, base=BASE):
    evidence = analyse(dataset(suspect, parents, base))
    return evidence, decide(evidence)


def test_blend_of_two_fine_tunes_is_reproduced_to_the_bit(blend_folder):
    evidence, verdict = examine(blend_folder, [CODE, DOCS])
    assert verdict.kind is VerdictKind.REPRODUCED
    assert evidence.estimate.origin == "certified"
    np.testing.assert_allclose(evidence.estimate.coefficients, [0, 0.565, 0.435], atol=1e-9)
    assert (evidence.estimate.low <= [0, 0.565, 0.435]).all()
    assert (evidence.estimate.high >= [0, 0.565, 0.435]).all()
    assert evidence.replay.exact[0] == evidence.replay.total[0]
    assert all(reason.passed for reason in verdict.reasons[:5])


def test_blend_without_base_and_with_parents_in_other_order(blend_folder):
    evidence, verdict = examine(blend_folder, [DOCS, CODE], base=None)
    assert verdict.kind is VerdictKind.REPRODUCED
    np.testing.assert_allclose(evidence.estimate.coefficients, [0.435, 0.565], atol=1e-9)


def test_blend_of_four_in_any_order_of_candidates(tmp_path):
    """Round coefficients make ties, which the order of adding decides: the order is found, too."""
    weights, names = (0.4, 0.3, 0.2, 0.1), ("ft-code", "ft-docs", "ft-code-seed2", "ft-code-half")
    suspect = merged(tmp_path / "s", weights, names)
    evidence, verdict = examine(suspect, [CODE_HALF, CODE, CODE_SEED2, DOCS], base=None)
    assert verdict.kind is VerdictKind.REPRODUCED
    np.testing.assert_allclose(evidence.estimate.coefficients, [0.1, 0.4, 0.2, 0.3], atol=1e-9)
    assert evidence.replay.exact[0] == evidence.replay.total[0]


@pytest.mark.parametrize("bits", [4, 5, 6])
def test_bounds_hold_for_a_merge_that_was_rounded_twice(tmp_path, bits):
    """To float16, then to fewer bits: half a spacing of each may add up."""
    tensors = blend((0.6, 0.4), [load("ft-code"), load("ft-docs")], torch.float16)
    suspect = save(tmp_path / "s", cut(tensors, bits))
    evidence, _ = examine(suspect, [CODE, DOCS])
    bounded = [t.fit.affine for t in evidence.tensors if t.fit.affine is not None]
    assert bounded
    for box in bounded:
        assert (box.low <= [0.6, 0.4]).all()
        assert (box.high >= [0.6, 0.4]).all()


def test_layers_of_two_fine_tunes_put_together(tmp_path):
    code, docs = load("ft-code"), load("ft-docs")
    suspect = save(tmp_path / "s", {name: (code if ".layers.0." in name else docs)[name] for name in code})
    _, verdict = examine(suspect, [CODE, DOCS])
    assert verdict.kind is VerdictKind.REPRODUCED
    assert sorted(entry["model"] for entry in verdict.recipe.to_mergekit()["models"]) == sorted([str(CODE), str(DOCS)])
    assert examine(suspect, [CODE, DOCS], base=None)[1].kind is VerdictKind.RELATED


def test_blend_of_one_fine_tune_with_its_base(tmp_path):
    suspect = merged(tmp_path / "s", (0.4, 0.6), ("base", "ft-code"))
    evidence, verdict = examine(suspect, [CODE])
    assert verdict.kind is VerdictKind.REPRODUCED
    np.testing.assert_allclose(evidence.estimate.coefficients, [0.4, 0.6], atol=1e-9)


def test_blend_saved_in_bfloat16_and_converted_to_float32(tmp_path):
    tensors = blend((0.565, 0.435), [load("ft-code"), load("ft-docs")])
    suspect = save(tmp_path / "s", {name: tensor.float() for name, tensor in tensors.items()})
    _, verdict = examine(suspect, [CODE, DOCS])
    assert verdict.kind is VerdictKind.REPRODUCED


def test_innocent_candidates_get_coefficient_zero_and_leave_the_recipe(blend_folder):
    evidence, verdict = examine(blend_folder, [CODE, CODE_SEED2, DOCS, CODE_HALF])
    assert verdict.kind is VerdictKind.REPRODUCED
    np.testing.assert_allclose(evidence.estimate.coefficients, [0, 0.565, 0, 0.435, 0], atol=1e-9)
    models = [entry["model"] for entry in verdict.recipe.to_mergekit()["models"]]
    assert sorted(models) == sorted([str(CODE), str(DOCS)])


def test_other_coefficients_in_every_tensor_are_recovered(tmp_path):
    code, docs = load("ft-code"), load("ft-docs")
    generator = np.random.default_rng(5)
    weights = {name: round(float(generator.uniform(0.2, 0.8)), 2) for name in code}
    tensors = {
        name: (weights[name] * code[name].float() + (1 - weights[name]) * docs[name].float()).bfloat16()
        for name in code
    }
    evidence, verdict = examine(save(tmp_path / "s", tensors), [CODE, DOCS])
    assert verdict.kind is VerdictKind.REPRODUCED
    assert evidence.recipe.partition == "tensor"
    for i in evidence.voting:
        tensor = evidence.tensors[i]
        assert tensor.coefficients[1] == pytest.approx(weights[tensor.measurement.name], abs=1e-9)


@pytest.mark.parametrize("suspect", [CODE_HALF, CODE_SEED2], ids=["earlier checkpoint", "sibling"])
@pytest.mark.parametrize("parents", [[CODE, DOCS], [CODE]], ids=["two candidates", "one candidate"])
def test_near_misses_are_related_not_accused(suspect, parents):
    _, verdict = examine(suspect, parents)
    assert verdict.kind in {VerdictKind.RELATED, VerdictKind.NOT_EXPLAINED}


@pytest.mark.parametrize("suspect", ["ft-code-half", "ft-code-seed2"])
def test_near_misses_on_a_coarse_lattice_are_not_accused(tmp_path, suspect):
    folders = {name: save(tmp_path / name, cut(load(name), 5)) for name in (suspect, "base", "ft-code", "ft-docs")}
    _, verdict = examine(folders[suspect], [folders["ft-code"], folders["ft-docs"]], folders["base"])
    assert verdict.kind not in ACCUSATIONS


@pytest.mark.parametrize("suspect", ["ft-code-half", "ft-code-seed2"])
def test_near_misses_that_went_through_float8_are_not_accused(tmp_path, suspect):
    def through(name):
        tensors = {k: v.float().to(torch.float8_e4m3fn).float().bfloat16() for k, v in load(name).items()}
        return save(tmp_path / name, tensors)

    folders = {name: through(name) for name in (suspect, "base", "ft-code", "ft-docs")}
    _, verdict = examine(folders[suspect], [folders["ft-code"], folders["ft-docs"]], folders["base"])
    assert verdict.kind not in ACCUSATIONS


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bfloat16", "float32"])
def test_a_parent_is_the_ancestor_of_its_child_not_its_product(tmp_path, dtype):
    child = merged(tmp_path / "child", (0.565, 0.435), ("ft-code", "ft-docs"), dtype)
    _, verdict = examine(CODE, [child, DOCS])
    assert verdict.kind is VerdictKind.ANCESTOR


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bfloat16", "float32"])
def test_two_merges_of_the_same_parents_are_related(tmp_path, dtype):
    first = merged(tmp_path / "first", (0.565, 0.435), ("ft-code", "ft-docs"), dtype)
    second = merged(tmp_path / "second", (0.3, 0.7), ("ft-code", "ft-docs"), dtype)
    for suspect, other in ((first, second), (second, first)):
        _, verdict = examine(suspect, [other, CODE])
        assert verdict.kind is VerdictKind.RELATED
        assert "plane" in verdict.summary


def test_merge_that_was_changed_afterwards(tmp_path):
    tensors = blend((0.565, 0.435), [load("ft-code"), load("ft-docs")])
    suspect = save(tmp_path / "s", trained_further(tensors, rate=0.05, share=0.6))
    evidence, verdict = examine(suspect, [CODE, DOCS])
    assert verdict.kind is VerdictKind.MERGE_THEN_MODIFIED
    np.testing.assert_allclose(evidence.estimate.coefficients, [0, 0.565, 0.435], atol=0.003)
    assert 0.3 < evidence.spike.untouched < 0.5


def test_suspect_among_the_parents_is_a_copy():
    _, verdict = examine(CODE, [CODE, DOCS])
    assert verdict.kind is VerdictKind.COPY
    assert str(CODE) in verdict.summary


def test_parent_given_twice_is_set_aside_and_the_answer_stays(blend_folder, tmp_path):
    twin = save(tmp_path / "twin", load("ft-code"))
    evidence, verdict = examine(blend_folder, [CODE, twin, DOCS])
    assert verdict.kind is VerdictKind.REPRODUCED
    assert evidence.sources.duplicates == ((str(twin), str(CODE)),)
    assert len(evidence.estimate.coefficients) == 3


def test_one_candidate_without_base_is_undetermined(blend_folder):
    _, verdict = examine(blend_folder, [CODE], base=None)
    assert verdict.kind is VerdictKind.UNDETERMINED
    assert "base" in verdict.summary


def test_continued_training_is_derived():
    evidence, verdict = examine(CODE, [CODE_HALF, DOCS])
    assert verdict.kind is VerdictKind.DERIVED
    assert str(CODE_HALF) in verdict.summary
    assert abs(evidence.estimate.least_squares[1] - 1) < 0.1


def test_slerp_computed_and_saved_in_float32_is_reproduced_to_the_bit(tmp_path):
    """Its coefficients come from a cosine that the program itself computed in float32."""
    from mergekit.merge_methods.api import merge_tensors

    base, code = load("base"), load("ft-code")
    strong = {k: base[k].float() + 8 * (v.float() - base[k].float()) for k, v in code.items()}
    merge = {k: merge_tensors([base[k].float(), strong[k]], "slerp", parameters={"t": 0.4}, base_index=0) for k in base}
    parent = save(tmp_path / "parent", strong)
    evidence, verdict = examine(save(tmp_path / "s", merge), [parent])
    assert verdict.kind is VerdictKind.REPRODUCED
    assert evidence.families == ("slerp",)
    assert evidence.recipe.cells[0].parameters == pytest.approx((0.4,))


def test_slerp_in_float16_is_reproduced_in_spite_of_the_programs_own_cosine(tmp_path):
    """An element in a thousand shows the last bits of that cosine, more than a replay may miss."""
    from mergekit.merge_methods.api import merge_tensors

    base, models = load("base"), []
    for name in ("ft-code", "ft-docs"):
        moved = {k: base[k].float() + 8 * (v.float() - base[k].float()) for k, v in load(name).items()}
        models.append({k: v.half() for k, v in moved.items()})
    merge = {
        k: merge_tensors([m[k] for m in models], "slerp", parameters={"t": 0.45}, base_index=0) for k in models[0]
    }
    parents = [save(tmp_path / str(i), model) for i, model in enumerate(models)]
    evidence, verdict = examine(save(tmp_path / "s", merge), parents, base=None)
    assert verdict.kind is VerdictKind.REPRODUCED
    assert evidence.families == ("slerp",)
    assert evidence.recipe.cells[0].parameters == pytest.approx((0.45,))
