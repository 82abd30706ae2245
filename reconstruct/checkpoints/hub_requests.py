"""Requests to a Hub and its storage: repeated where that helps, redirected without giving the token away, counted.

A body is read only when the head of its answer is what was asked for; what a `Check` does not accept is never used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from urllib.parse import urljoin, urlsplit

from huggingface_hub import constants, get_token
from huggingface_hub.errors import OfflineModeIsEnabled
from huggingface_hub.utils import get_session, httpx

from reconstruct.checkpoints.hub_refusals import Asked, refusal
from reconstruct.checkpoints.retries import RetryPolicy
from reconstruct.checkpoints.wire import Transfer, Wire
from reconstruct.errors import RemoteError, UnreachableError

__all__ = ["Address", "Check", "HubRequests", "Repeat", "any_length", "host_of"]

_REDIRECTS = 5
_REPEATED = {408, 425, 429}  # and all of 5xx
_FORGOTTEN = {400, 401, 403, 404, 410}  # how storage answers for an address that has expired
_SMALL = 16384  # bytes of a refusal that are read so that its connection can be used again


class Repeat(Exception):  # noqa: N818  (it asks for something)
    """An answer that is no use, but the next one may be."""

    def __init__(self, reason: str, retry_after: str | None = None) -> None:
        self.reason, self.retry_after = reason, retry_after
        super().__init__(reason)


#: Looks at the head of an answer that is no redirect and no refusal: the bytes its body must have, None if any number
#: will do. Raises Repeat, or RemoteError for what no repetition would change.
Check = Callable[[httpx.Response], int | None]


def any_length(response: httpx.Response) -> None:
    """A `Check` for listings, which are as long as they are."""
    if response.status_code != 200 or response.headers.get("content-encoding", "identity") != "identity":
        raise RemoteError(f"an answer that no Hub gives (status {response.status_code})", subject=str(response.url))


def host_of(url: str) -> tuple[str, str]:
    """Scheme and host with port: to whom a token belongs."""
    parts = urlsplit(url)
    return parts.scheme.lower(), parts.netloc.lower()


@dataclass
class Address:
    """Where the bytes of one file are: `first` on the Hub, `found` where it last sent us to for them."""

    first: str
    found: str | None = None


class HubRequests:
    """GET requests to one Hub. Thread-safe: it keeps no state but the session, which is huggingface_hub's own.

    `endpoint` without a slash at its end; `timeout` in seconds for a connection and for every piece of an answer.
    """

    def __init__(self, endpoint: str, wire: Wire, retries: RetryPolicy, timeout: float = 60.0) -> None:
        self.endpoint, self._wire, self._retries = endpoint, wire, retries
        self._timeout = httpx.Timeout(timeout, connect=min(timeout, 15.0), pool=None)
        # Not by build_hf_headers: for its user-agent that may send a request of its own, which nobody counts.
        program = f"merge-reconstruct/{version('merge-reconstruct')}"
        self._headers = {"accept-encoding": "identity", "user-agent": program}
        token = None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token()
        self._token = {"authorization": f"Bearer {token}"} if token else {}

    def get(
        self,
        address: Address,
        asked: Asked,
        check: Check,
        *,
        expected: int = 0,
        headers: dict[str, str] | None = None,
        redirected: Check | None = None,
    ) -> bytes:
        """The body of the first answer that `check` accepts, exactly as long as it says.

        `expected`: bytes of that body, for the budget, if they are known. `redirected` looks at the Hub's own answer
        where it sends us elsewhere. Raises RemoteError for refusals, UnreachableError when repetitions are used up,
        and BudgetExhausted before a request that the budget does not cover.
        """
        failed = 0
        while True:
            try:
                return self._attempt(address, asked, check, expected, headers or {}, redirected)
            except Repeat as repeat:
                reason, after = repeat.reason, repeat.retry_after
            except OfflineModeIsEnabled:
                raise RemoteError(
                    "HF_HUB_OFFLINE is set, and this is not in the local cache", subject=str(asked),
                    remedy="Unset it, or download the repository first",
                ) from None  # fmt: skip
            except httpx.InvalidURL as error:
                raise RemoteError(f"not an address ({error})", subject=address.first) from None
            except httpx.TransportError as error:  # no connection, time out, reset, a body that was cut off
                reason, after = f"{type(error).__name__}: {error}".rstrip(": "), None
            failed += 1
            if failed >= self._retries.attempts:
                raise UnreachableError(
                    f"{reason} ({failed} attempts)", subject=str(asked), remedy="Try again later, or download it first"
                )
            self._retries.pause(failed, after)

    def _attempt(
        self, address: Address, asked: Asked, check: Check, expected: int, headers: dict[str, str],
        redirected: Check | None,
    ) -> bytes:  # fmt: skip
        """One try, from the Hub or from where it sent us before, along all redirects."""
        kept = address.found
        url = kept or address.first
        for _ in range(_REDIRECTS):
            own = host_of(url) == host_of(self.endpoint)
            sent = self._headers | headers | (self._token if own else {})
            with (
                self._wire.request(expected) as transfer,
                get_session().stream(
                    "GET", url, headers=sent, follow_redirects=False, timeout=self._timeout
                ) as response,
            ):
                if response.has_redirect_location:
                    if own and redirected is not None:
                        redirected(response)
                    _drain(response, transfer)
                    url = self._followed(url, response.headers["location"], asked)
                    continue
                if response.status_code in _FORGOTTEN and not own:
                    address.found = None
                    _drain(response, transfer)
                    raise Repeat(f"{host_of(url)[1]} answered with status {response.status_code}")
                _refuse(response, transfer, asked, own=own)
                size = _accepted(response, transfer, check)
                if not own:
                    address.found = url  # spares the Hub a request for every range
                return _body(response, transfer, size)
        raise RemoteError(f"more than {_REDIRECTS} redirects", subject=str(asked))

    def _followed(self, url: str, location: str, asked: Asked) -> str:
        target = urljoin(url, location)
        if host_of(url)[0] == "https" and host_of(target)[0] != "https":
            raise RemoteError(f"sent on to an address without encryption ({host_of(target)[1]})", subject=str(asked))
        return target


def _refuse(response: httpx.Response, transfer: Transfer, asked: Asked, *, own: bool) -> None:
    """Raises for an answer that is no success. `own`: it is the Hub's, not its storage's."""
    status = response.status_code
    if status < 400:
        return
    _drain(response, transfer)
    if status in _REPEATED or status >= 500:
        raise Repeat(f"status {status}", response.headers.get("retry-after"))
    if own:
        raise refusal(asked, status, response.headers)
    raise RemoteError(f"its storage answered with status {status}", subject=str(asked), remedy="Try again later")


def _drain(response: httpx.Response, transfer: Transfer) -> None:
    """Read a small body that nobody needs; a large one ends its connection instead."""
    length = response.headers.get("content-length", "")
    room = _SMALL if transfer.room is None else min(_SMALL, transfer.room)
    if length.isdecimal() and int(length) <= room:
        for piece in response.iter_raw():
            transfer.receive(len(piece))


def _accepted(response: httpx.Response, transfer: Transfer, check: Check) -> int | None:
    """The bytes that the body will have, None if nobody knows yet, once the head is what was asked for."""
    announced = response.headers.get("content-length", "")
    try:
        size = check(response)
        if announced.isdecimal() and size not in {None, int(announced)}:
            raise Repeat(f"an answer of {announced} bytes where {size} were asked for")
    except (Repeat, RemoteError):
        transfer.abandon()
        raise
    return int(announced) if size is None and announced.isdecimal() else size


def _body(response: httpx.Response, transfer: Transfer, size: int | None) -> bytes:
    """All of the body: `size` bytes if that is known, never more or fewer."""
    if size is not None:
        transfer.expect(size)
    pieces, arrived = [], 0
    for piece in response.iter_raw():
        transfer.receive(len(piece))
        arrived += len(piece)
        if size is None:
            transfer.expect(arrived + 1)
        if size is not None and arrived > size:
            raise Repeat(f"more than the {size} bytes that were asked for")
        pieces.append(piece)
    if size is not None and arrived != size:
        raise Repeat(f"{arrived} of {size} bytes")
    return b"".join(pieces)
