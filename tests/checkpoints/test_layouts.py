"""Names of real model families: what they say, and that families' names for one weight meet."""

from __future__ import annotations

import pytest
from support.catalogs import Shape, assert_complete, catalog, reasons

from reconstruct.checkpoints.alignment import Alignment, align
from reconstruct.checkpoints.catalog import Catalog
from reconstruct.checkpoints.layouts import FUSED, fused_entry, separate_name
from reconstruct.checkpoints.module_names import ModuleName, describe, short_name

PREFIX = "model.layers.7."


def aligned(suspect: Catalog, *others: Catalog) -> Alignment:
    result = align(suspect, list(others))
    assert_complete(result, [suspect, *others])
    return result


@pytest.mark.parametrize(
    ("name", "kind", "group", "expert"),
    [
        # Dense: Llama, Qwen, Mistral, Gemma
        ("self_attn.q_norm.weight", "self_attn.q_norm", "self_attn", None),
        ("pre_feedforward_layernorm.weight", "pre_feedforward_layernorm", "pre_feedforward_layernorm", None),
        ("self_attn.qkv_proj.weight", "self_attn.qkv_proj", "self_attn", None),
        ("self_attn.qkv_proj.weight[k]", "self_attn.k_proj", "self_attn", None),
        ("mlp.gate_up_proj.weight[up]", "mlp.up_proj", "mlp", None),
        # Mixtral
        ("block_sparse_moe.experts.5.w1.weight", "block_sparse_moe.experts.w1", "block_sparse_moe", 5),
        ("block_sparse_moe.gate.weight", "block_sparse_moe.gate", "block_sparse_moe", None),
        # Qwen, DeepSeek
        ("mlp.experts.127.gate_proj.weight", "mlp.experts.gate_proj", "mlp", 127),
        ("mlp.gate.weight", "mlp.gate", "mlp", None),
        ("mlp.gate.e_score_correction_bias", "mlp.gate.e_score_correction_bias", "mlp", None),
        ("mlp.shared_expert.up_proj.weight", "mlp.shared_expert.up_proj", "mlp", None),
        ("mlp.shared_experts.up_proj.weight", "mlp.shared_experts.up_proj", "mlp", None),
        ("mlp.shared_expert_gate.weight", "mlp.shared_expert_gate", "mlp", None),
        ("self_attn.kv_a_proj_with_mqa.weight", "self_attn.kv_a_proj_with_mqa", "self_attn", None),
        # Stacked experts, whole and taken apart
        ("mlp.experts.gate_up_proj", "mlp.experts.gate_up_proj", "mlp", None),
        ("mlp.experts.gate_up_proj[3].gate", "mlp.experts.gate_proj", "mlp", 3),
        ("mlp.experts.down_proj[12]", "mlp.experts.down_proj", "mlp", 12),
        ("mlp.experts.gate_up_proj_bias[0].up", "mlp.experts.up_proj.bias", "mlp", 0),
        # Gated DeltaNet
        ("linear_attn.in_proj_qkvz.weight", "linear_attn.in_proj_qkvz", "linear_attn", None),
        ("linear_attn.in_proj_ba.weight", "linear_attn.in_proj_ba", "linear_attn", None),
        ("linear_attn.conv1d.weight", "linear_attn.conv1d", "linear_attn", None),
        ("linear_attn.A_log", "linear_attn.A_log", "linear_attn", None),
        ("linear_attn.dt_bias", "linear_attn.dt_bias", "linear_attn", None),
        ("linear_attn.norm.weight", "linear_attn.norm", "linear_attn", None),
        ("linear_attn.out_proj.weight", "linear_attn.out_proj", "linear_attn", None),
    ],
)
def test_kind_group_and_expert_of_modules_in_a_block(name: str, kind: str, group: str, expert: int | None) -> None:
    for prefix in (PREFIX, "model.language_model.layers.7.", "language_model.model.layers.7."):
        assert describe(prefix + name) == ModuleName(7, "7", kind, group, expert)


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("mtp.norm.weight", "mtp"),
        ("mtp.fc.weight", "mtp"),
        ("mtp.pre_fc_norm_embedding.weight", "mtp"),
        ("mtp.layers.0.mlp.experts.9.up_proj.weight", "mtp.0"),
        ("model.visual.patch_embed.proj.weight", "visual"),
        ("model.visual.merger.norm.weight", "visual"),
        ("model.visual.blocks.3.attn.qkv.weight", "visual.3"),
        ("vision_tower.vision_model.encoder.layers.2.mlp.fc1.weight", "vision_tower.vision_model.encoder.2"),
        ("vision_tower.vision_model.post_layernorm.weight", "vision_tower"),
        ("multi_modal_projector.linear_1.weight", "multi_modal_projector"),
        ("model.language_model.embed_tokens.weight", "embedding"),
    ],
)
def test_towers_and_prediction_heads_are_no_part_of_the_language_model(name: str, label: str) -> None:
    assert describe(name).layer_label == label


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("model.layers.0.block_sparse_moe.experts.5.w1.weight", "layers.0.mlp.experts.5.gate_proj.weight"),
        ("model.layers.0.block_sparse_moe.experts.5.w2.weight", "layers.0.mlp.experts.5.down_proj.weight"),
        ("model.layers.0.block_sparse_moe.experts.5.w3.weight", "layers.0.mlp.experts.5.up_proj.weight"),
        ("model.layers.0.block_sparse_moe.gate.weight", "layers.0.mlp.gate.weight"),
        ("model.layers.0.feed_forward.w1.weight", "layers.0.feed_forward.w1.weight"),
        ("model.layers.0.mlp.experts.gate_up_proj[3].up", "layers.0.mlp.experts.3.up_proj.weight"),
    ],
)
def test_other_words_for_one_module_have_one_short_name(name: str, short: str) -> None:
    assert short_name(name) == short


