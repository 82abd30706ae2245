"""Scans among the repositories of a model tree: true parents are shown, nobody else, and the list stays as it was."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from safetensors.torch import save as serialised
from support.crowd import other_training
from support.fake_hub import FakeHub
from support.fake_repository import FakeRepository
from support.family import BASE, CODE, CODE_HALF, CODE_SEED2, DOCS
from support.hub_fixtures import Pauses, alone

import reconstruct.scanning.run as scanning
from reconstruct.engine.store import RunStore
from reconstruct.errors import RemoteError
from reconstruct.report.scan import scan_json
from reconstruct.scanning.result import CandidateKind, Scan
from reconstruct.scanning.run import load_scan, resume_scan, scan

BYTES = 150_000  # of each model, 343 kB large
TREE = "children:org/base"


def child(files: Any, downloads: int, relation: str = "finetune", **switches: bool) -> FakeRepository:
    return FakeRepository(files, base_models={"org/base": relation}, downloads=downloads, **switches)


def files(tensors: Any) -> dict[str, bytes]:
    return {"model.safetensors": serialised(tensors), "config.json": (BASE / "config.json").read_bytes()}


@pytest.fixture(scope="module")
def innocents() -> list[dict[str, bytes]]:
    return [files(other_training(seed, ("ft-code", "ft-docs")[seed % 2])) for seed in range(3)]


@pytest.fixture
def hub(blend_folder: Path, innocents: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    alone(monkeypatch, tmp_path)
    repositories = {
        "org/base": FakeRepository(BASE), "org/merge": child(blend_folder, 500, "merge"),
        "org/code": child(CODE, 90, storage=True), "org/docs": child(DOCS, 80, storage=True),
        "org/half": child(CODE_HALF, 70), "org/seed2": child(CODE_SEED2, 60),
        "org/gguf": child({"m.gguf": b"GGUF"}, 900, "quantized"),
        "org/gated": child(CODE_SEED2, 50, gated=True), "org/gone": child(CODE_SEED2, 40),
        **{f"org/other-{k}": child(found, 30 - k) for k, found in enumerate(innocents)},
    }  # fmt: skip
    with FakeHub(repositories, page=4) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        for module in ("hub", "model_tree"):
            monkeypatch.setattr(f"reconstruct.checkpoints.{module}.RetryPolicy", lambda: Pauses().policy())
        yield hub


def run(candidates: Any, folder: Path, **options: Any) -> Scan:
    return scan("org/merge", candidates, "org/base", folder=folder, bytes_per_model=BYTES, **options)


def test_the_parents_are_shown_and_nobody_else_is(hub: FakeHub, tmp_path: Path) -> None:
    class Gone(FakeRepository):
        """In the list, and gone when it is read."""

        def at(self, revision: str) -> None:
            return None

    hub.served["org/gone"] = Gone(CODE_SEED2, base_models={"org/base": "finetune"}, downloads=40)
    result = run(TREE, tmp_path / "run")
    assert result.parents == ["org/code", "org/docs"]
    order = ["code", "docs", "half", "seed2", "gated", "gone", "other-0", "other-1", "other-2"]
    assert [c.name for c in result.candidates] == [f"org/{name}" for name in order]
    found = {c.name: c for c in result.candidates}
    for name in ("half", "seed2", "other-0", "other-1", "other-2"):
        assert found[f"org/{name}"].kind in {CandidateKind.REDUNDANT, CandidateKind.SHARES_BASE}
    for name, words in (("gated", "a gated repository, and no access to it"), ("gone", "no revision")):
        assert found[f"org/{name}"].kind is CandidateKind.NOT_COMPARABLE
        assert words in found[f"org/{name}"].reason
    (tree,) = result.trees
    pinned = {name: f"org/{name}@{hub.served[f'org/{name}'].sha}" for name in order}
    assert tree.children == tuple(pinned.values())
    assert found["org/code"].address == pinned["code"]
    assert result.notes[-2] == (
        "children:org/base: the cards of 11 repositories name it, 9 are candidates; left out: 1 quantised, "
        "1 the suspect itself."
    )
    assert f"parents=[{pinned['code']},{pinned['docs']}] base=org/base" in (result.command or "")
    assert json.loads(scan_json(result))["trees"][0]["children"] == list(tree.children)
    assert load_scan(tmp_path / "run") == result


def test_on_the_wire_is_what_is_said(hub: FakeHub, tmp_path: Path) -> None:
    """`sampling.bytes` of each model in so many requests; and headers, configurations and lists."""
    result = run(TREE, tmp_path / "run")
    rows = [r for r in hub.requests if r.range is not None and r.status == 206 and r.range != "bytes=0-4095"]
    read = [c for c in result.candidates if c.kind is not CandidateKind.NOT_COMPARABLE]
    models = len(read) + 2
    assert len(read) == 8
    assert sum(r.bytes for r in rows) == models * result.bytes <= models * BYTES
    assert len(rows) <= models * 64
    assert hub.bytes_sent - sum(r.bytes for r in rows) <= 20_000 * (models + 1)
    with RunStore.open(tmp_path / "run") as store:
        (noted,) = [detail for _, kind, detail in store.events() if kind == "transferred"]
    assert noted == f"{hub.bytes_sent} bytes in {len(hub.requests)} requests"


def test_the_most_downloaded_are_taken_and_the_others_counted(hub: FakeHub, tmp_path: Path) -> None:
    result = run("children:finetune:org/base", tmp_path / "run", most_children=3)
    assert [c.name for c in result.candidates] == ["org/code", "org/docs", "org/half"]
    (tree,) = result.trees
    assert (tree.named, tree.beyond, tree.most) == (9, 6, 3)
    assert "left out: 6 with fewer downloads (most_children=3)." in result.notes[-2]


def test_a_tree_among_references_adds_whom_nobody_named(hub: FakeHub, tmp_path: Path) -> None:
    old = hub.served["org/code"].sha
    hub.served["org/code"].commit(CODE_HALF)
    listed = tmp_path / "list.txt"
    listed.write_text(f"{DOCS}\norg/code@{old} # as it was\n{TREE} # and all others\norg/Half\n", "utf-8")
    result = run(listed, tmp_path / "run", most_children=2)
    assert [c.name for c in result.candidates] == [str(DOCS), f"org/code@{old}", "org/docs", "org/seed2", "org/Half"]
    assert result.trees[0].by_name == 2
    assert result.parents == [f"org/code@{old}"]  # of two candidates with the same weights, neither is shown
    assert {c.name for c in result.candidates if c.kind is CandidateKind.LEAD} == {str(DOCS), "org/docs"}


def test_a_scan_that_was_cut_off_goes_on_with_the_list_it_began_with(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(TREE, tmp_path / "whole")
    read, seen = scanning.read_rows, []

    def cut_off(path: Path, *rest: Any) -> int:
        seen.append(path.name)
        if len(seen) == 5:
            raise KeyboardInterrupt
        return read(path, *rest)

    monkeypatch.setattr(scanning, "read_rows", cut_off)
    with pytest.raises(KeyboardInterrupt):
        run(TREE, tmp_path / "run")
    hub.served["org/new"] = child(CODE, 1000)
    hub.served["org/docs"].commit(CODE_SEED2)
    for name in ("org/half", "org/merge", "org/base"):
        hub.served[name].commit(CODE_SEED2)
    hub.clear()
    resumed = resume_scan(tmp_path / "run")
    assert not [r for r in hub.requests if r.path.startswith("/api/models?")]
    assert resumed.to_dict() == whole.to_dict()
    hub.clear()
    assert run(TREE, tmp_path / "run").to_dict() == whole.to_dict()  # the folder holds this very scan
    assert not [r for r in hub.requests if r.path.startswith("/api/models?")]
    assert {r.range for r in hub.requests if r.range} == {"bytes=0-4095"}  # headers of suspect and base


def test_candidates_that_the_network_kept_from_being_read_are_tried_again(hub: FakeHub, tmp_path: Path) -> None:
    hub.fault("org/docs", "server_error", "model.safetensors", times=None)
    result = run(TREE, tmp_path / "run")
    assert result.parents == []
    (docs,) = [c for c in result.candidates if c.name == "org/docs"]
    assert docs.kind is CandidateKind.NOT_COMPARABLE
    assert "status 503 (4 attempts)" in docs.reason
    hub.served["org/docs"].faults.clear()
    assert resume_scan(tmp_path / "run").parents == ["org/code", "org/docs"]


@pytest.mark.parametrize(
    ("candidates", "words"),
    [
        (["children:org/none", str(CODE)], "no such repository"),
        (["children:org/half", str(CODE)], "no repository on .* names it"),
        (["children:quantized:org/code"], r"names it as its base model \(quantized\)"),
        (["children:merge:org/base"], r"merge:org/base: nobody to compare \(.*left out: 1 the suspect itself\)"),
    ],
)
def test_trees_without_candidates_end_in_one_message(
    hub: FakeHub, tmp_path: Path, candidates: list[str], words: str
) -> None:
    with pytest.raises(RemoteError, match=words):
        run(candidates, tmp_path / "run")
    assert not (tmp_path / "run").exists()
