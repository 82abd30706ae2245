"""What a tensor's name says about its layer, module kind and group, over the naming habits of architectures."""

from __future__ import annotations

import pytest
from support import family

from reconstruct.checkpoints.module_names import ModuleName, canonical_name, describe


@pytest.mark.parametrize(
    ("name", "layer", "label", "kind", "group"),
    [
        ("model.layers.3.self_attn.q_proj.weight", 3, "3", "self_attn.q_proj", "self_attn"),
        ("model.layers.12.mlp.experts.17.down_proj.weight", 12, "12", "mlp.experts.down_proj", "mlp"),
        ("model.layers.0.input_layernorm.weight", 0, "0", "input_layernorm", "input_layernorm"),
        ("model.layers.3.self_attn.q_proj.bias", 3, "3", "self_attn.q_proj.bias", "self_attn"),
        ("transformer.h.7.attn.c_attn.weight", 7, "7", "attn.c_attn", "attn"),
        ("gpt_neox.layers.2.attention.dense.weight", 2, "2", "attention.dense", "attention"),
        ("model.language_model.layers.5.mlp.up_proj.weight", 5, "5", "mlp.up_proj", "mlp"),
        ("model.visual.blocks.5.mlp.up_proj.weight", 5, "visual.5", "mlp.up_proj", "mlp"),
        ("encoder.block.1.layer.0.SelfAttention.q.weight", 1, "encoder.1", "layer.SelfAttention.q", "layer"),
        ("decoder.block.1.layer.0.SelfAttention.q.weight", 1, "decoder.1", "layer.SelfAttention.q", "layer"),
        ("mtp.layers.0.mlp.up_proj.weight", 0, "mtp.0", "mlp.up_proj", "mlp"),
        ("features.4.conv.weight", 4, "features.4", "conv", "conv"),
        ("0.weight", 0, "0", "weight", "weight"),
        ("2.bias", 2, "2", "bias", "bias"),
        ("model.embed_tokens.weight", None, "embedding", "embed_tokens", "embed_tokens"),
        ("transformer.wte.weight", None, "embedding", "wte", "wte"),
        ("lm_head.weight", None, "head", "lm_head", "lm_head"),
        ("score.weight", None, "head", "score", "score"),
        ("model.norm.weight", None, "final", "norm", "norm"),
        ("transformer.ln_f.weight", None, "final", "ln_f", "ln_f"),
        ("alpha", None, "alpha", "alpha", "alpha"),
    ],
)
def test_names_of_many_architectures(name: str, layer: int | None, label: str, kind: str, group: str) -> None:
    assert describe(name) == ModuleName(layer, label, kind, group, 17 if ".experts." in name else None)


def test_blocks_of_two_towers_with_one_number_are_kept_apart() -> None:
    towers = ("model.language_model.layers.0.mlp.fc.weight", "model.visual.blocks.0.mlp.fc.weight")
    assert len({describe(name).layer_label for name in towers}) == 2


@pytest.mark.parametrize("name", ["", ".", "..", "weight", "model", "model.", "layers.0", "a.².b", "9" * 5000])
def test_no_name_is_refused(name: str) -> None:
    found = describe(name)
    assert (found.layer is None) or found.layer >= 0
    assert name == "" or canonical_name(name) != ""


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("model.layers.0.x", "layers.0.x"),
        ("model.language_model.layers.0.x", "layers.0.x"),
        ("language_model.model.layers.0.x", "layers.0.x"),
        ("base_model.model.model.layers.0.x", "layers.0.x"),
        ("module._orig_mod.transformer.h.0.x", "h.0.x"),
        ("models.layers.0.x", "models.layers.0.x"),
        ("layers.0.model.x", "layers.0.model.x"),
    ],
)
def test_only_leading_wrappers_are_taken_off(name: str, short: str) -> None:
    assert canonical_name(name) == short


def test_the_trained_family_has_three_layers_and_three_parts_outside() -> None:
    names = [describe(name) for name in family.load("base")]
    assert {n.layer_label for n in names} == {"0", "1", "2", "embedding", "head", "final"}
    assert {n.group for n in names if n.layer is not None} == {
        "self_attn", "mlp", "input_layernorm", "post_attention_layernorm",
    }  # fmt: skip
