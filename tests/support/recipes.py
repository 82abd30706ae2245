"""mergekit configurations in the style of its documentation, by method."""

from __future__ import annotations

from reconstruct.claims.recipe_file import parse_recipe

EXAMPLES = {
    "linear": """\
models:
  - model: org/base
    parameters:
      weight: 0.7
  - model: org/a@main
    parameters: {weight: 3e-1}
base_model: org/base
merge_method: linear
parameters:
  normalize: false
dtype: bfloat16
""",
    "slerp": """\
slices:
  - sources:
      - {model: org/base, layer_range: [0, 32]}
      - model: org/a
        layer_range: [0, 32]
merge_method: slerp
base_model: org/base
parameters:
  t:
    - filter: self_attn
      value: [0, 0.5, 0.3, 0.7, 1]
    - filter: mlp
      value: [1, 0.5, 0.7, 0.3, 0]
    - value: 0.5
dtype: bfloat16
""",
    "ties": """\
models:
  - model: org/a
    parameters:
      density: [1, 0.7, 0.1] # a gradient
      weight: 1.0
  - model: org/b
    parameters:
      density: 0.5
      weight: [0, 0.3, 0.7, 1]
  - model: org/c
    parameters:
      density: 0.33
      weight:
        - filter: mlp
          value: 0.5
        - value: 0
merge_method: ties
base_model: org/base
parameters:
  normalize: true
  int8_mask: true
dtype: float16
""",
    "dare_ties": """\
models:
  - model: org/base # no parameters: it is the base
  - model: org/a
    parameters: {density: 0.53, weight: 0.4}
  - model: org/b
    parameters: {density: 0.53, weight: 0.3}
merge_method: dare_ties
base_model: org/base
parameters:
  int8_mask: true
dtype: bfloat16
""",
    "della": """\
merge_method: della
base_model: {model: {path: org/base, revision: main}}
models:
  - model: org/a
    parameters: {weight: 0.5, density: 0.6, epsilon: 0.1}
  - model: org/b
    parameters: {weight: 0.5, density: 0.6, epsilon: 0.1}
parameters: {lambda: 1.1, normalize: yes}
dtype: torch.bfloat16
tokenizer: {source: union, tokens: {<|im_end|>: {source: org/a, force: true}}}
""",
    "passthrough": """\
slices:
  - sources:
    - model: org/a
      layer_range: [0, 24]
  - sources:
    - model: org/a
      layer_range: [8, 32]
      parameters:
        scale:
          - filter: o_proj
            value: 0.0
          - filter: "*"
            value: 1.0
merge_method: passthrough
dtype: bfloat16
""",
    "nuslerp": """\
models:
  - model: org/a
    parameters: {weight: 0.4}
  - model: org/b
    parameters: {weight: 0.6}
merge_method: nuslerp
base_model: org/base
parameters: {nuslerp_flatten: false, nuslerp_row_wise: true}
dtype: float32
""",
    "multislerp": """\
models:
  - {model: org/a, parameters: {weight: &same 0.5}}
  - {model: org/b, parameters: {weight: *same}}
  - {model: org/c, parameters: {weight: *same}}
merge_method: multislerp
base_model: org/base
parameters: {normalize_weights: true, eps: 1e-8}
dtype: float32
""",
    "karcher": """\
models:
  - model: org/a
  - model: org/b
  - model: org/c
merge_method: karcher
base_model: org/a
parameters: {max_iter: 20, tol: 1e-6}
dtype: bfloat16
out_dtype: float16
""",
    "model_stock": """\
models:
  - model: org/a
  - model: org/b
merge_method: model_stock
base_model: org/base
dtype: bfloat16
tokenizer_source: base
chat_template: auto
""",
    "breadcrumbs": """\
models:
  - model: org/a
    parameters: {weight: 0.5, density: 0.9, gamma: 0.01}
  - model: org/b
    parameters: {weight: 0.5, density: 0.9}
merge_method: breadcrumbs
base_model: org/base
dtype: bfloat16
""",
    "sce": """\
models:
  - model: org/a+org/adapter
  - model: org/b
merge_method: sce
base_model: org/base
parameters: {select_topk: 0.1}
dtype: bfloat16
""",
    "task_arithmetic": """\
models:
  - {model: org/a, parameters: {weight: 0.35}}
  - {model: org/b}
merge_method: task_arithmetic
base_model: org/base
parameters: {weight: 0.65, lambda: 0.9}
dtype: bfloat16
""",
    "arcee_fusion": """\
models: [{model: org/a}]
merge_method: arcee_fusion
base_model: org/base
dtype: bfloat16
out_dtype: bfloat16
""",
    "modules": """\
merge_method: linear
base_model: org/a
modules:
  text_decoder:
    slices:
      - sources:
          - {model: org/a, layer_range: [0, 8], parameters: {weight: 1}}
          - {model: org/b, layer_range: [4, 12], parameters: {weight: 2}}
  vision_tower:
    models: [{model: org/a}]
    parameters: {weight: 1}
dtype: bfloat16
""",
}
TIES = EXAMPLES["ties"]
LINEAR = """\
merge_method: linear
dtype: float32
base_model: org/a
models:
  - model: org/a
    parameters:
      weight: 0.5
  - model: org/b
    parameters:
      weight: 0.5
"""
SLERP = EXAMPLES["slerp"]


def places(text):
    return [(finding.line, finding.path) for finding in parse_recipe(text, "r.yml").findings]
