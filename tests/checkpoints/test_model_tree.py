"""Model trees: who names a repository as the base model, page by page, and every way in which a Hub has no answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fake_hub import FakeHub
from support.fake_repository import FakeRepository
from support.hub_fixtures import Pauses, alone

from reconstruct.checkpoints.model_tree import Tree, list_children
from reconstruct.checkpoints.tree_query import TreeQuery
from reconstruct.checkpoints.wire import Wire
from reconstruct.errors import ConfigurationError, RemoteError, UnreachableError


def child(relation: str, downloads: int, base: str = "org/base", private: bool = False) -> FakeRepository:
    return FakeRepository({"a": f"{relation} {downloads}".encode()}, base_models={base: relation}, downloads=downloads,
                          private=private)  # fmt: skip


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    alone(monkeypatch, tmp_path)
    repositories = {
        "org/base": FakeRepository({}), "org/few": child("finetune", 3), "org/many": child("finetune", 90),
        "org/merge": child("merge", 20), "org/adapter": child("adapter", 20), "org/small": child("quantized", 400),
        "org/other": child("finetune", 999, "org/another"), "org/silent": child("", 1),
        "org/hidden": child("finetune", 5, private=True),
    }  # fmt: skip
    with FakeHub(repositories, page=2) as hub:
        yield hub


def listed(hub: FakeHub, given: str, wire: Wire | None = None) -> Tree:
    return list_children(TreeQuery.parse(given), wire or Wire(), hub.endpoint, retries=Pauses().policy())


def names(tree: Tree) -> list[str]:
    return [child.repository.removeprefix("org/") for child in tree.children]


def test_all_pages_are_read_and_the_most_downloaded_come_first(hub: FakeHub) -> None:
    wire = Wire()
    tree = listed(hub, "children:org/base", wire)
    assert names(tree) == ["small", "many", "adapter", "merge", "few", "silent"]
    assert tree.complete
    assert [c.relation for c in tree.children] == ["quantized", "finetune", "adapter", "merge", "finetune", "unstated"]
    assert [c.commit for c in tree.children] == [hub.served[c.repository].sha for c in tree.children]
    assert (wire.requests, wire.bytes) == (3, hub.bytes_sent)


@pytest.mark.parametrize(
    ("relation", "found"),
    [("finetune", ["many", "few"]), ("merge", ["merge"]), ("adapter", ["adapter"]), ("quantized", ["small"])],
)
def test_one_relation(hub: FakeHub, relation: str, found: list[str]) -> None:
    assert names(listed(hub, f"children:{relation}:org/base")) == found


def test_private_children_are_listed_for_those_who_may_see_them(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", hub.token)
    assert "hidden" in names(listed(hub, "children:org/base"))


def test_a_list_without_end_ends(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconstruct.checkpoints.model_tree._PAGES", 2)
    tree = listed(hub, "children:org/base")
    assert names(tree) == ["small", "many", "adapter", "merge"]
    assert not tree.complete


def test_the_next_page_is_asked_of_this_hub_whatever_host_the_link_names(hub: FakeHub) -> None:
    own = hub.endpoint
    hub.endpoint = "http://elsewhere.invalid"  # what links are made with
    tree = list_children(TreeQuery.parse("children:org/base"), Wire(), own, retries=Pauses().policy())
    assert len(tree.children) == 6


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("children:org/none", "org/none: no such repository on http"),
        ("children:org/few", "children:org/few: no repository on .* names it as its base model. Name the candidates"),
        ("children:merge:org/another", r"names it as its base model \(merge\)"),
    ],
)
def test_nobody_there(hub: FakeHub, given: str, words: str) -> None:
    hub.served["org/another"] = FakeRepository({})
    with pytest.raises(RemoteError, match=words):
        listed(hub, given)


def test_offline_there_is_no_tree(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconstruct.checkpoints.model_tree.is_offline_mode", lambda: True)
    with pytest.raises(RemoteError, match=r"HF_HUB_OFFLINE is set, and only a Hub knows a model tree\. Unset it"):
        listed(hub, "children:org/base")
    assert not hub.requests


def test_failures_are_repeated_and_in_the_end_said(hub: FakeHub) -> None:
    hub.fault("", "server_error", times=2)
    hub.fault("", "truncated")
    assert len(listed(hub, "children:org/base").children) == 6
    hub.fault("", "server_error", times=None)
    with pytest.raises(UnreachableError, match=r"org/base: status 503 \(4 attempts\)"):
        listed(hub, "children:org/base")


@pytest.mark.parametrize("page", [b"{}", b"[1]", b'[{"id": 3}]', b'[{"id": "../etc"}]', b"not json", b"[" * 100_000])
def test_what_is_no_list_of_repositories(hub: FakeHub, page: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("support.fake_hub.json.dumps", lambda value: page.decode())
    with pytest.raises(RemoteError, match="does not answer as a Hub does"):
        listed(hub, "children:org/base")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("children:", "names no repository"),
        ("children:gpt2", "names no repository of a Hub.*children:org/base"),
        ("children:org/base@main", "not their revisions. Say children:org/base"),
        ("children:finetunes:org/base", "no relation 'finetunes'.*There are finetune, merge, adapter, quantized"),
        ("children::org/base", "no relation ''"),
    ],
)
def test_what_names_no_tree(given: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        TreeQuery.parse(given)
