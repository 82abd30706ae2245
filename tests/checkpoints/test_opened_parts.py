"""Headers that were read once: found by the version of the file, and by nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field

from reconstruct.checkpoints.catalog import FileState
from reconstruct.checkpoints.opened_parts import RememberedReads


@dataclass
class Counted:
    """Content that is the version's name over and over."""

    files: dict[str, FileState]
    asked: list[tuple[str, int, int]] = field(default_factory=list)

    def read(self, file: str, begin: int, end: int) -> bytes:
        self.asked.append((file, begin, end))
        return (self.files[file].version.encode() * 100)[begin:end]

    def whole(self, file: str) -> bytes:
        return self.read(file, 0, self.files[file].size)


def reads(version: str, parts: dict[str, bytes], place: str = "") -> tuple[Counted, RememberedReads]:
    files = {name: FileState(name, 50, version) for name in "ab"}
    counted = Counted(files)
    return counted, RememberedReads(counted, files, parts, place)


def test_nothing_is_read_twice_of_one_version_and_everything_of_another() -> None:
    parts: dict[str, bytes] = {}
    counted, remembered = reads("one", parts)
    for _ in range(2):
        assert remembered.read("a", 2, 9) == counted.read("a", 2, 9)
        assert remembered.whole("a") == counted.whole("a")
    assert len(counted.asked) == 2 + 4  # four of them are this test's own
    counted, remembered = reads("one", parts)
    remembered.read("a", 2, 9)
    assert counted.asked == []
    remembered.read("a", 2, 10)
    counted, remembered = reads("two", parts)
    assert remembered.read("a", 2, 9) == counted.read("a", 2, 9)
    assert counted.asked[0] == ("a", 2, 9)


def test_what_has_no_version_or_another_length_is_read_again() -> None:
    parts: dict[str, bytes] = {}
    for version in ("", "one"):
        counted, remembered = reads(version, parts)
        remembered.read("a", 0, 4)
        remembered.read("a", 0, 4)
        assert len(counted.asked) == (2 if version == "" else 1)
    (key,) = parts
    parts[key] = b"cut"
    counted, remembered = reads("one", parts)
    assert remembered.read("a", 0, 4) == b"oneo"


def test_files_of_one_version_and_size_are_not_mistaken_for_one_another() -> None:
    """Times and ETags of object stores: shards that were written together may share them."""
    parts: dict[str, bytes] = {}
    for place in ("s3://bucket/one", "s3://bucket/two"):
        counted, remembered = reads("12:00", parts, place)
        for name in "ab":
            remembered.read(name, 0, 4)
        assert counted.asked == [("a", 0, 4), ("b", 0, 4)]
    assert len(parts) == 4
