"""The Python API: a run, its store, and what can be done with it afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
from support.family import BASE, CODE, CODE_SEED2, DOCS, load, save

import reconstruct
from reconstruct.engine import local
from reconstruct.engine.store import STORE_SCHEMA, RunStore
from reconstruct.errors import ConfigurationError, IncompleteRunError, NonFiniteError, StoreError
from reconstruct.report.result import to_json


@pytest.fixture(scope="module")
def finished(blend_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    return reconstruct.fit(blend_folder, [CODE, DOCS, CODE_SEED2], BASE, folder=folder)


def test_a_run_answers_with_verdict_coefficients_and_recipe(finished):
    assert finished.verdict.kind is reconstruct.VerdictKind.REPRODUCED
    assert finished.coefficients == pytest.approx(
        {str(BASE): 0, str(CODE): 0.565, str(DOCS): 0.435, str(CODE_SEED2): 0}
    )
    assert "0.565" in finished.recipe.to_yaml()
    assert len(finished.table()) == len(finished.evidence.tensors)


def test_the_store_alone_gives_the_same_result_to_the_byte(finished):
    assert to_json(reconstruct.load_run(finished.folder)) == to_json(finished)


def test_threads_do_not_change_the_result(finished, blend_folder, tmp_path):
    other = reconstruct.fit(blend_folder, [CODE, DOCS, CODE_SEED2], BASE, folder=tmp_path / "run", threads=3)
    assert to_json(other) == to_json(finished)


def test_a_run_named_by_relative_paths_resumes_from_another_folder(finished, blend_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(CODE.parent)
    run = reconstruct.fit(blend_folder, ["ft-code", "ft-docs"], "base", folder=tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    resumed = reconstruct.resume(tmp_path / "run")
    assert to_json(resumed) == to_json(run)
    assert set(resumed.coefficients) == {"base", "ft-code", "ft-docs"}


def test_refit_with_fewer_parents_reads_no_weights(finished, blend_folder, tmp_path):
    refitted = reconstruct.refit(finished.folder, [str(CODE), str(DOCS)])
    assert refitted.verdict.kind is reconstruct.VerdictKind.REPRODUCED
    assert not refitted.evidence.exhaustive
    assert any("samples" in limit for limit in refitted.verdict.limits)
    alone = reconstruct.refit(finished.folder, [str(CODE)])
    assert alone.verdict.kind is reconstruct.VerdictKind.RELATED


def test_refit_with_one_family_only(finished):
    refitted = reconstruct.refit(finished.folder, families=["linear"])
    assert refitted.evidence.families == ("linear",)


def test_refit_refuses_parents_that_the_run_has_not(finished):
    with pytest.raises(ConfigurationError, match=r"not in this run: ./other"):
        reconstruct.refit(finished.folder, ["./other"])


def test_another_run_in_the_same_folder_is_refused(finished):
    with pytest.raises(StoreError, match="holds another run"):
        reconstruct.fit(CODE, [DOCS], BASE, folder=finished.folder)


def test_a_model_that_changed_since_the_run_began_is_noticed(tmp_path):
    suspect = save(tmp_path / "s", load("ft-code-half"))
    reconstruct.fit(suspect, [CODE], BASE, folder=tmp_path / "run")
    save(tmp_path / "s", load("ft-code-seed2"))
    with pytest.raises(StoreError, match="changed since this run began"):
        reconstruct.resume(tmp_path / "run")


def test_an_unfinished_run_cannot_be_reported(tmp_path):
    with RunStore.create(tmp_path) as store:
        store.put("schema", STORE_SCHEMA)
    with pytest.raises(StoreError, match=r"not finished.*resume"):
        reconstruct.load_run(tmp_path)


def test_nan_weights_end_the_run_with_file_and_tensor_and_keep_what_is_finished(tmp_path):
    tensors = load("ft-code-half")
    tensors["model.layers.2.mlp.up_proj.weight"][3, 5] = float("nan")
    suspect = save(tmp_path / "s", tensors)
    with pytest.raises(NonFiniteError, match=r"model.layers.2.mlp.up_proj.weight.*model.safetensors.*1 NaN"):
        reconstruct.fit(suspect, [CODE], BASE, folder=tmp_path / "run", threads=1)
    with RunStore.open(tmp_path / "run") as store:
        assert store.measured()


def test_a_unit_that_fails_leaves_the_others_finished_and_the_run_resumable(tmp_path, monkeypatch, blend_folder):
    real = local.measure

    def failing(tensor, *rest):
        if tensor.name.endswith("0.mlp.up_proj.weight"):
            raise OSError("the disk went away")
        return real(tensor, *rest)

    monkeypatch.setattr(local, "measure", failing)
    with pytest.raises(IncompleteRunError, match=r"1 of \d+ tensors failed.*up_proj.*resume=") as caught:
        reconstruct.fit(blend_folder, [CODE, DOCS], BASE, folder=tmp_path / "run")
    assert caught.value.exit_code == 3
    monkeypatch.setattr(local, "measure", real)
    resumed = reconstruct.resume(tmp_path / "run")
    whole = reconstruct.fit(blend_folder, [CODE, DOCS], BASE, folder=tmp_path / "whole")
    assert to_json(resumed) == to_json(whole)


def test_a_run_killed_in_the_middle_resumes_to_the_same_bytes(tmp_path, blend_folder, finished):
    program = textwrap.dedent(f"""
        import time, reconstruct
        from reconstruct.engine import local
        real = local.measure
        def slow(*arguments):
            time.sleep(0.05)
            return real(*arguments)
        local.measure = slow
        reconstruct.fit({str(blend_folder)!r}, {[str(CODE), str(DOCS), str(CODE_SEED2)]!r}, {str(BASE)!r},
                        folder={str(tmp_path / "run")!r}, threads=1)
    """)
    process = subprocess.Popen([sys.executable, "-c", program])
    deadline = time.monotonic() + 120
    measured = 0
    while measured < 5 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
        if (tmp_path / "run" / "run.sqlite").is_file():
            with RunStore.create(tmp_path / "run") as store:
                measured = len(store.measured())
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with RunStore.open(tmp_path / "run") as store:
        before = store.measured()
    assert 5 <= len(before) < len(finished.evidence.tensors)
    assert to_json(reconstruct.resume(tmp_path / "run")) == to_json(finished)


def test_result_document_has_the_promised_shape(finished):
    document = json.loads(to_json(finished))
    assert document["schema"] == 1
    assert document["verdict"]["kind"] == "reproduced"
    assert set(document["verdict"]["reasons"][0]) == {"name", "value", "threshold", "passed"}
    entry = document["coefficients"][str(CODE)]
    assert entry["low"] <= entry["estimate"] <= entry["high"]
    assert entry["least_squares"] == pytest.approx(0.565, abs=0.01)
    assert document["novel"]["reproduced"] == document["novel"]["count"] > 1000
    assert document["decisive"]["strata"][-1]["decisive"] is True
    assert document["rounding_box"]["inside"] == 1.0
    assert document["compared"]["tensors"] == 36
    assert document["recipe"]["merge_method"] == "linear"
    assert [layer["layer"] for layer in document["layers"]] == ["embedding", "0", "1", "2", "head"]


def test_no_parents_and_too_many_are_refused():
    with pytest.raises(ConfigurationError, match="no parents"):
        reconstruct.fit(CODE, [], BASE)
    with pytest.raises(ConfigurationError, match="At most 9"):
        reconstruct.fit(CODE, [DOCS] * 10, BASE)


def test_slerp_between_base_and_fine_tune_by_layer_and_filter(tmp_path):
    # The family's own movement is small enough for slerp's linear branch: eight times as far it is not.
    base = load("base")
    code = {k: (base[k].float() + 8 * (v.float() - base[k].float())).bfloat16() for k, v in load("ft-code").items()}
    parent = save(tmp_path / "far", code)
    values = {"self_attn": [0.0, 0.5, 0.3], "mlp": [1.0, 0.5, 0.7]}
    tensors = {}
    for name in base:
        layer = int(name.split(".")[2]) if "layers" in name else None
        group = next((g for g in values if g in name), None)
        t = values[group][layer] if group else 0.5
        a, b = base[name].float(), code[name].float()
        cosine = float(torch_cosine(a, b))
        if abs(cosine) > 0.9995:
            tensors[name] = ((1 - t) * a + t * b).bfloat16()
        else:
            theta = np.arccos(cosine)
            first, second = np.sin((1 - t) * theta) / np.sin(theta), np.sin(t * theta) / np.sin(theta)
            tensors[name] = (float(first) * a + float(second) * b).bfloat16()
    run = reconstruct.fit(save(tmp_path / "s", tensors), [parent], BASE, folder=tmp_path / "run")
    assert run.verdict.kind is reconstruct.VerdictKind.REPRODUCED
    document = run.recipe.to_mergekit()
    assert document["merge_method"] == "slerp"
    entries = {entry.get("filter"): entry["value"] for entry in document["parameters"]["t"]}
    assert entries == {"self_attn": [0.0, 0.5, 0.3], "mlp": [1.0, 0.5, 0.7], None: 0.5}


def torch_cosine(a, b):
    a, b = a.double().flatten(), b.double().flatten()
    return a @ b / (a.norm() * b.norm())
