"""Whole runs where suspect and parents store the same weights in different ways."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import mixtures
from support.family import BASE, CODE, DOCS, blend, load, save
from support.float8 import dequantised, quantised, save_quantised
from support.mixtures import renumbered, save_as, separate, stacked, transposed

import reconstruct
from reconstruct.reconstruction import Reconstruction

WEIGHTS = (0.565, 0.435)
ORDER = (2, 0, 3, 1)


@pytest.fixture(scope="module")
def parents() -> dict[str, mixtures.State]:
    return {name: separate(load(name)) for name in ("base", "ft-code", "ft-docs")}


@pytest.fixture(scope="module")
def merge(parents: dict[str, mixtures.State]) -> mixtures.State:
    return blend(WEIGHTS, [parents["ft-code"], parents["ft-docs"]])


def fitted(folder: Path, suspect: mixtures.State, *others: mixtures.State, kind: str = "qwen3_moe") -> Reconstruction:
    base, code, docs = (save_as(folder / n, s) for n, s in zip(("base", "code", "docs"), others, strict=True))
    return reconstruct.fit(save_as(folder / "suspect", suspect, kind), [code, docs], base, folder=folder / "run")


def reproduced(run: Reconstruction) -> None:
    assert run.verdict.kind is reconstruct.VerdictKind.REPRODUCED
    assert list(run.coefficients.values()) == pytest.approx([0, *WEIGHTS])
    assert run.left_out == ()


@pytest.mark.parametrize(
    ("layout", "kind"),
    [
        (stacked, "qwen3_5_moe"),
        (lambda m: transposed(m, alternate=True), "gpt_oss"),
        (lambda m: transposed(m, alternate=False), "llama4_text"),
        (mixtures.mixtral, "mixtral"),
    ],
    ids=["stacked", "alternating columns", "columns", "mixtral"],
)
def test_a_merge_in_another_layout_than_its_parents_is_reproduced(layout, kind, tmp_path, parents, merge):
    run = fitted(tmp_path, layout(merge), *parents.values(), kind=kind)
    reproduced(run)
    experts = {t.measurement.module.expert for t in run.evidence.tensors}
    assert experts == {None, 0, 1, 2, 3}


def test_a_merge_of_a_parent_with_renumbered_experts_is_reproduced_and_the_order_noted(tmp_path, parents, merge):
    base, code, docs = parents.values()
    run = fitted(tmp_path, stacked(merge), base, code, renumbered(docs, ORDER))
    reproduced(run)
    notes = {t.measurement.name: t.measurement.notes for t in run.evidence.tensors}
    assert any("in another order" in note for note in notes["model.layers.1.mlp.experts.down_proj[2]"])
    assert any("rows in the order of the experts" in note for note in notes["model.layers.1.mlp.gate.weight"])
    assert reconstruct.load_run(run.folder).verdict.kind is reconstruct.VerdictKind.REPRODUCED


def test_a_stranger_is_not_accused_whatever_the_order_of_the_experts(tmp_path, parents):
    base, code, docs = parents.values()
    run = fitted(tmp_path, renumbered(separate(load("ft-code-seed2")), ORDER), base, code, stacked(docs))
    assert run.verdict.kind is reconstruct.VerdictKind.RELATED


def test_a_merge_of_two_adapters_on_their_base_is_reproduced(tmp_path):
    pytest.importorskip("peft")
    from support.adapters import merged_by_peft, save_adapter

    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"]
    adapters = [save_adapter(tmp_path / str(seed), seed, target_modules=targets) for seed in range(2)]
    suspect = save(tmp_path / "merge", blend(WEIGHTS, [merged_by_peft(adapter) for adapter in adapters]))
    run = reconstruct.fit(suspect, adapters, BASE, folder=tmp_path / "run")
    reproduced(run)
    resumed = reconstruct.resume(tmp_path / "run")
    assert resumed.verdict == run.verdict


def test_adapters_are_read_under_a_budget_and_pay_for_what_they_are_computed_from(tmp_path):
    pytest.importorskip("peft")
    from support.adapters import merged_by_peft, save_adapter

    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"]
    adapters = [save_adapter(tmp_path / str(seed), seed, target_modules=targets) for seed in range(2)]
    suspect = save(tmp_path / "merge", blend(WEIGHTS, [merged_by_peft(adapter) for adapter in adapters]))
    run = reconstruct.fit(suspect, adapters, BASE, folder=tmp_path / "run", budget=1_200_000)
    assert run.reading.coverage.share < 1
    assert sum(model.bytes for model in run.reading.models) <= 1_200_000
    factors = run.reading.models[2].bytes - run.reading.models[1].bytes
    assert factors > 0
    assert run.verdict.kind is reconstruct.VerdictKind.REPRODUCED


def test_an_adapter_as_suspect_is_no_merge_of_full_models(tmp_path):
    pytest.importorskip("peft")
    from support.adapters import save_adapter

    run = reconstruct.fit(save_adapter(tmp_path / "a"), [CODE, DOCS], BASE, folder=tmp_path / "run")
    assert run.verdict.kind in {reconstruct.VerdictKind.NOT_EXPLAINED, reconstruct.VerdictKind.RELATED}


@pytest.fixture(scope="module")
def float8(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("float8")
    names = ("base", "ft-code", "ft-docs", "ft-code-half", "ft-code-seed2")
    return {name: save_quantised(folder / name, quantised(load(name))) for name in names}


@pytest.mark.parametrize("suspect", ["ft-code-half", "ft-code-seed2"])
def test_relatives_quantised_to_float8_are_not_accused(suspect, float8, tmp_path):
    run = reconstruct.fit(
        float8[suspect], [float8["ft-code"], float8["ft-docs"]], float8["base"], folder=tmp_path / "run"
    )
    assert run.verdict.kind is reconstruct.VerdictKind.RELATED
    assert not any(t.measurement.smooth_lattice for t in run.evidence.tensors if "_proj" in t.measurement.name)
    assert any("lattice with gaps" in note for note in run.evidence.notes)


def test_a_merge_of_dequantised_parents_is_reproduced_and_a_quantised_one_is_not_accused(float8, tmp_path):
    parents = [dequantised(quantised(load(name))) for name in ("ft-code", "ft-docs")]
    merge = blend(WEIGHTS, parents)
    others = [float8["ft-code"], float8["ft-docs"]], float8["base"]
    run = reconstruct.fit(save(tmp_path / "merge", merge), *others, folder=tmp_path / "run")
    assert run.verdict.kind is reconstruct.VerdictKind.REPRODUCED
    assert list(run.coefficients.values()) == pytest.approx([0, *WEIGHTS])
    again = save_quantised(tmp_path / "quantised", quantised(merge))
    run = reconstruct.fit(again, *others, folder=tmp_path / "again")
    assert run.verdict.kind is reconstruct.VerdictKind.RELATED
