"""Scans among forty candidates: the true parents are shown, nobody else is; innocent suspects have none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file
from support.cases import trained_further
from support.crowd import crowd
from support.family import BASE, blend, load, save

from reconstruct.errors import CheckpointError, NonFiniteError, StoreError
from reconstruct.scanning.result import CandidateKind
from reconstruct.scanning.run import load_scan, resume_scan, scan


@pytest.fixture(scope="module")
def candidates(tmp_path_factory) -> list[Path]:
    found = crowd(tmp_path_factory.mktemp("crowd"))
    assert len(found) == 40
    return found


def weights(candidates, name):
    return load_file(next(c for c in candidates if c.name == name) / "model.safetensors")


def merge(folder, candidates, shares):
    return save(folder, blend(tuple(shares.values()), [weights(candidates, name) for name in shares]))


def kinds(result):
    return {Path(c.name).name: c.kind for c in result.candidates}


def names(found):
    return {Path(name).name for name in found}


def test_two_parents_among_forty(tmp_path, candidates):
    suspect = merge(tmp_path / "suspect", candidates, {"ft-code": 0.6, "ft-docs": 0.4})
    result = scan(suspect, candidates, BASE, folder=tmp_path / "run")
    assert names(result.parents) == {"ft-code", "ft-docs"}
    found = kinds(result)
    assert CandidateKind.LEAD not in found.values()
    assert {name for name, kind in found.items() if kind is CandidateKind.STRANGER} == {
        f"stranger-{k}" for k in range(4)
    }
    assert found["ft-code-half"] is CandidateKind.REDUNDANT
    assert found["other-2"] is CandidateKind.SHARES_BASE
    coefficients = {Path(c.name).name: c.coefficient for c in result.candidates}
    assert coefficients["ft-code"] == pytest.approx(0.6, abs=1e-4)
    assert coefficients["ft-docs"] == pytest.approx(0.4, abs=1e-4)
    assert coefficients["ft-code-and-noise-0.1"] == 0
    assert result.command == f"reconstruct fit suspect={suspect} parents=[{','.join(result.parents)}] base={BASE}"
    assert load_scan(tmp_path / "run") == result


@pytest.mark.slow
def test_three_parents(tmp_path, candidates):
    shares = {"ft-code": 0.5, "ft-docs": 0.3, "other-0": 0.2}
    suspect = merge(tmp_path / "suspect", candidates, shares)
    result = scan(suspect, candidates, BASE, folder=tmp_path / "run")
    assert names(result.parents) == set(shares)
    assert CandidateKind.LEAD not in kinds(result).values()


@pytest.mark.slow
@pytest.mark.parametrize("base", [BASE, None])
def test_four_parents(tmp_path, candidates, base):
    shares = {"other-2": 0.4, "ft-docs": 0.3, "ft-code": 0.2, "other-5": 0.1}
    suspect = merge(tmp_path / "suspect", candidates, shares)
    result = scan(suspect, candidates, base, folder=tmp_path / "run")
    assert names(result.parents) == set(shares)
    assert CandidateKind.LEAD not in kinds(result).values()


@pytest.mark.slow
def test_a_merge_beside_its_continuation_its_child_and_another_merge_of_its_parents(tmp_path, candidates):
    shares = {"ft-code": 0.6, "ft-docs": 0.4}
    suspect = merge(tmp_path / "suspect", candidates, shares)
    tensors = load_file(suspect / "model.safetensors")
    made = [
        save(tmp_path / "continued", trained_further(tensors, 0.005, 0.3)),
        save(tmp_path / "child", blend((0.5, 0.5), [tensors, weights(candidates, "other-0")])),
        merge(tmp_path / "again", candidates, {"ft-code": 0.8, "ft-docs": 0.2}),
    ]
    few = [c for c in candidates if c.name in {"ft-code", "ft-docs", "other-0", "other-1", "ft-code-half"}]
    result = scan(suspect, [*made, *few], BASE, folder=tmp_path / "run")
    assert names(result.parents) == set(shares)
    found = kinds(result)
    assert {found[path.name] for path in made} <= {CandidateKind.REDUNDANT, CandidateKind.MADE_FROM_SUSPECT}


@pytest.mark.slow
def test_a_merge_trained_afterwards(tmp_path, candidates):
    merged = blend((0.6, 0.4), [weights(candidates, name) for name in ("ft-code", "ft-docs")])
    suspect = save(tmp_path / "suspect", trained_further(merged, 0.05, 0.4))
    few = [c for c in candidates if c.name.startswith(("ft-code", "ft-docs", "other", "blend"))]
    result = scan(suspect, few, BASE, folder=tmp_path / "run")
    assert names(result.parents) == {"ft-code", "ft-docs"}
    assert {fit.verdict for fit in result.fits if names(fit.parents) == {"ft-code", "ft-docs"}} == {
        "merge_then_modified"
    }


def test_a_parent_that_is_missing_leaves_the_other_a_lead_at_most(tmp_path, candidates):
    suspect = merge(tmp_path / "suspect", candidates, {"ft-code": 0.6, "other-0": 0.4})
    others = [c for c in candidates if c.name.startswith(("ft-code", "other", "blend")) and c.name != "other-0"]
    result = scan(suspect, others, BASE, folder=tmp_path / "run")
    assert result.parents == []
    assert kinds(result)["ft-code"] is CandidateKind.LEAD
    assert str(next(c for c in others if c.name == "ft-code")) in result.command
    assert "No parent is shown" in result.summary


@pytest.mark.parametrize("suspect", ["ft-code-half", "ft-code-seed2", "noise-1.0"])
def test_an_innocent_suspect_has_no_parent(tmp_path, candidates, suspect):
    chosen = next(c for c in candidates if c.name == suspect)
    # A few of each sort suffice: the whole crowd is there in the tests above.
    others = [c for c in candidates if c != chosen and not c.name.startswith(("blend", "stranger"))][:12]
    result = scan(chosen, others, BASE, folder=tmp_path / "run")
    assert result.parents == []


def test_without_a_base(tmp_path, candidates):
    suspect = merge(tmp_path / "suspect", candidates, {"ft-code": 0.6, "ft-docs": 0.4})
    few = [c for c in candidates if c.name.startswith(("ft-", "other-", "stranger"))]
    result = scan(suspect, few, folder=tmp_path / "run")
    assert names(result.parents) == {"ft-code", "ft-docs"}
    assert result.pivot is not None
    assert any("No base was given" in note for note in result.notes)
    assert result.command.endswith("]")


def test_a_source_of_the_suspects_children_is_not_called_their_child(tmp_path, candidates):
    child = merge(tmp_path / "child", candidates, {"ft-code": 0.6, "other-0": 0.4})
    few = [c for c in candidates if c.name in {"other-0", "other-1", "ft-docs"}]
    suspect = next(c for c in candidates if c.name == "ft-code")
    result = scan(suspect, [child, *few], BASE, folder=tmp_path / "run")
    assert result.parents == []
    assert kinds(result)["child"] is CandidateKind.MADE_FROM_SUSPECT


def test_what_cannot_be_compared_stops_nothing(tmp_path, candidates):
    suspect = merge(tmp_path / "suspect", candidates, {"ft-code": 0.6, "ft-docs": 0.4})
    tensors = weights(candidates, "other-0")
    lacking = save(tmp_path / "lacking", {k: v for k, v in tensors.items() if "layers.1" not in k})
    broken = dict(tensors)
    name = "model.layers.0.mlp.up_proj.weight"
    broken[name] = broken[name].clone()
    broken[name][3, 5] = float("nan")
    infinite = save(tmp_path / "broken", broken)
    twin = shutil.copytree(suspect, tmp_path / "twin")
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "model.safetensors").write_bytes(b"\x10\0\0\0")
    few = [c for c in candidates if c.name in {"ft-code", "ft-docs", "other-2"}]
    listed = [tmp_path / "nowhere", lacking, infinite, damaged, twin, BASE, *few]
    result = scan(suspect, listed, BASE, folder=tmp_path / "run")
    assert names(result.parents) == {"ft-code", "ft-docs"}
    found = {Path(c.name).name: (c.kind, c.reason) for c in result.candidates}
    for bad, words in (
        ("nowhere", "no such file"),
        ("lacking", "layers.1"),
        ("broken", name),
        ("damaged", "too few for a safetensors file"),
    ):
        assert found[bad][0] is CandidateKind.NOT_COMPARABLE
        assert words in found[bad][1]
    assert found["twin"][0] is CandidateKind.COPY
    assert found["base"][0] is CandidateKind.SHARES_BASE
    table = result.table()
    assert list(table["name"]) == [str(c) for c in listed]
    assert table["cosine"].isna().sum() == 6
    json.dumps(result.to_dict(), allow_nan=False)


def test_two_candidates_with_the_same_weights_are_told_apart_by_nobody(tmp_path, candidates):
    suspect = merge(tmp_path / "suspect", candidates, {"ft-code": 0.6, "ft-docs": 0.4})
    few = [c for c in candidates if c.name in {"ft-code", "ft-docs"}]
    mirror = shutil.copytree(few[0], tmp_path / "mirror")
    result = scan(suspect, [*few, mirror], BASE, folder=tmp_path / "run")
    assert names(result.parents) == {"ft-docs"}
    alike = [c for c in result.candidates if c.kind is CandidateKind.LEAD]
    assert names(c.name for c in alike) == {"ft-code", "mirror"}
    assert all("weights cannot tell" in c.reason for c in alike)


def test_a_scan_that_was_cut_off_goes_on(tmp_path, candidates, monkeypatch):
    import reconstruct.scanning.run as module

    suspect = merge(tmp_path / "suspect", candidates, {"ft-code": 0.6, "ft-docs": 0.4})
    few = [c for c in candidates if c.name in {"ft-code", "ft-docs", "other-2", "other-3"}]
    read = module.read_rows
    seen = []

    def cut_off(path, *rest):
        seen.append(path.name)
        if len(seen) == 5:
            raise KeyboardInterrupt
        return read(path, *rest)

    monkeypatch.setattr(module, "read_rows", cut_off)
    with pytest.raises(KeyboardInterrupt):
        scan(suspect, few, BASE, folder=tmp_path / "run")
    with pytest.raises(StoreError, match="not finished"):
        load_scan(tmp_path / "run")
    before = len(seen)
    result = resume_scan(tmp_path / "run")
    assert seen[before:] == ["candidate-2.safetensors", "candidate-3.safetensors"]
    assert load_scan(tmp_path / "run") == result
    assert resume_scan(tmp_path / "run").to_dict() == result.to_dict()
    assert len(seen) == before + 2
    assert names(result.parents) == {"ft-code", "ft-docs"}


def test_a_suspect_that_cannot_be_read_is_an_error(tmp_path, candidates):
    with pytest.raises(CheckpointError, match="no such file"):
        scan(tmp_path / "nowhere", candidates[:2], BASE, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    tensors = load("ft-code")
    tensors["model.layers.0.mlp.up_proj.weight"][0, 0] = float("inf")
    with pytest.raises(NonFiniteError, match="up_proj"):
        scan(save(tmp_path / "infinite", tensors), candidates[:2], BASE, folder=tmp_path / "run")
