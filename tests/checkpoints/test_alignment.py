"""Pairing of tensors: what is compared, what is left out, and that nothing is skipped in silence."""

from __future__ import annotations

import pytest
from support import family
from support.catalogs import Shape, assert_complete, catalog, reasons

from reconstruct.checkpoints.alignment import Alignment, align
from reconstruct.checkpoints.catalog import Catalog
from reconstruct.checkpoints.open import open_checkpoint
from reconstruct.errors import AlignmentError

BLOCK = {"layers.0.mlp.up_proj.weight": (8, 4), "norm.weight": (4,)}
EMBEDDING: dict[str, Shape] = {"embed_tokens.weight": (16, 4)}
HEAD: dict[str, Shape] = {"lm_head.weight": (16, 4)}
UNTIED = {"tie_word_embeddings": False}


def prefixed(prefix: str, tensors: dict[str, Shape]) -> dict[str, Shape]:
    return {prefix + name: shape for name, shape in tensors.items()}


def aligned(suspect: Catalog, *others: Catalog) -> Alignment:
    result = align(suspect, list(others))
    assert_complete(result, [suspect, *others])
    return result


def test_the_trained_family_aligns_without_rest_or_note() -> None:
    models = [open_checkpoint(str(path)) for path in (family.CODE, family.BASE, family.DOCS)]
    result = aligned(*models)
    assert result.left_out == ()
    assert [t.name for t in result.tensors] == sorted(models[0].tensors, key=lambda n: models[0].tensors[n].begin)
    assert not any(t.notes for t in result.tensors)
    assert sum(t.elements for t in result.tensors) == models[0].parameters


@pytest.mark.parametrize("suspect", ["", "model.", "language_model.", "model.language_model.", "language_model.model."])
@pytest.mark.parametrize("parent", ["", "model.", "language_model.", "model.language_model.", "_orig_mod.model."])
def test_names_with_other_wrappers_in_front_are_paired_and_noted(suspect: str, parent: str) -> None:
    result = aligned(catalog("s", prefixed(suspect, BLOCK)), catalog("p", prefixed(parent, BLOCK)))
    assert [t.name for t in result.tensors] == list(prefixed(suspect, BLOCK))
    for tensor, name in zip(result.tensors, prefixed(parent, BLOCK), strict=True):
        assert tensor.sources[1].name == name
        assert tensor.notes == (() if suspect == parent else (f"named {name} in p",))


def test_an_ambiguous_short_name_is_not_guessed() -> None:
    twice = prefixed("model.", BLOCK) | prefixed("language_model.", BLOCK)
    result = aligned(catalog("s", prefixed("model.", BLOCK) | HEAD), catalog("p", twice | HEAD))
    assert {t.sources[1].name for t in result.tensors} == {*prefixed("model.", BLOCK), *HEAD}
    result = aligned(catalog("s", twice | HEAD), catalog("p", BLOCK | HEAD))
    assert {t.name for t in result.tensors} == set(HEAD)


def test_a_head_missing_in_a_parent_is_compared_with_the_tied_embedding() -> None:
    suspect = catalog("s", prefixed("model.", BLOCK | EMBEDDING) | HEAD)
    parent = catalog("p", prefixed("model.", BLOCK | EMBEDDING), {"tie_word_embeddings": True})
    head = next(t for t in aligned(suspect, parent).tensors if t.name == "lm_head.weight")
    assert head.sources[1].name == "model.embed_tokens.weight"
    assert head.notes == ("tied to model.embed_tokens.weight in p",)


def test_a_head_missing_in_the_suspect_is_explained() -> None:
    result = aligned(catalog("s", BLOCK | EMBEDDING), catalog("p", BLOCK | EMBEDDING | HEAD))
    assert reasons(result, "p") == {"lm_head.weight": "not in the suspect, which uses embed_tokens.weight in its place"}


@pytest.mark.parametrize("configuration", [UNTIED, {"text_config": UNTIED}])
def test_a_head_missing_where_the_configuration_says_untied_is_missing(configuration: dict[str, object]) -> None:
    headless = catalog("h", BLOCK | EMBEDDING, configuration)
    whole = catalog("w", BLOCK | EMBEDDING | HEAD)
    assert reasons(aligned(whole, headless), "w") == {"lm_head.weight": "not in h"}
    assert reasons(aligned(headless, whole), "w") == {"lm_head.weight": "not in the suspect"}


def test_several_embeddings_of_an_encoder_decoder_share_one_stored_tensor() -> None:
    whole = {f"{part}.embed_tokens.weight": (16, 4) for part in ("encoder", "decoder")} | HEAD
    result = aligned(catalog("s", BLOCK | whole), catalog("p", BLOCK | {"shared.weight": (16, 4)}))
    shared = [t.name for t in result.tensors if t.sources[1].name == "shared.weight"]
    assert shared == ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"]


@pytest.mark.parametrize(("ours", "theirs"), [(20, 16), (16, 20)])
def test_vocabularies_of_different_size_are_compared_over_the_shared_rows(ours: int, theirs: int) -> None:
    models = [
        catalog(name, BLOCK | {"embed_tokens.weight": (rows, 4), "lm_head.weight": (rows, 4), "lm_head.bias": (rows,)})
        for name, rows in (("s", ours), ("p", theirs))
    ]
    rows = {t.name: t for t in aligned(*models).tensors if t.name not in BLOCK}
    assert [t.shape for t in rows.values()] == [(16, 4), (16, 4), (16,)]
    note = f"vocabulary sizes differ: the first 16 rows are compared ({ours}, {theirs} in the models)"
    assert all(t.notes == (note,) for t in rows.values())
    assert rows["embed_tokens.weight"].elements == 64


