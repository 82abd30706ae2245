"""Relations that look like merges to one statistic or another. Each of them was once taken for a merge."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.cases import dataset, merged, trained_further
from support.family import BASE, CODE, DOCS, blend, load, save

from reconstruct.analysis import analyse
from reconstruct.verdict import VerdictKind, decide

ACCUSATIONS = {VerdictKind.REPRODUCED, VerdictKind.MERGE_THEN_MODIFIED, VerdictKind.MERGE_CONSISTENT}
#: Reasons that speak of the phase test.
PHASE = ("by sides of the rounding boundary", "at the boundary", "at every phase")


def examine(suspect, parents, base=BASE):
    evidence = analyse(dataset(suspect, parents, base))
    return evidence, decide(evidence)


def far(factor=8.0):
    """The trained movement of ft-code, `factor` times as far, float32: many spacings, as strong training moves."""
    base, code = load("base"), load("ft-code")
    return {name: factor * (code[name].float() - base[name].float()) for name in base}


def moved(delta, share, noise=0.0, seed=0):
    """RN(base + share * delta + smooth noise of so many spacings): a point of a straight trajectory, stored in bf16."""
    base = load("base")
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, tensor in base.items():
        target = tensor.float() + share * delta[name]
        spacing = torch.exp2(torch.floor(torch.log2(target.abs().clamp_min(1e-30))) - 7)
        wobble = noise * spacing * torch.randn(target.shape, generator=generator)
        tensors[name] = (target + wobble).bfloat16()
    return tensors


@pytest.mark.parametrize("noise", [0.0, 0.2, 0.5])
def test_a_checkpoint_half_way_along_a_straight_trajectory_is_no_merge(tmp_path, noise):
    """Its residual is narrower than a spacing, so the histogram has a peak at 0 that no neighbour announces."""
    generator = torch.Generator().manual_seed(3)
    delta = {name: d + d.abs().mean() * torch.randn(d.shape, generator=generator) for name, d in far().items()}
    later = save(tmp_path / "later", moved(delta, 1.0))
    half = save(tmp_path / "half", moved(delta, 0.5, noise))
    _, verdict = examine(half, [later])
    assert verdict.kind not in ACCUSATIONS


def test_training_by_whole_steps_is_no_merge(tmp_path):
    """In pure bfloat16 a weight moves by whole spacings: after twice the steps it is exactly twice as far."""
    base = load("base")
    generator = np.random.default_rng(4)

    def after(steps, seed):
        random = np.random.default_rng(seed)
        tensors = {}
        for name, tensor in base.items():
            spacing = torch.exp2(torch.floor(torch.log2(tensor.float().abs().clamp_min(1e-30))) - 7)
            sign = torch.from_numpy(directions[name])
            slip = torch.from_numpy(random.integers(0, 2, tensor.shape).astype(np.float32) * steps / 8)
            tensors[name] = (tensor.float() + spacing * sign * (steps - slip)).bfloat16()
        return tensors

    directions = {
        name: np.sign(generator.normal(size=tensor.shape)).astype(np.float32) for name, tensor in base.items()
    }
    later, half = save(tmp_path / "later", after(16, 1)), save(tmp_path / "half", after(8, 2))
    _, verdict = examine(half, [later])
    assert verdict.kind not in ACCUSATIONS


@pytest.mark.parametrize("base", [None, BASE], ids=["no base", "with base"])
def test_a_model_between_its_own_float32_children_is_not_made_from_them(tmp_path, base):
    """Both children hold the suspect to the last bit: every bit replays, but the rounding did not come last."""
    tensors, root = load("ft-code"), load("base")
    children = []
    for share in (0.5, 1.5):
        state = {n: root[n].float() + share * (t.float() - root[n].float()) for n, t in tensors.items()}
        children.append(save(tmp_path / str(share), state))
    evidence, verdict = examine(CODE, children, base)
    assert verdict.kind not in ACCUSATIONS
    assert evidence.rounding < 0.01


def test_a_parent_is_not_made_from_its_float32_child_and_the_base(tmp_path):
    child = merged(tmp_path / "child", (0.565, 0.435), ("ft-code", "base"), torch.float32)
    _, verdict = examine(CODE, [child])
    assert verdict.kind is VerdictKind.ANCESTOR


def test_candidates_that_are_fine_blends_of_one_another_are_said_to_be_collinear(tmp_path, blend_folder):
    half = merged(tmp_path / "half", (0.5, 0.5), ("ft-code", "ft-docs"), torch.float32)
    _, verdict = examine(blend_folder, [CODE, DOCS, half])
    assert verdict.kind is VerdictKind.UNDETERMINED
    assert "collinear" in verdict.summary


def quantised(tensors, bits, axis):
    """Integers times one scale a row or column, back in bfloat16."""
    top, result = 2 ** (bits - 1) - 1, {}
    for name, tensor in tensors.items():
        if tensor.ndim < 2:
            result[name] = tensor
            continue
        scale = (tensor.float().abs().amax(axis, keepdim=True) / top).clamp_min(1e-9)
        result[name] = (torch.round(tensor.float() / scale) * scale).bfloat16()
    return result


@pytest.mark.parametrize("axis", [0, 1], ids=["scale a column", "scale a row"])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("suspect", ["ft-code-half", "ft-code-seed2"])
def test_near_misses_that_went_through_scaled_integers_are_not_accused(tmp_path, suspect, bits, axis):
    names = (suspect, "base", "ft-code", "ft-docs")
    folders = {name: save(tmp_path / name, quantised(load(name), bits, axis)) for name in names}
    _, verdict = examine(folders[suspect], [folders["ft-code"], folders["ft-docs"]], folders["base"])
    assert verdict.kind not in ACCUSATIONS
    _, verdict = examine(save(tmp_path / "plain", load(suspect)), [folders["ft-code"]], folders["base"])
    assert verdict.kind not in ACCUSATIONS


def test_a_constant_norm_in_common_is_no_copy(tmp_path):
    ones = torch.ones(64)
    models = []
    for seed in (0, 1):
        weight = torch.randn(64, 64, generator=torch.Generator().manual_seed(seed))
        models.append(save(tmp_path / str(seed), {"norm.weight": ones, f"w{seed}.weight": weight}, config=False))
    _, verdict = examine(models[0], [models[1]], None)
    assert verdict.kind is VerdictKind.UNDETERMINED


def test_the_average_of_two_one_step_fine_tunes_does_not_make_the_base_their_product(tmp_path):
    """+-1 step from the base: where the signs differ the mean is the base again, bit for bit."""
    base = load("base")
    folders = []
    for seed in (1, 2):
        random = np.random.default_rng(seed)
        tensors = {}
        for name, tensor in base.items():
            sign = torch.from_numpy(np.sign(random.normal(size=tensor.shape)).astype(np.float32))
            tensors[name] = (tensor.float() + 3e-3 * sign).bfloat16()
        folders.append(save(tmp_path / str(seed), tensors))
    _, verdict = examine(BASE, folders, None)
    assert verdict.kind not in ACCUSATIONS


def test_reasons_of_a_trained_merge_include_the_phase_test(tmp_path):
    from support.cases import trained_further
    from support.family import blend

    tensors = blend((0.565, 0.435), [load("ft-code"), load("ft-docs")])
    suspect = save(tmp_path / "s", trained_further(tensors, rate=0.05, share=0.6))
    evidence, verdict = examine(suspect, [CODE, DOCS])
    assert verdict.kind is VerdictKind.MERGE_THEN_MODIFIED
    names = [reason.name for reason in verdict.reasons]
    assert all(any(word in name for name in names) for word in PHASE)
    assert evidence.phases.uniformity > 0.9


def test_a_merge_on_a_lattice_with_gaps_is_still_reproduced_bit_by_bit(tmp_path):
    """Repeated rows look like a scaled format: the histogram must not testify, but bits do."""

    def tiled(tensors):
        return {n: t.repeat(8, 1) for n, t in tensors.items() if t.ndim == 2}

    names = ("base", "ft-code", "ft-docs")
    folders = {name: save(tmp_path / name, tiled(load(name))) for name in names}
    code, docs = tiled(load("ft-code")), tiled(load("ft-docs"))
    merge = {n: (0.6 * code[n].float() + 0.4 * docs[n].float()).bfloat16() for n in code}
    evidence, verdict = examine(save(tmp_path / "s", merge), [folders["ft-code"], folders["ft-docs"]], folders["base"])
    assert verdict.kind is VerdictKind.REPRODUCED
    assert not any(t.measurement.smooth_lattice for t in evidence.tensors)


def test_a_child_stored_more_finely_is_not_called_its_parents_source(tmp_path):
    """In float32 the child determines its bfloat16 parents to the bit, with shares in [0, 1]: 1.3 A - .15 B - .15 C is
    turned around to A = .77 S + .115 B + .115 C. But rounding A last would have moved S by half a bfloat16 spacing.
    """
    child = merged(tmp_path / "child", (1.3, -0.15, -0.15), ("base", "ft-code", "ft-docs"), torch.float32)
    evidence, verdict = examine(child, [CODE, DOCS])
    assert any(o.target == str(BASE) and o.exact > 0.999 for o in evidence.orientations)
    assert verdict.kind is VerdictKind.REPRODUCED


def test_a_coarser_parent_of_its_own_finer_child_is_an_ancestor(tmp_path):
    """The other way round the suspect is the coarser one, and no rounding of its own stands against that."""
    child = merged(tmp_path / "child", (0.0, 0.7, 0.3), ("base", "ft-code", "ft-docs"), torch.float32)
    _, verdict = examine(CODE, [child, DOCS])
    assert verdict.kind is VerdictKind.ANCESTOR


def test_a_parent_does_not_continue_its_own_child(tmp_path):
    """Each explains 94 % of the other with a coefficient near 1. Only the child's slope on its parent is 1."""
    child = save(tmp_path / "child", trained_further(load("ft-code"), 0.005, 1.0))
    assert examine(child, [CODE, DOCS])[1].kind is VerdictKind.DERIVED
    evidence, verdict = examine(CODE, [child, DOCS])
    assert verdict.kind is VerdictKind.RELATED
    assert evidence.estimate.explained > 0.9
    assert "which was there first" in verdict.summary


