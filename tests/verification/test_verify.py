"""Claimed recipes against weights that mergekit made: true ones are confirmed, wrong ones refuted by name, and what
training or other programs did is told apart from a lie.
"""

from __future__ import annotations

import copy
import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file
from support.cases import cut, trained_further
from support.family import BASE, CODE, CODE_SEED2, DOCS, blend, load, save

import reconstruct
from reconstruct.claims.recipe_numbers import with_number
from reconstruct.errors import ConfigurationError, StoreError
from reconstruct.replay.comparison import CheckState
from reconstruct.replay.mergekit import MergekitReplay
from reconstruct.report.verification import check_table, verification_json
from reconstruct.verification.conclusion import ConclusionKind
from reconstruct.verification.run import load_verification

A, B, C = map(str, (CODE, DOCS, BASE))


def models(*parameters):
    return [{"model": m, **({"parameters": p} if p else {})} for m, p in zip((A, B), parameters, strict=True)]


LINEAR = {"merge_method": "linear", "dtype": "bfloat16", "models": models({"weight": 0.6}, {"weight": 0.4})}
FILTERED = {
    "merge_method": "linear", "dtype": "float32", "out_dtype": "bfloat16",
    "models": models({"weight": [{"filter": "mlp", "value": [0.2, 0.8]}, {"value": 0.5}]}, {"weight": 0.5}),
}  # fmt: skip
SLERP = {
    "merge_method": "slerp", "base_model": A, "dtype": "bfloat16", "models": models({}, {}),
    "parameters": {"t": [0, 0.5, 0.3]},
}  # fmt: skip
TASK = {
    "merge_method": "task_arithmetic", "base_model": C, "dtype": "bfloat16",
    "models": models({"weight": 0.5}, {"weight": 0.3}),
}  # fmt: skip
TIES = {
    "merge_method": "ties", "base_model": C, "dtype": "bfloat16",
    "models": models({"weight": 0.6, "density": 0.5}, {"weight": 0.4, "density": 0.7}),
}  # fmt: skip
STOCK = {"merge_method": "model_stock", "base_model": C, "dtype": "float32", "models": models({}, {})}
DOCUMENTS = {"linear": LINEAR, "filtered": FILTERED, "slerp": SLERP, "task": TASK, "ties": TIES, "stock": STOCK}
#: Where a number stands, the claimed value and the true one.
WRONG = {
    "linear": (("models", 0, "parameters", "weight"), 0.61, 0.6),
    "filtered": (("models", 0, "parameters", "weight", 0, "value", 1), 0.81, 0.8),
    "slerp": (("parameters", "t", 1), 0.51, 0.5),
    "task": (("models", 1, "parameters", "weight"), 0.31, 0.3),
    "ties": (("models", 0, "parameters", "density"), 0.51, 0.5),
}


@pytest.fixture(scope="session")
def merges(tmp_path_factory):
    """The output of every document, as mergekit computes it."""
    folder = tmp_path_factory.mktemp("merges")
    for name, document in DOCUMENTS.items():
        folders = {m: folder.__class__(m) for m in (A, B, C)}
        outputs = MergekitReplay(document, folders).tensors()
        save(folder / name, {o.name: o.tensor for o in outputs})
    return folder


def verified(tmp_path, suspect, document, **options):
    claimed = tmp_path / "claimed.yml"
    claimed.write_text(yaml.safe_dump(document, sort_keys=False))
    return reconstruct.verify(suspect, claimed, folder=tmp_path / "run", **options)


def changed(document, place, value):
    document = copy.deepcopy(document)
    target = document
    for step in place[:-1]:
        target = target[step]
    target[place[-1]] = value
    return document


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_true_recipe_is_confirmed_to_the_last_bit(merges, tmp_path, name):
    result = verified(tmp_path, merges / name, DOCUMENTS[name])
    assert result.conclusion.kind is ConclusionKind.CONFIRMED
    assert {check.state for check in result.checks} == {CheckState.MATCH}
    assert "171,552 weights" in result.conclusion.reasons[0]