def test_other_shapes_that_differ_are_left_out_in_every_model_with_both_shapes() -> None:
    moved = {"layers.0.attention.output.weight": (8, 4), "layers.0.embed.weight": (4, 4)}
    others = {"layers.0.attention.output.weight": (6, 4), "layers.0.embed.weight": (4, 4, 1)}
    result = aligned(catalog("s", BLOCK | moved), catalog("b", BLOCK | moved), catalog("p", BLOCK | others))
    expected = {
        "layers.0.attention.output.weight": "shape [8, 4] here, [6, 4] in p",
        "layers.0.embed.weight": "shape [4, 4] here, [4, 4, 1] in p",
    }
    for model in ("s", "b", "p"):
        assert reasons(result, model) == expected


def test_integers_and_buffers_are_set_apart_in_every_model() -> None:
    buffers = {
        "layers.0.position_ids": ((4,), "I64"),
        "layers.0.num_batches_tracked": ((), "I64"),
        "layers.0.packed.qweight": ((4, 4), "I32"),
        "rotary_emb.inv_freq": ((8,), "F32"),
        "h.0.attn.bias": ((1, 1, 16, 16), "F32"),
        "h.0.attn.masked_bias": ((), "F32"),
        "nothing": ((0, 4), "F32"),
    }
    result = aligned(catalog("s", BLOCK | buffers), catalog("p", BLOCK | buffers))
    assert [t.name for t in result.tensors] == list(BLOCK)
    for model in ("s", "p"):
        found = reasons(result, model)
        assert list(found) == list(buffers)
        assert found["layers.0.packed.qweight"].startswith("I32 is not a floating-point weight")
        assert found["rotary_emb.inv_freq"] == "a buffer computed from the configuration, not a weight"
        assert found["nothing"] == "it has no elements"


def test_a_bias_of_an_attention_is_no_mask() -> None:
    bias = {"h.0.attn.bias": (12,)}
    assert [t.name for t in aligned(catalog("s", bias), catalog("p", bias)).tensors] == list(bias)


def test_an_integer_tensor_in_a_parent_is_the_reason_in_every_model() -> None:
    suspect, parent = catalog("s", BLOCK | {"w": (4, 4)}), catalog("p", BLOCK | {"w": ((4, 4), "U8")})
    result = aligned(suspect, parent)
    assert reasons(result, "s") == reasons(result, "p")
    assert reasons(result, "s")["w"].startswith("in p: U8 is not a floating-point weight")


def test_a_weight_missing_in_some_parents_names_them_and_is_left_out_everywhere() -> None:
    more = BLOCK | {"layers.0.gate.weight": (4, 4)}
    models = [catalog("s", more), catalog("b", more), catalog("p", BLOCK), catalog("q", BLOCK)]
    result = aligned(*models)
    for model in ("s", "b"):
        assert reasons(result, model) == {"layers.0.gate.weight": "not in p, q"}
    assert reasons(result, "p") == {}


def test_what_only_a_parent_has_is_listed() -> None:
    vision = {f"visual.blocks.{n}.attn.qkv.weight": (12, 4) for n in range(3)}
    result = aligned(catalog("s", BLOCK), catalog("p", BLOCK | vision))
    assert reasons(result, "p") == dict.fromkeys(vision, "not in the suspect")


def test_different_dtypes_are_noted_in_the_order_of_the_models() -> None:
    suspect, parent = catalog("s", {"w": ((4, 4), "BF16")}), catalog("p", {"w": ((4, 4), "F64")})
    (tensor,) = aligned(suspect, parent).tensors
    assert tensor.notes == ("stored as BF16, F64", "float64 weights are examined at float32 precision")


@pytest.mark.parametrize(
    ("shape", "matrix"), [((4, 4), True), ((4,), False), ((1, 4), False), ((4, 1, 3), True), ((), False)]
)
def test_only_tensors_with_two_real_axes_are_matrices(shape: Shape, matrix: bool) -> None:
    (tensor,) = aligned(catalog("s", {"w": shape}), catalog("p", {"w": shape})).tensors
    assert tensor.is_matrix is matrix


@pytest.mark.parametrize(
    ("suspect", "message"),
    [
        ({"a": (4, 4), "b": (4,)}, r"not in p \(2\)"),
        ({"layers.0.mlp.up_proj.weight": (9, 9)}, r"shape \[9, 9\] here, \[8, 4\] in p \(1\)"),
        ({"norm.weight": ((4,), "I8")}, r"I8 is not a floating-point weight.* \(1\)"),
        ({}, "it has no tensors"),
    ],
)
def test_nothing_in_common_is_an_error_with_the_commonest_reasons(suspect: dict[str, Shape], message: str) -> None:
    with pytest.raises(AlignmentError, match=f"no floating-point tensor in common with every candidate: {message}"):
        align(catalog("s", suspect), [catalog("p", BLOCK)])