def test_a_model_is_not_put_together_from_its_partly_frozen_continuations(tmp_path):
    """Each tensor of it is in one of them: in the one that did not train it."""
    code = load("ft-code")
    trained = trained_further(code, 0.005, 1.0)
    first = save(tmp_path / "a", {n: (code if ".layers.0." in n else trained)[n] for n in code})
    second = save(tmp_path / "b", {n: (trained if ".layers.0." in n else code)[n] for n in code})
    for base in (BASE, None):
        verdict = examine(CODE, [first, second], base)[1]
        assert verdict.kind is VerdictKind.RELATED
        assert "continuations of it" in verdict.summary


def noised(name_or_tensors, size, seed=0):
    """Movement of its own, `size` times as large as that from the base, in every tensor."""
    generator, base = torch.Generator().manual_seed(seed), load("base")
    tensors = load(name_or_tensors) if isinstance(name_or_tensors, str) else name_or_tensors
    return {
        name: (v.float() + size * (v.float() - base[name].float()).pow(2).mean().sqrt()
               * torch.randn(v.shape, generator=generator)).to(v.dtype)
        for name, v in tensors.items()
    }  # fmt: skip


def test_a_child_of_the_true_parent_does_not_pass_for_it(tmp_path):
    """Its coefficient is the same in all tensors, but shrunk: what is missing to one shows as the base's share."""
    clean = blend((0.6, 0.4), [load("ft-code"), load("ft-docs")])
    modified = save(tmp_path / "modified", noised(clean, 0.1))
    assert examine(modified, [CODE, DOCS])[1].kind is VerdictKind.MERGE_CONSISTENT
    child = save(tmp_path / "child", noised("ft-code", 0.25))
    evidence, verdict = examine(save(tmp_path / "merge", clean), [child, DOCS])
    assert verdict.kind is VerdictKind.RELATED
    assert 0.02 < evidence.estimate.least_squares[0] < 0.1
    assert [r.passed for r in verdict.reasons if r.name.startswith("share of the base")] == [False]


def test_nearly_the_same_checkpoint_continues_neither_way(tmp_path):
    near = save(tmp_path / "near", trained_further(load("ft-code"), 0.001, 0.3))
    for suspect, parent in ((near, CODE), (CODE, near)):
        assert examine(suspect, [parent, DOCS])[1].kind is VerdictKind.RELATED