@pytest.mark.parametrize("name", WRONG)
def test_a_number_that_is_off_by_a_hundredth_is_refuted_and_named(merges, tmp_path, name):
    place, claimed, true = WRONG[name]
    result = verified(tmp_path, merges / name, changed(DOCUMENTS[name], place, claimed))
    assert result.conclusion.kind is ConclusionKind.REFUTED
    assert f"{claimed:g} is claimed, {true:g} reproduces all 36 tensors" in result.conclusion.reasons[0]


def test_a_replaced_layer_is_named(merges, tmp_path):
    tensors, other = load(merges / "linear"), load(CODE_SEED2)
    strange = {k: v for k, v in other.items() if ".layers.1." in k and v.ndim == 2}
    suspect = save(tmp_path / "suspect", tensors | strange)
    result = verified(tmp_path, suspect, LINEAR)
    # Training of this layer alone would look the same; the tensors are named either way.
    assert result.conclusion.kind is ConclusionKind.MODIFIED
    assert set(result.conclusion.tensors) == set(strange)
    assert "29 tensors are the recipe's to the last bit" in result.conclusion.reasons[0]


def test_a_merge_that_was_trained_on_is_confirmed_and_modified(merges, tmp_path):
    suspect = save(tmp_path / "suspect", trained_further(load(merges / "linear"), rate=0.05, share=0.6))
    result = verified(tmp_path, suspect, LINEAR)
    assert result.conclusion.kind is ConclusionKind.MODIFIED
    (tmp_path / "wrong").mkdir()
    lie = changed(
        changed(LINEAR, ("models", 0, "parameters", "weight"), 0.7), ("models", 1, "parameters", "weight"), 0.3
    )
    assert verified(tmp_path / "wrong", suspect, lie).conclusion.kind is ConclusionKind.REFUTED


def test_another_program_with_the_same_numbers_is_confirmed_up_to_rounding(tmp_path):
    members = [load(name) for name in ("base", "ft-code", "ft-docs")]
    task = {k: members[0][k].float() + 0.5 * (members[1][k].float() - members[0][k].float())
            + 0.3 * (members[2][k].float() - members[0][k].float()) for k in members[0]}  # fmt: skip
    suspect = save(tmp_path / "suspect", {k: v.bfloat16() for k, v in task.items()})
    result = verified(tmp_path, suspect, TASK)
    assert result.conclusion.kind is ConclusionKind.ROUNDING
    assert "float32" in result.conclusion.reasons[0]
    assert CheckState.ROUNDING in {check.state for check in result.checks}


@pytest.mark.parametrize("document", [LINEAR, TASK, TIES], ids=["linear", "task", "ties"])
def test_an_innocent_sibling_neither_confirms_nor_refutes(tmp_path, document):
    result = verified(tmp_path, CODE_SEED2, document)
    assert result.conclusion.kind is ConclusionKind.UNDETERMINED


def test_a_requantised_merge_is_not_called_a_lie(merges, tmp_path):
    suspect = save(tmp_path / "suspect", cut(load(merges / "linear"), 4))
    result = verified(tmp_path, suspect, LINEAR)
    assert result.conclusion.kind in {ConclusionKind.UNDETERMINED, ConclusionKind.ROUNDING, ConclusionKind.MODIFIED}


def test_a_copy_of_one_parent_refutes_a_blend(tmp_path):
    result = verified(tmp_path, CODE, LINEAR)
    assert result.conclusion.kind is ConclusionKind.REFUTED


