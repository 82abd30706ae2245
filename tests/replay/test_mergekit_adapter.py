"""Recipes replayed through mergekit, against the files that `mergekit-yaml` writes in a process of its own."""

from __future__ import annotations

import copy
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from support.family import FOLDER, NAMES, load, save

from reconstruct.errors import CheckpointError, ConfigurationError, ReconstructError
from reconstruct.replay import mergekit as adapter
from reconstruct.replay.mergekit import MergekitReplay

B, C, D, H = "org/base", "org/ft-code", "org/ft-docs", "org/ft-code-half"
SEED = 7


@dataclass(frozen=True)
class Recipe:
    document: dict
    seed: int | None = None


def recipe(method, weights, *, base=None, seed=None, each=None, **settings):
    """`weights`: model -> weight (None: no parameters)."""
    models = [
        {"model": m, **({} if w is None else {"parameters": {"weight": w, **(each or {})}})} for m, w in weights.items()
    ]
    return Recipe(
        {"merge_method": method, "models": models, **({"base_model": base} if base else {}), **settings}, seed
    )


def slice_of(model, first, last, **settings):
    return {"model": model, "layer_range": [first, last], **settings}


TWO = {C: 0.565, D: 0.435}
OVER = {"base": B, "dtype": "bfloat16"}
SLERP = {"t": [{"filter": "self_attn", "value": [0, 0.5, 0.3, 1]}, {"filter": "mlp", "value": 0.25}, {"value": 0.6}]}
SCALE = {"scale": [{"filter": "down_proj", "value": 0.5}, {"value": 1}]}
LLAMA = "llama"  # Qwen3's configuration cannot be written with more layers than it has layer_types
DTYPES = {
    "as they are": {}, "bfloat16": {"dtype": "bfloat16"}, "float32": {"dtype": "float32"},
    "float32 saved in bfloat16": {"dtype": "float32", "out_dtype": "bfloat16"}, "float16": {"dtype": "float16"},
}  # fmt: skip
RECIPES = {
    **{f"linear, {name}": recipe("linear", TWO, **dtypes) for name, dtypes in DTYPES.items()},
    **{
        f"slerp, {name}": recipe("slerp", {C: None, D: None}, base=C, parameters=SLERP, **dtypes)
        for name, dtypes in DTYPES.items()
    },
    "linear of float32, shards and pickles": recipe(
        "linear", {"wide": 0.2, "sharded": 0.3, "pickled": 0.5}, dtype="bfloat16", out_dtype="float32"
    ),
    "task_arithmetic": recipe("task_arithmetic", {C: [0.2, 0.9], D: 0.5}, parameters={"lambda": 0.8}, **OVER),
    "ties": recipe("ties", {C: 0.6, D: 0.5}, each={"density": 0.4}, parameters={"normalize": False}, **OVER),
    "breadcrumbs": recipe("breadcrumbs", TWO, each={"density": 0.6, "gamma": 0.02}, **OVER),
    "breadcrumbs_ties": recipe("breadcrumbs_ties", TWO, each={"density": 0.6, "gamma": 0.02}, **OVER),
    "model_stock": recipe("model_stock", {C: None, D: None, H: None}, **OVER),
    "nuslerp": recipe("nuslerp", TWO, dtype="bfloat16"),
    "nuslerp over base": recipe("nuslerp", TWO, parameters={"nuslerp_row_wise": True}, **OVER),
    "multislerp": recipe("multislerp", {**TWO, H: 0.3}, dtype="bfloat16"),
    "karcher": recipe("karcher", {C: None, D: None, H: None}, dtype="bfloat16"),
    "sce": recipe("sce", {C: None, D: None}, parameters={"select_topk": 0.5}, **OVER),
    "nearswap": recipe("nearswap", {C: None}, parameters={"t": 0.001}, **OVER),
    "ram": recipe("ram", {C: None, D: None}, **OVER),
    "ramplus_tl": recipe("ramplus_tl", {C: None, D: None}, **OVER),
    "arcee_fusion": recipe("arcee_fusion", {C: None}, **OVER),
    "dare_ties": recipe("dare_ties", TWO, each={"density": 0.5}, seed=SEED, **OVER),
    "dare_linear": recipe("dare_linear", TWO, each={"density": [0.3, 0.8]}, seed=SEED, base=B, dtype="float32"),
    "della": recipe("della", TWO, each={"density": 0.5, "epsilon": 0.1}, seed=SEED, **OVER),
    "della_linear": recipe("della_linear", TWO, each={"density": 0.5, "epsilon": 0.1}, seed=SEED, **OVER),
    "passthrough": Recipe({
        "merge_method": "passthrough", "dtype": "bfloat16",
        "slices": [{"sources": [slice_of(LLAMA, 0, 2)]}, {"sources": [slice_of(LLAMA, 1, 3, parameters=SCALE)]}],
    }),
    "passthrough of two": Recipe({
        "merge_method": "passthrough", "slices": [{"sources": [slice_of(C, 1, 3)]}, {"sources": [slice_of(D, 0, 1)]}],
    }),
    "linear by slices": Recipe({
        "merge_method": "linear", "dtype": "float32", "parameters": {"weight": 0.5},
        "slices": [{"sources": [slice_of(C, i, i + 1), slice_of(D, 2 - i, 3 - i)]} for i in range(3)],
    }),
    "tied": recipe("linear", {"tied/ft-code": 0.6, "tied/ft-docs": 0.4}, dtype="bfloat16"),
    "tied in one": recipe("linear", {"tied/ft-code": 0.6, D: 0.4}, dtype="bfloat16"),
    "tokenizer of the base": recipe("linear", {"tokens/a": 0.6, "tokens/b": 0.4}, base="tokens/a",
                                    tokenizer_source="base", dtype="bfloat16"),
    "tokenizer of a model": recipe("slerp", {"tokens/a": None, "tokens/b": None}, base="tokens/a",
                                   tokenizer_source="tokens/b", parameters={"t": 0.3}, dtype="bfloat16"),
    "union of tokenizers": recipe("task_arithmetic", {"tokens/a": 0.6, "tokens/d": 0.4}, base="tokens/a", tokenizer={
        "source": "union", "pad_to_multiple_of": 32,
        "tokens": {"t9": {"source": "tokens/d", "force": True}, "new": {"source": {"kind": "zero"}}},
    }, dtype="bfloat16"),
    "union of tokenizers, drawn": recipe("dare_linear", {"tokens/b": 0.6, "tokens/d": 0.4}, base="tokens/a", seed=SEED,
                                         tokenizer_source="union", dtype="bfloat16"),
}  # fmt: skip
#: Of this, mergekit writes another file every time.
CHANCE = recipe(
    "linear", {"tokens/a": 0.6, "tokens/c": 0.4}, base="tokens/a", tokenizer_source="union", dtype="float32"
)
#: These go through the program's own executable, the others through its entry point in one more process.
BY_EXECUTABLE = ("slerp, float32 saved in bfloat16", "dare_ties")
MANY = """
import json, sys
from mergekit.scripts.run_yaml import main
for arguments in json.load(sys.stdin):
    main(arguments, standalone_mode=False)
"""


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    def refuse(*_):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    found = {f"org/{name}": FOLDER / name for name in NAMES}
    for name in ("ft-code", "ft-docs"):
        state = load(name)
        del state["lm_head.weight"]
        found[f"tied/{name}"] = save(root / f"tied-{name}", state)
        configure(root / f"tied-{name}", tie_word_embeddings=True)
    found[LLAMA] = save(
        root / "llama", {k: v for k, v in load("ft-code").items() if "k_norm" not in k and "q_norm" not in k}
    )
    configure(found[LLAMA], architectures=["LlamaForCausalLM"], model_type="llama", layer_types=None)
    found["wide"] = save(root / "wide", {k: v.float() * 1.001 for k, v in load("ft-code").items()})
    found["sharded"] = sharded(save(root / "sharded", load("ft-docs")))
    found["pickled"] = save(root / "pickled", load("base"))
    torch.save(load("base"), found["pickled"] / "pytorch_model.bin")
    (found["pickled"] / "model.safetensors").unlink()
    for letter, name, vocabulary, special in (
        ("a", "base", range(256), ()), ("b", "ft-code", range(255, -1, -1), ()), ("c", "ft-docs", range(8, 264), ()),
        ("d", "ft-docs", range(3, 250), ("<x>", "<y>", "<z>")),
    ):  # fmt: skip
        found[f"tokens/{letter}"] = save(root / f"tokens-{letter}", load(name))
        save_tokenizer(root / f"tokens-{letter}", [f"t{i}" for i in vocabulary], special)
    return found


