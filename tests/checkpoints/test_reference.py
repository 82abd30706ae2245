"""What a user's words mean: what lies on the disk goes first, nothing is guessed."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconstruct.checkpoints.open import open_checkpoint
from reconstruct.checkpoints.reference import Reference, ReferenceKind
from reconstruct.errors import CheckpointError


@pytest.mark.parametrize(
    ("given", "repository", "revision"),
    [
        ("org/name", "org/name", None),
        ("org/name@main", "org/name", "main"),
        ("org/name@refs/pr/3", "org/name", "refs/pr/3"),
        ("Qwen/Qwen3.5-0.6B@v1.0", "Qwen/Qwen3.5-0.6B", "v1.0"),
        ("org/name@" + "a" * 40, "org/name", "a" * 40),
        ("hf://org/name@main", "org/name", "main"),
        ("org/model.safetensors@main", "org/model.safetensors", "main"),
        ("_x/y", "_x/y", None),
    ],
)
def test_org_slash_name_is_a_repository(given: str, repository: str, revision: str | None) -> None:
    found = Reference.parse(given)
    assert (found.kind, found.location, found.revision) == (ReferenceKind.REPOSITORY, repository, revision)
    assert found.given == given


def test_a_folder_of_that_name_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Reference.parse("org/name").kind is ReferenceKind.REPOSITORY
    (tmp_path / "org" / "name").mkdir(parents=True)
    found = Reference.parse("org/name")
    assert (found.kind, found.path) == (ReferenceKind.FOLDER, tmp_path / "org" / "name")
    (tmp_path / "org" / "name@main").mkdir()
    assert Reference.parse("org/name@main").path == tmp_path / "org" / "name@main"


@pytest.mark.parametrize(
    "given", ["s3://bucket/model", "gs://bucket/model/", "memory://x", "file:///tmp/x", "S3://b/m"]
)
def test_a_scheme_makes_a_url(given: str) -> None:
    found = Reference.parse(given)
    assert (found.kind, found.location, found.given) == (ReferenceKind.URL, given.rstrip("/"), given)


@pytest.mark.parametrize(
    "given", ["model", "./org/name", "../org/name", "~/org/name", "/org/name", "a/b/c", "org/", "/name", "org/na me",
              "org/name@", "org/name@a b", "org/name@a@b", "org/-name", "org/name.", "x/model.safetensors", "x/m.gguf",
              "runs/pytorch_model.bin", "", "a\0b", "~nobody-at-all/x"],
)  # fmt: skip
def test_everything_else_is_a_path_where_nothing_lies(given: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    if given == "":  # the working directory itself, which holds no weights
        assert Reference.parse(given).kind is ReferenceKind.FOLDER
        return
    with pytest.raises(CheckpointError, match=r"no such file or folder|cannot be read") as caught:
        Reference.parse(given)
    assert caught.value.remedy


@pytest.mark.parametrize("given", ["hf://org/name/sub", "hf://datasets/org/name", "hf://org"])
def test_a_part_of_a_repository_is_refused(given: str) -> None:
    with pytest.raises(CheckpointError, match="no whole model repository"):
        Reference.parse(given)


def test_a_page_of_the_hub_says_what_to_give_instead() -> None:
    with pytest.raises(CheckpointError, match="org/name@revision"):
        Reference.parse("https://huggingface.co/org/name/tree/main")


def test_the_address_names_the_same_checkpoint_from_anywhere(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    assert Reference.parse("model").address == str(tmp_path / "model")
    assert Reference.parse("org/name@main").address == "org/name@main"
    assert Reference.parse("org/name").address == "org/name"
    assert Reference.parse("s3://b/m/").address == "s3://b/m"


def test_what_must_be_on_this_machine_says_so() -> None:
    with pytest.raises(CheckpointError, match=r"org/name@main: not on this machine\. Download it first"):
        _ = Reference.parse("org/name@main").path


def test_a_missing_path_is_not_looked_up_anywhere(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file or folder"):
        open_checkpoint(str(tmp_path / "org" / "name"))
