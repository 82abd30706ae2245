"""The models of one run opened together, as adapters need a base that is among them (or lies where they say)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from reconstruct.checkpoints.adapters import adapter_files, base_of, with_adapter
from reconstruct.checkpoints.catalog import Catalog
from reconstruct.checkpoints.open import open_checkpoint
from reconstruct.errors import CheckpointError

__all__ = ["open_models"]


def open_models(
    locations: Sequence[str],
    names: Sequence[str] = (),
    base: int | None = None,
    open_one: Callable[[str], Catalog] = open_checkpoint,
) -> list[Catalog]:
    """A catalog for every location: checkpoints, or LoRA adapters with their base.

    `names`: the locations as the user gave them, if they were made absolute; `base`: position of the run's base;
    `open_one`: how full checkpoints are opened. An adapter's base is the model here that its configuration names, else
    the local path that it names, else the run's base. Raises CheckpointError, also for an adapter whose base is none
    of these.
    """
    found = [adapter_files(Path(location).expanduser()) for location in locations]
    adapters = {i: files for i, files in enumerate(found) if files is not None}
    opened = {i: open_one(location) for i, location in enumerate(locations) if i not in adapters}
    for position, (configuration, _) in adapters.items():
        named = base_of(configuration)
        beside = _at_hand(named, locations, names, opened) if named else None
        if beside is None and named and (place := _local(named, configuration.parent)) is not None:
            beside = open_one(str(place))
        remark = ""
        if beside is None and base is not None:
            beside = opened.get(base)
            remark = f" (the adapter names {named} as its base)" if named else ""
        if beside is None:
            raise CheckpointError(
                f"an adapter to {named or 'an unnamed model'}, which is not among the models at hand",
                subject=locations[position],
                remedy="Give its base model as base=, or merge it first (merge_and_unload in peft)",
            )
        opened[position] = with_adapter(locations[position], beside, beside.reference.given + remark)
    return [opened[i] for i in range(len(locations))]


def _at_hand(named: str, locations: Sequence[str], names: Sequence[str], opened: dict[int, Catalog]) -> Catalog | None:
    """The opened model that is called so (by a revision or none), or that lies there."""
    path = _absolute(named)
    for position, catalog in opened.items():
        given = [locations[position], *names[position : position + 1]]
        if named in {*given, *(name.partition("@")[0] for name in given)} or path in map(_absolute, given):
            return catalog
    return None


def _absolute(given: str) -> Path:
    return Path(given).expanduser().absolute()


def _local(named: str, folder: Path) -> Path | None:
    """An existing folder or file of that name, from here or from the adapter's folder, that is no adapter itself."""
    for place in (Path(named).expanduser(), folder / named):
        if place.exists() and place.resolve() != folder.resolve() and adapter_files(place) is None:
            return place
    return None