def test_random_draws_need_their_seed(merges, tmp_path):
    document = {**TIES, "merge_method": "dare_ties"}
    folders = {m: tmp_path.__class__(m) for m in (A, B, C)}
    suspect = save(tmp_path / "dare", {o.name: o.tensor for o in MergekitReplay(document, folders, seed=7).tensors()})
    assert verified(tmp_path, suspect, document).conclusion.kind is ConclusionKind.UNDETERMINED
    (tmp_path / "seeded").mkdir()
    assert verified(tmp_path / "seeded", suspect, document, seed=7).conclusion.kind is ConclusionKind.CONFIRMED


def test_a_suspect_saved_in_float32_is_compared_in_what_the_recipe_writes(merges, tmp_path):
    suspect = save(tmp_path / "suspect", {k: v.float() for k, v in load(merges / "linear").items()})
    result = verified(tmp_path, suspect, LINEAR)
    assert result.conclusion.kind is ConclusionKind.CONFIRMED
    assert any("stored as F32" in check.detail for check in result.checks)


def test_tensors_that_only_one_side_has_are_said(merges, tmp_path):
    tensors = load(merges / "linear")
    del tensors["lm_head.weight"]
    suspect = save(tmp_path / "suspect", tensors | {"extra.weight": torch.zeros(4, 4)})
    result = verified(tmp_path, suspect, LINEAR)
    details = {c.name: c.detail for c in result.checks if c.state is CheckState.CANNOT_SAY}
    assert details == {
        "lm_head.weight": "the suspect has no such tensor", "extra.weight": "the recipe makes no such tensor",
    }  # fmt: skip
    assert result.conclusion.kind is ConclusionKind.UNDETERMINED


def test_models_are_found_by_the_paths_given(merges, tmp_path):
    document = copy.deepcopy(LINEAR)
    document["models"][0]["model"], document["models"][1]["model"] = "org/a", "org/b"
    with pytest.raises(ConfigurationError, match=r"org/a.*org/b"):
        verified(tmp_path, merges / "linear", document)
    result = verified(tmp_path, merges / "linear", document, paths={"org/a": A, "org/b": B})
    assert result.conclusion.kind is ConclusionKind.CONFIRMED


def test_what_is_said_can_be_read_by_other_programs(merges, tmp_path):
    place, claimed, _ = WRONG["linear"]
    result = verified(tmp_path, merges / "linear", changed(LINEAR, place, claimed))
    document = json.loads(verification_json(result))
    assert document["conclusion"]["kind"] == "refuted"
    assert document["instead"]["coefficients"][A] == pytest.approx(0.6, abs=1e-4)
    table = check_table(result)
    assert len(table) == 36
    assert set(table["state"]) == {"match", "mismatch"}
    assert str(tmp_path) not in verification_json(result).replace(str(merges), "")


def test_a_folder_of_another_run_is_left_alone(merges, tmp_path):
    verified(tmp_path, merges / "linear", LINEAR)
    with pytest.raises(StoreError, match="another run"):
        verified(tmp_path, merges / "linear", SLERP)


def test_float64_blend_by_hand_agrees_with_linear_up_to_rounding(tmp_path):
    suspect = save(tmp_path / "suspect", blend((0.6, 0.4), [load("ft-code"), load("ft-docs")], torch.bfloat16))
    result = verified(tmp_path, suspect, LINEAR)
    assert result.conclusion.kind in {ConclusionKind.CONFIRMED, ConclusionKind.ROUNDING}
    assert np.mean([c.share for c in result.checks]) > 0.99


def test_a_verification_is_no_fit_to_report_or_resume(merges, tmp_path):
    verified(tmp_path, merges / "linear", LINEAR)
    for call in (reconstruct.load_run, reconstruct.resume, reconstruct.refit):
        with pytest.raises(StoreError, match=r"a verification, not a fit.*report"):
            call(tmp_path / "run")


