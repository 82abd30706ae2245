"""What a run transfers over the network: counted while it arrives, shared by all its models, capped if a cap is given.

Counted are the bodies of all answers, those of failed attempts, redirects and refusals among them: headers of
safetensors, configurations and listings too. Not counted are the heads of answers (about a kilobyte a request).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from reconstruct.errors import BudgetExhausted

__all__ = ["Transfer", "Wire"]


class Wire:
    """Counts bytes and requests. Thread-safe.

    `cap`: bytes that may be transferred in all, None for no limit. `watch` is told (bytes, requests) so far whenever
    bytes have arrived; it must not block.
    """

    def __init__(self, cap: int | None = None, watch: Callable[[int, int], None] | None = None) -> None:
        self._cap, self._watch = cap, watch
        self._bytes = self._requests = self._reserved = 0
        self._lock = threading.RLock()

    @property
    def bytes(self) -> int:
        """Bytes that have arrived."""
        return self._bytes

    @property
    def requests(self) -> int:
        """Requests that were sent."""
        return self._requests

    @property
    def left(self) -> int | None:
        """Bytes that may still be asked for: neither arrived nor under way. None without a cap."""
        with self._lock:
            return None if self._cap is None else max(self._cap - self._bytes - self._reserved, 0)

    @contextlib.contextmanager
    def request(self, expected: int) -> Iterator[Transfer]:
        """One request whose answer has so many bytes. Raises BudgetExhausted before it is sent, if they are too many.

        What did not arrive by the end of the context is free again.
        """
        transfer = Transfer(self)
        transfer.expect(expected)
        with self._lock:
            self._requests += 1
        try:
            yield transfer
        finally:
            transfer.close()

    def _reserve(self, count: int) -> None:
        with self._lock:
            if self._cap is not None and self._bytes + self._reserved + count > self._cap:
                raise BudgetExhausted(count, max(self._cap - self._bytes - self._reserved, 0), self._cap)
            self._reserved += count

    def _settle(self, reserved: int, arrived: int) -> None:
        with self._lock:
            self._reserved -= reserved
            self._bytes += arrived
            if arrived and self._watch is not None:
                self._watch(self._bytes, self._requests)


class Transfer:
    """The answer to one request; made by `Wire.request`, used by one thread."""

    def __init__(self, wire: Wire) -> None:
        self._wire, self._reserved, self._arrived = wire, 0, 0

    @property
    def room(self) -> int | None:
        """Bytes that may still be read of this answer. None without a cap."""
        left = self._wire.left
        return None if left is None else left + self._reserved

    def expect(self, size: int) -> None:
        """The answer has so many bytes in all. Raises BudgetExhausted before more are read than may be transferred."""
        missing = size - self._arrived - self._reserved
        if missing > 0:
            self._wire._reserve(missing)  # noqa: SLF001  (the two are one)
            self._reserved += missing

    def receive(self, count: int) -> None:
        """So many bytes have arrived."""
        covered = min(count, self._reserved)
        self._reserved -= covered
        self._arrived += count
        self._wire._settle(covered, count)  # noqa: SLF001

    def abandon(self) -> None:
        """The answer is not read, though its sender may have sent it: all that was expected counts as arrived."""
        self.receive(self._reserved)

    def close(self) -> None:
        """Nothing more will arrive."""
        self._wire._settle(self._reserved, 0)  # noqa: SLF001
        self._reserved = 0