def configure(folder, **settings):
    file = folder / "config.json"
    settings = {**json.loads(file.read_text()), **settings}
    file.write_text(json.dumps({key: value for key, value in settings.items() if value is not None}))
    return folder


def sharded(folder):
    state = load_file(folder / "model.safetensors")
    parts = {f"model-0000{i + 1}-of-00002.safetensors": sorted(state)[i::2] for i in range(2)}
    for file, names in parts.items():
        save_file({name: state[name] for name in names}, folder / file)
    index = {"metadata": {}, "weight_map": {name: file for file, names in parts.items() for name in names}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()
    return folder


def save_tokenizer(folder, tokens, special):
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=[]))
    whole = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    whole.add_tokens(list(special), special_tokens=True)
    whole.save_pretrained(folder)


@pytest.fixture(scope="module")
def written(folders, tmp_path_factory):
    """Recipe -> the folder that mergekit-yaml wrote."""
    root = tmp_path_factory.mktemp("merges")
    arguments = {}
    for number, (name, given) in enumerate({**RECIPES, "chance": CHANCE}.items()):
        text = json.dumps(given.document)
        for reference, folder in folders.items():
            text = text.replace(f'"{reference}"', json.dumps(str(folder)))
        file = root / f"{number}.yaml"
        file.write_text(yaml.safe_dump(json.loads(text), sort_keys=False))
        seed = [] if given.seed is None else ["--random-seed", str(given.seed)]
        arguments[name] = [str(file), str(root / f"{number}"), "--allow-crimes", "--quiet", *seed]
    program = str(Path(sys.executable).with_name("mergekit-yaml"))
    jobs = [([program, *arguments[name]], "") for name in BY_EXECUTABLE]
    rest = [given for name, given in arguments.items() if name not in BY_EXECUTABLE]
    jobs.insert(0, ([sys.executable, "-c", MANY], json.dumps(rest)))
    with ThreadPoolExecutor(2) as pool:
        for process in pool.map(lambda j: subprocess.run(j[0], input=j[1], capture_output=True, text=True), jobs):
            assert process.returncode == 0, process.stderr[-3000:]
    return {name: Path(given[1]) for name, given in arguments.items()}


