"""How model families name and lay out the same weights: the one table to extend for a new family.

ALIASES         other words for one module; two models that differ in such words alone are paired.
FUSED           stored tensors that hold several modules: one line each, see `Fused`.
TOWERS          what stands beside the language model: vision towers, multi-token-prediction heads.
ROUTERS         tensors with a row per expert, beside the experts.
TRANSPOSED      how gate and up lie in families that store their experts [E, H, 2I].

E experts, H hidden size, I intermediate size of an expert.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["ALIASES", "FUSED", "ROUTERS", "TOWERS", "TRANSPOSED", "Fused", "Order", "fused_entry", "separate_name"]


class Order(StrEnum):
    """How the parts lie in a fused tensor."""

    ROWS = "rows"  # one after the other along the output axis
    COLUMNS = "columns"  # so, in a matrix stored [input, output]
    BY_HEAD = "by head"  # taking turns from head to head: the number of heads would have to be known


@dataclass(frozen=True, slots=True)
class Fused:
    """`ending` of the stored name; `parts`: the endings that take its place where every module is a tensor of its own,
    in the order in which they are stored. "{}" stands for the expert: then the first axis is that of the experts.
    """

    ending: str
    parts: tuple[str, ...]
    order: Order = Order.ROWS

    @property
    def of_experts(self) -> bool:
        """Whether it holds one matrix (or vector) per expert."""
        return "{}" in self.parts[0]

    @property
    def labels(self) -> tuple[str, ...]:
        """Short names of the parts: "gate", "up"; "q", "k", "v"."""
        return tuple(re.sub(r"_proj$|^in_proj_", "", part.split(".")[-2]) for part in self.parts)

    def separate(self, name: str, part: int, expert: int | None) -> str:
        """The name of one part where it is a tensor of its own."""
        return name[: -len(self.ending)] + self.parts[part].format(expert)


def _modules(name: str, *parts: str, order: Order = Order.ROWS) -> tuple[Fused, ...]:
    """Weight and bias of a module that stands for several."""
    kinds = ("weight", "bias")
    return tuple(Fused(f".{name}.{kind}", tuple(f".{part}.{kind}" for part in parts), order) for kind in kinds)


def _experts(ending: str, *parts: str) -> Fused:
    return Fused(ending, parts)


FUSED: tuple[Fused, ...] = (
    # Experts, as transformers 5 saves them.
    _experts(".experts.gate_up_proj", ".experts.{}.gate_proj.weight", ".experts.{}.up_proj.weight"),
    _experts(".experts.down_proj", ".experts.{}.down_proj.weight"),
    _experts(".experts.gate_up_proj_bias", ".experts.{}.gate_proj.bias", ".experts.{}.up_proj.bias"),
    _experts(".experts.down_proj_bias", ".experts.{}.down_proj.bias"),
    # Granite.
    _experts(
        ".block_sparse_moe.input_linear.weight",
        ".block_sparse_moe.experts.{}.gate_proj.weight",
        ".block_sparse_moe.experts.{}.up_proj.weight",
    ),
    _experts(".block_sparse_moe.output_linear.weight", ".block_sparse_moe.experts.{}.down_proj.weight"),
    # Dense.
    *_modules("gate_up_proj", "gate_proj", "up_proj"),  # Phi-3, GLM-4
    *_modules("qkv_proj", "q_proj", "k_proj", "v_proj"),  # Phi-3
    *_modules("W_pack", "q_proj", "k_proj", "v_proj"),  # Baichuan
    *_modules("Wqkv", "q_proj", "k_proj", "v_proj"),  # MPT
    *_modules("c_attn", "q_proj", "k_proj", "v_proj", order=Order.COLUMNS),  # GPT-2; Qwen 1 stores it by rows
    *_modules("in_proj_qkvz", "in_proj_qkv", "in_proj_z", order=Order.BY_HEAD),  # Qwen3-Next; Qwen3.5 stores four
    *_modules("in_proj_ba", "in_proj_b", "in_proj_a", order=Order.BY_HEAD),
    *_modules("query_key_value", "q_proj", "k_proj", "v_proj", order=Order.BY_HEAD),  # GPT-NeoX, Falcon, BLOOM
    *_modules("wqkv", "q_proj", "k_proj", "v_proj", order=Order.BY_HEAD),  # InternLM 2
)
_ENDINGS = tuple(fused.ending for fused in FUSED)

#: (what must occur in a name, pattern, replacement): the first is a quick test, as most names have none of these.
ALIASES: tuple[tuple[str, re.Pattern[str], str], ...] = (
    ("block_sparse_moe.", re.compile(r"(?<=\.)block_sparse_moe\."), "mlp."),  # Mixtral: Qwen-like in transformers 5
    (".w1.", re.compile(r"(?<=\.)experts\.(\d+)\.w1\."), r"experts.\1.gate_proj."),
    (".w2.", re.compile(r"(?<=\.)experts\.(\d+)\.w2\."), r"experts.\1.down_proj."),
    (".w3.", re.compile(r"(?<=\.)experts\.(\d+)\.w3\."), r"experts.\1.up_proj."),
)

TOWERS = frozenset({
    "mtp", "visual", "vision_tower", "vision_model", "vision_encoder", "audio_tower", "multi_modal_projector",
    "mm_projector",
})  # fmt: skip

ROUTERS = (
    "gate.weight", "gate.bias", "gate.e_score_correction_bias", "router.weight", "router.bias",
    "router.layer.weight",
)  # fmt: skip

#: `model_type` -> whether the columns of gate and up alternate (else all of gate come first).
TRANSPOSED = {
    "gpt_oss": True, "llama4": False, "llama4_text": False, "qwen3_vl_moe": False, "qwen3_vl_moe_text": False,
    "aria": False, "aria_text": False,
}  # fmt: skip

_VIEW = re.compile(r"^(?P<stored>.+)\[(?P<which>\w+)\](?:\.(?P<label>\w+))?$")


def fused_entry(name: str) -> Fused | None:
    """The entry of the table for a stored tensor, if it may hold several modules."""
    if not name.endswith(_ENDINGS):
        return None
    return next(fused for fused in FUSED if name.endswith(fused.ending))


def separate_name(view: str) -> str:
    """A view's name as of a tensor of its own: "...experts.gate_up_proj[3].gate" -> "...experts.3.gate_proj.weight".

    Any other name comes back as it is.
    """
    found = _VIEW.match(view)
    fused = fused_entry(found["stored"]) if found else None
    if found is None or fused is None:
        return view
    if not fused.of_experts:
        label, expert = found["which"], None
    elif found["which"].isdecimal():
        label, expert = found["label"] or fused.labels[0], int(found["which"])
    else:
        return view
    if label not in fused.labels:
        return view
    return fused.separate(found["stored"], fused.labels.index(label), expert)
