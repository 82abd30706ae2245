"""Repositories become catalogs: the same as from a folder, with few requests, at one commit, from a cache if there."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hostile.odd_but_legal import LEGAL
from hostile.safetensors_files import VIOLATIONS
from huggingface_hub import constants, hf_hub_download
from safetensors.torch import save
from support import family
from support.fake_hub import FakeHub
from support.fake_repository import FakeRepository
from support.generated_checkpoint import GeneratedShard, generated_model
from support.hub_fixtures import Pauses, alone, opened

from reconstruct.checkpoints.catalog import Catalog
from reconstruct.checkpoints.fetch import fetch_ranges
from reconstruct.checkpoints.open import open_checkpoint
from reconstruct.checkpoints.wire import Wire
from reconstruct.errors import BudgetExhausted, CheckpointError, HeaderError, RemoteError

ONES = save({"w": torch.ones(4)})
WEIGHTS = "model.safetensors"


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    alone(monkeypatch, tmp_path)


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub({"org/base": family.BASE, "org/code": FakeRepository(family.CODE, storage=True)}) as hub:
        yield hub


def assert_same(found: Catalog, expected: Catalog) -> None:
    assert list(found.tensors) == list(expected.tensors)
    for name, info in expected.tensors.items():
        there = found.tensors[name]
        assert (there.dtype, there.shape, there.begin, there.end) == (info.dtype, info.shape, info.begin, info.end)
        assert found.source.read(there, 0, there.elements).tobytes() == (
            expected.source.read(info, 0, info.elements).tobytes()
        )
    assert found.configuration == expected.configuration


@pytest.mark.parametrize(("given", "folder"), [("org/base", family.BASE), ("org/code", family.CODE)])
def test_a_repository_is_the_same_as_its_folder(hub: FakeHub, given: str, folder: Path) -> None:
    wire = Wire()
    catalog = opened(given, hub.endpoint, wire)
    assert catalog.reference.address == f"{given}@{hub.served[given].sha}"
    assert catalog.reference.given == given
    assert wire.bytes < 20000
    assert_same(catalog, open_checkpoint(str(folder)))
    assert wire.bytes == hub.bytes_sent


def test_the_door_opens_repositories_too(hub: FakeHub) -> None:
    wire = Wire()
    catalog = open_checkpoint("org/base@main", wire, hub.endpoint)
    assert catalog.reference.revision == hub.served["org/base"].sha
    assert (wire.requests, wire.bytes) == (3, hub.bytes_sent)


def test_no_request_is_sent_that_is_not_counted(hub: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    wire = Wire()
    opened("org/base", hub.endpoint, wire)
    assert [r.path for r in hub.requests if "/org/base" not in r.path] == []
    assert wire.requests == len(hub.requests)


@pytest.mark.parametrize("storage", [False, True])
def test_a_layout_of_800_gigabytes_opens_with_one_small_read_a_shard(storage: bool) -> None:
    files = generated_model(shards=160, tensors=20, shape=(16384, 7680))
    shards = {name: f for name, f in files.items() if isinstance(f, GeneratedShard)}
    assert sum(f.size for f in shards.values()) > 800e9
    with FakeHub({"org/big": FakeRepository(files, storage=storage)}) as hub:
        wire = Wire(cap=2_000_000)
        catalog = opened("org/big", hub.endpoint, wire)
        assert catalog.parameters == 160 * 20 * 16384 * 7680
        reads = [request for request in hub.requests if request.range is not None and request.status == 206]
        assert len(reads) == 160
        heads = sum(len(f.head) for f in shards.values())
        assert sum(request.bytes for request in reads) < 1.35 * heads
        assert wire.bytes == hub.bytes_sent < 1_000_000
        hub.clear()
        before = wire.bytes
        wanted = [(info, info.elements - 4096, info.elements) for info in list(catalog.tensors.values())[::100]]
        for (info, start, stop), array in fetch_ranges(catalog, wanted, 4):
            shard = shards[Path(info.shard).name]
            assert array.tobytes() == shard.read(info.begin + 2 * start, info.begin + 2 * stop)
        content = [request for request in hub.requests if request.status == 206]
        assert sum(request.bytes for request in content) == 32 * 8192
        assert wire.bytes - before == hub.bytes_sent


def test_a_header_longer_than_was_guessed_takes_a_second_read_for_the_rest() -> None:
    files = generated_model(shards=1, tensors=400, shape=(8, 8))
    shard = files["model-00001-of-00001.safetensors"]
    assert isinstance(shard, GeneratedShard)
    with FakeHub({"org/a": {WEIGHTS: shard}}) as hub:
        catalog = opened("org/a", hub.endpoint)
        assert len(catalog.tensors) == 400
        reads = hub.of(WEIGHTS)
        assert [request.range for request in reads] == ["bytes=0-4095", f"bytes=4096-{len(shard.head) - 1}"]


def test_shards_without_an_index_are_read_too(tmp_path: Path) -> None:
    files = {name: f for name, f in generated_model(3, 4, (8, 8)).items() if not name.endswith("index.json")}
    with FakeHub({"org/a": files}) as hub:
        assert len(opened("org/a", hub.endpoint).tensors) == 12
        assert len(hub.requests) == 5
    del files["model-00002-of-00003.safetensors"]
    with FakeHub({"org/a": files}) as hub:
        with pytest.raises(CheckpointError, match="1 of 3 shards are missing, first model-00002") as caught:
            opened("org/a", hub.endpoint)
        assert "Its publisher has to add" in str(caught.value)


def index(mapping: dict[str, str]) -> bytes:
    return json.dumps({"weight_map": mapping}).encode()


REFUSED = {
    "nothing": ({}, "no weights in this repository"),
    "configuration only": ({"config.json": b"{}"}, "no weights in this repository"),
    "pickles": ({"pytorch_model.bin": b"PK"}, r"pytorch_model.bin: pickled weights are not .*hf download org/a"),
    "gguf": ({"m.gguf": b"GGUF"}, "only m.gguf. GGUF files are not supported"),
    "adapter": ({"adapter_model.safetensors": ONES}, "an adapter without adapter_config.json"),
    "subfolder": ({"unet/model.safetensors": ONES}, "no weights in this repository"),
    "missing shard": ({"model.safetensors.index.json": index({"w": "a.safetensors"})}, "names shard a.safetensors"),
    "shard elsewhere": ({"model.safetensors.index.json": index({"w": "../a.safetensors"})}, "not a file beside it"),
    "tensor elsewhere": (
        {"model.safetensors.index.json": index({"v": WEIGHTS}), WEIGHTS: ONES}, "the index puts tensor 'v' in"
    ),
    "two checkpoints": (
        {"model.safetensors.index.json": index({"w": "a.safetensors"}), WEIGHTS: ONES, "a.safetensors": ONES},
        "two checkpoints in one folder",
    ),
    "twice": ({"a.safetensors": ONES, "b.safetensors": ONES}, "tensor 'w' is also in org/a@"),
    "bad index": ({"model.safetensors.index.json": b"{", WEIGHTS: ONES}, "not valid JSON"),
    "list for a configuration": ({"config.json": b"[]", WEIGHTS: ONES}, "a JSON object was expected"),
    "empty": ({WEIGHTS: b""}, "the file is empty"),
    "tiny": ({WEIGHTS: b"1234"}, "4 bytes are too few"),
    "pointer": ({WEIGHTS: b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\n"}, "a Git LFS pointer"),
    "gguf inside": ({WEIGHTS: b"GGUF\3\0\0\0\0\0\0\0"}, "not a format that can be read"),
    "huge header": ({WEIGHTS: (1 << 40).to_bytes(8, "little") + b"{}"}, "exceeds 100 MB"),
    "cut header": ({WEIGHTS: (100).to_bytes(8, "little") + b"{}"}, "truncated: the header needs 108"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_checkpoint_is_one_error_that_names_repository_and_commit(case: str) -> None:
    files, words = REFUSED[case]
    with FakeHub({"org/a": files}) as hub:
        with pytest.raises(CheckpointError, match=words) as caught:
            opened("org/a", hub.endpoint)
        assert f"org/a@{hub.served['org/a'].sha}" in str(caught.value.subject)
        assert caught.value.remedy
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rule", VIOLATIONS)
def test_a_hostile_header_is_refused_as_on_the_disk(rule: str, tmp_path: Path) -> None:
    writer, message, tensor = VIOLATIONS[rule]
    writer(tmp_path)
    with FakeHub({"org/a": tmp_path}) as hub:
        with pytest.raises(HeaderError, match=message) as caught:
            opened("org/a", hub.endpoint)
        file = f"org/a@{hub.served['org/a'].sha}/{WEIGHTS}"
        assert caught.value.subject == (file if tensor is None else f"{file}, tensor {tensor!r}")


@pytest.mark.parametrize("rule", LEGAL)
def test_what_only_looks_odd_is_accepted_as_on_the_disk(rule: str, tmp_path: Path) -> None:
    LEGAL[rule](tmp_path)
    expected = open_checkpoint(str(tmp_path)).tensors
    with FakeHub({"org/a": tmp_path}) as hub:
        found = opened("org/a", hub.endpoint).tensors
    assert {name: (t.dtype, t.shape, t.begin) for name, t in found.items()} == {
        name: (t.dtype, t.shape, t.begin) for name, t in expected.items()
    }


def test_a_branch_is_resolved_once_and_its_commit_read_from_then_on(hub: FakeHub) -> None:
    repository = hub.served["org/base"]
    before = repository.sha
    catalog = opened("org/base@main", hub.endpoint)
    repository.commit(family.CODE)
    assert repository.sha != before
    assert_same(catalog, open_checkpoint(str(family.BASE)))
    assert_same(opened(f"org/base@{before}", hub.endpoint), open_checkpoint(str(family.BASE)))
    assert_same(opened("org/base", hub.endpoint), open_checkpoint(str(family.CODE)))


def test_tags_and_pull_requests_are_revisions(hub: FakeHub) -> None:
    hub.served["org/base"].commit(family.DOCS, branch="refs/pr/1")
    catalog = opened("org/base@refs/pr/1", hub.endpoint)
    assert catalog.reference.revision == hub.served["org/base"].branches["refs/pr/1"]
    assert_same(catalog, open_checkpoint(str(family.DOCS)))


def test_what_does_not_exist_says_what(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RemoteError, match=r"org/none: no such repository on .*nor is there a folder of that name"):
        opened("org/none", hub.endpoint)
    with pytest.raises(RemoteError, match="org/base: no revision 'v9'"):
        opened("org/base@v9", hub.endpoint)
    hub.served["org/base"].private = True
    with pytest.raises(RemoteError, match=r"or a private one.*HF_TOKEN"):
        opened("org/base", hub.endpoint)
    monkeypatch.setenv("HF_TOKEN", hub.token)
    assert opened("org/base", hub.endpoint).parameters


def test_a_server_that_is_no_hub_is_an_error(hub: FakeHub) -> None:
    with pytest.raises(RemoteError, match="no such repository"):
        opened("org/base", hub.storage_endpoint)


def test_faults_of_the_listing_and_the_headers_pass(hub: FakeHub) -> None:
    for kind in ("server_error", "truncated", "rate_limited"):
        hub.fault("org/base", kind, file="")
        hub.fault("org/base", kind, file=WEIGHTS)
    pauses = Pauses()
    assert_same(opened("org/base", hub.endpoint, pauses=pauses), open_checkpoint(str(family.BASE)))
    assert len(pauses) == 6


def test_the_budget_covers_listing_and_headers(hub: FakeHub) -> None:
    for cap in (0, 300, 1000, 5000):
        wire = Wire(cap)
        hub.clear()
        with pytest.raises(BudgetExhausted):
            opened("org/base", hub.endpoint, wire)
        assert wire.bytes <= cap


def test_fingerprints_follow_repository_commit_and_content(hub: FakeHub) -> None:
    def fingerprint(given: str) -> str:
        return opened(given, hub.endpoint).fingerprint()

    repository = hub.served["org/base"]
    first = repository.sha
    before = fingerprint("org/base")
    assert before == fingerprint(f"org/base@{first}") == fingerprint("org/base@main")
    assert before != fingerprint("org/code")
    repository.commit(family.BASE)
    assert fingerprint("org/base") != before
    assert fingerprint(f"org/base@{first}") == before


def download(hub: FakeHub, repository: str, *names: str) -> None:
    for name in names:
        hf_hub_download(repository, name, endpoint=hub.endpoint, cache_dir=constants.HF_HUB_CACHE)


def test_what_is_in_the_cache_is_read_from_the_disk(hub: FakeHub) -> None:
    fresh = opened("org/base", hub.endpoint).fingerprint()
    download(hub, "org/base", "config.json", WEIGHTS)
    hub.clear()
    wire = Wire()
    catalog = opened("org/base", hub.endpoint, wire)
    assert_same(catalog, open_checkpoint(str(family.BASE)))
    assert [request.file for request in hub.requests] == [""]
    assert wire.bytes == hub.bytes_sent < 1000
    assert catalog.fingerprint() == fresh


def test_a_cache_of_another_commit_or_cut_off_is_not_used(hub: FakeHub) -> None:
    download(hub, "org/base", WEIGHTS)
    hub.served["org/base"].commit(family.CODE)
    assert_same(opened("org/base", hub.endpoint), open_checkpoint(str(family.CODE)))
    download(hub, "org/base", WEIGHTS)
    (place,) = (Path(constants.HF_HUB_CACHE) / "models--org--base/snapshots" / hub.served["org/base"].sha).iterdir()
    os.truncate(place.resolve(), 1000)
    assert_same(opened("org/base", hub.endpoint), open_checkpoint(str(family.CODE)))


def test_offline_the_cache_is_all_there_is(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    online = opened("org/base", hub.endpoint)
    download(hub, "org/base", "config.json", WEIGHTS)
    download(hub, "org/code", "config.json")
    hub.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for given in ("org/base", "org/base@main", online.reference.address):
        catalog = opened(given, hub.endpoint)
        assert catalog.reference.revision == online.reference.revision
        assert catalog.fingerprint() == online.fingerprint()
        assert_same(catalog, open_checkpoint(str(family.BASE)))
    with pytest.raises(RemoteError, match=r"org/base@v2: HF_HUB_OFFLINE is set, and this revision is not in the local"):
        opened("org/base@v2", hub.endpoint)
    with pytest.raises(RemoteError, match="HF_HUB_OFFLINE is set"):
        opened("org/none", hub.endpoint)
    with pytest.raises(CheckpointError, match="no weights in this repository"):
        opened("org/code", hub.endpoint)
    assert hub.requests == []


def test_offline_a_run_that_needs_more_says_so(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = opened("org/base", hub.endpoint)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(RemoteError, match="HF_HUB_OFFLINE is set, and this is not in the local cache"):
        catalog.source.read(catalog.tensors["lm_head.weight"], 0, 10)


def test_a_cache_without_links_is_read_as_well(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    download(hub, "org/base", "config.json", WEIGHTS)
    snapshot = Path(constants.HF_HUB_CACHE) / "models--org--base/snapshots" / hub.served["org/base"].sha
    for path in snapshot.iterdir():
        target = path.resolve()
        path.unlink()
        shutil.copyfile(target, path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert_same(opened("org/base", hub.endpoint), open_checkpoint(str(family.BASE)))
