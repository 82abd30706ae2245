"""What is read: which elements of each tensor, in which blocks, how many are kept as samples, and a budget in bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from reconstruct.errors import ConfigurationError

__all__ = ["SamplingPlan"]


@dataclass(frozen=True)
class SamplingPlan:
    """`block`: elements read at once from each model, which bounds memory; `elements`: sampled elements a tensor at
    most; `total`: sampled elements over the whole run; `seed` of the choice. `bytes`: of all models together that may
    be read (None: everything), in at most so many `requests`. Raises ConfigurationError.
    """

    block: int = 1 << 22
    elements: int = 65536
    total: int = 1 << 23
    seed: int = 0
    bytes: int | None = None
    requests: int = 3000

    def __post_init__(self) -> None:
        for name, least in (("block", 4096), ("elements", 256), ("total", 256), ("seed", 0), ("requests", 1)):
            if getattr(self, name) < least:
                raise ConfigurationError(f"must be at least {least}", subject=f"sampling.{name}")
        if self.bytes is not None and self.bytes < 1:
            raise ConfigurationError(
                "must be at least one byte", subject="sampling.bytes", remedy="Leave it out to read everything"
            )

    def sample_size(self, tensors: int) -> int:
        """Elements to sample in each of so many tensors."""
        return max(min(self.elements, self.total // max(tensors, 1)), min(self.elements, 2048))

    def blocks(self, elements: int) -> Iterator[tuple[int, int]]:
        """Contiguous [start, stop) ranges that cover a tensor; at least eight for tensors that can spare them."""
        size = min(self.block, max(4096, -(-elements // 8)))
        for start in range(0, elements, size):
            yield start, min(start + size, elements)