def test_every_fused_entry_leads_from_its_views_to_the_separate_names() -> None:
    for entry in FUSED:
        stored = f"model.layers.0.x{entry.ending}"
        assert fused_entry(stored) is entry
        for position, label in enumerate(entry.labels):
            which = f"[{label}]" if not entry.of_experts else f"[4].{label}" if len(entry.parts) > 1 else "[4]"
            assert separate_name(stored + which) == entry.separate(stored, position, 4)


@pytest.mark.parametrize("name", ["a[0]", "a.weight[q]", "mlp.experts.gate_up_proj[x].gate", "m.qkv_proj.weight[3].q"])
def test_names_with_brackets_that_are_no_views_stay_as_they_are(name: str) -> None:
    assert separate_name(name) == name


def expert_shapes(prefix: str, gate: str, up: str, down: str, experts: int = 3) -> dict[str, Shape]:
    return {
        f"{prefix}experts.{e}.{word}.weight": shape
        for e in range(experts)
        for word, shape in ((gate, (6, 16)), (up, (6, 16)), (down, (16, 6)))
    }


ROUTER: Shape = (3, 16)
MIXTRAL = expert_shapes(f"{PREFIX}block_sparse_moe.", "w1", "w3", "w2")
MIXTRAL |= {f"{PREFIX}block_sparse_moe.gate.weight": ROUTER}
QWEN = expert_shapes(f"{PREFIX}mlp.", "gate_proj", "up_proj", "down_proj") | {f"{PREFIX}mlp.gate.weight": ROUTER}
STACKED: dict[str, Shape] = {
    f"{PREFIX}mlp.experts.gate_up_proj": (3, 12, 16),
    f"{PREFIX}mlp.experts.down_proj": (3, 16, 6),
    f"{PREFIX}mlp.gate.weight": (3, 16),
}
GRANITE: dict[str, Shape] = {
    f"{PREFIX}block_sparse_moe.input_linear.weight": (3, 12, 16),
    f"{PREFIX}block_sparse_moe.output_linear.weight": (3, 16, 6),
    f"{PREFIX}block_sparse_moe.gate.weight": (3, 16),
}
SPARSE = {"mixtral": MIXTRAL, "qwen": QWEN, "stacked": STACKED, "granite": GRANITE}