def replay_of(name, folders, **changes):
    return MergekitReplay(RECIPES[name].document, folders, seed=changes.get("seed", RECIPES[name].seed))


def assert_same(tensor, expected, name):
    assert (tensor.dtype, tensor.shape) == (expected.dtype, expected.shape), name
    assert torch.equal(tensor.view(torch.uint8), expected.contiguous().view(torch.uint8)), name


def assert_streams(outputs, expected):
    names = []
    for output in outputs:
        assert_same(output.tensor, expected[output.name], output.name)
        names.append(output.name)
    assert sorted(names) == sorted(expected)


@pytest.mark.parametrize("name", RECIPES)
def test_every_bit_is_that_of_mergekits_files(name, folders, written):
    replay = replay_of(name, folders)
    expected = load_file(written[name] / "model.safetensors")
    assert sorted(replay.names) == sorted(expected)
    assert_streams(replay.tensors(), expected)
    assert replay.methods == (RECIPES[name].document["merge_method"],)
    assert replay.random == (RECIPES[name].seed is not None)


def test_union_in_an_order_of_chance_is_replayed_with_the_tokenizer_that_came_of_it(folders, written):
    with pytest.raises(ConfigurationError, match="order in which a union takes tokens") as caught:
        list(MergekitReplay(CHANCE.document, folders).tensors())
    assert "merged model's own folder as the tokenizer's source" in str(caught.value)
    document = {**CHANCE.document, "tokenizer_source": "suspect"}
    expected = load_file(written["chance"] / "model.safetensors")
    assert len(expected["lm_head.weight"]) == 264
    assert_streams(MergekitReplay(document, {**folders, "suspect": written["chance"]}).tensors(), expected)


