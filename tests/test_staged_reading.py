"""Runs under a byte budget, end to end: what is read, what is kept, what is said."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
from rich.console import Console
from safetensors import safe_open
from support.family import BASE, CODE, CODE_HALF, CODE_SEED2, DOCS, load, save
from test_cli import refused, run  # noqa: F401  (fixtures are found by their names)

import reconstruct
from reconstruct import api
from reconstruct.checkpoints.alignment import align
from reconstruct.checkpoints.local import MappedFiles
from reconstruct.checkpoints.open import open_checkpoint
from reconstruct.engine.store import RunStore
from reconstruct.errors import BudgetExhausted, ConfigurationError, StoreError
from reconstruct.report.console import print_report
from reconstruct.report.result import to_json
from reconstruct.row_sampling import plan_rows
from reconstruct.sampling import SamplingPlan
from reconstruct.verdict import VerdictKind

SIZE = 4 * (BASE / "model.safetensors").stat().st_size  # suspect, base and two parents
ACCUSATIONS = {VerdictKind.REPRODUCED, VerdictKind.MERGE_THEN_MODIFIED, VerdictKind.MERGE_CONSISTENT, VerdictKind.COPY}


@pytest.fixture(scope="module")
def finished(blend_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    return reconstruct.fit(blend_folder, [CODE, DOCS], BASE, folder=folder, budget=SIZE * 6 // 10)


def test_a_merge_is_found_in_a_part_and_the_run_says_what_it_read(finished):
    assert finished.verdict.kind is VerdictKind.REPRODUCED
    assert list(finished.coefficients.values()) == pytest.approx([0, 0.565, 0.435])
    reading = finished.reading
    assert sum(model.bytes for model in reading.models) == reading.stages[-1].bytes <= SIZE * 6 // 10
    assert len(reading.stages) == reading.planned > 1
    assert reading.stopped == "the budget was spent"
    assert 0.4 < reading.coverage.share < 0.65


def test_the_run_holds_the_very_bytes_that_the_verdict_rests_on(finished, blend_folder):
    whole = {"suspect": blend_folder, "source-1": BASE, "source-2": CODE, "source-3": DOCS}
    files = {path.name for path in (finished.folder / "sampled").iterdir()}
    assert files == {f"{name}.safetensors" for name in whole}
    for name, folder in whole.items():
        with (
            safe_open(finished.folder / "sampled" / f"{name}.safetensors", "pt") as part,
            safe_open(folder / "model.safetensors", "pt") as full,
        ):
            rows = json.loads(part.metadata()["rows"])
            assert set(rows) == set(part.keys())
            for tensor, facts in rows.items():
                matrix = full.get_tensor(facts["tensor"])
                matrix = matrix.reshape(1, -1) if matrix.dim() < 2 else matrix  # a vector is one row
                picked = [i for start, stop in facts["rows"] for i in range(start, stop)]
                assert (matrix[picked].flatten() == part.get_tensor(tensor).flatten()).all()


def test_the_store_alone_gives_the_same_result_to_the_byte(finished):
    assert to_json(reconstruct.load_run(finished.folder)) == to_json(finished)


def test_threads_do_not_change_the_result(finished, blend_folder, tmp_path):
    other = reconstruct.fit(blend_folder, [CODE, DOCS], BASE, folder=tmp_path / "run", threads=1, budget=SIZE * 6 // 10)
    assert to_json(other) == to_json(finished)


def test_another_seed_reads_other_rows_and_finds_the_same(finished, blend_folder, tmp_path):
    plan = SamplingPlan(bytes=SIZE * 6 // 10, seed=5)
    other = reconstruct.fit(blend_folder, [CODE, DOCS], BASE, folder=tmp_path / "run", sampling=plan)
    assert other.verdict.kind is VerdictKind.REPRODUCED
    names = "sampled/suspect.safetensors"
    assert (other.folder / names).read_bytes() != (finished.folder / names).read_bytes()


def test_a_refit_needs_no_weights(finished):
    alone = reconstruct.refit(finished.folder, [str(CODE)])
    assert alone.verdict.kind not in ACCUSATIONS
    both = reconstruct.refit(finished.folder, [str(CODE), str(DOCS)])
    assert both.verdict.kind is VerdictKind.REPRODUCED
    assert both.reading == finished.reading
    assert both.folder == finished.folder


class Counting(MappedFiles):
    """Files of which only so many ranges can be read in one life."""

    def __init__(self, reads: list[tuple[str, str, int, int]], most: int, end: Exception) -> None:
        super().__init__()
        self.reads, self.most, self.end = reads, most, end

    def read(self, tensor, start, stop):
        if "sampled" not in tensor.shard:
            if len(self.reads) >= self.most:
                raise self.end
            self.reads.append((tensor.shard, tensor.name, start, stop))
        return super().read(tensor, start, stop)


def counting(monkeypatch, most, end=None):
    """Every checkpoint opened from now on counts its reads in one list."""
    reads: list[tuple[str, str, int, int]] = []
    end = end or OSError("the line went dead")
    real = api.open_model

    def opened(location, **named):
        return replace(real(location, **named), source=Counting(reads, most, end))

    monkeypatch.setattr(api, "open_model", opened)
    return reads


@pytest.mark.parametrize("most", [7, 60, 150])
def test_a_run_that_was_cut_off_reads_nothing_twice_and_ends_the_same(
    finished, blend_folder, tmp_path, monkeypatch, most
):
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        first = counting(patch, most)
        with pytest.raises(OSError, match="went dead"):
            reconstruct.fit(blend_folder, [CODE, DOCS], BASE, folder=folder, budget=SIZE * 6 // 10)
    with pytest.raises(StoreError, match=r"not finished.*resume"):
        reconstruct.load_run(folder)
    with monkeypatch.context() as patch:
        second = counting(patch, 10**6)
        resumed = reconstruct.resume(folder)
    assert len(first) == most
    assert not set(first) & set(second)
    assert len(set(first) | set(second)) == len(first) + len(second)
    assert to_json(resumed) == to_json(finished)


def test_bytes_read_never_exceed_the_budget(blend_folder, tmp_path, monkeypatch):
    reads = counting(monkeypatch, 10**6)
    for budget in (120_000, 400_000, 2 * SIZE):
        reads.clear()
        reconstruct.fit(blend_folder, [CODE, DOCS], BASE, folder=tmp_path / str(budget), budget=budget)
        assert sum(2 * (stop - start) for _, _, start, stop in reads) <= budget


def test_a_budget_that_failed_answers_used_up_leaves_the_verdict_of_the_last_whole_stage(
    finished, blend_folder, tmp_path, monkeypatch
):
    budget = SIZE * 6 // 10
    opened = [open_checkpoint(str(folder)) for folder in (blend_folder, BASE, CODE, DOCS)]
    first = plan_rows(align(opened[0], opened[1:]).tensors, budget, 3000, 0).stages[0]
    counting(monkeypatch, 4 * len(first) + 10, BudgetExhausted(5000, 100, SIZE))  # the second stage is cut off
    found = reconstruct.fit(blend_folder, [CODE, DOCS], BASE, folder=tmp_path / "run", budget=budget)
    assert len(found.reading.stages) == 1
    assert found.verdict.kind.value == found.reading.stages[0].verdict == finished.reading.stages[0].verdict
    assert "spent before stage 2 was read" in found.reading.stopped
    assert found.reading.coverage == finished.reading.stages[0].coverage
    assert to_json(reconstruct.load_run(found.folder)) == to_json(found)
    counting(monkeypatch, 1, BudgetExhausted(5000, 100, SIZE))
    with pytest.raises(BudgetExhausted):
        reconstruct.fit(blend_folder, [CODE, DOCS], BASE, folder=tmp_path / "other", budget=budget)


def test_a_finished_run_is_resumed_without_reading(finished, monkeypatch):
    reads = counting(monkeypatch, 0)
    assert to_json(reconstruct.resume(finished.folder)) == to_json(finished)
    assert not reads


@pytest.mark.parametrize("share", [0.15, 0.4])
@pytest.mark.parametrize("suspect", [CODE_HALF, CODE_SEED2], ids=["earlier checkpoint", "sibling"])
def test_near_misses_are_not_accused_on_any_part(tmp_path, suspect, share):
    found = reconstruct.fit(suspect, [CODE, DOCS], BASE, folder=tmp_path / "run", budget=int(share * SIZE))
    assert found.verdict.kind not in ACCUSATIONS


def test_a_suspect_that_differs_in_a_layer_that_was_not_read_is_no_copy_of_everything(tmp_path):
    tensors = load("ft-code")
    tensors["model.layers.2.mlp.down_proj.weight"] = load("ft-docs")["model.layers.2.mlp.down_proj.weight"]
    suspect = save(tmp_path / "s", tensors)
    found = reconstruct.fit(suspect, [CODE, DOCS], BASE, folder=tmp_path / "run", budget=int(0.15 * SIZE))
    if found.verdict.kind is VerdictKind.COPY:
        assert "that was read" in found.verdict.summary
    whole = reconstruct.fit(suspect, [CODE, DOCS], BASE, folder=tmp_path / "whole", budget=2 * SIZE)
    assert whole.verdict.kind is not VerdictKind.COPY


def test_a_budget_for_everything_gives_the_verdict_of_everything(blend_folder, tmp_path):
    part = reconstruct.fit(blend_folder, [CODE, DOCS], BASE, folder=tmp_path / "part", budget="1GB")
    whole = reconstruct.fit(blend_folder, [CODE, DOCS], BASE, folder=tmp_path / "whole")
    assert part.reading.stopped == "every weight was read"
    assert part.evidence.coverage is None
    assert part.verdict == whole.verdict
    np.testing.assert_array_equal(part.evidence.estimate.low, whole.evidence.estimate.low)
    assert whole.reading is None


def test_other_models_in_the_folder_of_a_run_are_refused(finished):
    with pytest.raises(StoreError, match="holds another run"):
        reconstruct.fit(CODE, [DOCS], BASE, folder=finished.folder, budget=100_000)


def test_a_budget_that_buys_nothing_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"sampling.bytes: 50 B in 3000 requests"):
        reconstruct.fit(CODE, [DOCS], BASE, folder=tmp_path / "run", budget=50)


def test_result_document_and_console_say_what_was_read(finished):
    reading = json.loads(to_json(finished))["reading"]
    assert reading["budget"] == SIZE * 6 // 10
    assert reading["stages"][-1]["verdict"] == "reproduced"
    assert reading["stages"][-1]["coverage"]["all_tensors"] == 36
    assert [model["model"] for model in reading["models"]][1] == str(BASE)
    assert 0 < reading["share"] < 1
    console = Console(file=StringIO(), width=100)
    print_report(console, finished.evidence, finished.verdict, finished.suspect, 0, (), finished.reading)
    text = " ".join(console.file.getvalue().split())
    assert "the budget was spent" in text
    assert "requests and" in text
    assert "nothing is said of the others" in text


def test_stages_are_on_record_in_the_store(finished):
    with RunStore.open(finished.folder) as store:
        kinds = [kind for _, kind, _ in store.events()]
        assert kinds.count("stage") == len(finished.reading.stages)
        assert store.get("finished")
    with RunStore.open(finished.folder / f"stage-{len(finished.reading.stages)}") as inner:
        assert len(inner.measured()) == finished.reading.coverage.tensors


def test_command_line(run, blend_folder, tmp_path):  # noqa: F811
    models = [f"suspect={blend_folder}", f"parents=[{CODE},{DOCS}]", f"base={BASE}", "report.plots=false"]
    code, out, err = run("fit", *models, "sampling=budget", "sampling.bytes=900KB", f"folder={tmp_path}/run")
    assert code == 0, err
    assert "of 900 KB allowed" in out
    assert json.loads((tmp_path / "run" / "report" / "result.json").read_text())["reading"]["budget"] == 900_000
    code, out, err = run("report", f"run={tmp_path}/run", "report.plots=false")
    assert code == 0, err
    assert "of 900 KB allowed" in out
    refused(run("fit", *models, "sampling.bytes=plenty"), "sampling.bytes", "'plenty' is no size", "200MB")
    refused(run("verify", f"suspect={CODE}", "recipe=x.yml", "sampling.bytes=1MB"), "sampling.bytes", "every weight")
