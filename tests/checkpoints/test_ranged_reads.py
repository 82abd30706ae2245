"""Ranged reads against a server with every fault: the right bytes or one clear error, and never a wrong byte."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support import family
from support.fake_hub import FakeHub
from support.fake_repository import FakeRepository
from support.hub_fixtures import Pauses, alone

from reconstruct.checkpoints.catalog import FileState
from reconstruct.checkpoints.hub_requests import HubRequests
from reconstruct.checkpoints.ranged_reads import RangedReads
from reconstruct.checkpoints.wire import Wire
from reconstruct.errors import BudgetExhausted, CheckpointError, RemoteError, UnreachableError

FILE = "model.safetensors"
DATA = (family.BASE / FILE).read_bytes()


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    alone(monkeypatch, tmp_path)


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub({"org/a": family.BASE, "org/s": FakeRepository(family.BASE, storage=True)}) as hub:
        yield hub


class Reading:
    """A reader of one repository, and what it took."""

    def __init__(self, hub: FakeHub, repository: str = "org/a", cap: int | None = None, timeout: float = 20.0) -> None:
        self.hub, self.wire, self.pauses = hub, Wire(cap), Pauses()
        commit = hub.served[repository].at("main")
        files = {name: FileState(name, content.size, commit.etag(name)) for name, content in commit.files.items()}
        requests = HubRequests(hub.endpoint, self.wire, self.pauses.policy(), timeout)
        self.reads = RangedReads(requests, repository, commit.sha, files)

    def __call__(self, begin: int = 1000, end: int = 3000) -> bytes:
        return self.reads.read(FILE, begin, end)

    def right(self, begin: int = 1000, end: int = 3000) -> bool:
        return self(begin, end) == DATA[begin:end]


@pytest.fixture(params=["org/a", "org/s"])
def reading(hub: FakeHub, request: pytest.FixtureRequest) -> Reading:
    return Reading(hub, request.param)


def test_exactly_the_range_is_sent(reading: Reading) -> None:
    assert reading.right(0, 1)
    assert reading.right(len(DATA) - 7, len(DATA))
    assert reading.right(5, len(DATA) - 5)
    content = [request for request in reading.hub.requests if request.status == 206]
    assert [request.bytes for request in content] == [1, 7, len(DATA) - 10]
    assert reading.wire.bytes == reading.hub.bytes_sent
    assert reading.wire.requests == len(reading.hub.requests)
    assert reading.pauses == []


@pytest.mark.parametrize(("begin", "end"), [(-1, 4), (4, 4), (5, 4), (0, len(DATA) + 1)])
def test_a_range_outside_of_the_file_is_no_request(reading: Reading, begin: int, end: int) -> None:
    with pytest.raises(ValueError, match=f"bytes {begin} to {end} of {FILE}, which has {len(DATA)}"):
        reading(begin, end)
    assert reading.hub.requests == []


@pytest.mark.parametrize(
    ("kind", "value"),
    [("server_error", 500), ("server_error", 502), ("server_error", 503), ("server_error", 504), ("server_error", 408),
     ("rate_limited", None), ("truncated", None), ("reset", None), ("wrong_content_range", None), ("short", None),
     ("other_range", None)],
)  # fmt: skip
@pytest.mark.parametrize("times", [1, 3])
def test_what_passes_is_asked_again_until_it_is_right(
    reading: Reading, kind: str, value: int | None, times: int
) -> None:
    reading.hub.fault(reading.reads._repository, kind, times=times, value=value)
    assert reading.right()
    assert reading.pauses == [0.5, 1.0, 2.0][:times]
    sent = reading.hub.bytes_sent
    if kind == "reset":  # what a reset destroyed may have arrived or not
        assert 2000 <= reading.wire.bytes <= sent
    else:  # an answer that is refused by its head counts as if all of it had come
        assert sent <= reading.wire.bytes <= sent + (times if kind == "short" else 0)


@pytest.mark.parametrize(
    ("kind", "words"),
    [("server_error", "status 503"), ("rate_limited", "status 429"), ("truncated", "RemoteProtocolError"),
     ("reset", "Error"), ("wrong_content_range", "Content-Range 'bytes 1001-2999/"), ("short", "1999"),
     ("other_range", "Content-Range 'bytes 999-2998/")],
)  # fmt: skip
def test_what_does_not_pass_ends_in_one_error_that_names_the_file(reading: Reading, kind: str, words: str) -> None:
    reading.hub.fault(reading.reads._repository, kind, times=None)
    with pytest.raises(UnreachableError, match=words) as caught:
        reading()
    assert FILE in str(caught.value)
    assert "4 attempts" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len([r for r in reading.hub.requests if r.status != 302]) == 4
    assert len(reading.pauses) == 3


@pytest.mark.parametrize(
    ("kind", "words"),
    [("range_ignored", "ignores ranges"), ("etag_change", "changed while it was read"), ("encoded", "encodes"),
     ("wrong_total", "changed while it was read")],
)  # fmt: skip
def test_what_no_repetition_would_change_is_an_error_at_once(reading: Reading, kind: str, words: str) -> None:
    assert reading.right()
    reading.hub.clear()
    reading.hub.fault(reading.reads._repository, kind)
    with pytest.raises(RemoteError, match=words) as caught:
        reading(5000, 6000)
    assert FILE in str(caught.value)
    assert reading.pauses == []
    assert reading.wire.bytes <= 2000 + 2000 + 400  # the body of the whole file was not read
    assert isinstance(caught.value, CheckpointError)
    assert not isinstance(caught.value, UnreachableError)


def test_an_answer_for_another_commit_is_refused(hub: FakeHub) -> None:
    hub.fault("org/a", "other_commit")
    with pytest.raises(RemoteError, match="answers for commit ffff"):
        Reading(hub)()


def test_the_first_contact_decides_what_the_file_is(hub: FakeHub) -> None:
    reading = Reading(hub)
    hub.fault("org/a", "etag_change", times=1)
    reading()  # whatever the server says first
    with pytest.raises(RemoteError, match="its ETag was another, and is"):
        reading()


def test_storage_that_has_another_file_than_the_listing_is_refused(hub: FakeHub) -> None:
    reading = Reading(hub, "org/s")
    reading.reads._files = {FILE: FileState(FILE, len(DATA), "listed")}
    with pytest.raises(RemoteError, match="the repository lists listed"):
        reading()
    reading.reads._files = {FILE: FileState(FILE, len(DATA) - 1, hub.served["org/s"].at("main").etag(FILE))}
    with pytest.raises(RemoteError, match=f"it has {len(DATA)} bytes, the repository lists {len(DATA) - 1}"):
        reading()


@pytest.mark.parametrize(
    ("header", "wait"),
    [(7, 7.0), ("0", 0.5), (100000, 300.0), ("Sun, 01 Nov 2026 12:00:42 GMT", 42.0), ("soon", 0.5),
     ("Sun, 01 Nov 2026 11:00:00 GMT", 0.5)],
)  # fmt: skip
def test_a_server_that_says_when_is_heard(hub: FakeHub, header: object, wait: float) -> None:
    hub.fault("org/a", "rate_limited", value=header)
    reading = Reading(hub)
    assert reading.right()
    assert reading.pauses == [wait]


def test_a_slow_server_is_left_and_asked_again(hub: FakeHub) -> None:
    hub.fault("org/a", "slow", times=1, value=1.0)
    reading = Reading(hub, timeout=0.2)
    assert reading.right()
    assert reading.pauses == [0.5]


def test_storage_is_asked_directly_once_its_address_is_known(hub: FakeHub) -> None:
    reading = Reading(hub, "org/s")
    for begin in range(0, 50000, 10000):
        assert reading.right(begin, begin + 100)
    assert [request.status for request in hub.requests] == [302, *[206] * 5]
    assert [request.storage for request in hub.requests] == [False, *[True] * 5]


def test_an_address_that_expired_is_asked_for_anew(hub: FakeHub) -> None:
    reading = Reading(hub, "org/s")
    assert reading.right()
    hub.expire()
    hub.clear()
    assert reading.right(7000, 9000)
    assert [request.status for request in hub.requests] == [403, 302, 206]
    assert len(reading.pauses) == 1


def test_storage_never_gets_the_token(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", hub.token)
    assert Reading(hub, "org/s").right()
    own, storage = hub.requests
    assert (own.storage, own.authorization) == (False, f"Bearer {hub.token}")
    assert (storage.storage, storage.authorization) == (True, None)


@pytest.mark.parametrize("token", [None, "hf_another"])
def test_a_gated_repository_says_where_access_is_asked_for(
    hub: FakeHub, token: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    hub.served["org/a"].gated = True
    reading = Reading(hub)
    with pytest.raises(RemoteError, match="a gated repository, and no access to it") as caught:
        reading()
    for words in ("org/a", f"{hub.endpoint}/org/a", "HF_TOKEN", "hf auth login"):
        assert words in str(caught.value)
    assert reading.pauses == []
    monkeypatch.setenv("HF_TOKEN", hub.token)
    assert Reading(hub).right()


def test_refused_credentials_name_the_repository(hub: FakeHub) -> None:
    hub.fault("org/a", "unauthorised")
    with pytest.raises(RemoteError, match=r"org/a: access denied \(status 401\).*hf auth login"):
        Reading(hub)()


def test_a_file_that_went_away_is_named(hub: FakeHub) -> None:
    reading = Reading(hub)
    del hub.served["org/a"].at("main").files[FILE]
    with pytest.raises(RemoteError, match=f"{FILE}: no such file at this revision"):
        reading()


def test_a_budget_is_never_passed(hub: FakeHub) -> None:
    reading = Reading(hub, cap=5000)
    assert reading.right(0, 2000)
    assert reading.right(2000, 4000)
    with pytest.raises(BudgetExhausted, match=r"a read of 1,001 bytes .* of which 1,000 are left"):
        reading(4000, 5001)
    assert reading.right(4000, 5000)
    assert reading.wire.bytes == hub.bytes_sent == 5000
    assert len(hub.requests) == 3


def test_failed_attempts_use_the_budget_up(hub: FakeHub) -> None:
    hub.fault("org/a", "truncated", times=None)
    reading = Reading(hub, cap=3500)
    with pytest.raises(BudgetExhausted):
        reading(0, 2000)
    assert reading.wire.bytes == hub.bytes_sent == 2000
    assert len(hub.requests) == 2


def test_many_threads_read_what_one_would(hub: FakeHub) -> None:
    for kind in ("server_error", "truncated", "reset", "rate_limited"):
        hub.fault("org/s", kind, times=2, after=5)
    reading = Reading(hub, "org/s")
    ranges = [(begin, begin + 3000) for begin in range(0, 300000, 5000)]
    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(lambda place: reading.right(*place), ranges))


def test_a_server_that_is_not_there_is_an_error_of_its_own(hub: FakeHub) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    reading = Reading(hub)
    hub.endpoint = f"http://127.0.0.1:{port}"
    reading = Reading(hub)
    with pytest.raises(UnreachableError, match=r"ConnectError.*4 attempts\)\. Try again later"):
        reading()


@pytest.mark.parametrize("endpoint", ["nonsense", "ftp://127.0.0.1"])
def test_an_endpoint_that_is_no_address_is_an_error(hub: FakeHub, endpoint: str) -> None:
    hub.endpoint = endpoint
    with pytest.raises(RemoteError):
        Reading(hub)()


def test_redirects_in_a_circle_end(hub: FakeHub) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        answer = b"HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

        def serve() -> None:
            for _ in range(5):
                connection, _ = listener.accept()
                connection.recv(65536)
                connection.sendall(answer)
                connection.close()

        threading.Thread(target=serve, daemon=True).start()
        hub.endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(RemoteError, match="more than 5 redirects"):
            Reading(hub)()


def test_a_small_file_comes_whole_and_checked(hub: FakeHub) -> None:
    expected = (family.BASE / "config.json").read_bytes()
    reading = Reading(hub)
    for kind in ("truncated", "short", "server_error"):
        hub.fault("org/a", kind)
    assert reading.reads.whole("config.json") == expected
    assert len(hub.requests) == 4
