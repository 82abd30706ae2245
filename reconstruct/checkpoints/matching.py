"""What a tensor is good for in a comparison: tied to another, a buffer, of a vocabulary that others share in part."""

from __future__ import annotations

import re

from reconstruct.checkpoints.catalog import Catalog, TensorInfo
from reconstruct.checkpoints.module_names import describe, short_name
from reconstruct.kernels.formats import float_format

__all__ = ["not_a_weight", "shared_rows", "tied_to"]

#: Names without wrappers -> what carries the weight where the tensor itself is not stored.
_EMBEDDINGS = tuple(f"{m}.weight" for m in ("embed_tokens", "wte", "embed_in", "word_embeddings", "tok_embeddings"))
_TIED = {
    "lm_head.weight": (*_EMBEDDINGS, "shared.weight"),
    "embed_out.weight": _EMBEDDINGS,
    "output.weight": _EMBEDDINGS,
    "encoder.embed_tokens.weight": ("shared.weight",),
    "decoder.embed_tokens.weight": ("shared.weight",),
    "shared.weight": ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight"),
}
#: Float tensors that are computed from the configuration, not trained.
_BUFFER = re.compile(
    r"(?:^|\.)(?:inv_freq|original_inv_freq|cos_cached|sin_cached|masked_bias|position_ids|attn_mask|causal_mask)$"
)
_MASK = re.compile(r"(?:^|\.)(?:attn|attention)\.bias$")
#: Modules with a row per token (or per position).
_ROWS = {
    "embed_tokens", "embed_in", "embed_out", "wte", "wpe", "word_embeddings", "tok_embeddings", "embed_positions",
    "position_embeddings", "shared", "lm_head", "output", "embed_tokens_per_layer",
}  # fmt: skip


def tied_to(name: str, catalog: Catalog) -> str | None:
    """What stands for a tensor that this checkpoint does not store, as a name without wrappers."""
    twins = _TIED.get(short_name(name), ())
    if not twins or _says_untied(catalog):
        return None
    stored = {short_name(other) for other in catalog.tensors}
    return next((twin for twin in twins if twin in stored), None)


def _says_untied(catalog: Catalog) -> bool:
    """The configuration says so; where it says nothing, a missing head means a tied one."""
    configuration = catalog.configuration
    inner = configuration.get("text_config")
    places = [configuration, inner] if isinstance(inner, dict) else [configuration]
    said = {place.get("tie_word_embeddings") for place in places}
    return False in said and True not in said


def not_a_weight(info: TensorInfo) -> str | None:
    """Why a tensor is no floating-point weight that can be compared, or None if it is one."""
    if float_format(info.dtype) is None:
        return f"{info.dtype} is not a floating-point weight: buffers and integers are not compared"
    if info.elements == 0:
        return "it has no elements"
    if _BUFFER.search(info.name) or (_MASK.search(info.name) and info.shape[:2] == (1, 1)):
        return "a buffer computed from the configuration, not a weight"
    return None


def shared_rows(name: str, ours: tuple[int, ...], theirs: tuple[int, ...]) -> int | None:
    """Rows to compare where only the vocabulary differs, else None."""
    if len(ours) != len(theirs) or not ours or ours[1:] != theirs[1:]:
        return None
    module = describe(name)
    last = module.kind.removesuffix(".bias").rsplit(".", 1)[-1]
    return min(ours[0], theirs[0]) if module.layer is None and last in _ROWS else None
