"""A recipe seen in the first tensors saves the second reading of the others, and never changes a result."""

from __future__ import annotations

import pytest
from support.cases import dataset
from support.family import BASE, CODE, CODE_SEED2, DOCS, load, save

import reconstruct
from reconstruct.checkpoints.local import MappedFiles
from reconstruct.engine.foresight import Foresight
from reconstruct.evidence import SourceTable
from reconstruct.kernels.select import select
from reconstruct.report.result import to_json

FAMILIES = frozenset({"linear", "slerp", "task_arithmetic"})


def informed(data, table=None):
    """A foresight that has seen every tensor."""
    foresight = Foresight(table or data.sources, FAMILIES, select("processor"), 0)
    for measurement in data.measurements:
        foresight.learn(measurement)
    return foresight


def matrices(data):
    return [data.measurements[i] for i in data.voting]


def test_a_merge_is_foreseen_with_its_own_numbers(blend_folder):
    data = dataset(blend_folder, [CODE, DOCS])
    foresight = informed(data)
    for measurement in matrices(data):
        found = foresight.replays_of(measurement)
        assert 1 <= len(found) <= 3
        for replay in found:
            assert sorted(replay.models) == [0, 1, 2, 3]
            assert sorted(replay.coefficients[0].tolist()) == pytest.approx([0, 0.435, 0.565])


def test_nothing_is_foreseen_of_a_model_that_is_no_merge():
    data = dataset(CODE_SEED2, [CODE, DOCS])
    foresight = informed(data)
    assert not any(foresight.replays_of(measurement) for measurement in data.measurements)


def test_a_few_tensors_are_not_enough(blend_folder):
    data = dataset(blend_folder, [CODE, DOCS])
    foresight = Foresight(data.sources, FAMILIES, select("processor"), 0)
    for measurement in matrices(data)[:5]:
        foresight.learn(measurement)
    assert foresight.replays_of(matrices(data)[-1]) == []


def test_a_tensor_that_contradicts_the_recipe_is_left_to_the_analysis(tmp_path, blend_folder):
    tensors, other = load(blend_folder), load(CODE_SEED2)
    strange = "model.layers.2.mlp.up_proj.weight"
    suspect = save(tmp_path / "suspect", tensors | {strange: other[strange]})
    data = dataset(suspect, [CODE, DOCS])
    foresight = Foresight(data.sources, FAMILIES, select("processor"), 0)
    for measurement in matrices(data)[:6]:
        foresight.learn(measurement)
    assert {m.name for m in matrices(data) if not foresight.replays_of(m)} == {strange}


def test_one_model_beside_the_suspect_leaves_nothing_to_foresee():
    data = dataset(CODE, [DOCS], base=None)
    foresight = Foresight(SourceTable(data.sources.names, has_base=False, models=(1,)), FAMILIES, select(), 0)
    foresight.learn(data.measurements[0])
    assert foresight.replays_of(data.measurements[0]) == []


@pytest.mark.parametrize("parents", [[CODE, DOCS], [CODE, CODE, DOCS]], ids=["two", "one of them twice"])
def test_results_are_the_same_without_it(blend_folder, tmp_path, monkeypatch, parents):
    def run(name):
        return to_json(reconstruct.fit(blend_folder, parents, BASE, folder=tmp_path / name, threads=1))

    with_it = run("with")
    monkeypatch.setattr(Foresight, "replays_of", lambda self, measurement: [])
    assert run("without").replace("without", "with") == with_it


def test_most_tensors_of_a_merge_are_visited_once(blend_folder, tmp_path, monkeypatch):
    read, visited = MappedFiles.read, []

    def noting(self, tensor, start, stop):
        if not visited or visited[-1] != tensor.name:
            visited.append(tensor.name)
        return read(self, tensor, start, stop)

    monkeypatch.setattr(MappedFiles, "read", noting)
    run = reconstruct.fit(blend_folder, [CODE, DOCS], BASE, folder=tmp_path / "run", threads=1, proof=False)
    count, with_it = len(run.evidence.tensors), len(visited)
    visited.clear()
    monkeypatch.setattr(Foresight, "replays_of", lambda self, measurement: [])
    reconstruct.fit(blend_folder, [CODE, DOCS], BASE, folder=tmp_path / "again", threads=1, proof=False)
    without = len(visited)
    arithmetics = without // count - 1  # that reproduce the samples equally well; each reads every tensor once more
    assert without == (1 + arithmetics) * count
    # Only those measured before six tensors had testified are read again.
    assert count + 6 * arithmetics <= with_it <= count + 14 * arithmetics
