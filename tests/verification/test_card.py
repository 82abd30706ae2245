"""What a folder claims of itself, put to the weights: hidden parents are named, wrong recipes contradicted."""

from __future__ import annotations

import shutil

import pytest
import torch
import yaml
from support.family import BASE, CODE, CODE_SEED2, DOCS, blend, load, save

from reconstruct.verification.card import ClaimState, verify_card

RECIPE = {
    "merge_method": "linear", "dtype": "float32", "out_dtype": "bfloat16",
    "models": [
        {"model": "org/code", "parameters": {"weight": 0.6}}, {"model": "org/docs", "parameters": {"weight": 0.4}},
    ],
}  # fmt: skip
PATHS = {"org/code": str(CODE), "org/docs": str(DOCS), "org/base": str(BASE)}


@pytest.fixture
def merge(tmp_path):
    """.6 code + .4 docs, in float32, rounded once."""
    return save(tmp_path / "merge", blend((0.6, 0.4), [load("ft-code"), load("ft-docs")], torch.bfloat16))


def card(folder, front=None, text=""):
    (folder / "README.md").write_text((f"---\n{yaml.safe_dump(front)}---\n" if front else "") + text)


def outcomes(suspect, tmp_path, **options):
    found = verify_card(suspect, paths=PATHS, folder=tmp_path / "run", **options)
    return [(o.claim.kind.value, o.state, o.reason) for o in found.outcomes], found


def test_a_fine_tune_that_is_a_blend_with_another_model_is_contradicted(merge, tmp_path):
    card(merge, {"base_model": "org/code", "base_model_relation": "finetune"})
    ((kind, state, reason),), found = outcomes(merge, tmp_path, parents=[str(DOCS)])
    assert (kind, state) == ("fine-tune", ClaimState.CONTRADICTED)
    assert "0.6 of org/code" in reason
    assert "0.4 of" in reason
    assert found.refuted


def test_a_fine_tune_whose_hidden_parent_is_not_given_is_not_contradicted(merge, tmp_path):
    card(merge, {"base_model": "org/code", "base_model_relation": "finetune"})
    ((_, state, _),), found = outcomes(merge, tmp_path)
    assert state in {ClaimState.NOT_CONTRADICTED, ClaimState.SHOWN}
    assert not found.refuted


def test_an_honest_fine_tune_is_not_contradicted(tmp_path):
    suspect = shutil.copytree(CODE_SEED2, tmp_path / "honest")
    card(suspect, {"base_model": "org/base", "base_model_relation": "finetune"})
    ((_, state, _),), found = outcomes(suspect, tmp_path, parents=[str(CODE), str(DOCS)])
    assert state is ClaimState.NOT_CONTRADICTED
    assert not found.refuted


def test_a_merge_of_the_models_it_names_is_shown(merge, tmp_path):
    card(merge, {"base_model": ["org/code", "org/docs"], "base_model_relation": "merge"})
    ((kind, state, reason),), _ = outcomes(merge, tmp_path)
    assert (kind, state) == ("merge", ClaimState.SHOWN)
    assert "0.6 of org/code + 0.4 of org/docs" in reason


def test_a_true_recipe_beside_the_weights_is_shown(merge, tmp_path):
    (merge / "mergekit_config.yml").write_text(yaml.safe_dump(RECIPE))
    ((kind, state, reason),), _ = outcomes(merge, tmp_path)
    assert (kind, state) == ("recipe", ClaimState.SHOWN)
    assert reason.startswith("confirmed")


def test_a_wrong_recipe_in_the_card_is_contradicted_with_the_right_number(merge, tmp_path):
    wrong = yaml.safe_dump(RECIPE).replace("0.6", "0.7").replace("0.4", "0.3")
    card(merge, None, f"# A model\n\n```yaml\n{wrong}```\n")
    ((kind, state, reason),), found = outcomes(merge, tmp_path)
    assert (kind, state) == ("recipe", ClaimState.CONTRADICTED)
    assert "reproduces" in reason
    assert found.refuted


def test_models_that_are_not_at_hand_are_named(merge, tmp_path):
    card(merge, {"base_model": "org/elsewhere", "base_model_relation": "finetune"})
    ((_, state, reason),), _ = outcomes(merge, tmp_path)
    assert state is ClaimState.CANNOT_SAY
    assert "org/elsewhere" in reason


def test_a_card_without_claims_has_no_outcomes(merge, tmp_path):
    card(merge, {"license": "mit"}, "# A model\n")
    found, result = outcomes(merge, tmp_path)
    assert found == []
    assert not result.refuted


def test_a_mirror_of_the_suspect_contradicts_nothing(tmp_path):
    suspect, mirror = (shutil.copytree(CODE, tmp_path / name) for name in ("suspect", "mirror"))
    card(suspect, {"base_model": "org/base", "base_model_relation": "finetune"})
    ((_, state, reason),), found = outcomes(suspect, tmp_path, parents=[str(mirror)])
    assert state is ClaimState.NOT_CONTRADICTED
    assert "identical" in reason
    assert not found.refuted


def test_a_merge_card_that_leaves_the_base_out_is_shown(tmp_path):
    base, a, b = (load(name) for name in ("base", "ft-code", "ft-docs"))
    made = {k: (0.2 * base[k].float() + 0.5 * a[k].float() + 0.3 * b[k].float()).bfloat16() for k in base}
    suspect = save(tmp_path / "task", made)
    card(suspect, {"base_model": ["org/code", "org/docs"], "base_model_relation": "merge"})
    ((_, state, reason),), _ = outcomes(suspect, tmp_path, parents=[str(BASE)])
    assert state is ClaimState.SHOWN
    assert "0.2 of" in reason
