"""How often and after which pauses a server is asked again: exponential, fully jittered, as long as it says itself."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

__all__ = ["RetryPolicy"]


@dataclass(frozen=True)
class RetryPolicy:
    """`attempts` in all; the pause before the k-th repetition is uniform in [0, min(`longest`, `first` * 2^k)] seconds.

    A Retry-After is waited for in full, but no longer than `patience` seconds. `draw` gives a number in [0, 1); tests
    put their own in its place, and in that of `sleep` and `now`.
    """

    attempts: int = 6
    first: float = 0.5
    longest: float = 30.0
    patience: float = 300.0
    sleep: Callable[[float], None] = time.sleep
    draw: Callable[[], float] = field(default_factory=lambda: random.Random().random)  # noqa: S311  (no secret)
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def pause(self, failed: int, retry_after: str | None = None) -> None:
        """Wait after the `failed`-th failure (from 1), at least as long as the server asks for."""
        jitter = self.draw() * min(self.longest, self.first * 2 ** (failed - 1))
        self.sleep(max(jitter, min(self._asked_for(retry_after), self.patience)))

    def _asked_for(self, retry_after: str | None) -> float:
        """Seconds that a Retry-After header means, 0 for one that means nothing."""
        value = (retry_after or "").strip()
        if value.isdecimal():
            return float(value)
        try:
            date = parsedate_to_datetime(value)
        except ValueError:
            return 0.0
        return max((date.replace(tzinfo=date.tzinfo or UTC) - self.now()).total_seconds(), 0.0)
