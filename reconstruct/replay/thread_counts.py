"""The number of threads behind a merge's last bits.

torch adds up a large tensor in as many parts as it has threads, so norms and cosines, and what model_stock, karcher and
their kin make of them, differ in their last bits between machines. In 16 bits most of it is rounded away; an element
near a rounding boundary shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch

from reconstruct.checkpoints.catalog import Catalog
from reconstruct.replay.comparison import CheckState, TensorCheck, compare
from reconstruct.replay.mergekit import MergekitReplay, RecipeOutput

__all__ = ["thread_count_behind", "threads_of_torch", "with_the_makers_threads"]

_T = TypeVar("_T")

_COUNTS = (1, 2, 3, 4, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 192, 256)
_SPLIT = 32768  # elements that torch adds up in one part, however many threads there are
_PROBES = 2  # tensors that a number of threads is tried on
_CLOSE = 2.0**-6  # of a tensor's largest number: what differs by more is not a matter of last bits


@contextmanager
def threads_of_torch(count: int) -> Iterator[None]:
    """torch computes with so many threads inside; there may be fewer cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def thread_count_behind(
    checks: Sequence[TensorCheck], suspect: Catalog, recompute: Callable[[list[str]], Iterable[RecipeOutput]]
) -> int | None:
    """The number of threads with which the tensors that differ come out the same; None if there is none, or if other
    tensors differ than those that it has a say in. `recompute`: the tensors of these names, by the program.

    Raises what `recompute` raises.
    """
    wrong = sorted((c for c in checks if c.state is CheckState.MISMATCH), key=lambda c: c.total)
    if not wrong or wrong[0].total <= _SPLIT or max(c.worst for c in wrong) > _CLOSE:
        return None
    probes = [check.name for check in wrong[:_PROBES]]
    for count in _COUNTS:
        if count != torch.get_num_threads():
            with threads_of_torch(count):
                made = [compare(suspect, suspect.tensors[o.name], o.tensor) for o in recompute(probes)]
            if len(made) == len(probes) and all(check.state is CheckState.MATCH for check in made):
                return count
    return None


def with_the_makers_threads(
    replay: MergekitReplay, suspect: Catalog, compare_all: Callable[[Iterable[RecipeOutput]], _T],
    checks_of: Callable[[_T], Sequence[TensorCheck]],
) -> tuple[_T, int | None]:  # fmt: skip
    """What `compare_all` makes of the whole output; where another number of threads is behind the suspect, of the
    output that so many make, and that number. `checks_of` its result: the comparisons in it.

    Random methods are computed once: their draws do not depend on it. Raises what computing raises.
    """
    compared = compare_all(replay.tensors())
    count = None if replay.random else thread_count_behind(checks_of(compared), suspect, replay.tensors)
    if count is not None:
        with threads_of_torch(count):
            compared = compare_all(replay.tensors())
    return compared, count