def test_a_verification_is_drawn_again_from_its_store(merges, tmp_path):
    result = verified(tmp_path, merges / "linear", with_number(LINEAR, ("models", 0, "parameters", "weight"), 0.61))
    loaded = load_verification(tmp_path / "run")
    assert loaded.refuted
    assert verification_json(loaded) == verification_json(result)
    assert check_table(loaded).equals(check_table(result))
    with pytest.raises(StoreError, match="not a verification"):
        load_verification(tmp_path / "run" / "fit")


#: What an honest author may have done to the output of a true recipe.
def one_layer(tensors):
    return tensors | {k: v for k, v in trained_further(tensors, 0.05, 1.0).items() if ".layers.1." in k}


def head_alone(tensors):
    return tensors | {"lm_head.weight": trained_further(tensors, 0.05, 1.0)["lm_head.weight"]}


def norms_alone(tensors):
    return tensors | {k: (v.float() * 1.01).to(v.dtype) for k, v in tensors.items() if "norm" in k}


def pruned(tensors):
    name = "model.layers.1.mlp.down_proj.weight"
    return tensors | {name: torch.zeros_like(tensors[name])}


def one_row(tensors):
    rows = tensors["model.embed_tokens.weight"].clone()
    rows[7] = 0.5
    return tensors | {"model.embed_tokens.weight": rows}


def everything(tensors):
    return trained_further(tensors, 0.05, 1.0)