def test_union_over_a_set_of_models_is_refused(folders):
    folders = {**folders, "tokens/e": folders["tokens/d"]}
    weights = dict.fromkeys(["tokens/a", "tokens/d", "tokens/e"], 0.5)
    given = recipe("linear", weights, base="tokens/a", tokenizer_source="union")
    with pytest.raises(ConfigurationError, match="order in which a union takes tokens"):
        list(MergekitReplay(given.document, folders).tensors())


def test_every_method_of_mergekit_is_compared():
    from mergekit.merge_methods import registered_methods

    compared = {given.document["merge_method"] for given in RECIPES.values()}
    assert compared == {method.spec.name for method in registered_methods()}


def test_merges_differ_from_their_parents(written):
    merged = load_file(written["slerp, bfloat16"] / "model.safetensors")
    for parent in (load("ft-code"), load("ft-docs")):
        assert not torch.equal(merged["model.layers.1.mlp.up_proj.weight"], parent["model.layers.1.mlp.up_proj.weight"])
    assert "lm_head.weight" not in load_file(written["tied"] / "model.safetensors")
    stacked = load_file(written["passthrough"] / "model.safetensors")
    assert "model.layers.3.mlp.up_proj.weight" in stacked
    assert (
        len(load_file(written["union of tokenizers"] / "model.safetensors")["model.embed_tokens.weight"]) == 288
    )  # 256 + 3 + "new", filled up


@pytest.mark.parametrize("name", ["slerp, bfloat16", "dare_ties", "union of tokenizers"])
def test_only_what_is_wanted(name, folders, written):
    wanted = ["lm_head.weight", "model.layers.1.mlp.up_proj.weight", "no such tensor"]
    expected = load_file(written[name] / "model.safetensors")
    assert_streams(replay_of(name, folders).tensors(wanted), {key: expected[key] for key in wanted[:2]})
    assert list(replay_of(name, folders).tensors([])) == []


def test_draws_are_those_of_the_seed_and_leave_no_trace(folders, written):
    expected = load_file(written["dare_ties"] / "model.safetensors")
    replay, before = replay_of("dare_ties", folders), torch.get_rng_state()
    assert_streams(replay.tensors(), expected)
    assert torch.equal(torch.get_rng_state(), before)
    for output in replay.tensors():  # again, and beside somebody who draws too
        torch.rand(3)
        assert_same(output.tensor, expected[output.name], output.name)
    other = {o.name: o.tensor for o in replay_of("dare_ties", folders, seed=SEED + 1).tensors()}
    assert not torch.equal(other["lm_head.weight"], expected["lm_head.weight"])
    unseeded = replay_of("dare_ties", folders, seed=None)
    assert len(list(unseeded.tensors())) == len(unseeded.names)


def test_fusion_is_random_where_it_samples(folders, monkeypatch):
    monkeypatch.setattr(adapter, "_SAMPLED_ABOVE", 256 * 64 - 1)
    assert replay_of("arcee_fusion", folders).random
    monkeypatch.setattr(adapter, "_SAMPLED_ABOVE", 256 * 64)
    assert not replay_of("arcee_fusion", folders).random


def test_replays_side_by_side_and_in_other_threads(folders, written):
    expected = [load_file(written[name] / "model.safetensors") for name in ("dare_ties", "ties")]
    pairs = zip(replay_of("dare_ties", folders).tensors(), replay_of("ties", folders).tensors(), strict=True)
    for pair in pairs:
        for output, state in zip(pair, expected, strict=True):
            assert_same(output.tensor, state[output.name], output.name)
    replay, found = replay_of("ties", folders), []
    thread = threading.Thread(target=lambda: found.extend(replay.tensors()))
    thread.start()
    thread.join()
    assert_streams(found, expected[1])


def test_nothing_is_printed_changed_or_remembered(folders, tmp_path, capfd):
    from mergekit.io.tasks import LoaderCache

    document = copy.deepcopy(RECIPES["union of tokenizers"].document)
    before = dict(os.environ), list(logging.root.handlers), logging.root.manager.disable, sorted(tmp_path.iterdir())
    LoaderCache.loaders.clear()
    list(MergekitReplay(document, folders).tensors())
    next(MergekitReplay(document, folders).tensors())  # given up after one tensor
    assert document == RECIPES["union of tokenizers"].document
    after = dict(os.environ), list(logging.root.handlers), logging.root.manager.disable, sorted(tmp_path.iterdir())
    assert after == before
    assert not LoaderCache.loaders
    assert capfd.readouterr() == ("", "")


