"""The proof of a recipe by the program it is written for, and recipes that only the program can compute."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.text import Text
from support.family import BASE, CODE, CODE_SEED2, DOCS, load, save

import reconstruct
from reconstruct.mergekit_parameters import evaluate
from reconstruct.recipe import Cell, Recipe, WholeRecipe
from reconstruct.replay.mergekit import MergekitReplay
from reconstruct.replay.sparse_estimates import sparse_estimates
from reconstruct.report.console_tables import recipe_lines
from reconstruct.report.plots import build_figures
from reconstruct.report.result import to_json

A, B, C = map(str, (CODE, DOCS, BASE))


def made(folder, document):
    """The configuration's output, as mergekit writes it."""
    outputs = MergekitReplay(document, {m: Path(m) for m in (A, B, C)}).tensors()
    return save(folder, {output.name: output.tensor.clone() for output in outputs})


def models(*parameters):
    return [{"model": m, "parameters": p} for m, p in zip((A, B), parameters, strict=False)]


TIES = {
    "merge_method": "ties", "base_model": C, "dtype": "bfloat16",
    "models": models({"weight": 0.6, "density": 0.5}, {"weight": 0.4, "density": 0.7}),
}  # fmt: skip
NUSLERP = {"merge_method": "nuslerp", "dtype": "bfloat16", "models": models({"weight": 0.6}, {"weight": 0.4})}
FUSION = {"merge_method": "arcee_fusion", "base_model": A, "dtype": "float32", "models": [{"model": B}]}
STOCK = {"merge_method": "model_stock", "base_model": C, "dtype": "float32", "models": [{"model": A}, {"model": B}]}


def test_a_fitted_recipe_is_run_through_mergekit_and_the_store_keeps_the_proof(tmp_path):
    document = {
        "merge_method": "linear", "dtype": "bfloat16", "models": models({"weight": [0.6, 0.8, 0.2]}, {"weight": 0.4}),
    }  # fmt: skip
    run = reconstruct.fit(made(tmp_path / "s", document), [CODE, DOCS], folder=tmp_path / "run")
    assert run.verdict.kind is reconstruct.VerdictKind.REPRODUCED
    assert run.evidence.proof.complete
    assert run.evidence.proof.identical == 1.0
    assert to_json(reconstruct.load_run(tmp_path / "run")) == to_json(run)
    assert json.loads(to_json(run))["proof"]["complete"] is True


def test_a_merge_by_another_program_stays_reproduced_and_the_proof_says_what_mergekit_makes(tmp_path):
    weights = torch.tensor([0.6, 0.4], dtype=torch.bfloat16)
    a, b = load("ft-code"), load("ft-docs")
    stacked = {n: torch.stack([a[n] * weights[0], b[n] * weights[1]]).sum(0) / weights.sum() for n in a}
    run = reconstruct.fit(save(tmp_path / "s", stacked), [CODE, DOCS], folder=tmp_path / "run")
    assert run.verdict.kind is reconstruct.VerdictKind.REPRODUCED
    proof = run.evidence.proof
    assert not proof.complete
    assert 0.3 < proof.identical < 1
    assert proof.differing


def test_models_that_mergekit_cannot_use_leave_the_verdict_as_it_is(tmp_path):
    copies = []
    for source in (CODE, DOCS):
        copies.append(shutil.copytree(source, tmp_path / source.name))
        (copies[-1] / "config.json").unlink()
    document = {"merge_method": "linear", "dtype": "bfloat16", "models": models({"weight": 0.7}, {"weight": 0.3})}
    run = reconstruct.fit(made(tmp_path / "s", document), copies, folder=tmp_path / "run")
    assert run.verdict.kind is reconstruct.VerdictKind.REPRODUCED
    assert "config.json" in run.evidence.proof.failure


@pytest.mark.parametrize(
    ("document", "base"), [(STOCK, BASE), (TIES, BASE), (FUSION, None)], ids=["model_stock", "ties", "arcee_fusion"]
)
def test_a_recipe_that_only_the_program_computes_is_found_by_running_it(document, base, tmp_path):
    family = document["merge_method"]
    suspect = made(tmp_path / "s", document)
    run = reconstruct.fit(suspect, [CODE, DOCS], base, folder=tmp_path / "run", families=("linear", family))
    assert run.verdict.kind is reconstruct.VerdictKind.REPRODUCED
    assert isinstance(run.recipe, WholeRecipe)
    assert run.recipe.families == (family,)
    assert set(run.recipe.models) == {A, B, *([C] if base else [])}
    found = run.recipe.to_mergekit()
    assert [m.get("parameters", {}) for m in found["models"]] == [m.get("parameters", {}) for m in document["models"]]
    assert to_json(reconstruct.load_run(tmp_path / "run")) == to_json(run)
    # Tables and pictures are those of the fit, and must not be taken for the recipe's.
    words = "the nearest fixed blend, which is not that recipe"
    assert words in dict(recipe_lines(run.evidence, run.verdict))["below"]
    figures = build_figures(run.evidence, run.verdict, run.suspect)
    assert all(any(words in t.get_text() for t in figure.findobj(Text)) for figure in figures.values())


