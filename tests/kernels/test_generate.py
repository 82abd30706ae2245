"""Where generated kernels are kept: what lies there is executed, so it must be ours."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from reconstruct.kernels import generate


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No usable cache of the user's own, and a temporary folder to fall back to."""
    blocked = tmp_path / "blocked"
    blocked.write_text("a file, so that no folder can be made below it")
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    generate._temporary_folder.cache_clear()
    yield folder
    generate._temporary_folder.cache_clear()


def test_the_users_cache_folder_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert generate.cache_folder() == tmp_path / "merge-reconstruct" / "kernels"
    assert generate.cache_folder().is_dir()


def test_without_one_a_private_temporary_folder_is_used(temporary: Path) -> None:
    folder = generate.cache_folder()
    assert folder.parent == temporary
    assert folder.stat().st_mode & 0o777 == 0o700
    assert generate.cache_folder() == folder


def test_a_temporary_folder_that_others_may_write_to_is_not_trusted(temporary: Path) -> None:
    first = generate.cache_folder()
    first.chmod(0o777)
    generate._temporary_folder.cache_clear()
    second = generate.cache_folder()
    assert second != first
    assert second.stat().st_mode & 0o077 == 0


def test_a_link_in_place_of_the_temporary_folder_is_not_followed(temporary: Path, tmp_path: Path) -> None:
    target = generate.cache_folder()
    target.rename(tmp_path / "elsewhere")
    target.symlink_to(tmp_path / "elsewhere")
    generate._temporary_folder.cache_clear()
    assert generate.cache_folder().resolve() != (tmp_path / "elsewhere")


def test_a_damaged_cached_text_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    body = "@njit(nogil=True)\ndef double(x):\n    return x + x\n"
    assert generate.compiled("double", body)(21) == 42
    (path,) = generate.cache_folder().glob("double_*.py")
    path.write_text("raise SystemExit")
    generate._COMPILED.clear()
    assert generate.compiled("double", body)(4) == 8
