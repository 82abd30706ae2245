"""The weights of one checkpoint as they can be paired with another's: under the names that all families share, float8
with its scales applied, fused tensors taken apart where that is asked for.
"""

from __future__ import annotations

from reconstruct.checkpoints.catalog import Catalog, TensorInfo
from reconstruct.checkpoints.matching import tied_to
from reconstruct.checkpoints.module_names import short_name
from reconstruct.checkpoints.scaled_float8 import dequantised, scale_of

__all__ = ["Inventory"]


class Inventory:
    """`tensors`: what can be paired, by name; `left_out`: name -> why not, for what cannot; together they hold every
    tensor of the catalog, or all of its parts.
    """

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.tensors = dict(catalog.tensors)
        self.left_out: dict[str, str] = {}
        self._by_short: dict[str, str | None] = {}  # None: more than one name is short for it
        self._instead: dict[str, tuple[TensorInfo, str]] = {}
        self._apply_scales()
        for name in self.tensors:
            self._enter(name)

    @property
    def given(self) -> str:
        """The checkpoint as the user named it."""
        return self.catalog.reference.given

    def _apply_scales(self) -> None:
        for name, info in self.catalog.tensors.items():
            if (scale := scale_of(info, self.catalog.tensors)) is None:
                continue
            found = dequantised(info, scale, self.catalog)
            if isinstance(found, str):
                del self.tensors[name]
                self.left_out[name] = found
            else:
                self.tensors[name] = found
            self.tensors.pop(scale.name, None)
            self.left_out[scale.name] = f"the scales of {name}, which are applied to it"

    def _enter(self, name: str) -> None:
        short = short_name(name)
        self._by_short[short] = None if short in self._by_short else name

    def unique(self, name: str) -> bool:
        """Whether no other tensor is called so without wrappers."""
        return self._by_short.get(short_name(name)) is not None

    def named(self, short: str) -> TensorInfo | None:
        """The tensor with this short name, if there is exactly one."""
        name = self._by_short.get(short)
        return self.tensors[name] if name is not None else None

    def under(self, block: str) -> list[tuple[str, TensorInfo]]:
        """Short names that begin so, each with its tensor."""
        found = [(short, name) for short, name in self._by_short.items() if short.startswith(block)]
        return [(short, self.tensors[name]) for short, name in found if name is not None]

    def take_apart(self, name: str, parts: list[TensorInfo] | str) -> None:
        """Put the parts of a fused tensor in its place, or leave it out for the reason given."""
        del self.tensors[name]
        del self._by_short[short_name(name)]
        if isinstance(parts, str):
            self.left_out[name] = parts
            return
        for info in parts:
            self.tensors[info.name] = info
            self._enter(info.name)

    def give_instead(self, short: str, info: TensorInfo, note: str) -> None:
        """Answer with this tensor where the one with the short name is asked for."""
        self._instead[short] = info, note

    def find(self, name: str, *, unique: bool = True) -> tuple[TensorInfo | None, str | None]:
        """The partner of another checkpoint's tensor, and a note unless it has this very name. `unique`: no other
        tensor there is called so without wrappers.
        """
        short = short_name(name)
        if unique and short in self._instead:
            return self._instead[short]
        if name in self.tensors:
            return self.tensors[name], None
        if not unique:
            return None, None
        if found := self.named(short):
            return found, f"named {found.name} in {self.given}"
        twin = tied_to(name, self.catalog)
        if twin and (found := self.named(twin)):
            return found, f"tied to {found.name} in {self.given}"
        return None, None
