"""Parts of the files of one repository at one commit, over HTTP: exactly the bytes that were asked for, or an error.

An answer to a range is used only if its status is 206, its Content-Range is the range that was asked for out of the
size that the repository lists, its body is not encoded and exactly as long, and commit and ETag are those of the first
contact. Some servers and proxies ignore ranges, cut bodies off, or have another file by the time of the next read.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from urllib.parse import quote

from huggingface_hub.utils import httpx

from reconstruct.checkpoints.catalog import FileState
from reconstruct.checkpoints.hub_refusals import Asked
from reconstruct.checkpoints.hub_requests import Address, HubRequests, Repeat, host_of
from reconstruct.errors import RemoteError

__all__ = ["RangedReads"]

_CONTENT_RANGE = re.compile(r"^bytes (\d+)-(\d+)/(\d+)$")


class RangedReads:
    """A RangeReader of one repository. Thread-safe; callers bring their own threads.

    `commit`: the full sha; `files`: the listing of the repository at it.
    """

    def __init__(self, requests: HubRequests, repository: str, commit: str, files: Mapping[str, FileState]) -> None:
        self._requests, self._repository, self._commit, self._files = requests, repository, commit, files
        self._addresses: dict[str, Address] = {}
        self._tags: dict[tuple[str, tuple[str, str]], str] = {}
        self._lock = threading.Lock()

    def read(self, file: str, begin: int, end: int) -> bytes:
        """Bytes [begin, end) of a file, in one request. Raises ValueError for a range outside of the file, RemoteError
        (a change of the file, a server without ranges, no access), UnreachableError or BudgetExhausted.
        """
        size = self._files[file].size
        if not 0 <= begin < end <= size:
            raise ValueError(f"bytes {begin} to {end} of {file}, which has {size}")

        def check(response: httpx.Response) -> int:
            self._check_identity(file, response)
            if response.status_code != 206:
                raise RemoteError(
                    f"the server ignores ranges (status {response.status_code} for a part of the file)",
                    subject=str(self._asked(file)), remedy="Download the repository first, and give the folder",
                )  # fmt: skip
            found = _CONTENT_RANGE.match(response.headers.get("content-range", ""))
            if found is None or tuple(map(int, found.groups()[:2])) != (begin, end - 1):
                said = response.headers.get("content-range", "nothing")
                raise Repeat(f"Content-Range {said!r} for bytes {begin} to {end - 1}")
            if int(found[3]) != size:
                raise self._changed(file, f"it has {found[3]} bytes, the repository lists {size}")
            return end - begin

        return self._get(file, check, end - begin, {"range": f"bytes={begin}-{end - 1}"})

    def whole(self, file: str) -> bytes:
        """All of a small file. Raises as `read` does."""
        size = self._files[file].size

        def check(response: httpx.Response) -> int:
            self._check_identity(file, response)
            if response.status_code != 200:
                raise Repeat(f"status {response.status_code} for the whole file")
            return size

        return self._get(file, check, size, {})

    def _get(self, file: str, check: Callable[[httpx.Response], int], expected: int, headers: dict[str, str]) -> bytes:
        with self._lock:
            address = self._addresses.setdefault(file, Address(self._url(file)))
        return self._requests.get(
            address, self._asked(file), check, expected=expected, headers=headers,
            redirected=lambda response: self._check_redirect(file, response),
        )  # fmt: skip

    def _url(self, file: str) -> str:
        return f"{self._requests.endpoint}/{self._repository}/resolve/{self._commit}/{quote(file)}"

    def _asked(self, file: str) -> Asked:
        return Asked(self._requests.endpoint, self._repository, self._commit, file)

    def _check_identity(self, file: str, response: httpx.Response) -> None:
        """The answer is this file, unencoded, and still the one of the first contact with this host."""
        if (encoding := response.headers.get("content-encoding", "identity")) != "identity":
            raise RemoteError(
                f"the server encodes what it sends ({encoding}), though it was asked not to",
                subject=str(self._asked(file)), remedy="Download the repository first, and give the folder",
            )  # fmt: skip
        self._check_commit(file, response)
        if tag := _plain(response.headers.get("etag", "")):
            with self._lock:  # storage may have tags of its own, so each host is held to its first word
                first = self._tags.setdefault((file, host_of(str(response.url))), tag)
            if tag != first:
                raise self._changed(file, f"its ETag was {first}, and is {tag} now")

    def _check_redirect(self, file: str, response: httpx.Response) -> None:
        """The Hub says with its redirect which file its storage has."""
        self._check_commit(file, response)
        listed, linked = self._files[file], _plain(response.headers.get("x-linked-etag", ""))
        if linked and linked != listed.version:
            raise self._changed(file, f"its ETag is {linked}, the repository lists {listed.version}")
        size = response.headers.get("x-linked-size", "")
        if size.isdecimal() and int(size) != listed.size:
            raise self._changed(file, f"it has {size} bytes, the repository lists {listed.size}")

    def _check_commit(self, file: str, response: httpx.Response) -> None:
        commit = response.headers.get("x-repo-commit", self._commit)
        if commit != self._commit:
            raise self._changed(file, f"the server answers for commit {commit}")

    def _changed(self, file: str, how: str) -> RemoteError:
        return RemoteError(
            f"the file changed while it was read: {how}", subject=str(self._asked(file)), remedy="Start a new run"
        )


def _plain(tag: str) -> str:
    """An ETag without the marks of weakness and quotation."""
    return tag.removeprefix("W/").strip('"')
