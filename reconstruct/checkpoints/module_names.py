"""What a tensor's name says: its layer, its module kind, and the group a merge recipe would filter by."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["ModuleName", "canonical_name", "describe"]

#: Wrappers that architectures put in front of the same language model.
_PREFIX = re.compile(r"^(?:(?:model|language_model|transformer|base_model|module|text_model)\.)+")
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
    parts = _SUFFIX.sub("", canonical_name(name)).split(".")
    index = next((i for i, part in enumerate(parts) if part.isdigit()), None)
    if index is not None and index + 1 < len(parts):
        inner = [part for part in parts[index + 1 :] if not part.isdigit()]
        kind = ".".join(inner)
        outer = [] if parts[index - 1] in {"layers", "h", "blocks", "layer", "block"} else parts[:index]
        label = ".".join([*outer, parts[index]]) if outer else parts[index]
        return ModuleName(int(parts[index]), label, kind, inner[0] if inner else kind)
    plain = ".".join(part for part in parts if not part.isdigit())
    if any(word in plain for word in ("embed", "wte", "wpe")):
        label = "embedding"
    elif any(word in plain for word in ("lm_head", "output", "score", "classifier")):
        label = "head"
    elif "norm" in plain or plain.startswith("ln_f"):
        label = "final"
    else:
        label = parts[0]
    return ModuleName(None, label, plain, parts[0])