def test_import_is_late_and_leaves_the_environment_alone(folders, tmp_path):
    code = f"""
import os, sys
before = dict(os.environ)
from reconstruct.replay.mergekit import MergekitReplay
assert "mergekit" not in sys.modules
list(MergekitReplay({RECIPES["linear, bfloat16"].document!r}, {{k: str(v) for k, v in {folders!r}.items()}}).tensors())
assert dict(os.environ) == before
""".replace("PosixPath(", "(")
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_written_anew_is_read_anew(tmp_path):
    document = {"merge_method": "passthrough", "models": [{"model": "x"}]}
    for name in ("ft-code", "ft-docs"):
        shutil.rmtree(tmp_path / "x", ignore_errors=True)
        folder = save(tmp_path / "x", load(name))
        assert_streams(MergekitReplay(document, {"x": folder}).tensors(), load(name))


def test_references_of_every_form(folders, written, tmp_path):
    strange = tmp_path / "a+b@c d"
    shutil.copytree(folders[C], strange)
    expected = load_file(written["ties"] / "model.safetensors")
    document = copy.deepcopy(RECIPES["ties"].document)
    document["models"][0]["model"] = "org/code@main+org/adapter"
    document["models"][1]["model"] = {
        "model": {"path": D, "revision": "v2"},
        "override_architecture": "Qwen3ForCausalLM",
    }
    places = {**folders, "org/code@main+org/adapter": strange, f"{D}@v2": folders[D]}
    assert_streams(MergekitReplay(document, places).tensors(), expected)


def test_two_names_of_one_folder_are_two_models(folders):
    document = {**RECIPES["ties"].document, "parameters": {"normalize": True}}
    document["models"] = [*document["models"], {"model": "alias", "parameters": {"weight": 0.5}}]
    copied = list(MergekitReplay(document, {**folders, "alias": folders[B]}).tensors(["model.norm.weight"]))
    assert len(copied) == 1


LINEAR = RECIPES["linear, bfloat16"].document


def changed(**changes):
    return {**LINEAR, **changes}


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("text", ["recipe: no mergekit configuration"]),
        ({}, ["no mergekit configuration", "merge_method", "Field required"]),
        ({"merge_method": "linear"}, ["no mergekit configuration", "'models', 'slices', or 'modules'"]),
        (changed(models=[{"weight": 1}]), ["no mergekit configuration", "models.0.model"]),
        (changed(tokenizer_source="base", tokenizer={"source": "base"}), ["both tokenizer_source and tokenizer"]),
        (changed(merge_method="lerp"), ["no merge method 'lerp'", "It has arcee_fusion, breadcrumbs", "ties"]),
        (changed(models=[{"model": C}, {"model": D}]), ["linear needs the parameter 'weight'", f"{C}.model.embed"]),
        (changed(merge_method="slerp", base_model=C), ["slerp needs the parameter 't'"]),
        (changed(models=[{"model": C, "parameters": {"weight": "much"}}]), ["'much'", "valid number"]),
        (changed(merge_method="ties"), ["cannot compute ties", "requires a base"]),
        (changed(models=[{"model": "org/a"}, {"model": "org/b+x"}, {"model": C}]),
         ["no folder is known for org/a, org/b+x", "recipe.paths={org/a: ./a, org/b+x: ./b+x}"]),
        (changed(base_model="org/z", tokenizer_source="org/t"), ["org/z, org/t"]),
        (changed(tokenizer_source="base"), ["tokenizer", "cannot be replayed", "tokenizer files"]),
        (changed(dtype="int3"), ["cannot compute linear", "int3"]),
    ],
)  # fmt: skip
def test_wrong_recipes_are_refused_in_one_sentence(document, words, folders, capfd):
    with pytest.raises(ConfigurationError) as caught:
        list(MergekitReplay(document, folders).tensors())
    assert caught.value.subject == "recipe"
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    for word in words:
        assert word in str(caught.value), str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def broken(folder, how):
    if how == "no folder":
        shutil.rmtree(folder)
    elif how == "no config":
        (folder / "config.json").unlink()
    elif how == "no model type":
        (folder / "config.json").write_text("{}")
    elif how == "no architectures":
        configure(folder, architectures=None)
    elif how == "no weights":
        (folder / "model.safetensors").unlink()
    elif how == "cut":
        file = folder / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-100])
    elif how == "no shard":
        sharded(folder)
        (folder / "model-00002-of-00002.safetensors").unlink()
    elif how == "no tensor":
        save(folder, {k: v for k, v in load("ft-code").items() if "1.mlp.up" not in k})


