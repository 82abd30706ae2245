"""The families of the benchmark: architecture, storage, optimiser, and the half that each belongs to.

Thresholds are chosen on the tuning half and reported on the other, so both hold every architecture and storage rule of
rounding: dense and mixture decoders, encoders, recurrent networks; float32, float16, bfloat16; AdamW in float32 and in
pure 16 bits. `wide-bf16` has matrices of a million elements.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

__all__ = ["FAMILIES", "SMOKE", "Family", "family_named"]

Architecture = Literal["qwen3", "llama", "qwen3_moe", "bert", "lstm"]


@dataclass(frozen=True)
class Family:
    """`hidden`, `inner`, `layers`: sizes; `steps`: pretraining, then a full fine-tuning; `batch` x `context` bytes a
    step; `pure`: parameters and optimiser state in the storage dtype, without a float32 copy.
    """

    name: str
    half: Literal["tuning", "reporting"]
    architecture: Architecture
    storage: Literal["bfloat16", "float16", "float32"]
    seed: int
    pure: bool = False
    hidden: int = 128
    inner: int = 352
    layers: int = 4
    steps: tuple[int, int] = (1200, 120)
    batch: int = 8
    context: int = 96


FAMILIES = (
    Family("dense-bf16", "tuning", "qwen3", "bfloat16", 11),
    Family("mixture-bf16", "tuning", "qwen3_moe", "bfloat16", 12, hidden=96, inner=64, layers=3),
    Family("encoder-f32", "tuning", "bert", "float32", 13),
    Family("recurrent-f16", "tuning", "lstm", "float16", 14, hidden=160, layers=2),
    Family("dense-pure16", "tuning", "llama", "bfloat16", 15, pure=True),
    Family("dense-f16", "reporting", "llama", "float16", 21),
    Family("wide-bf16", "reporting", "llama", "bfloat16", 22, hidden=512, inner=2048, layers=2, batch=4, context=64,
           steps=(600, 80)),
    Family("mixture-pure16", "reporting", "qwen3_moe", "bfloat16", 23, pure=True, hidden=96, inner=64, layers=3),
    Family("encoder-bf16", "reporting", "bert", "bfloat16", 24),
    Family("recurrent-f32", "reporting", "lstm", "float32", 25, hidden=160, layers=2),
)  # fmt: skip

#: One family, trained for seconds: that the whole benchmark works, in continuous integration.
SMOKE = replace(FAMILIES[0], name="smoke-bf16", hidden=64, inner=176, layers=3, steps=(120, 30))


def family_named(name: str) -> Family:
    """Raises KeyError."""
    return {family.name: family for family in (*FAMILIES, SMOKE)}[name]
