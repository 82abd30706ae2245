"""Weights from afar: every byte once for all passes over a tensor, memory bounded, the same bits as from the disk."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from support import family

from reconstruct.checkpoints import remote_source
from reconstruct.checkpoints.catalog import TensorInfo
from reconstruct.checkpoints.open import open_checkpoint
from reconstruct.checkpoints.remote_source import RemoteSource
from reconstruct.errors import BudgetExhausted, CheckpointError, RemoteError

PATH = family.BASE / "model.safetensors"
LOCAL = open_checkpoint(str(family.BASE))
HEAD = LOCAL.tensors["lm_head.weight"]


class Reader:
    """Bytes of a file; notes what is asked, and raises `error` if there is one."""

    def __init__(self, data: bytes) -> None:
        self.data, self.asked, self.error = data, list[tuple[int, int]](), None
        self.gate: threading.Event | None = None

    def read(self, file: str, begin: int, end: int) -> bytes:
        self.asked.append((begin, end))
        if self.gate is not None:
            assert self.gate.wait(20)
        if self.error is not None:
            raise self.error
        assert file == "model"
        return self.data[begin:end]

    def whole(self, file: str) -> bytes:
        raise AssertionError("weights are never read whole")


def made(keep: int = 1 << 30, cached: bool = False) -> tuple[RemoteSource, Reader]:
    reader = Reader(PATH.read_bytes())
    shard = HEAD.shard
    return RemoteSource(reader, {shard: "model"}, {shard: PATH} if cached else {}, keep=keep), reader


def expected(start: int, stop: int, tensor: TensorInfo = HEAD) -> bytes:
    return LOCAL.source.read(tensor, start, stop).tobytes()


def test_a_read_is_one_request_of_exactly_these_bytes() -> None:
    source, reader = made()
    block = source.read(HEAD, 100, 300)
    assert block.tobytes() == expected(100, 300)
    assert block.dtype == np.uint16
    assert not block.flags.writeable
    assert reader.asked == [(HEAD.begin + 200, HEAD.begin + 600)]
    assert len(source.read(HEAD, 5, 5)) == 0
    assert len(reader.asked) == 1


def test_all_passes_over_a_tensor_fetch_it_once() -> None:
    source, reader = made()
    source.read(HEAD, 0, HEAD.elements)
    for start in range(0, HEAD.elements, 1000):
        stop = min(start + 1000, HEAD.elements)
        source.ahead(HEAD, start, stop)
        assert source.read(HEAD, start, stop).tobytes() == expected(start, stop)
        source.release(HEAD, start, stop)
    assert source.read(HEAD, 0, HEAD.elements).tobytes() == expected(0, HEAD.elements)
    assert len(reader.asked) == 1


def test_what_is_kept_is_bounded_and_the_oldest_goes_first() -> None:
    source, reader = made(keep=4000)
    for start in (0, 500, 1000, 1500, 2000):  # a thousand bytes each
        source.read(HEAD, start, start + 500)
    source.read(HEAD, 1000, 1500)
    assert len(reader.asked) == 5
    source.read(HEAD, 0, 500)
    source.read(HEAD, 1000, 1500)
    assert len(reader.asked) == 6
    assert source._size <= 4000
    assert source.read(HEAD, 0, 8000).tobytes() == expected(0, 8000)  # larger than all that is kept
    assert len(source._kept) == 1


def test_few_ranges_are_kept_however_small() -> None:
    source, _ = made()
    for start in range(1000):
        source.read(HEAD, start, start + 1)
    assert len(source._kept) <= 128


def test_a_large_range_comes_in_parts_and_lies_in_a_nameless_file(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(remote_source, "_PART", 5000)
    monkeypatch.setattr(remote_source, "_IN_MEMORY", 4000)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    source, reader = made()
    block = source.read(HEAD, 0, HEAD.elements)
    assert block.tobytes() == expected(0, HEAD.elements)
    assert not block.flags.writeable
    assert len(reader.asked) == -(-2 * HEAD.elements // 5000)
    assert sum(end - begin for begin, end in reader.asked) == 2 * HEAD.elements
    assert list(tmp_path.iterdir()) == []
    source.release(HEAD, 0, HEAD.elements)
    assert source.read(HEAD, 3, HEAD.elements - 3).tobytes() == expected(3, HEAD.elements - 3)
    assert block.tobytes() == expected(0, HEAD.elements)


def test_a_full_disk_is_one_error(monkeypatch) -> None:
    monkeypatch.setattr(remote_source, "_IN_MEMORY", 4000)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(CheckpointError, match=r"no room for 32,768 bytes .*No space left.*TMPDIR"):
        made()[0].read(HEAD, 0, HEAD.elements)


def test_reading_ahead_spares_the_read_its_request() -> None:
    source, reader = made()
    reader.gate = threading.Event()
    source.ahead(HEAD, 0, 1000)
    source.ahead(HEAD, 0, 1000)
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(source.read, HEAD, 0, 1000), pool.submit(source.read, HEAD, 200, 300)]
        reader.gate.set()
        assert waiting[0].result().tobytes() == expected(0, 1000)
        assert waiting[1].result().tobytes() == expected(200, 300)
    assert reader.asked == [(HEAD.begin, HEAD.begin + 2000)]


def test_reading_ahead_never_takes_more_than_half_of_what_is_kept() -> None:
    source, reader = made(keep=3000)
    source.ahead(HEAD, 0, 1000)
    source.ahead(HEAD, 7, 7)
    assert reader.asked == []


def test_an_error_reaches_the_reader_and_is_not_kept() -> None:
    source, reader = made()
    reader.error = RemoteError("gone")
    for _ in range(2):
        with pytest.raises(RemoteError, match="gone"):
            source.read(HEAD, 0, 100)
    reader.error = None
    assert source.read(HEAD, 0, 100).tobytes() == expected(0, 100)
    assert len(reader.asked) == 3


def test_a_spent_budget_in_one_part_is_the_readers_error(monkeypatch) -> None:
    monkeypatch.setattr(remote_source, "_PART", 1000)
    monkeypatch.setattr(remote_source, "_IN_MEMORY", 500)
    source, reader = made()
    reader.error = BudgetExhausted(10, 5, 100)
    with pytest.raises(BudgetExhausted):
        source.read(HEAD, 0, HEAD.elements)
    assert source._size == 0
    assert not source._kept


def test_many_threads_get_their_own_bits() -> None:
    source, _ = made(keep=20000)
    infos = list(LOCAL.tensors.values())

    def right(position: int) -> bool:
        info = infos[position % len(infos)]
        return source.read(info, 0, info.elements).tobytes() == expected(0, info.elements, info)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(right, range(300)))


def test_a_copy_on_the_disk_is_mapped_and_nothing_is_asked() -> None:
    source, reader = made(cached=True)
    source.ahead(HEAD, 0, 100)
    assert source.read(HEAD, 0, HEAD.elements).tobytes() == expected(0, HEAD.elements)
    source.release(HEAD, 0, HEAD.elements)
    assert bytes(source.fetch(HEAD.shard, HEAD.begin, HEAD.begin + 20)) == expected(0, 10)
    assert reader.asked == []


@pytest.mark.parametrize(("start", "stop"), [(-1, 4), (0, 16385), (5, 4)])
def test_elements_outside_a_tensor_are_refused(start: int, stop: int) -> None:
    for cached in (False, True):
        with pytest.raises(ValueError, match=f"elements {start} to {stop} of a tensor of 16384"):
            made(cached=cached)[0].read(HEAD, start, stop)
