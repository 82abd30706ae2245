"""What a tensor's name says: its layer, its module kind, and the group a merge recipe would filter by."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from sys import intern

from reconstruct.checkpoints.layouts import ALIASES, TOWERS, separate_name

__all__ = ["ModuleName", "canonical_name", "describe", "short_name"]

#: Wrappers that architectures put in front of the same language model.
_PREFIX = re.compile(
    r"^(?:(?:model|language_model|transformer|base_model|module|text_model|gpt_neox|backbone|_orig_mod)\.)+(?=.)"
)
#: What architectures call the list of their blocks.
_CONTAINERS = {"layers", "h", "blocks", "layer", "block"}
_SUFFIX = re.compile(r"\.(?:weight|kernel|data)$")


#: Models of a thousand experts a layer have some hundred thousand names, and each is asked for several times.
_REMEMBERED = 1 << 19


@dataclass(frozen=True, slots=True)
class ModuleName:
    """`layer`: block index, or None outside the blocks; `layer_label`: "0", "1", ... or "embedding", "head", ...;
    `kind`: the module without indices ("self_attn.q_proj"); `group`: its first part ("self_attn"); `expert`: its number
    among the experts of the layer, None for everything else.
    """

    layer: int | None
    layer_label: str
    kind: str
    group: str
    expert: int | None = None


def canonical_name(name: str) -> str:
    """The name without leading wrappers: "model.language_model.layers.0.x" -> "layers.0.x"."""
    return _PREFIX.sub("", name)


@lru_cache(maxsize=_REMEMBERED)
def short_name(name: str) -> str:
    """The name that all families share: without leading wrappers, other words for one module replaced."""
    short = canonical_name(separate_name(name) if "[" in name else name)
    for word, pattern, replacement in ALIASES:
        if word in short:
            short = pattern.sub(replacement, short)
    return short


@lru_cache(maxsize=_REMEMBERED)
def describe(name: str) -> ModuleName:
    """Split a tensor name. Unknown architectures fall back to the name's own structure; nothing is refused.

    The words are those of the name itself, as merge recipes filter by them; a view of a fused tensor is described as
    the module that it is a view of.
    """
    short = canonical_name(separate_name(name) if "[" in name else name)
    parts = _SUFFIX.sub("", short).split(".")
    index = next((i for i, part in enumerate(parts) if part.isdecimal() and len(part) < 10), None)
    if index is not None:
        # The parts before tell a vision tower's blocks from the language model's of the same number.
        outer = parts[: index - 1] if index and parts[index - 1] in _CONTAINERS else parts[:index]
        inner = [part for part in parts[index + 1 :] if not part.isdecimal()] or [short.rsplit(".", 1)[-1]]
        label, kind = ".".join([*outer, str(int(parts[index]))]), ".".join(inner)
        return ModuleName(int(parts[index]), intern(label), intern(kind), intern(inner[0]), _expert(parts, index))
    plain = ".".join(parts)
    return ModuleName(None, _outside(parts[0], plain), plain, parts[0])


def _expert(parts: list[str], index: int) -> int | None:
    """The number that follows "experts" in a block."""
    for before, part in zip(parts[index + 1 :], parts[index + 2 :], strict=False):
        if before == "experts" and part.isdecimal() and len(part) < 10:
            return int(part)
    return None


def _outside(first: str, plain: str) -> str:
    """What to call a part that lies in no block."""
    if first in TOWERS:
        return first
    if any(word in plain for word in ("embed", "wte", "wpe")):
        return "embedding"
    if any(word in plain for word in ("lm_head", "output", "score", "classifier")):
        return "head"
    if "norm" in plain or plain.startswith("ln_f"):
        return "final"
    return first
