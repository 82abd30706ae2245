"""URLs that fsspec opens: the same bits as from a folder, counted, with one clear error for everything else."""

from __future__ import annotations

import uuid
from pathlib import Path

import fsspec
import pytest
from hostile.safetensors_files import VIOLATIONS
from support import family
from support.generated_checkpoint import GeneratedShard, generated_model
from support.hub_fixtures import Pauses

from reconstruct.checkpoints.object_store import open_url
from reconstruct.checkpoints.open import open_checkpoint
from reconstruct.checkpoints.reference import Reference
from reconstruct.checkpoints.wire import Wire
from reconstruct.errors import BudgetExhausted, CheckpointError, RemoteError, UnreachableError

WEIGHTS = "model.safetensors"


@pytest.fixture
def bucket() -> str:
    """A folder of its own in memory, with a trained checkpoint."""
    url = f"memory://{uuid.uuid4().hex}/base"
    upload(url, family.BASE)
    return url


def upload(url: str, folder: Path) -> None:
    memory = fsspec.filesystem("memory")
    for path in folder.iterdir():
        memory.pipe_file(f"{url}/{path.name}", path.read_bytes())


def contents(given: str) -> dict[str, bytes]:
    catalog = open_checkpoint(given)
    return {name: catalog.source.read(info, 0, info.elements).tobytes() for name, info in catalog.tensors.items()}


def test_a_bucket_is_the_same_as_its_folder(bucket: str) -> None:
    expected = contents(str(family.BASE))
    for given in (
        bucket,
        f"{bucket}/",
        f"{bucket}/{WEIGHTS}",
        f"file://{family.BASE}",
        f"file://{family.BASE}/{WEIGHTS}",
    ):
        assert contents(given) == expected
    assert open_checkpoint(bucket).configuration["model_type"] == "qwen3"


def test_what_is_transferred_is_counted_and_capped(bucket: str) -> None:
    wire = Wire(cap=30000)
    catalog = open_checkpoint(bucket, wire)
    assert wire.requests == 2
    assert wire.bytes == 4096 + (family.BASE / "config.json").stat().st_size
    info = catalog.tensors["lm_head.weight"]
    catalog.source.read(info, 0, 1000)
    assert wire.bytes == 4096 + (family.BASE / "config.json").stat().st_size + 2000
    with pytest.raises(BudgetExhausted):
        catalog.source.read(info, 0, 16384)


def test_shards_and_their_index_are_read() -> None:
    url = f"memory://{uuid.uuid4().hex}/sharded"
    files = generated_model(3, 4, (8, 8))
    for name, content in files.items():
        data = content.read(0, content.size) if isinstance(content, GeneratedShard) else content
        fsspec.filesystem("memory").pipe_file(f"{url}/{name}", data)
    assert len(open_checkpoint(url).tensors) == len(open_checkpoint(f"{url}/{WEIGHTS}.index.json").tensors) == 12


def test_fingerprints_follow_the_content(bucket: str) -> None:
    before = open_checkpoint(bucket).fingerprint()
    assert open_checkpoint(bucket).fingerprint() == before
    upload(bucket, family.CODE)
    assert open_checkpoint(bucket).fingerprint() != before


@pytest.mark.parametrize("rule", list(VIOLATIONS)[::5])
def test_a_hostile_header_is_refused_as_on_the_disk(rule: str, tmp_path: Path) -> None:
    writer, message, _ = VIOLATIONS[rule]
    writer(tmp_path)
    url = f"memory://{uuid.uuid4().hex}/bad"
    upload(url, tmp_path)
    with pytest.raises(CheckpointError, match=message) as caught:
        open_checkpoint(url)
    assert url in str(caught.value.subject)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("memory://nowhere/at/all", "cannot be listed"),
        ("file:///nowhere/at/all", "cannot be listed"),
        ("nonsense://bucket/model", "cannot be opened.*nonsense"),
        ("oci://bucket/model", r"needs a package that is not installed.*pip install ocifs"),
    ],
)
def test_what_cannot_be_opened_says_why(url: str, words: str) -> None:
    with pytest.raises(RemoteError, match=words) as caught:
        open_checkpoint(url)
    assert url in str(caught.value)
    assert caught.value.remedy
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(bucket: str) -> None:
    with pytest.raises(RemoteError, match=r"other.safetensors: no such file or folder"):
        open_checkpoint(f"{bucket}/other.safetensors")


def test_pickles_must_be_on_this_machine() -> None:
    url = f"memory://{uuid.uuid4().hex}/old"
    fsspec.filesystem("memory").pipe_file(f"{url}/pytorch_model.bin", b"PK")
    with pytest.raises(CheckpointError, match=r"pickled weights are not read from afar\. Copy it to this machine"):
        open_checkpoint(url)


class Faulty:
    """Wraps `cat_file` of the memory file system: the first answers are what `faults` says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *faults: BaseException | str) -> None:
        memory = fsspec.filesystem("memory")
        self.original, self.faults = memory.cat_file, list(faults)
        monkeypatch.setattr(memory, "cat_file", self)

    def __call__(self, path: str, start: int, end: int) -> bytes:
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, BaseException):
            raise fault
        data: bytes = self.original(path, start=start, end=end)
        return {"short": data[:-1], "long": data + b"x"}.get(fault or "", data)


@pytest.mark.parametrize("fault", [OSError("reset"), TimeoutError(), ConnectionResetError(), "short", "long"])
def test_what_passes_is_asked_again(bucket: str, monkeypatch: pytest.MonkeyPatch, fault: BaseException | str) -> None:
    pauses, wire = Pauses(), Wire()
    catalog = open_url(Reference.parse(bucket), wire, retries=pauses.policy())
    info, before = catalog.tensors["lm_head.weight"], wire.bytes
    Faulty(monkeypatch, fault)
    assert catalog.source.read(info, 5, 50).tobytes() == contents(str(family.BASE))["lm_head.weight"][10:100]
    assert pauses == [0.5]
    assert wire.bytes - before == {"short": 179, "long": 181}.get(str(fault), 90)


def test_what_does_not_pass_ends_in_one_error(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = open_url(Reference.parse(bucket), Wire(), retries=Pauses().policy())
    info = catalog.tensors["lm_head.weight"]
    Faulty(monkeypatch, *["short"] * 4)
    with pytest.raises(UnreachableError, match=r"model.safetensors: OSError: 89 of 90 bytes \(4 attempts\)"):
        catalog.source.read(info, 5, 50)
    for error in (PermissionError(13, "denied"), FileNotFoundError(2, "gone"), ValueError("credentials")):
        Faulty(monkeypatch, error)
        with pytest.raises(RemoteError, match=f"cannot be read \\({type(error).__name__}"):
            catalog.source.read(info, 60, 70)
