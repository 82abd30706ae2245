"""What tests of repositories share: a cache of their own, a policy that does not wait, and the way in."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from huggingface_hub import constants

from reconstruct.checkpoints.catalog import Catalog
from reconstruct.checkpoints.hub import open_repository
from reconstruct.checkpoints.reference import Reference
from reconstruct.checkpoints.retries import RetryPolicy
from reconstruct.checkpoints.wire import Wire

__all__ = ["NOW", "Pauses", "alone", "opened"]

NOW = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)


class Pauses(list[float]):
    """A retry policy that notes how long it would have waited."""

    def policy(self, attempts: int = 4, draw: float = 1.0) -> RetryPolicy:
        return RetryPolicy(attempts=attempts, sleep=self.append, draw=lambda: draw, now=lambda: NOW)


def alone(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """No token and no cache but those of the test, and no way around the loopback."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(folder / "token"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def opened(
    given: str, endpoint: str, wire: Wire | None = None, pauses: Pauses | None = None, timeout: float = 30.0
) -> Catalog:
    """A repository of a fake hub, opened without waiting anywhere."""
    policy = (pauses if pauses is not None else Pauses()).policy()
    return open_repository(Reference.parse(given), wire or Wire(), endpoint, retries=policy, timeout=timeout)
