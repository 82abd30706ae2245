"""The table of merge methods against mergekit itself, so that a new version of it is noticed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from reconstruct.claims.mergekit_methods import DTYPES, MERGEKIT_METHODS, MERGEKIT_VERSION, Randomness, ValueKind
from reconstruct.claims.recipe_settings import _fits
from reconstruct.claims.recipe_structure import KEYS


def their_methods():
    from mergekit.merge_methods.registry import registered_methods

    return {method.spec.name: method for method in registered_methods()}


def merged(name, *, seed=0, size=(8, 16), dtype="float32", **parameters):
    """One tensor merged by mergekit, with 0.5 for what is required."""
    import torch
    from mergekit.merge_methods.base import TensorGroup

    method, ours = their_methods()[name], MERGEKIT_METHODS[name]
    generator = torch.Generator().manual_seed(1)
    count = ours.most_inputs or ours.most_others or 3
    tensors = [torch.randn(size, generator=generator).to(getattr(torch, dtype)) for _ in range(count)]
    group = TensorGroup.from_tensors(tensors, base_index=0 if ours.base == "required" else None, name="w")
    required = {p.name: 0.5 for p in ours.parameters if p.required}
    torch.manual_seed(seed)
    return method([group], parameters=required | parameters)[0]


def test_the_table_is_that_of_mergekit():
    import importlib.metadata

    theirs = their_methods()
    assert set(theirs) == set(MERGEKIT_METHODS)
    assert importlib.metadata.version("mergekit") == MERGEKIT_VERSION
    for name, ours in MERGEKIT_METHODS.items():
        contract = theirs[name].spec.contract
        assert ours.base.value == contract.base.value, name
        assert (ours.least_inputs, ours.most_inputs) == (contract.min_inputs, contract.max_inputs), name
        assert (ours.least_others, ours.most_others) == (contract.min_non_base, contract.max_non_base), name
        assert ours.names == tuple(p.name for p in theirs[name].spec.parameters), name
        for mine, other in zip(ours.parameters, theirs[name].spec.parameters, strict=True):
            assert (mine.scope.value, mine.required) == (other.scope.value, other.required), (name, mine.name)
            assert mine.required or mine.default == other.default, (name, mine.name)
            assert mine.kind.value in str(other.value_type), (name, mine.name)


def test_the_keys_are_those_of_mergekit():
    from mergekit import common, config
    from mergekit.tokenizer import config as tokenizer

    theirs = {
        "top": config.MergeConfiguration, "module": config.OutputModuleDefinition, "model": config.InputModelDefinition,
        "slice": config.OutputSliceDefinition, "source": config.InputSliceDefinition,
        "reference": common.ModelReference, "path": common.ModelPath,
        "tokenizer": tokenizer.TokenizerConfig, "token": tokenizer.TokenEmbeddingConfig,
    }  # fmt: skip
    assert {level: set(keys) for level, keys in KEYS.items()} == {k: set(v.model_fields) for k, v in theirs.items()}
    for name in DTYPES:
        assert common.dtype_from_name(name) is common.dtype_from_name(f"torch.{name}")


@pytest.mark.parametrize("name", MERGEKIT_METHODS)
def test_types_randomness_and_idle_parameters_are_those_of_mergekit(name):
    import torch

    ours = MERGEKIT_METHODS[name]
    for dtype in ("bfloat16", "float16"):
        assert (merged(name, dtype=dtype).dtype == torch.float32) == ours.writes_float32
    large = {"size": (1, 1_000_001)} if ours.randomness is Randomness.LARGE_TENSORS else {}
    below = {"density": 0.5} if "density" in ours.names and ours.name != "task_arithmetic" else {}
    differs = not torch.equal(merged(name, seed=1, **large, **below), merged(name, seed=2, **large, **below))
    assert differs == (ours.randomness is not Randomness.NEVER)
    assert torch.equal(merged(name, seed=1), merged(name, seed=2))  # with density 1 and small tensors nothing is random
    for idle in ours.idle:
        value = 0.5 if ours.parameter(idle).kind is ValueKind.NUMBER else not ours.parameter(idle).default
        assert torch.equal(merged(name, **{idle: value}), merged(name))


@pytest.mark.parametrize("kind", ValueKind)
def test_values_are_taken_for_a_type_where_mergekit_does(kind):
    from pydantic import TypeAdapter, ValidationError

    adapter = TypeAdapter({"float": float, "int": int, "bool": bool}[kind])
    values = [True, False, 0, 1, 2, 1.0, 0.5, -1, 10**30, float("inf"), "1e-5", " 1 ", "1_000", "abc", "true", "Y",
              "off", "nan", "1.0", "1.5", "0x1", "", "2", "-1", " true"]  # fmt: skip
    for value in values:
        try:
            adapter.validate_python(value)
            accepted = True
        except ValidationError:
            accepted = False
        assert _fits(value, kind) == accepted, value


def test_the_order_of_a_set_of_models_depends_on_the_hash_seed():
    script = (
        "from mergekit.config import MergeConfiguration as C\n"
        "models = [{'model': f'org/{c}'} for c in 'abcdef']\n"
        "print(C(merge_method='karcher', models=models).referenced_models()[0])"
    )
    firsts = set()
    for seed in range(3):
        environment = {"PYTHONHASHSEED": str(seed), "PATH": "", "HF_HUB_OFFLINE": "1"}
        run = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
        )
        firsts.add(run.stdout.strip().splitlines()[-1])
    assert len(firsts) > 1
