"""A Hugging Face Hub on the loopback: a real HTTP server with the routes that reading a model needs, which logs every
request and fails on demand.

    with FakeHub({"org/a": folder, "org/big": FakeRepository({"model.safetensors": content}, storage=True)}) as hub:
        hub.endpoint                            # pass it on, or set HF_ENDPOINT
        hub.fault("org/a", "truncated", times=2)
        hub.requests, hub.bytes_sent            # what was asked, and what was sent

A file is bytes, a path, or an object with `size` and `read(start, stop) -> bytes`. With `storage=True` a repository's
weights come from another port, behind signed addresses, as those of a real Hub do.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

from support.fake_repository import Commit, Content, FakeRepository, Fault, Given, InMemory

__all__ = ["FakeHub", "Logged"]

_PIECE = 1 << 16
_RESOLVE = re.compile(r"^/(?P<repository>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)$")
_API = re.compile(r"^/api/models/(?P<repository>[^/]+/[^/]+?)(?:/(?P<what>revision|tree)/(?P<revision>[^/]+))?$")
_RANGE = re.compile(r"^bytes=(\d+)-(\d+)$")
#: Faults of answers with content. Others are switches of a repository: gated, private, storage.
_FAULTS = {
    "slow", "rate_limited", "server_error", "range_ignored", "truncated", "etag_change", "wrong_content_range",
    "wrong_total", "reset", "encoded", "other_commit", "unauthorised", "other_range", "short",
}  # fmt: skip
#: What some of them add to an answer.
_SPOILED_HEADERS = {
    "etag_change": {"ETag": '"another"'}, "other_commit": {"X-Repo-Commit": "f" * 40},
    "encoded": {"Content-Encoding": "gzip"},
}  # fmt: skip


@dataclass
class Logged:
    """One request and what was answered. `storage`: it came to the storage port; `authorization`: its token."""

    method: str
    path: str
    range: str | None
    authorization: str | None
    storage: bool
    status: int = 0
    bytes: int = 0

    @property
    def file(self) -> str:
        """Name of the file that was asked for; "" for the API."""
        return "" if self.path.startswith("/api/") else unquote(urlsplit(self.path).path.rsplit("/", 1)[-1])


@dataclass
class FakeHub:
    """The server. `requests` in the order in which they came; `token`: the one that opens gated repositories; `served`:
    the repositories by name, whose commits and switches may change while it runs; `page`: repositories that a page of
    a list has at most; `most_at_once`: answers that were under way at a time.
    """

    repositories: Mapping[str, FakeRepository | Given]
    token: str = "hf_let_me_in"
    page: int = 1000
    most_at_once: int = 0
    requests: list[Logged] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    _signatures: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _under_way: int = 0

    def __post_init__(self) -> None:
        self.served = {
            name: value if isinstance(value, FakeRepository) else FakeRepository(value)
            for name, value in self.repositories.items()
        }

    def __enter__(self) -> Self:
        self._servers = [_Server(self, storage=False), _Server(self, storage=True)]
        self.endpoint, self.storage_endpoint = (f"http://127.0.0.1:{s.server_address[1]}" for s in self._servers)
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Around one answer."""
        with self._lock:
            self._under_way += 1
            self.most_at_once = max(self.most_at_once, self._under_way)
        try:
            yield
        finally:
            with self._lock:
                self._under_way -= 1

    @property
    def bytes_sent(self) -> int:
        """Bytes of all bodies. A client may have the last byte before it is on the log: that is waited for."""
        until = time.monotonic() + 2
        while self._under_way and time.monotonic() < until:
            time.sleep(0.002)
        return sum(request.bytes for request in self.requests)

    def of(self, file: str) -> list[Logged]:
        """The requests for one file."""
        return [request for request in self.requests if request.file == file]

    def clear(self) -> None:
        """Forget the requests so far."""
        self.requests.clear()

    def fault(
        self, repository: str, kind: str, file: str | None = None, times: int | None = 1, value: Any = None,
        after: int = 0,
    ) -> None:  # fmt: skip
        """Spoil the next `times` answers (None: all), after `after` good ones, that have content of `file`; where
        `repository` is "", lists of repositories.

        `value`: seconds of "slow", Retry-After of "rate_limited", status of "server_error".
        """
        if kind not in _FAULTS:
            raise ValueError(f"no fault {kind!r}: there are {sorted(_FAULTS)}")
        faults = self.served[repository].faults if repository else self.faults
        faults.append(Fault(kind, file, times, value, after))

    def expire(self) -> None:
        """Signed addresses handed out so far open nothing any more."""
        with self._lock:
            self._signatures.clear()

    def sign(self, path: str) -> str:
        """A storage address for a path of the Hub."""
        with self._lock:
            signature = hashlib.sha1(f"{path} {len(self._signatures)} {time.monotonic_ns()}".encode()).hexdigest()
            self._signatures.add(signature)
        return f"{self.storage_endpoint}{path}?signature={signature}"

    def signed(self, query: str) -> bool:
        """Whether a signature still opens something."""
        with self._lock:
            return query.removeprefix("signature=") in self._signatures

    def spoiled(self, faults: list[Fault], file: str) -> Fault | None:
        """The fault that this answer has."""
        with self._lock:
            for fault in faults:
                if fault.file not in {None, file} or fault.times == 0:
                    continue
                if fault.after > 0:
                    fault.after -= 1
                    continue
                if fault.times is not None:
                    fault.times -= 1
                return fault
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, hub: FakeHub, *, storage: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hub, self.storage = hub, storage

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        with self.server.hub.serving():
            self._serve()

    def do_HEAD(self) -> None:
        with self.server.hub.serving():
            self._serve()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """The log is `FakeHub.requests`."""

    def _serve(self) -> None:
        hub = self.server.hub
        self.logged = Logged(
            self.command, self.path, self.headers.get("Range"), self.headers.get("Authorization"), self.server.storage
        )
        hub.requests.append(self.logged)
        parts = urlsplit(self.path)
        if match := _RESOLVE.match(parts.path):
            if self.server.storage and not hub.signed(parts.query):
                return self._answer(
                    403, b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
                )
            return self._resolve(match["repository"], unquote(match["revision"]), unquote(match["file"]))
        if parts.path == "/api/models" and not self.server.storage:
            return self._list(parse_qs(parts.query))
        if (match := _API.match(parts.path)) and not self.server.storage:
            return self._api(match["repository"], match["what"], unquote(match["revision"] or "main"))
        return self._answer(404, b"not a page of this server")

    def _known(self, name: str, revision: str) -> tuple[FakeRepository, Commit] | None:
        """The repository and commit, or None after a refusal was sent."""
        repository = self.server.hub.served.get(name)
        allowed = self.server.storage or self.headers.get("Authorization") == f"Bearer {self.server.hub.token}"
        if repository is None or (repository.private and not allowed):
            self._refuse(404 if allowed else 401, "RepoNotFound", "Repository not found")
        elif (commit := repository.at(revision)) is None:
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        else:
            return repository, commit
        return None

    def _refuse(self, status: int, code: str, message: str) -> None:
        body = json.dumps({"error": message}).encode()
        self._answer(status, body, {"X-Error-Code": code, "X-Error-Message": message})

    def _api(self, name: str, what: str | None, revision: str) -> None:
        if (known := self._known(name, revision)) is None:
            return
        repository, commit = known
        fault = self.server.hub.spoiled(repository.faults, "")
        files = [
            {"name": file, "size": content.size, "oid": commit.etag(file)} for file, content in commit.files.items()
        ]
        if what == "tree":
            found: Any = [{"type": "file", "path": f["name"], "size": f["size"], "oid": f["oid"]} for f in files]
        else:
            siblings = [{"rfilename": f["name"], "size": f["size"], "blobId": f["oid"]} for f in files]
            found = {
                "id": name,
                "modelId": name,
                "sha": commit.sha,
                "private": repository.private,
                "siblings": siblings,
            }
        body = InMemory(json.dumps(found).encode())
        self._content(body, {"Content-Type": "application/json"}, fault, None)

    def _list(self, query: dict[str, list[str]]) -> None:
        """The repositories that have every tag of `filter`, one page of them, with a link to the next one."""
        hub = self.server.hub
        opened = self.headers.get("Authorization") == f"Bearer {hub.token}"
        chosen = [
            (name, repository)
            for name, repository in hub.served.items()
            if (opened or not repository.private) and {*query.get("filter", [])} <= {*repository.tags}
        ]
        if query.get("sort") == ["downloads"]:
            chosen.sort(key=lambda item: -item[1].downloads)
        start = int(query.get("cursor", ["0"])[0])
        stop = start + min(int(query.get("limit", ["1000"])[0]), hub.page)
        wanted = query.get("expand", ["downloads", "tags", "private"])
        page = [
            {"_id": f"{number:024x}", "id": name} | {key: getattr(repository, key) for key in wanted}
            for number, (name, repository) in enumerate(chosen[start:stop], start)
        ]
        headers = {"Content-Type": "application/json"}
        if stop < len(chosen):
            following = urlencode(query | {"cursor": [str(stop)]}, doseq=True)
            headers["Link"] = f'<{hub.endpoint}/api/models?{following}>; rel="next"'
        self._content(InMemory(json.dumps(page).encode()), headers, hub.spoiled(hub.faults, ""), None)

    def _resolve(self, name: str, revision: str, file: str) -> None:
        if (known := self._known(name, revision)) is None:
            return
        repository, commit = known
        hub, own = self.server.hub, not self.server.storage
        token = self.headers.get("Authorization")
        headers = {"ETag": f'"{commit.etag(file)}"' if file in commit.files else "", "Accept-Ranges": "bytes"}
        if own and repository.gated and token != f"Bearer {hub.token}":
            self._refuse(403 if token else 401, "GatedRepo", f"Access to {name} is restricted")
        elif (content := commit.files.get(file)) is None:
            self._refuse(404, "EntryNotFound", "Entry not found")
        elif own and repository.storage and not file.endswith(".json"):
            linked = {"X-Linked-Etag": headers["ETag"], "X-Linked-Size": str(content.size), "X-Repo-Commit": commit.sha}
            location = hub.sign(urlsplit(self.path).path)
            self._answer(302, f"Found. Redirecting to {location}".encode(), linked | {"Location": location})
        else:
            headers |= {"X-Repo-Commit": commit.sha} if own else {}
            self._content(content, headers, hub.spoiled(repository.faults, file), self.headers.get("Range"))

    def _content(self, content: Content, headers: dict[str, str], fault: Fault | None, wanted: str | None) -> None:
        """Content or a part of it, spoiled as told."""
        if fault is not None and self._refused_by(fault):
            return
        kind = fault.kind if fault is not None else ""
        start, stop, status = 0, content.size, 200
        if wanted is not None and kind != "range_ignored":
            match = _RANGE.match(wanted)
            if match is None or int(match[1]) >= content.size:
                self._answer(416, b"", {"Content-Range": f"bytes */{content.size}"})
                return
            start, stop, status = int(match[1]), min(int(match[2]) + 1, content.size), 206
            if kind == "other_range":  # an honest answer to another question
                start, stop = max(start - 1, 0), stop - 1
            total = content.size + (1 if kind == "wrong_total" else 0)
            shown = start + 1 if kind == "wrong_content_range" else start
            headers["Content-Range"] = f"bytes {shown}-{stop - 1}/{total}"
        if kind == "short":  # the head of the right answer, and a whole body that is shorter
            stop -= 1
        announced = stop - start
        if kind in {"truncated", "reset"}:
            stop = start + announced // 2
            self.close_connection = True
        self._send(status, _pieces(content, start, stop), headers | _SPOILED_HEADERS.get(kind, {}), announced)
        if kind == "reset":  # with a linger of 0 seconds, closing sends RST
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _refused_by(self, fault: Fault) -> bool:
        """Whether the fault is an answer of its own."""
        if fault.kind == "slow":
            time.sleep(fault.value)
        elif fault.kind == "rate_limited":
            self._answer(429, b"slow down", {"Retry-After": str(fault.value)} if fault.value is not None else {})
        elif fault.kind == "server_error":
            self._answer(fault.value or 503, b"out of order")
        elif fault.kind == "unauthorised":
            self._answer(401, b"who are you")
        return fault.kind in {"rate_limited", "server_error", "unauthorised"}

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self._send(status, iter([body]), headers or {}, len(body))

    def _send(self, status: int, pieces: Iterator[bytes], headers: dict[str, str], length: int) -> None:
        self.logged.status = status
        self.send_response(status)
        for key, value in ({"Content-Length": str(length)} | headers).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        for piece in pieces:
            self.logged.bytes += len(piece)  # before the client can have them, so that the log is never behind
            self.wfile.write(piece)


def _pieces(content: Content, start: int, stop: int) -> Iterator[bytes]:
    for position in range(start, stop, _PIECE):
        yield content.read(position, min(position + _PIECE, stop))
