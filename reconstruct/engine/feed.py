"""How the blocks of a tensor reach the kernels: as mapped pages on the processor, through pinned buffers on a GPU.

On a GPU three things overlap: a worker copies block k + 1 from the file into a pinned buffer and has it sent on a
stream of its own while the kernels run on block k; and other workers of the same GPU do the same with other tensors. A
tensor that fits stays in the GPU's memory until its unit is finished, so that a replay does not read it again.
"""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from reconstruct.checkpoints.alignment import AlignedTensor
from reconstruct.checkpoints.catalog import Catalog, TensorInfo
from reconstruct.kernels.results import View
from reconstruct.kernels.select import Kernels
from reconstruct.sampling import SamplingPlan

if TYPE_CHECKING:
    import torch

    from reconstruct.kernels.device import DeviceView

__all__ = ["Block", "DeviceFeed", "Feed", "Feeds", "HostFeed", "Resident"]


@dataclass(frozen=True)
class Block:
    """Elements [start, stop) of all models, suspect first: as they lie in the files, and where kernels want them."""

    start: int
    stop: int
    host: list[View]
    views: Sequence[View | DeviceView]


class Resident(Protocol):
    """One tensor of all models, which may be gone through several times."""

    def blocks(self) -> Iterator[Block]:
        """Its blocks in file order."""
        ...


class Feed(Protocol):
    """One worker's way to the kernels."""

    def open(
        self, tensor: AlignedTensor, catalogs: Sequence[Catalog], plan: SamplingPlan
    ) -> contextlib.AbstractContextManager[Resident]:
        """A tensor, resident until the context is left."""
        ...


@dataclass(frozen=True)
class _Mapped:
    tensor: AlignedTensor
    catalogs: Sequence[Catalog]
    plan: SamplingPlan

    def blocks(self) -> Iterator[Block]:
        """Mapped pages; the next block's are asked for before this one is worked on, and let go after it."""
        ranges = list(self.plan.blocks(self.tensor.elements))
        for position, (start, stop) in enumerate(ranges):
            for info, catalog in self._sources():
                if position + 1 < len(ranges):
                    catalog.source.ahead(info, *ranges[position + 1])
            host = [View(catalog.source.read(info, start, stop), info.dtype) for info, catalog in self._sources()]
            yield Block(start, stop, host, host)
            del host
            for info, catalog in self._sources():
                catalog.source.release(info, start, stop)

    def _sources(self) -> Iterator[tuple[TensorInfo, Catalog]]:
        return zip(self.tensor.sources, self.catalogs, strict=True)


class HostFeed:
    """For kernels that run on the processor."""

    @contextlib.contextmanager
    def open(self, tensor: AlignedTensor, catalogs: Sequence[Catalog], plan: SamplingPlan) -> Iterator[Resident]:
        """See `Feed`."""
        yield _Mapped(tensor, catalogs, plan)


class DeviceFeed:
    """For kernels that run on `device`, a GPU (or the CPU, where Triton is interpreted: then nothing overlaps).

    `keep`: bytes of one tensor, all models together, that may stay in the device's memory.
    """

    def __init__(self, device: torch.device, keep: int) -> None:
        import torch

        self.device, self.keep = device, keep
        self._fast = device.type == "cuda"
        stream: Any = torch.cuda.Stream  # torch does not annotate it
        self._copies: Any = stream(device) if self._fast else None
        self._work: Any = stream(device) if self._fast else None
        self._pinned: list[list[torch.Tensor]] = [[], []]

    @contextlib.contextmanager
    def open(self, tensor: AlignedTensor, catalogs: Sequence[Catalog], plan: SamplingPlan) -> Iterator[Resident]:
        """See `Feed`. Kernels called within the context run on this worker's own stream."""
        import torch

        size = sum(info.end - info.begin for info in tensor.sources)
        with contextlib.ExitStack() as stack:
            if self._fast:
                stack.enter_context(torch.cuda.device(self.device))
                stack.enter_context(torch.cuda.stream(self._work))
            yield _OnDevice(self, _Mapped(tensor, catalogs, plan), keeps=size <= self.keep)

    def send(self, host: list[View], slot: int) -> tuple[list[DeviceView], torch.cuda.Event | None]:
        """Begin to copy a block to the device, through the pinned buffers of one of the two slots."""
        import torch

        from reconstruct.kernels.device import DeviceView, host_copy

        if not self._fast:
            return [DeviceView(host_copy(view), view.dtype) for view in host], None
        sent = []
        with torch.cuda.stream(self._copies):
            for model, view in enumerate(host):
                pinned = host_copy(view, self._buffer(slot, model, view.bits.nbytes))
                there = pinned.to(self.device, non_blocking=True)
                # The allocator must not hand this memory on before the kernels, on another stream, are done.
                there.record_stream(self._work)
                sent.append(DeviceView(there, view.dtype))
            event: Any = torch.cuda.Event
            arrived = event()
            arrived.record(self._copies)
        return sent, arrived

    def _buffer(self, slot: int, model: int, size: int) -> torch.Tensor:
        import torch

        buffers = self._pinned[slot]
        while len(buffers) <= model:
            buffers.append(torch.empty(0, dtype=torch.uint8))
        if buffers[model].nbytes < size:
            buffers[model] = torch.empty(size, dtype=torch.uint8, pin_memory=True)
        return buffers[model]


@dataclass
class _OnDevice:
    feed: DeviceFeed
    mapped: _Mapped
    keeps: bool
    kept: list[Block] | None = None

    def blocks(self) -> Iterator[Block]:
        """Blocks on the device: those that were kept, or sent one ahead of the one that is worked on."""
        if self.kept is not None:
            yield from self.kept
            return
        kept: list[Block] = []
        waiting: tuple[Block, torch.cuda.Event | None] | None = None
        arrivals: list[torch.cuda.Event | None] = [None, None]
        for position, block in enumerate(self.mapped.blocks()):
            slot = position % 2
            if (before := arrivals[slot]) is not None:
                before.synchronize()  # its pinned buffers are free once they were sent
            views, arrivals[slot] = self.feed.send(block.host, slot)
            if waiting is not None:
                yield self._arrived(*waiting, kept)
            waiting = Block(block.start, block.stop, block.host, views), arrivals[slot]
        if waiting is not None:
            yield self._arrived(*waiting, kept)
        if self.keeps:
            self.kept = kept

    def _arrived(self, block: Block, event: torch.cuda.Event | None, kept: list[Block]) -> Block:
        if event is not None:
            event.wait()  # on the stream the kernels run on; this thread goes on
        if self.keeps:
            kept.append(block)
        return block


class Feeds:
    """A feed for every worker: of the processor, or spread evenly over the devices. A worker borrows one."""

    def __init__(self, kernels: Kernels, workers: int, devices: Sequence[torch.device] | None = None) -> None:
        self._idle: queue.LifoQueue[Feed] = queue.LifoQueue()
        if kernels.name != "triton":
            for _ in range(workers):
                self._idle.put(HostFeed())
            return
        from reconstruct.kernels.device import devices_at_hand, memory_for

        chosen = list(devices or devices_at_hand())
        for worker in reversed(range(workers)):
            device = chosen[worker % len(chosen)]
            self._idle.put(DeviceFeed(device, memory_for(device, -(-workers // len(chosen)))))

    @contextlib.contextmanager
    def borrow(self) -> Iterator[Feed]:
        """A feed that nobody else uses meanwhile; waits for one if all are in use."""
        feed = self._idle.get()
        try:
            yield feed
        finally:
            self._idle.put(feed)
