"""Runs on repositories: the command line from end to end, the commit in every report, resumed wherever branches are."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys

import pytest
from huggingface_hub import constants
from support.fake_hub import FakeHub
from support.fake_repository import FakeRepository
from support.family import BASE, CODE, CODE_SEED2, DOCS
from support.hub_fixtures import Pauses, alone

import reconstruct
from reconstruct.api import resume
from reconstruct.engine.store import RunStore
from reconstruct.errors import CheckpointError, IncompleteRunError, RemoteError
from reconstruct.report.result import result_document
from reconstruct.verification.card import verify_card

QUIET = ["report.plots=false", "report.table=false"]


@pytest.fixture
def hub(blend_folder, monkeypatch, tmp_path):
    """The family as repositories; weights of two of them come from storage."""
    alone(monkeypatch, tmp_path)
    repositories = {
        "org/merge": blend_folder, "org/base": BASE, "org/code": FakeRepository(CODE, storage=True),
        "org/docs": FakeRepository(DOCS, storage=True),
    }  # fmt: skip
    with FakeHub(repositories) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        monkeypatch.setattr("reconstruct.checkpoints.hub.RetryPolicy", lambda: Pauses().policy())
        yield hub


def command(hub, folder, *arguments):
    environment = os.environ | {
        "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(folder / "home"), "NO_PROXY": "127.0.0.1", "COLUMNS": "200",
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, "-m", "reconstruct", *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )


def without_names(run):
    """The numbers of a result, which do not depend on where the models lie."""
    document = result_document(run)
    text = json.dumps(
        {key: document[key] for key in ("verdict", "novel", "decisive", "explained", "layers", "compared")}
    )
    for name, folder in (("org/base", BASE), ("org/code", CODE), ("org/docs", DOCS)):
        text = text.replace(str(folder), name)
    return text.replace("@main", "")


def test_the_command_line_fits_repositories_from_end_to_end(hub, tmp_path):
    done = command(
        hub, tmp_path, "fit", "suspect=org/merge@main", "parents=[org/code,org/docs@main]", "base=org/base",
        "folder=run", *QUIET,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("reproduced   org/merge@main")
    result = json.loads((tmp_path / "run" / "report" / "result.json").read_text())
    assert result["verdict"]["kind"] == "reproduced"
    assert result["revisions"] == {
        given: f"{name}@{hub.served[name].sha}"
        for given, name in (("org/merge@main", "org/merge"), ("org/base", "org/base"), ("org/code", "org/code"),
                            ("org/docs@main", "org/docs"))
    }  # fmt: skip
    assert {name: c["estimate"] for name, c in result["coefficients"].items()} == pytest.approx(
        {"org/base": 0, "org/code": 0.565, "org/docs@main": 0.435}
    )
    for address in result["revisions"].values():
        assert address in " ".join(done.stdout.split())
    for name in hub.served:  # every byte of the weights once, and little else
        sent = sum(r.bytes for r in hub.requests if f"/{name}/" in r.path and r.file == "model.safetensors")
        assert 330_000 < sent < 1.15 * (BASE / "model.safetensors").stat().st_size
    assert not list((tmp_path / "home").rglob("*.safetensors"))


def test_repositories_and_folders_give_the_same_numbers(hub, blend_folder, tmp_path):
    there = reconstruct.fit("org/merge@main", ["org/code", "org/docs"], "org/base", folder=tmp_path / "there")
    here = reconstruct.fit(blend_folder, [CODE, DOCS], BASE, folder=tmp_path / "here")
    assert without_names(there) == without_names(here)
    assert here.revisions == {}
    mixed = reconstruct.fit(blend_folder, ["org/code", DOCS], BASE, folder=tmp_path / "mixed")
    assert without_names(mixed) == without_names(here)
    assert mixed.revisions == {"org/code": f"org/code@{hub.served['org/code'].sha}"}
    assert reconstruct.load_run(tmp_path / "there").revisions == there.revisions


def test_a_run_that_the_network_cut_off_resumes_at_the_commits_it_began_with(hub, tmp_path):
    whole = reconstruct.fit("org/merge@main", ["org/code", "org/docs"], "org/base", folder=tmp_path / "whole")
    hub.fault("org/docs", "server_error", "model.safetensors", times=None, after=12)
    with pytest.raises(IncompleteRunError, match=r"model.safetensors: status 503 \(4 attempts\)") as caught:
        reconstruct.fit("org/merge@main", ["org/code", "org/docs"], "org/base", folder=tmp_path / "run")
    assert f"resume={tmp_path / 'run'}" in str(caught.value)
    assert caught.value.exit_code == 3
    with RunStore.open(tmp_path / "run") as store:
        finished = len(store.measured())
    assert 0 < finished < len(whole.evidence.tensors)
    hub.served["org/docs"].faults.clear()
    for name in ("org/merge", "org/docs"):
        hub.served[name].commit(CODE_SEED2)
    hub.clear()
    resumed = resume(tmp_path / "run")
    assert result_document(resumed) == result_document(whole)
    assert resumed.revisions["org/merge@main"] != f"org/merge@{hub.served['org/merge'].sha}"
    again = [r for r in hub.requests if "/org/docs/" in r.path and r.status == 206]
    assert sum(r.bytes for r in again) < (DOCS / "model.safetensors").stat().st_size
    # Headers and configurations are in the run: they are not asked for again.
    assert not [r for r in hub.requests if (r.range or "").startswith("bytes=0-") or r.file == "config.json"]


def test_a_run_with_damaged_headers_is_refused(hub, tmp_path):
    reconstruct.fit("org/merge", ["org/code"], "org/base", folder=tmp_path / "run")
    with sqlite3.connect(tmp_path / "run" / "run.sqlite") as connection:
        assert connection.execute("select count(*) from opened").fetchone()[0] >= 4
        connection.execute("update opened set data = x'00'")
    with pytest.raises(reconstruct.errors.StoreError, match="damaged headers"):
        resume(tmp_path / "run")


def test_a_moved_branch_is_another_run(hub, tmp_path):
    reconstruct.fit("org/merge", ["org/code"], "org/base", folder=tmp_path / "run")
    hub.served["org/merge"].commit(CODE_SEED2)
    with pytest.raises(reconstruct.errors.StoreError, match="changed since this run began"):
        reconstruct.fit("org/merge", ["org/code"], "org/base", folder=tmp_path / "run")


def test_what_was_transferred_is_noted(hub, tmp_path):
    reconstruct.fit("org/merge", ["org/code"], "org/base", folder=tmp_path / "run")
    with RunStore.open(tmp_path / "run") as store:
        (noted,) = [detail for _, kind, detail in store.events() if kind == "transferred"]
    assert noted == f"{hub.bytes_sent} bytes in {len(hub.requests)} requests"


@pytest.mark.parametrize(
    ("suspect", "words"),
    [("org/none", "no such repository"), ("org/merge@v9", "no revision 'v9'"), ("nonsense://x", "cannot be opened")],
)
def test_mistakes_end_in_one_message(hub, tmp_path, suspect, words):
    done = command(hub, tmp_path, "fit", f"suspect={suspect}", "parents=[org/code]", *QUIET)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1


def test_what_mergekit_needs_must_be_on_this_machine(hub, tmp_path, blend_folder):
    claimed = tmp_path / "claimed.yml"
    claimed.write_text(
        "merge_method: linear\ndtype: bfloat16\nmodels:\n"
        "- {model: org/code, parameters: {weight: 0.5}}\n- {model: org/docs, parameters: {weight: 0.5}}\n"
    )
    done = command(hub, tmp_path, "verify", f"suspect={blend_folder}", f"recipe={claimed}", *QUIET)
    assert done.returncode == 2
    assert "no local folder for org/code, org/docs" in done.stderr
    assert "mergekit needs whole models on this machine" in done.stderr
    with pytest.raises(CheckpointError, match=r"org/merge: not on this machine\. Download it first"):
        verify_card("org/merge", folder=tmp_path / "card")
    assert not hub.requests


def test_a_change_during_a_run_ends_it(hub, tmp_path):
    hub.fault("org/docs", "etag_change", "model.safetensors", after=12)
    with pytest.raises(RemoteError, match=r"org/docs@.*model.safetensors: the file changed while it was read"):
        reconstruct.fit("org/merge@main", ["org/code", "org/docs"], "org/base", folder=tmp_path / "run")
