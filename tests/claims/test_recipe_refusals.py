"""Configurations that are refused: each names its line and a remedy. Among them hostile ones."""

from __future__ import annotations

import time

import pytest
from support.recipes import EXAMPLES, LINEAR, SLERP, TIES, places

from reconstruct.claims.mergekit_methods import MERGEKIT_METHODS
from reconstruct.claims.recipe_file import parse_recipe
from reconstruct.errors import ConfigurationError

REFUSED = {
    "not YAML": ("merge_method: linear\nmodels: [a\ndtype: x\n", 3, "not YAML"),
    "tab": ("merge_method: linear\n\tmodels: []\n", 2, "not YAML"),
    "control character": ("merge_method: linear\nmodels: \x07\n", 2, "U+0007"),
    "empty": ("", 1, "empty"),
    "only a comment": ("# nothing\n", 1, "empty"),
    "a list": ("- a\n- b\n", 1, "not a mapping"),
    "text": ("hello\n", 1, "not a mapping"),
    "several documents": (LINEAR + "---\n" + LINEAR, 12, "not supported"),
    "no method": ("models: [{model: a}]\n", 1, "no merge_method"),
    "misspelt method key": ("models: [{model: a}]\nmerge_metod: linear\n", 1, "did you mean 'merge_method'"),
    "experts": ("base_model: a\nexperts: []\n", 1, "mixture of experts"),
    "unknown method": (LINEAR.replace("linear", "linnear"), 1, "did you mean 'linear'"),
    "method that is no text": (LINEAR.replace("linear", "5"), 1, "no method '5'"),
    "neither": ("dtype: float32\nmerge_method: linear\n", 2, "none of models, slices or modules"),
    "models empty": ("merge_method: linear\nmodels: []\n", 2, "none of"),
    "both": (SLERP + "models: [{model: a}]\n", 16, "models and slices"),
    "duplicate key": (LINEAR.replace("  - model: org/b\n", "  - model: org/b\n    model: org/c\n"), 9, "after line 8"),
    "duplicate key in one line": ("merge_method: linear\nmodels: [{model: a, model: b}]\n", 2, "after line 2"),
    "t missing": (SLERP[: SLERP.index("parameters:")], 6, "parameters.t: missing"),
    "t given to a model": (
        "merge_method: slerp\nbase_model: a\nmodels:\n  - model: a\n  - model: b\n    parameters: {t: 1}\n",
        1, "t: missing",
    ),
    "weight missing": (LINEAR[: LINEAR.rindex("    parameters")], 8, "models[1].parameters.weight: missing for org/b"),
    "weight missing for an added base": (
        LINEAR.replace("base_model: org/a", "base_model: org/c"), 3, "missing for org/c",
    ),
    "weight given as an empty list": (LINEAR.replace("weight: 0.5", "weight: []", 1), 5, "missing for org/a"),
    "base missing": (TIES.replace("base_model: org/base\n", ""), 17, "base_model: missing"),
    "base not among the sources": (SLERP.replace("base_model: org/base", "base_model: org/c"), 2, "not among"),
    "too few models": ("merge_method: model_stock\nbase_model: a\nmodels: [{model: b}]\n", 3, "2 models"),
    "too many models": (
        "merge_method: nearswap\nbase_model: a\nparameters: {t: 0.1}\nmodels: [{model: b}, {model: c}]\n",
        4, "3 models",
    ),
    "passthrough of two": ("merge_method: passthrough\nbase_model: a\nmodels: [{model: b}]\n", 3, "2 models"),
    "model twice": (LINEAR.replace("org/b", "org/a"), 8, "a second time"),
    "weight of text": (LINEAR.replace("weight: 0.5", 'weight: "abc"', 1), 7, "'abc' is no number"),
    "weight of nothing": (LINEAR.replace("weight: 0.5", "weight:", 1), 7, "no value"),
    "weight of a date": (LINEAR.replace("weight: 0.5", "weight: 2020-01-01", 1), 7, "date"),
    "normalize of a number": (LINEAR + "parameters: {normalize: 0.5}\n", 11, "0.5 is no true or false"),
    "iterations of a fraction": (EXAMPLES["karcher"].replace("20", "2.5"), 7, "2.5 is no whole number"),
    "gradient with text": (TIES.replace("[1, 0.7, 0.1]", "[1, high, 0.1]"), 4, "models[0].parameters.density[1]"),
    "gradient with null": (TIES.replace("[1, 0.7, 0.1]", "[1, ~, 0.1]"), 4, "no value"),
    "gradient of gradients": (TIES.replace("[1, 0.7, 0.1]", "[[1, 2]]"), 4, "list is no value"),
    "filter without value": (TIES.replace("          value: 0.5\n", ""), 14, "a filter without a value"),
    "filter that is no text": (TIES.replace("filter: mlp", "filter: 5"), 14, "5 is no text"),
    "value among filters": (TIES.replace("- value: 0\n", "- 0\n"), 16, "a value among filters"),
    "unknown parameter's filter without value": (LINEAR + "parameters:\n  x: [{filter: a}]\n", 12, "without a value"),
    "model missing": (LINEAR.replace("model: org/b", "mode: org/b"), 8, "no model"),
    "model of two adapters": (LINEAR.replace("org/b", "a+b+c"), 8, "no reference"),
    "model with two revisions": (LINEAR.replace("org/b", "a@b@c"), 8, "no reference"),
    "model that is a number": (LINEAR.replace("org/b", "5"), 8, "not the name of a model"),
    "base that is a list": (LINEAR.replace("base_model: org/a", "base_model: [org/a]"), 3, "not the name"),
    "revision that is a number": (EXAMPLES["della"].replace("main", "1.0"), 2, "not the name"),
    "models that are a mapping": ("merge_method: linear\nmodels: {model: a}\n", 2, "not a list"),
    "model that is text": ("merge_method: linear\nmodels:\n  - a\n", 3, "not a mapping"),
    "parameters that are a list": (LINEAR + "parameters: [1]\n", 11, "not a mapping"),
    "no layers": (SLERP.replace(", layer_range: [0, 32]", ""), 3, "no layer_range"),
    "layers of one number": (SLERP.replace("layer_range: [0, 32]}", "layer_range: [32]}"), 3, "two whole numbers"),
    "layers of text": (SLERP.replace("layer_range: [0, 32]}", "layer_range: all}"), 3, "two whole numbers"),
    "layers that differ": (
        SLERP.replace("        layer_range: [0, 32]", "        layer_range: [0, 31]"), 5, "31 layers",
    ),
    "slice without sources": ("merge_method: passthrough\nslices:\n  - sources: []\n", 3, "without sources"),
    "dtype": (LINEAR.replace("float32", "float23"), 2, "did you mean 'float32'"),
    "out_dtype": (LINEAR + "out_dtype: fp16\n", 11, "no type 'fp16'"),
    "two tokenizers": (LINEAR + "tokenizer_source: base\ntokenizer: {source: base}\n", 12, "tokenizer_source"),
    "chat template": (LINEAR + "chat_template: [auto]\n", 11, "not text"),
    "tokenizer source": (LINEAR + "tokenizer_source: [a]\n", 11, "not the name of a model"),
    "source of a tokenizer": (LINEAR + "tokenizer: {source: 5}\n", 11, "not the name of a model"),
    "source of a token": (LINEAR + "tokenizer:\n  tokens:\n    x: {source: []}\n", 13, "not the name of a model"),
    "python object": (LINEAR.replace("float32", "!!python/object/apply:os.system [id]"), 2, "refused"),
    "python name": (LINEAR.replace("float32", "!!python/name:os.system"), 2, "refused"),
    "impossible date": (LINEAR.replace("float32", "2020-99-99"), 2, "timestamp"),
    "number of a word": (LINEAR.replace("float32", "!!int abc"), 2, "is no int"),
    "alias of itself": ("merge_method: linear\nmodels: &a\n  - *a\n", 2, "refers to itself"),
    "unknown alias": ("merge_method: linear\nmodels: *a\n", 2, "undefined alias"),
    "key that is a list": ("merge_method: linear\n? [a]\n: b\n", 2, "a key that is a list"),
    "deep": ("merge_method: linear\nmodels: " + "[" * 60 + "]" * 60, 2, "too deeply"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_names_its_line_and_a_remedy(name):
    text, line, words = REFUSED[name]
    with pytest.raises(ConfigurationError) as caught:
        parse_recipe(text, "claims/r.yml")
    error = caught.value
    assert error.subject == "claims/r.yml"
    assert error.remedy
    assert error.message.startswith((f"line {line}:", f"line {line},"))
    assert words in error.message


def test_lines_are_counted_from_where_the_text_starts():
    with pytest.raises(ConfigurationError, match="line 107: "):
        parse_recipe(LINEAR.replace("weight: 0.5", "weight: x", 1), "r", first_line=101)
    with pytest.raises(ConfigurationError, match="line 103, column 6: not YAML"):
        parse_recipe("merge_method: linear\nmodels: [a\ndtype: x\n", "r", first_line=101)


def test_an_unknown_method_lists_all():
    with pytest.raises(ConfigurationError) as caught:
        parse_recipe(LINEAR.replace("linear", "frankenmerge"), "r")
    assert all(name in caught.value.remedy for name in MERGEKIT_METHODS)


@pytest.mark.parametrize("name", ["t given to a model", "base not among the sources", "too few models", "model twice"])
def test_mergekit_refuses_what_is_refused(name):
    """Its planner does, and not its reader of configurations: so it is asked with the inputs of the groups."""
    import yaml
    from mergekit.config import ConfigReader, MergeConfiguration
    from mergekit.merge_methods.registry import get
    from mergekit.parameter_resolver import resolve_parameters

    config = MergeConfiguration.model_validate(yaml.safe_load(REFUSED[name][0]))
    method = get(config.merge_method)
    models = [m.model for m in config.models or config.slices[0].sources]
    if config.models and config.base_model not in models:
        models.append(config.base_model)
    reader = ConfigReader(config=config, t=0)
    with pytest.raises((ValueError, RuntimeError)):
        method.validate_inputs(models, config.base_model)
        inputs = dict.fromkeys(models, "w")
        resolve_parameters(
            method.spec, tensor_name="w", inputs=inputs, sources=reader.parameter_sources, base_model=config.base_model
        )


# Hostile files.


def bomb(levels, opening="[", closing="]"):
    lines = ["a0: &a0 x"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "\n".join([*lines, LINEAR])


def merge_bomb(levels):
    lines = ["a0: &a0 {k: v}"] + [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}" for i in range(1, levels)]
    return "\n".join([*lines, LINEAR])


@pytest.mark.parametrize("text", [bomb(30), bomb(8), merge_bomb(20)])
def test_aliases_that_explode_are_refused_at_once(text):
    start = time.monotonic()
    with pytest.raises(ConfigurationError, match="enormous size"):
        parse_recipe(text, "r.yml")
    assert time.monotonic() - start < 5


def test_a_chain_of_aliases_is_no_way_around_the_depth():
    lines = ["a0: &a0 [x]"] + [f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, 2000)]
    with pytest.raises(ConfigurationError, match="line 50, column 6: nested too deeply"):
        parse_recipe("\n".join([*lines, LINEAR]), "r.yml")


def test_a_few_aliases_are_not_refused():
    assert len(places(bomb(3))) == 3  # three unknown keys


@pytest.mark.parametrize("text", ["[" * 100_000, "{a: " * 50_000, "- " * 50_000, "? " * 50_000])
def test_depth_without_end(text):
    with pytest.raises(ConfigurationError, match=r"nested too deeply|not YAML"):
        parse_recipe(text, "r.yml")


def test_long_lines_and_keys():
    long = "x" * 200_000
    assert places(LINEAR + f"note: {long}\n") == [(11, "note")]
    with pytest.raises(ConfigurationError, match=r"line 12, column 3: a key of 200,000 characters"):
        parse_recipe(LINEAR + f"note: 1\n? {long}\n: [{{a: b}}]\n", "r.yml")
    with pytest.raises(ConfigurationError) as caught:
        parse_recipe(LINEAR.replace("0.5", long, 1), "r.yml")
    assert len(str(caught.value)) < 300
    with pytest.raises(ConfigurationError, match="more than"):
        parse_recipe("#" * 2_000_000, "r.yml")


def test_long_words_in_every_place_give_short_errors():
    long = "x" * 50_000
    for word, instead in (("linear", long), ("float32", long), ("org/b", f"{long}+a+b")):
        with pytest.raises(ConfigurationError) as caught:
            parse_recipe(LINEAR.replace(word, instead), "r.yml")
        assert len(caught.value.message) < 400
