"""What a tensor's name says: its layer, its module kind, and the group a merge recipe would filter by."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["ModuleName", "canonical_name", "describe"]

#: Wrappers that architectures put in front of the same language model.
_PREFIX = re.compile(
    r"^(?:(?:model|language_model|transformer|base_model|module|text_model|gpt_neox|backbone|_orig_mod)\.)+(?=.)"
)
#: What architectures call the list of their blocks.
_CONTAINERS = {"layers", "h", "blocks", "layer", "block"}
_SUFFIX = re.compile(r"\.(?:weight|kernel|data)$")


@dataclass(frozen=True)
class ModuleName:
    """`layer`: block index, or None outside the blocks; `layer_label`: "0", "1", ... or "embedding", "head", ...;
    `kind`: the module without indices ("self_attn.q_proj"); `group`: its first part ("self_attn").
    """

    layer: int | None
    layer_label: str
    kind: str
    group: str


def canonical_name(name: str) -> str:
    """The name without leading wrappers: "model.language_model.layers.0.x" -> "layers.0.x"."""
    return _PREFIX.sub("", name)


def describe(name: str) -> ModuleName:
    """Split a tensor name. Unknown architectures fall back to the name's own structure; nothing is refused."""
    short = canonical_name(name)
    parts = _SUFFIX.sub("", short).split(".")
    index = next((i for i, part in enumerate(parts) if part.isdecimal() and len(part) < 10), None)
    if index is not None:
        # The parts before tell a vision tower's blocks from the language model's of the same number.
        outer = parts[: index - 1] if index and parts[index - 1] in _CONTAINERS else parts[:index]
        inner = [part for part in parts[index + 1 :] if not part.isdecimal()] or [short.rsplit(".", 1)[-1]]
        return ModuleName(int(parts[index]), ".".join([*outer, str(int(parts[index]))]), ".".join(inner), inner[0])
    plain = ".".join(parts)
    if any(word in plain for word in ("embed", "wte", "wpe")):
        label = "embedding"
    elif any(word in plain for word in ("lm_head", "output", "score", "classifier")):
        label = "head"
    elif "norm" in plain or plain.startswith("ln_f"):
        label = "final"
    else:
        label = parts[0]
    return ModuleName(None, label, plain, parts[0])
