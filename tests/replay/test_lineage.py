"""Elements that still sit where one model left them."""

from __future__ import annotations

import pytest
from support.cases import CODE, DOCS, dataset, trained_further
from support.family import CODE_HALF, load, save

from reconstruct.replay.lineage import lineage


def voting(data):
    return [data.measurements[i] for i in data.voting]


@pytest.fixture(scope="module")
def continued(tmp_path_factory):
    """ft-code, then a further training that moved six tenths of the weights."""
    tensors = trained_further(load("ft-code"), rate=0.05, share=0.6)
    return dataset(save(tmp_path_factory.mktemp("continued") / "model", tensors), [CODE, DOCS])


def test_spike_stands_at_the_model_that_was_trained_on(continued):
    found = lineage(voting(continued), 1)
    assert found.z > 50
    assert 0.3 < found.untouched < 0.5
    assert found.low == 4.0


@pytest.mark.parametrize("source", [0, 2], ids=["base", "other fine-tune"])
def test_no_spike_at_the_other_models(continued, source):
    assert lineage(voting(continued), source).z < 5


def test_no_spike_at_the_sources_of_a_merge(blend_folder):
    data = dataset(blend_folder, [CODE, DOCS])
    assert all(lineage(voting(data), source).z < 5 for source in range(3))


def test_no_spike_at_a_later_checkpoint():
    data = dataset(CODE_HALF, [CODE, DOCS])
    assert all(lineage(voting(data), source).z < 5 for source in range(3))


def test_one_candidate_and_its_base_suffice(tmp_path):
    suspect = save(tmp_path / "s", trained_further(load("ft-code"), rate=0.05, share=0.6))
    data = dataset(suspect, [CODE])
    assert lineage(voting(data), 1).untouched > 0.3
    assert lineage(voting(data), 0).z < 5


def test_no_tensors_no_spike():
    found = lineage([], 0)
    assert (found.count, found.untouched) == (0, 0.0)