@pytest.mark.parametrize(
    ("how", "word"),
    [
        ("no folder", "no such folder"), ("no config", "no config.json that names its architecture"),
        ("no model type", "mergekit cannot use it"), ("no architectures", "no config.json that names its architecture"),
        ("no weights", "mergekit cannot use it"), ("cut", "mergekit cannot use it"), ("no shard", "00002-of-00002"),
        ("no tensor", "org/ft-code: has no tensor model.layers.1.mlp.up_proj.weight"),
    ],
)  # fmt: skip
def test_broken_folders_are_named(how, word, folders, tmp_path):
    folder = save(tmp_path / "broken", load("ft-code"))
    broken(folder, how)
    with pytest.raises(CheckpointError) as caught:
        list(MergekitReplay(LINEAR, {**folders, C: folder}).tensors())
    assert word in str(caught.value)
    assert caught.value.subject in {str(folder), C, "recipe"}
    assert "\n" not in str(caught.value)


def test_vocabularies_that_differ(folders, tmp_path):
    state = {
        k: v[:250] if k in {"lm_head.weight", "model.embed_tokens.weight"} else v for k, v in load("ft-code").items()
    }
    folder = configure(save(tmp_path / "small", state), vocab_size=250)
    with pytest.raises(ConfigurationError, match="vocabularies differ, and the recipe names no tokenizer") as caught:
        list(MergekitReplay(LINEAR, {**folders, C: folder}).tensors())
    assert "(250, 64)" in str(caught.value)
    state = load("ft-code")
    state["model.norm.weight"] = state["model.norm.weight"][:60]
    with pytest.raises(ConfigurationError, match=r"model.norm.weight: shapes differ"):
        list(MergekitReplay(LINEAR, {**folders, C: save(tmp_path / "short", state)}).tensors())


def test_this_mergekit_has_what_the_adapter_uses():
    import importlib

    from mergekit.io.tasks import FinalizeModel, LoaderCache, SaveTensor

    found = adapter._VERSION
    hint = f"mergekit {found} is installed, reconstruct/replay/mergekit.py knows {adapter.KNOWN_VERSION}: compare anew"
    assert found == adapter.KNOWN_VERSION, hint
    for module, names in adapter._USED.items():
        for name in names.split():
            assert hasattr(importlib.import_module(f"mergekit.{module}"), name), f"{module}.{name} is gone: {hint}"
    assert isinstance(LoaderCache.loaders, dict), hint
    assert {"tensor_name", "tensor_task", "writer_task", "optional", "dtype"} <= set(SaveTensor.model_fields), hint
    assert {"tensor_save_tasks", "writer_task"} <= set(FinalizeModel.model_fields), hint


@pytest.mark.parametrize("gone", ["merge._model_out_config", "io.tasks.LoaderCache.loaders", "plan.MergePlanner"])
def test_a_mergekit_without_a_name_is_not_known(gone, folders, monkeypatch):
    monkeypatch.delattr(f"mergekit.{gone}")
    with pytest.raises(ReconstructError, match=r"this version of mergekit \(.+\) is not known; 0.1.5 is"):
        MergekitReplay(LINEAR, folders)


def test_a_mergekit_whose_calls_differ_is_not_known(folders, monkeypatch):
    monkeypatch.setattr("mergekit.plan.MergePlanner.plan_to_disk", lambda self: [])
    monkeypatch.setattr(adapter, "_VERSION", "0.9")
    with pytest.raises(ReconstructError, match=r"mergekit \(0\.9\) is not known; 0.1.5 is") as caught:
        MergekitReplay(LINEAR, folders)
    assert "pip install mergekit==0.1.5" in str(caught.value)
