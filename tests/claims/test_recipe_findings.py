"""What mergekit accepts silently, or what leaves its output open: each is noted with its line."""

from __future__ import annotations

import pytest
from support.recipes import EXAMPLES, LINEAR, SLERP, TIES, places

from reconstruct.claims.recipe_file import parse_recipe

NOTED = {
    "top key": (LINEAR + "out_dtpe: float16\n", (11, "out_dtpe"), "did you mean 'out_dtype'"),
    "parameter outside parameters": (LINEAR + "normalize: false\n", (11, "normalize"), "under 'parameters'"),
    "weight outside parameters": (
        "merge_method: linear\nparameters: {weight: 1}\nmodels:\n  - model: a\n    weight: 2\n",
        (5, "models[0].weight"), "under 'parameters'",
    ),
    "seed": (LINEAR + "random_seed: 5\n", (11, "random_seed"), "--random-seed"),
    "model key": (LINEAR + "    paramters: {}\n", (11, "models[1].paramters"), "did you mean 'parameters'"),
    "layers of a whole model": (LINEAR + "    layer_range: [0, 1]\n", (11, "models[1].layer_range"), "ignores"),
    "slice key": (
        SLERP.replace("merge_method", "    parametrs: {}\nmerge_method"), (6, "slices[0].parametrs"), "did you mean",
    ),
    "source key": (
        SLERP.replace("        layer_range", "        param: 1\n        layer_range"),
        (5, "slices[0].sources[1].param"), "ignores",
    ),
    "residual weight": (
        SLERP.replace("merge_method", "    residual_weight: 1\nmerge_method"),
        (6, "slices[0].residual_weight"), "never used",
    ),
    "parameter": (
        TIES.replace("      weight: 1.0", "      weight: 1.0\n      wieght: 2"),
        (6, "models[0].parameters.wieght"), "ties has no parameter 'wieght'; did you mean 'weight'?",
    ),
    "parameter of another method": (
        LINEAR + "parameters: {select_topk: 0.1}\n", (11, "parameters.select_topk"), "it belongs to sce",
    ),
    "filter key": (
        TIES.replace("filter: mlp", "filter: mlp\n          fliter: x"),
        (15, "models[2].parameters.weight[0].fliter"), "did you mean 'filter'",
    ),
    "reference key": (
        EXAMPLES["della"].replace("revision:", "version:"), (2, "base_model.model.version"), "did you mean 'revision'",
    ),
    "tokenizer key": (EXAMPLES["della"].replace("source: union", "sourse: union"), (10, "tokenizer.sourse"), "source"),
    "token key": (
        EXAMPLES["della"].replace("force:", "forced:"),
        (10, "tokenizer.tokens.<|im_end|>.forced"), "did you mean 'force'",
    ),
    "no dtype": (LINEAR.replace("dtype: float32\n", ""), (1, "dtype"), "promote"),
    "float32 from arcee_fusion": (
        EXAMPLES["arcee_fusion"].replace("out_dtype: bfloat16\n", ""),
        (4, "out_dtype"), "computes float32 from bfloat16",
    ),
    "float32 from ramplus_tl": (
        "merge_method: ramplus_tl\ndtype: torch.float16\nbase_model: a\nmodels: [{model: b}]\n",
        (2, "out_dtype"), "float32",
    ),
    "no base": (LINEAR.replace("base_model: org/a\n", ""), (1, "base_model"), "PYTHONHASHSEED"),
    "base that becomes an input": (
        EXAMPLES["karcher"].replace("base_model: org/a", "base_model: org/z"), (6, "base_model"), "one more input",
    ),
    "no default entry": (
        SLERP.replace("    - value: 0.5\n", ""),
        (9, "parameters.t"), "no filter matches have no value, and mergekit stops",
    ),
    "no default entry of an optional parameter": (
        TIES.replace("density: 0.5", "density: {filter: mlp, value: 0.5}"),
        (8, "models[1].parameters.density"), "ties takes 1.0 for them",
    ),
    "entry after the default": (
        TIES.replace("        - value: 0\n", "").replace("        - filter", "        - value: 1\n        - filter"),
        (15, "models[2].parameters.weight[1]"), "an entry for all tensors stands before it",
    ),
    "entry after a shorter filter": (
        SLERP.replace("filter: mlp", "filter: self_attn.q_proj"), (12, "parameters.t[1]"), "the filter 'self_attn'",
    ),
    "empty list": (TIES.replace("density: 0.5", "density: []"), (8, "models[1].parameters.density"), "no value"),
    "shared parameter of a model": (
        TIES.replace("density: 0.5", "normalize: false"), (8, "models[1].parameters.normalize"), "around the models",
    ),
    "parameter of the base": (
        EXAMPLES["dare_ties"].replace("org/base # no", "org/base\n    parameters: {weight: 1} # no"),
        (3, "models[0].parameters.weight"), "the base",
    ),
    "overridden everywhere": (LINEAR + "parameters: {weight: 1}\n", (11, "parameters.weight"), "nearer"),
    "density of task_arithmetic": (
        EXAMPLES["task_arithmetic"].replace("lambda: 0.9", "density: 0.5"),
        (6, "parameters.density"), "changes nothing",
    ),
    "rows of a flattened nuslerp": (
        EXAMPLES["nuslerp"].replace("nuslerp_flatten: false, ", ""),
        (8, "parameters.nuslerp_row_wise"), "nuslerp_flatten",
    ),
    "true as a weight": (LINEAR.replace("0.5", "true", 1), (7, "models[0].parameters.weight"), "reads it as 1"),
    "a weight that is no number": (LINEAR.replace("0.5", ".nan", 1), (7, "models[0].parameters.weight"), "not finite"),
    "an empty range": (
        "merge_method: passthrough\ndtype: float32\nslices:\n  - sources:\n      - {model: a, layer_range: [4, 4]}\n",
        (5, "slices[0].sources[0].layer_range"), "no layers",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NOTED)
def test_what_mergekit_accepts_silently_is_noted_with_its_line(name):
    text, place, words = NOTED[name]
    found = [f for f in parse_recipe(text, "r.yml").findings if f.path != "random_seed" or place[1] == "random_seed"]
    assert [(f.line, f.path) for f in found] == [place]
    assert words in found[0].message


def test_what_need_not_be_noted():
    assert places(LINEAR) == []
    assert places(TIES.replace("[0, 0.3, 0.7, 1]", "[" + ", ".join(["0.5"] * 500) + "]")) == []  # longer than any model
    assert places(TIES.replace("        - value: 0\n", "") + "parameters2: 1\n") != []
    outer = TIES.replace("        - value: 0\n", "").replace("  normalize: true", "  weight: 0")
    assert places(outer) == []  # what no filter matches takes the outer value
    full = EXAMPLES["dare_ties"].replace("0.53", "1.0")
    assert places(full) == []  # nothing is dropped at random
    assert places(EXAMPLES["dare_ties"] + "random_seed: 3\n") == [(12, "random_seed")]
    alone = "merge_method: linear\nmodels: [{model: a, parameters: {weight: 1}}]\n"
    assert places(alone) == []  # one model: its own type, its own files
    assert places(EXAMPLES["arcee_fusion"].replace("bfloat16", "float32")) == [(2, "random_seed")]


def test_findings_are_in_the_order_of_lines():
    lines = [line for line, _ in places("seeed: 1\n" + LINEAR.replace("dtype: float32\n", "") + "zzz: 1\n")]
    assert lines == sorted(lines)
    assert len(lines) == 3