@pytest.mark.parametrize(
    "change", [one_layer, head_alone, norms_alone, pruned, one_row, everything], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("name", DOCUMENTS)
def test_changing_a_true_merge_afterwards_is_no_lie(merges, tmp_path, name, change):
    suspect = save(tmp_path / "suspect", change(load(merges / name)))
    result = verified(tmp_path, suspect, DOCUMENTS[name])
    assert result.conclusion.kind in {ConclusionKind.MODIFIED, ConclusionKind.UNDETERMINED}
    if change in {head_alone, pruned, one_row}:
        assert result.conclusion.kind is ConclusionKind.MODIFIED
        assert len(result.conclusion.tensors) == 1


def test_a_gradient_claim_is_not_held_against_one_consensus(merges, tmp_path):
    suspect = save(tmp_path / "suspect", trained_further(load(merges / "filtered"), 0.05, 0.4))
    assert verified(tmp_path, suspect, FILTERED).conclusion.kind is not ConclusionKind.REFUTED


def test_a_normalised_task_merge_by_another_program_is_no_lie(tmp_path):
    base, a, b = (load(name) for name in ("base", "ft-code", "ft-docs"))
    made = {k: (base[k].float() + 0.625 * (a[k].float() - base[k].float()) + 0.375 * (b[k].float() - base[k].float()))
            .bfloat16() for k in base}  # fmt: skip
    document = {**TASK, "parameters": {"normalize": True}}
    assert verified(tmp_path, save(tmp_path / "s", made), document).conclusion.kind is ConclusionKind.ROUNDING


def test_a_claim_that_means_a_copy_is_not_refuted_by_one(tmp_path):
    document = {**TASK, "models": models({"weight": 1.0}, {"weight": 0.0})}
    assert verified(tmp_path, CODE, document).conclusion.kind is not ConclusionKind.REFUTED


def test_a_model_listed_twice_under_two_names_is_no_lie(tmp_path):
    mirror = save(tmp_path / "mirror", load(CODE))
    made = blend((0.6, 0.4), [load("ft-code"), load("ft-docs")], torch.bfloat16)
    document = {**LINEAR, "models": [{"model": m, "parameters": {"weight": w}} for m, w in
                                     ((A, 0.3), (str(mirror), 0.3), (B, 0.4))]}  # fmt: skip
    suspect = save(tmp_path / "s", trained_further(made, 0.05, 0.4))
    assert verified(tmp_path, suspect, document).conclusion.kind is not ConclusionKind.REFUTED


def test_altered_norms_are_not_called_rounding(tmp_path):
    members = [load(name) for name in ("ft-code", "ft-docs")]
    made = {k: torch.lerp(members[0][k].float(), members[1][k].float(), 0.4).bfloat16() for k in members[0]}
    norm = "model.layers.0.input_layernorm.weight"
    result = verified(tmp_path, save(tmp_path / "s", made | {norm: 3 * made[norm]}), LINEAR)
    assert result.conclusion.kind is ConclusionKind.MODIFIED
    assert norm in result.conclusion.tensors


def test_a_tensor_that_is_missing_is_mentioned_in_a_confirmation(merges, tmp_path):
    tensors = load(merges / "linear")
    del tensors["model.norm.weight"]
    result = verified(tmp_path, save(tmp_path / "s", tensors), LINEAR)
    assert result.conclusion.kind is ConclusionKind.CONFIRMED
    assert "model.norm.weight" in " ".join(result.conclusion.reasons)


def sharded(folder, tensors):
    """The same tensors in three files with an index, in another order."""
    folder.mkdir()
    shutil.copyfile(BASE / "config.json", folder / "config.json")
    names = sorted(tensors, reverse=True)
    index = {}
    for number in range(3):
        file = f"model-{number + 1:05d}-of-00003.safetensors"
        save_file({name: tensors[name].contiguous() for name in names[number::3]}, folder / file)
        index |= dict.fromkeys(names[number::3], file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return folder


def tied(folder, tensors):
    """The model without a head of its own."""
    save(folder, {name: t for name, t in tensors.items() if name != "lm_head.weight"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    return folder


def test_shards_in_another_order_are_the_same_model(merges, tmp_path):
    result = verified(tmp_path, sharded(tmp_path / "suspect", load(merges / "ties")), TIES)
    assert result.conclusion.kind is ConclusionKind.CONFIRMED
    assert "36 tensors" in result.conclusion.reasons[0]


@pytest.mark.parametrize("second_tied", [True, False])
def test_tied_heads_are_verified_as_mergekit_writes_them(tmp_path, second_tied):
    """Two tied models make one without a head; a tied and an untied one make one with a head."""
    first, second = tied(tmp_path / "a", load("ft-code")), save(tmp_path / "b", load("ft-docs"))
    if second_tied:
        second = tied(tmp_path / "b-tied", load("ft-docs"))
    document = copy.deepcopy(LINEAR)
    for model, folder in zip(document["models"], (first, second), strict=True):
        model["model"] = str(folder)
    outputs = MergekitReplay(document, {str(f): f for f in (first, second)}).tensors()
    made = {o.name: o.tensor for o in outputs}
    assert ("lm_head.weight" in made) is not second_tied
    result = verified(tmp_path, save(tmp_path / "suspect", made), document)
    assert result.conclusion.kind is ConclusionKind.CONFIRMED
    assert len(result.checks) == len(made)


def test_a_suspect_of_another_vocabulary_is_neither_confirmed_nor_refuted(merges, tmp_path):
    rows = {"lm_head.weight", "model.embed_tokens.weight"}
    tensors = {name: t[:250] if name in rows else t for name, t in load(merges / "linear").items()}
    result = verified(tmp_path, save(tmp_path / "suspect", tensors), LINEAR)
    assert result.conclusion.kind is ConclusionKind.UNDETERMINED
    assert {c.name for c in result.checks if c.state is CheckState.CANNOT_SAY} == rows
    assert any("[250, 64]" in reason for reason in result.conclusion.reasons)


def test_parents_of_different_vocabularies_are_refused_with_the_remedy(merges, tmp_path):
    rows = {"lm_head.weight", "model.embed_tokens.weight"}
    small = save(tmp_path / "small", {n: t[:250] if n in rows else t for n, t in load("ft-docs").items()})
    document = copy.deepcopy(LINEAR)
    document["models"][1]["model"] = str(small)
    with pytest.raises(ConfigurationError, match=r"vocabularies differ.*tokenizer_source"):
        verified(tmp_path, merges / "linear", document)