def test_numbers_that_differ_over_the_model_are_found_tensor_by_tensor(tmp_path):
    first = {"weight": [{"filter": "mlp", "value": 0.8}, {"value": 0.6}]}
    suspect = made(tmp_path / "s", {**NUSLERP, "models": models(first, {"weight": 0.4})})
    run = reconstruct.fit(suspect, [CODE, DOCS], folder=tmp_path / "run", families=("linear", "nuslerp"))
    assert run.verdict.kind is reconstruct.VerdictKind.REPRODUCED
    assert run.evidence.proof.complete
    one, other = (m["parameters"]["weight"] for m in run.recipe.to_mergekit()["models"])
    ratios = [
        evaluate(one, name, 0.0) / evaluate(other, name, 0.0) for name in ("layers.0.mlp.x", "layers.0.self_attn")
    ]
    assert ratios == pytest.approx([2.0, 1.5])


def test_one_changed_weight_is_no_reproduction_by_a_searched_recipe(tmp_path):
    made(tmp_path / "s", STOCK)
    tensors = load(tmp_path / "s")
    name = next(n for n, t in tensors.items() if t.ndim == 2)
    tensors[name][0, 0] += 0.5
    suspect = save(tmp_path / "t", tensors)
    run = reconstruct.fit(suspect, [CODE, DOCS], BASE, folder=tmp_path / "run", families=("linear", "model_stock"))
    assert run.verdict.kind is not reconstruct.VerdictKind.REPRODUCED


def test_no_family_makes_a_sibling_of_its_parents(tmp_path):
    """What is searched for must not be found in a near miss."""
    families = ("linear", "karcher", "model_stock", "nuslerp", "sce", "arcee_fusion")
    run = reconstruct.fit(CODE_SEED2, [CODE, DOCS], BASE, folder=tmp_path / "run", families=families)
    assert run.evidence.proof is None
    assert run.verdict.kind is reconstruct.VerdictKind.RELATED


def test_densities_are_estimated_from_elements_where_the_other_parent_rests(tmp_path):
    run = reconstruct.fit(made(tmp_path / "s", TIES), [CODE, DOCS], BASE, folder=tmp_path / "run", proof=False)
    estimates = sparse_estimates(run.evidence)
    assert np.allclose([e.density for e in estimates], [0.5, 0.7], atol=0.12)
    assert np.allclose([e.scale for e in estimates], [1.0, 1.0], atol=0.05)


def test_a_blend_is_tried_as_the_slerps_that_it_nearly_is():
    """In tensors of a million elements a slerp's own float32 cosine is off by 1e-4: only the program replays it."""
    cell = Cell((), None, "", (0.55001, 0.45004), (0.0, 0.0), (1.0, 1.0), certified=True)
    blend = Recipe("linear", (C, A, B), True, None, "constant", (cell,), {}, "float16", "bfloat16")
    documents = [slerp.to_mergekit() for slerp in blend.as_slerps()]
    assert [(d["base_model"], d["parameters"]["t"], d["dtype"]) for d in documents] == [
        (A, 0.45, "bfloat16"), (B, 0.55, "bfloat16"),
    ]  # fmt: skip
    three = replace(cell, parameters=(0.3, 0.4))
    assert replace(blend, cells=(three,)).as_slerps() == []


def test_a_stacked_slerp_that_does_not_replay_matrix_by_matrix_is_reproduced_by_the_program(tmp_path):
    """As with experts that are stacked: a blend replays in part, the program makes every bit."""
    document = {"merge_method": "slerp", "base_model": C, "dtype": "bfloat16", "parameters": {"t": 0.4},
                "models": [{"model": C}, {"model": A}]}  # fmt: skip
    suspect = made(tmp_path / "suspect", document)
    run = reconstruct.fit(suspect, [A], C, folder=tmp_path / "run", families=("linear",))
    assert run.evidence.proof is not None
    assert run.evidence.proof.complete
    assert run.verdict.kind.value == "reproduced"