@pytest.mark.parametrize("one", SPARSE)
@pytest.mark.parametrize("other", SPARSE)
def test_experts_of_any_two_layouts_meet(one: str, other: str) -> None:
    result = aligned(catalog("s", SPARSE[one]), catalog("p", SPARSE[other]))
    assert result.left_out == ()
    whole = one == other and one in {"stacked", "granite"}
    assert len(result.tensors) == (3 if whole else 10)
    for tensor in result.tensors:
        assert short_name(tensor.name) == short_name(tensor.sources[1].name)
        assert tensor.sources[0].shape == tensor.sources[1].shape


def test_three_models_of_which_two_store_stacked_experts() -> None:
    result = aligned(catalog("s", STACKED), catalog("p", QWEN), catalog("q", STACKED))
    assert result.left_out == ()
    assert {t.module.expert for t in result.tensors} == {None, 0, 1, 2}


def test_stacked_experts_that_all_models_share_stay_whole_and_say_how_many_they_are() -> None:
    result = aligned(catalog("s", STACKED), catalog("p", STACKED))
    notes = {t.name: t.notes for t in result.tensors}
    assert notes[f"{PREFIX}mlp.experts.gate_up_proj"] == ("3 experts in one tensor",)


def test_experts_that_only_the_suspect_has_are_listed_one_by_one() -> None:
    result = aligned(catalog("s", QWEN), catalog("p", {n: s for n, s in STACKED.items() if "experts" not in n}))
    assert len(reasons(result, "s")) == 9
    assert set(reasons(result, "s").values()) == {"not in p"}


def test_a_parent_with_more_experts_keeps_the_rest_on_the_list() -> None:
    more = expert_shapes(f"{PREFIX}mlp.", "gate_proj", "up_proj", "down_proj", experts=4)
    result = aligned(catalog("s", STACKED), catalog("p", more | {f"{PREFIX}mlp.gate.weight": (4, 16)}))
    assert len(result.tensors) == 9
    left = reasons(result, "p")
    assert sum(".experts.3." in name for name in left) == 3
    assert left[f"{PREFIX}mlp.gate.weight"] == "shape [3, 16] here, [4, 16] in p"


QWEN_NEXT: dict[str, Shape] = {
    f"{PREFIX}linear_attn.in_proj_qkvz.weight": (24, 16),
    f"{PREFIX}linear_attn.in_proj_ba.weight": (4, 16),
    f"{PREFIX}linear_attn.A_log": (2,),
}
QWEN_35: dict[str, Shape] = {
    f"{PREFIX}linear_attn.in_proj_qkv.weight": (16, 16),
    f"{PREFIX}linear_attn.in_proj_z.weight": (8, 16),
    f"{PREFIX}linear_attn.in_proj_b.weight": (2, 16),
    f"{PREFIX}linear_attn.in_proj_a.weight": (2, 16),
    f"{PREFIX}linear_attn.A_log": (2,),
}


def test_parts_that_take_turns_by_head_are_left_out_with_that_reason() -> None:
    result = aligned(catalog("s", QWEN_NEXT), catalog("p", QWEN_35))
    assert [t.name for t in result.tensors] == [f"{PREFIX}linear_attn.A_log"]
    assert all("from head to head" in reason for reason in reasons(result, "s").values())
    assert aligned(catalog("s", QWEN_NEXT), catalog("p", QWEN_NEXT)).left_out == ()


def test_prediction_heads_and_towers_that_a_merge_dropped_are_listed() -> None:
    extra: dict[str, Shape] = {
        "mtp.fc.weight": (4, 8),
        "mtp.layers.0.mlp.gate.weight": (2, 4),
        "model.visual.blocks.0.attn.qkv.weight": (12, 4),
    }
    result = aligned(catalog("s", STACKED), catalog("p", STACKED | extra))
    assert reasons(result, "p") == dict.fromkeys(extra, "not in the suspect")
