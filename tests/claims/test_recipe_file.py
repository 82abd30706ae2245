"""Claimed configurations: what they say, what is taken without complaint, and where their models are."""

from __future__ import annotations

import dataclasses

import pytest
from support.recipes import EXAMPLES, LINEAR, TIES, places

from reconstruct.claims.recipe_file import parse_recipe, read_recipe, resolve_models
from reconstruct.errors import ConfigurationError

#: Findings of the examples, all of them about things that the file cannot say.
EXPECTED = {"dare_ties": [(7, "random_seed")], "della": [(1, "random_seed")], "arcee_fusion": [(2, "random_seed")]}


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_in_the_style_of_the_documentation_have_no_findings_but_what_no_file_can_say(name):
    recipe = parse_recipe(EXAMPLES[name], "r.yml")
    assert places(EXAMPLES[name]) == EXPECTED.get(name, [])
    assert recipe.method == (name if name != "modules" else "linear")


@pytest.mark.parametrize("name", EXAMPLES)
def test_mergekit_takes_the_examples_and_refers_to_the_same_models(name):
    import yaml
    from mergekit.config import MergeConfiguration

    theirs = MergeConfiguration.model_validate(yaml.safe_load(EXAMPLES[name]))
    assert {str(model) for model in theirs.referenced_models()} == set(parse_recipe(EXAMPLES[name], "r").models)


def test_what_a_recipe_says():
    recipe = parse_recipe(EXAMPLES["della"], "r.yml")
    assert (recipe.location, recipe.text, recipe.method) == ("r.yml", EXAMPLES["della"], "della")
    assert recipe.models == ("org/base@main", "org/a", "org/b")
    assert (recipe.base_model, recipe.dtype, recipe.out_dtype) == ("org/base@main", "torch.bfloat16", None)
    assert recipe.document["parameters"] == {"lambda": 1.1, "normalize": True}
    assert parse_recipe(EXAMPLES["karcher"], "r").models == ("org/a", "org/b", "org/c")
    assert parse_recipe(EXAMPLES["sce"], "r").models == ("org/a+org/adapter", "org/b", "org/base")
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.method = "ties"


def test_merge_keys_of_yaml_work_as_in_mergekit():
    text = LINEAR.replace("  - model: org/a\n    parameters:", "  - model: org/a\n    parameters: &p").replace(
        "org/b\n    parameters:\n", "org/b\n    parameters:\n      <<: *p\n"
    )
    assert places(text) == []
    assert parse_recipe(text, "r").document["models"][1]["parameters"] == {"weight": 0.5}


def test_reading_files(tmp_path):
    path = tmp_path / "r.yml"
    path.write_text("\ufeff" + LINEAR.replace("\n", "\r\n"), encoding="utf-8")
    assert read_recipe(path).models == ("org/a", "org/b")
    path.write_bytes(b"merge_method: linear\nmodels: \xff\n")
    with pytest.raises(ConfigurationError, match="line 2: not UTF-8"):
        read_recipe(path)
    with pytest.raises(ConfigurationError, match="no such file"):
        read_recipe(tmp_path / "none.yml")
    with pytest.raises(ConfigurationError, match="a folder"):
        read_recipe(tmp_path)
    path.write_bytes(b"#" * 5_000_000)
    with pytest.raises(ConfigurationError, match="more than"):
        read_recipe(path)


def test_models_are_found_by_paths_then_at_the_working_directory_then_beside_the_recipe(tmp_path, monkeypatch):
    work, beside = tmp_path / "work", tmp_path / "claims"
    for folder in (work / "org" / "a", beside / "org" / "a", beside / "org" / "b", work / "elsewhere"):
        folder.mkdir(parents=True)
    monkeypatch.chdir(work)
    recipe = parse_recipe(LINEAR.replace("org/b", "org/b@v1"), "r.yml")
    found = resolve_models(recipe, {}, beside)
    assert list(found) == ["org/a", "org/b@v1"]
    assert found["org/a"].samefile(work / "org" / "a")
    assert found["org/b@v1"].samefile(beside / "org" / "b")
    for key in ("org/b", "org/b@v1"):
        named = resolve_models(recipe, {key: "./elsewhere"}, beside)
        assert named["org/b@v1"].samefile(work / "elsewhere")
    both = resolve_models(recipe, {"org/b": "nowhere", "org/b@v1": "elsewhere"}, beside)
    assert both["org/b@v1"].samefile(work / "elsewhere")
    assert resolve_models(recipe, {"org/a": str(work)}, beside)["org/a"] == work


def test_an_adapter_is_found_where_paths_name_the_whole(tmp_path):
    recipe = parse_recipe(EXAMPLES["sce"], "r.yml")
    paths = {"org/a+org/adapter": str(tmp_path), "org/b": str(tmp_path), "org/base": str(tmp_path)}
    assert resolve_models(recipe, paths, tmp_path) == dict.fromkeys(recipe.models, tmp_path)


def test_all_missing_models_are_named_at_once(tmp_path):
    recipe = parse_recipe(TIES, "r.yml")
    (tmp_path / "org" / "c").mkdir(parents=True)
    with pytest.raises(ConfigurationError) as caught:
        resolve_models(recipe, {"org/b": "./gone", "org/base": ""}, tmp_path)
    assert caught.value.message == "no local folder for org/a, org/b (not at './gone'), org/base (not at '')"
    assert caught.value.subject == "r.yml"
    assert "recipe.paths={org/a: ./folder, org/b: ./folder, org/base: ./folder}" in caught.value.remedy


def test_hydra_reads_the_remedy():
    from hydra.core.override_parser.overrides_parser import OverridesParser

    override = "recipe.paths={org/a: ./folder, org/b-1.5_c@main: ./folder, a+b: ./c}"
    read = OverridesParser.create().parse_override(override).value()
    assert read == {"org/a": "./folder", "org/b-1.5_c@main": "./folder", "a+b": "./c"}
