"""Pairing of the suspect's tensors with the base's and the parents', and the list of what cannot be paired and why."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from reconstruct.checkpoints.catalog import Catalog, TensorInfo
from reconstruct.kernels.formats import float_format
from reconstruct.checkpoints.module_names import ModuleName, canonical_name, describe
from reconstruct.errors import AlignmentError

__all__ = ["AlignedTensor", "Alignment", "LeftOut", "align"]

_VOCABULARY = ("embed", "wte", "lm_head", "output", "score")


@dataclass(frozen=True)
class AlignedTensor:
    """One tensor present in all models. `sources[0]` is the suspect's, then the other models' in the given order.

    `shape` is what is compared: with different vocabulary sizes only the common first rows.
    """

    name: str
    module: ModuleName
    shape: tuple[int, ...]
    sources: tuple[TensorInfo, ...]
    notes: tuple[str, ...] = ()

    @property
    def elements(self) -> int:
        """Number of compared elements."""
        return math.prod(self.shape)

    @property
    def is_matrix(self) -> bool:
        """Vectors (norms, biases) are reported apart and never vote."""
        return sum(1 for n in self.shape if n > 1) >= 2


@dataclass(frozen=True)
class LeftOut:
    """A tensor that is not compared, in which model it was found, and why."""

    name: str
    model: str
    elements: int
    reason: str


@dataclass(frozen=True)
class Alignment:
    """What is compared and what is not."""

    tensors: tuple[AlignedTensor, ...]
    left_out: tuple[LeftOut, ...]


class _Names:
    """Finds a tensor by its name, or by its name without wrappers where that is unambiguous."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        count = Counter(canonical_name(name) for name in catalog.tensors)
        self.canonical = {
            canonical_name(name): name for name in catalog.tensors if count[canonical_name(name)] == 1
        }

    def find(self, name: str) -> tuple[TensorInfo | None, str | None]:
        """The tensor and a note, if the match is not by plain name."""
        if name in self.catalog.tensors:
            return self.catalog.tensors[name], None
        short = canonical_name(name)
        if short in self.canonical:
            found = self.canonical[short]
            return self.catalog.tensors[found], f"named {found} in {self.catalog.reference.given}"
        if short in {"lm_head.weight", "embed_out.weight"}:
            for twin in ("embed_tokens.weight", "wte.weight", "embed_in.weight"):
                if twin in self.canonical:
                    tied = self.canonical[twin]
                    return self.catalog.tensors[tied], f"tied to {tied} in {self.catalog.reference.given}"
        return None, None


def align(suspect: Catalog, others: list[Catalog]) -> Alignment:
    """Pair every tensor of the suspect with one of each other model (base or first parent first).

    Raises AlignmentError if no floating-point tensor can be paired.
    """
    finders = [_Names(catalog) for catalog in others]
    aligned: list[AlignedTensor] = []
    left_out: list[LeftOut] = []
    used: list[set[str]] = [set() for _ in others]
    for info in sorted(suspect.tensors.values(), key=lambda t: (t.shard, t.begin)):
        result = _pair(info, finders, used)
        if isinstance(result, AlignedTensor):
            aligned.append(result)
        else:
            left_out.append(LeftOut(info.name, suspect.reference.given, info.elements, result))
    for catalog, names in zip(others, used, strict=True):
        left_out += [
            LeftOut(t.name, catalog.reference.given, t.elements, "not in the suspect")
            for t in catalog.tensors.values()
            if t.name not in names
        ]
    if not aligned:
        reasons = Counter(item.reason for item in left_out if item.model == suspect.reference.given)
        listed = "; ".join(f"{reason} ({count})" for reason, count in reasons.most_common(3)) or "it has no tensors"
        raise AlignmentError(
            f"no floating-point tensor in common with every candidate: {listed}",
            subject=suspect.reference.given,
            remedy="Check that all models have the same architecture",
        )
    return Alignment(tuple(aligned), tuple(left_out))


def _pair(info: TensorInfo, finders: list[_Names], used: list[set[str]]) -> AlignedTensor | str:
    """The aligned tensor, or the reason why there is none."""
    if float_format(info.dtype) is None:
        return f"{info.dtype} is not a floating-point weight: buffers and integers are not compared"
    if info.elements == 0:
        return "empty"
    sources, notes = [info], []
    shape = info.shape
    for finder, names in zip(finders, used, strict=True):
        given = finder.catalog.reference.given
        found, note = finder.find(info.name)
        if found is None:
            return f"not in {given}"
        names.add(found.name)
        if float_format(found.dtype) is None:
            return f"{found.dtype} in {given} is not a floating-point weight"
        if found.shape != shape:
            rows = _common_rows(info.name, shape, found.shape)
            if rows is None:
                return f"shape {list(info.shape)} here, {list(found.shape)} in {given}"
            shape = (rows, *shape[1:])
        if note:
            notes.append(note)
        sources.append(found)
    if shape != info.shape:
        notes.append(f"vocabulary sizes differ: the first {shape[0]} of {info.shape[0]} rows are compared")
    dtypes = {source.dtype for source in sources}
    if len(dtypes) > 1:
        notes.append("stored as " + ", ".join(source.dtype for source in sources))
    if "F64" in dtypes:
        notes.append("float64 weights are examined at float32 precision")
    return AlignedTensor(info.name, describe(info.name), shape, tuple(sources), tuple(notes))


def _common_rows(name: str, ours: tuple[int, ...], theirs: tuple[int, ...]) -> int | None:
    """Rows to compare when only the vocabulary differs, else None."""
    if len(ours) != len(theirs) or len(ours) < 1 or ours[1:] != theirs[1:]:
        return None
    return min(ours[0], theirs[0]) if any(word in name for word in _VOCABULARY) else None
