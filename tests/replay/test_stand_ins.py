"""A source that was trained on after the merge, told from a suspect that was."""

from __future__ import annotations

import numpy as np
import pytest
from support.cases import BASE, CODE, DOCS, dataset, merged, trained_further
from support.family import blend, load, save

from reconstruct.replay.stand_ins import changed_sources

SHARES = (0.3, 0.7)


def measured(suspect, parents, coefficients):
    data = dataset(suspect, parents, BASE)
    voting = [data.measurements[i] for i in data.voting]
    return changed_sources(voting, [np.array(coefficients)] * len(voting))


def merge(folder):
    return merged(folder, SHARES, ("ft-code", "ft-docs"))


def test_training_of_the_suspect_does_not_depend_on_the_phase(tmp_path):
    tensors = trained_further(blend(SHARES, [load("ft-code"), load("ft-docs")]), 0.005, 0.5)
    shares, errors = measured(save(tmp_path / "s", tensors), [CODE, DOCS], (0.0, *SHARES))
    assert np.isinf(errors[0])  # the base takes no part
    assert (np.abs(shares[1:]) < 3 * errors[1:] + 0.02).all()
    assert (errors[1:] < 0.05).all()


@pytest.mark.parametrize("place", [0, 1])
def test_a_source_that_was_trained_on_is_seen(tmp_path, place):
    suspect = merge(tmp_path / "merge")
    parents = [CODE, DOCS]
    parents[place] = save(tmp_path / "later", trained_further(load(parents[place].name), 0.005, 0.5))
    shares, errors = measured(suspect, parents, (0.0, *SHARES))
    assert shares[1 + place] - 3 * errors[1 + place] > 0.05


def test_nothing_to_see(tmp_path):
    shares, errors = changed_sources([], [])
    assert shares.shape == errors.shape == (0,)
    shares, errors = measured(merge(tmp_path / "merge"), [CODE, DOCS], (0.0, *SHARES))
    assert (np.abs(shares[1:]) < 0.05).all()  # the float32 of the merge decides ties otherwise
