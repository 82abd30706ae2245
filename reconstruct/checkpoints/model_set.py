"""The models of one run opened together, as adapters need a base: one that is among them, or lies where they say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from reconstruct.checkpoints.adapters import Adapter, adapter_folder, with_adapter
from reconstruct.checkpoints.catalog import Catalog
from reconstruct.checkpoints.open import open_model
from reconstruct.checkpoints.reference import ReferenceKind, base_and_adapter
from reconstruct.errors import CheckpointError, RemoteError, UnreachableError

__all__ = ["open_models"]

_LOCAL = {ReferenceKind.FOLDER, ReferenceKind.FILE}


def open_models(
    locations: Sequence[str],
    names: Sequence[str] = (),
    base: int | None = None,
    open_one: Callable[[str], Catalog | Adapter] = open_model,
) -> list[Catalog]:
    """A catalog for every location: checkpoints, LoRA adapters with their base, or "base+adapter".

    `names`: the locations as the user gave them, if they were made absolute; `base`: position of the run's base;
    `open_one`: how each is opened. An adapter's base is what stands before the "+", the model here that its
    configuration names, the local path that it names, or the repository of that name, unless the run's own base is
    a local one, which may be its copy; else the run's base. Raises CheckpointError, also where none of these is there.
    """
    pairs = [base_and_adapter(location) for location in locations]
    opened = [open_one(pair[1] if pair else location) for pair, location in zip(pairs, locations, strict=True)]
    bases = _Bases(locations, names or locations, opened, base, open_one)
    found = []
    for location, pair, model in zip(locations, pairs, opened, strict=True):
        if isinstance(model, Adapter):
            found.append(with_adapter(model, *bases.of(model, pair[0] if pair else None)))
        elif pair is None:
            found.append(model)
        else:
            raise CheckpointError(
                f"{pair[1]} has full weights, and is no adapter", subject=location, remedy="Give it by itself"
            )
    return found


class _Bases:
    """Finds the bases of adapters; each that is not at hand is opened once."""

    def __init__(
        self, locations: Sequence[str], names: Sequence[str], opened: Sequence[Catalog | Adapter], base: int | None,
        open_one: Callable[[str], Catalog | Adapter],
    ) -> None:  # fmt: skip
        full = [(i, model) for i, model in enumerate(opened) if isinstance(model, Catalog)]
        self._at_hand = [(model, names[i], {locations[i], names[i]}) for i, model in full]
        self._own = next(((model, names[i]) for i, model in full if i == base), None)
        self._open_one = open_one
        self._fetched: dict[str, Catalog] = {}

    def of(self, adapter: Adapter, before: str | None) -> tuple[Catalog, str, str]:
        """The base of an adapter (`before`: what was given for it), how it is named, and a remark on the choice."""
        named = before or adapter.base
        if named is not None and (beside := self._named(named)) is not None:
            return *beside, ""
        if before is not None:
            return *self._opened(before, adapter), ""
        if named is not None and (place := _local(named, adapter.folder)) is not None:
            return *self._opened(str(place), adapter), ""
        own = self._own
        repository = adapter.repository
        reason = f" (the adapter names {named} as its base)" if named is not None else ""
        if repository is not None and (own is None or own[0].reference.kind not in _LOCAL):
            address = f"hf://{repository.address}"
            try:
                return *self._opened(address, adapter), ""
            except UnreachableError:
                raise
            except RemoteError as error:
                if own is None:
                    raise self._missing(adapter, f"{error.message}, and none was given") from None
                reason = f" (the adapter names {named}, which cannot be read: {error.message})"
        if own is None:
            raise self._missing(adapter, "which is not among the models at hand")
        return *own, reason

    def _named(self, named: str) -> tuple[Catalog, str] | None:
        """The opened model that is called so (by a revision or none), or that lies there."""
        path = _absolute(named)
        for model, name, given in self._at_hand:
            if named in {*given, *(n.partition("@")[0] for n in given)} or path in map(_absolute, given):
                return model, name
        return None

    def _opened(self, place: str, adapter: Adapter) -> tuple[Catalog, str]:
        """A base that is not at hand, under the name that stays: a path from the root, a repository at its commit."""
        if place not in self._fetched:
            model = self._open_one(place)
            if isinstance(model, Adapter):
                raise self._missing(adapter, "which is an adapter itself")
            self._fetched[place] = model
        return self._fetched[place], self._fetched[place].reference.address

    def _missing(self, adapter: Adapter, why: str) -> CheckpointError:
        return CheckpointError(
            f"an adapter to {adapter.base or 'an unnamed model'}, {why}", subject=adapter.reference.given,
            remedy="Give its base model as base=, or merge it first (merge_and_unload in peft)",
        )  # fmt: skip


def _absolute(given: str) -> Path:
    return Path(given).expanduser().absolute()


def _local(named: str, folder: Path | None) -> Path | None:
    """An existing folder or file of that name, from here or from the adapter's folder, that is no adapter itself. What
    an adapter from elsewhere names is no path of this machine.
    """
    if folder is None:
        return None
    for place in (Path(named).expanduser(), folder / named):
        if place.exists() and place.resolve() != folder.resolve() and adapter_folder(place) is None:
            return place
    return None
