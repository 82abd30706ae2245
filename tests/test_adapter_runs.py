"""Runs on LoRA adapters: on a Hub base and adapter at their commits, in recipes as mergekit names them, and proved."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import constants
from support.fake_hub import FakeHub
from support.fake_repository import FakeRepository
from support.family import BASE, CODE, CODE_SEED2, blend, load, save
from support.hub_fixtures import Pauses, alone

pytest.importorskip("peft")
from support.adapters import merged_by_peft, save_adapter

import reconstruct
from reconstruct.api import resume
from reconstruct.checkpoints.fetch import fetch_ranges
from reconstruct.checkpoints.model_set import open_models
from reconstruct.errors import CheckpointError, UnreachableError
from reconstruct.report.result import result_document
from reconstruct.scanning.result import CandidateKind

WEIGHTS = (0.565, 0.435)
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"]


def configured(folder: Path, **said: object) -> Path:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | said))
    return folder


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """On a Hub: they name org/base."""
    home = tmp_path_factory.mktemp("adapters")
    return {
        name: configured(
            save_adapter(home / name, seed, target_modules=TARGETS), base_model_name_or_path="org/base"
        )
        for seed, name in enumerate(("one", "two"))
    }  # fmt: skip


@pytest.fixture(scope="module")
def applied(adapters: Mapping[str, Path]) -> dict[str, dict[str, torch.Tensor]]:
    return {name: merged_by_peft(folder) for name, folder in adapters.items()}


@pytest.fixture(scope="module")
def suspect(applied: Mapping[str, dict[str, torch.Tensor]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("suspect") / "merge", blend(WEIGHTS, list(applied.values())))


@pytest.fixture
def hub(
    adapters: Mapping[str, Path], suspect: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[FakeHub]:
    alone(monkeypatch, tmp_path)
    child = {"org/base": "adapter"}
    repositories = {
        "org/base": FakeRepository(BASE), "org/merge": FakeRepository(suspect), "org/code": FakeRepository(CODE),
        "org/one": FakeRepository(adapters["one"], storage=True, base_models=child),
        "org/two": FakeRepository(adapters["two"], base_models=child),
    }  # fmt: skip
    with FakeHub(repositories) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        for module in ("hub", "model_tree"):
            monkeypatch.setattr(f"reconstruct.checkpoints.{module}.RetryPolicy", lambda: Pauses().policy())
        yield hub


def at(hub: FakeHub, name: str) -> str:
    return f"{name}@{hub.served[name].sha}"


def test_adapters_of_a_hub_are_read_with_their_base_and_recorded_with_both_commits(
    hub: FakeHub, tmp_path: Path
) -> None:
    run = reconstruct.fit("org/merge", ["org/one", "org/two"], "org/base", folder=tmp_path / "run")
    assert run.verdict.kind is reconstruct.VerdictKind.REPRODUCED
    assert list(run.coefficients.values()) == pytest.approx([0, *WEIGHTS])
    base = at(hub, "org/base")
    assert run.revisions == {
        "org/merge": at(hub, "org/merge"), "org/base": base,
        "org/one": f"{base}+{at(hub, 'org/one')}", "org/two": f"{base}+{at(hub, 'org/two')}",
    }  # fmt: skip
    models = yaml.safe_load(run.recipe.to_yaml())["models"]
    assert [m["model"] for m in models] == ["org/base+org/one", "org/base+org/two"]
    assert "which these are not: org/base, org/one, org/two" in run.evidence.proof.failure
    listed = [r for r in hub.requests if r.path.startswith("/api/models/org/base/")]
    assert len(listed) == 1  # the run's own base is the adapters'
    for name in ("org/base", "org/one", "org/merge"):
        hub.served[name].commit(CODE_SEED2)
    resumed = resume(tmp_path / "run")
    assert result_document(resumed) == result_document(run)
    assert result_document(reconstruct.load_run(tmp_path / "run")) == result_document(run)


def test_the_base_is_the_repository_that_the_adapter_names_where_none_is_given(hub: FakeHub, tmp_path: Path) -> None:
    for name in ("org/one", "org/two"):
        hub.served[name].downloads = 1
    run = reconstruct.fit("org/merge", ["org/one", "org/two"], folder=tmp_path / "run")
    assert run.verdict.kind is reconstruct.VerdictKind.REPRODUCED
    base = at(hub, "org/base")
    assert run.revisions["org/two"] == f"{base}+{at(hub, 'org/two')}"
    models = yaml.safe_load(run.recipe.to_yaml())["models"]
    assert [m["model"] for m in models] == [f"{base}+org/one", f"{base}+org/two"]
    hub.served["org/base"].commit(CODE_SEED2)
    assert result_document(resume(tmp_path / "run")) == result_document(run)


def test_another_repository_as_the_runs_base_is_not_taken_for_the_adapters(
    hub: FakeHub, applied: Mapping[str, dict[str, torch.Tensor]]
) -> None:
    name = "model.layers.0.self_attn.q_proj.weight"

    def weights(*locations: str, base: int | None) -> bytes:
        catalog = open_models(locations, base=base)[-1]
        info = catalog.tensors[name]
        return catalog.source.read(info, 0, info.elements).tobytes()

    expected = applied["one"][name].view(torch.int16).numpy().tobytes()
    assert weights("org/code", "org/one", base=0) == expected
    assert weights("org/code", "org/base+org/one", base=0) == expected
    assert weights(str(BASE), "org/one", base=0) == expected  # a local base may be the copy of what is named
    assert weights("org/code", "org/code+org/one", base=0) != expected
    hub.served["org/base"].commit(CODE_SEED2)
    assert weights("org/code", "org/one", base=0) != expected


def test_a_base_at_the_revision_that_the_adapter_names(
    hub: FakeHub, adapters: Mapping[str, Path], tmp_path: Path
) -> None:
    sha = hub.served["org/base"].sha
    hub.served["org/base"].commit(CODE_SEED2)
    hub.served["org/one"].commit(configured(shutil.copytree(adapters["one"], tmp_path / "one"), revision=sha))
    (catalog,) = open_models(["org/one"])
    assert catalog.address == f"org/base@{sha}+{at(hub, 'org/one')}"


def test_bases_that_cannot_be_read(hub: FakeHub) -> None:
    hub.served["org/base"].gated = True
    with pytest.raises(CheckpointError, match=r"org/one: an adapter to org/base, a gated repository.*none was given"):
        open_models(["org/one"])
    catalog = open_models(["org/code", "org/one"], base=0)[1]
    note = catalog.tensors["lm_head.weight"].note
    assert "org/code (the adapter names org/base, which cannot be read: a gated repository" in note
    hub.fault("org/base", "server_error", times=None)
    with pytest.raises(UnreachableError, match="status 503"):
        open_models(["org/code", "org/one"], base=0)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("org/base+org/code", "org/code has full weights, and is no adapter"),
        ("org/two+org/one", "an adapter to org/base, which is an adapter itself"),
        ("org/base+org/none", "no such repository"),
        ("org/base+nothing", "no such file or folder"),
    ],
)
def test_pairs_that_are_none(hub: FakeHub, given: str, words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        open_models([given])


def test_a_local_adapter_with_a_saved_module_on_a_base_that_lies_elsewhere(hub: FakeHub, tmp_path: Path) -> None:
    folder = save_adapter(tmp_path / "saved", target_modules=["q_proj"], modules_to_save=["lm_head"])
    configured(folder, base_model_name_or_path="org/base")
    (catalog,) = open_models([str(folder)])
    expected = merged_by_peft(folder)
    requests = [(info, 0, info.elements) for info in catalog.tensors.values()]
    for (info, _, _), bits in fetch_ranges(catalog, requests):
        assert bits.tobytes() == expected[info.name].view(torch.int16).numpy().tobytes()
    assert len(hub.requests) < len(requests)


def test_adapters_of_a_hub_under_a_budget(hub: FakeHub, tmp_path: Path) -> None:
    run = reconstruct.fit(
        "org/merge", ["org/one", "org/two"], "org/base", folder=tmp_path / "run", budget=1_200_000
    )  # fmt: skip
    assert run.verdict.kind is reconstruct.VerdictKind.REPRODUCED
    assert hub.bytes_sent <= 1_200_000
    models = yaml.safe_load(run.recipe.to_yaml())["models"]
    assert [m["model"] for m in models] == ["org/base+org/one", "org/base+org/two"]


def test_a_scan_finds_adapters_among_the_children_of_their_base(hub: FakeHub, tmp_path: Path) -> None:
    result = reconstruct.scan(
        "org/merge", ["children:org/base", "org/code"], "org/base", folder=tmp_path / "run", bytes_per_model=150_000
    )
    assert result.parents == ["org/one", "org/two"]
    found = {c.name: c for c in result.candidates}
    assert found["org/one"].address == f"{at(hub, 'org/base')}+{at(hub, 'org/one')}"
    assert found["org/code"].kind in {CandidateKind.REDUNDANT, CandidateKind.SHARES_BASE}


def test_local_adapters_are_named_as_mergekit_does_and_the_recipe_is_proved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    (tmp_path / "temporary").mkdir()
    shutil.copytree(BASE, "base")
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    for seed, name in enumerate(("one", "two")):
        save_adapter(Path(name), seed, Path("base"), target_modules=targets)
    from mergekit.merge_methods.api import merge_state_dicts

    applied = [merged_by_peft(Path(name), Path("base")) for name in ("one", "two")]
    parameters = {"weight": list(WEIGHTS)}
    merge = merge_state_dicts(applied, "linear", parameters=parameters, dtype=torch.float32, out_dtype=torch.bfloat16)
    capsys.readouterr()
    run = reconstruct.fit(save(Path("suspect"), merge), ["./one", "./two"], "./base", folder="run")
    assert run.verdict.kind is reconstruct.VerdictKind.REPRODUCED
    document = yaml.safe_load(run.recipe.to_yaml())
    assert [m["model"] for m in document["models"]] == ["./base+./one", "./base+./two"]
    proof = run.evidence.proof
    assert proof.failure == ""
    assert proof.complete
    assert len(proof.tensors) == len(load("base"))
    assert proof.document == document
    assert capsys.readouterr().err == ""
    assert not list((tmp_path / "temporary").iterdir())
    assert result_document(resume("run")) == result_document(run)
    pair = reconstruct.fit("suspect", ["./base+./one", "base+two"], "./base", folder="pairs")
    assert [m["model"] for m in yaml.safe_load(pair.recipe.to_yaml())["models"]] == ["./base+./one", "base+two"]
    assert pair.evidence.proof.complete
