"""The angle of whole tensors from some of their rows."""

from __future__ import annotations

import numpy as np
import pytest
from support.slerps import slerped
from support.tensors import BF16, UP, rounded, sources

from reconstruct.hypotheses.implied_angle import Angle, implied_angle
from reconstruct.hypotheses.slerp import LINEAR_BRANCH, slerp_coefficients


def pair(factor=8.0, tilt=0.0):
    """Base and fine-tune with its movement made larger; `tilt`: the last rows move that much more than the first."""
    base, code = sources(UP, "base", "ft-code")
    grows = 1 + tilt * np.linspace(-1, 1, len(base), dtype=np.float32)
    return base, rounded(base + factor * grows * (code - base))


def read(suspect, a, b, share=0.25):
    """The first rows: values [3, n], spacings, and the cosine of what was read."""
    few = np.stack([suspect, a, b])[:, : int(share * len(a))]
    x, y = few[1:].astype(np.float64)
    return few, BF16.spacing(few[0]), float(x @ y / np.sqrt((x @ x) * (y @ y)))


@pytest.mark.parametrize("t", [0.4, 0.5, 0.275])
@pytest.mark.parametrize("tilt", [0.0, 0.5])
def test_every_bit_follows_from_the_implied_angle_and_not_from_that_of_the_rows(t, tilt):
    a, b = pair(tilt=tilt)
    suspect, cosine = slerped(a, b, t)
    values, unit, estimate = read(suspect, a, b)
    found = implied_angle(values, unit, estimate).cosine
    assert found is not None
    assert abs(found - cosine) <= abs(estimate - cosine) + 1e-4

    def hits(angle):
        first, second = slerp_coefficients(t, angle)
        return float((rounded((first * values[1].astype(np.float64) + second * values[2])) == values[0]).mean())

    assert hits(found) >= 0.999
    assert tilt == 0 or hits(estimate) < 0.99


def test_in_the_linear_branch_the_result_is_linear():
    # Closer than the branch's edge; the rows read are a little farther apart than the tensors.
    a, b = pair(factor=1.0)
    suspect = rounded(np.float32(0.6) * a + np.float32(0.4) * b)
    values, unit, _ = read(suspect, a, b)
    found = implied_angle(values, unit, 0.9993).cosine
    assert found is not None
    assert found > LINEAR_BRANCH


def test_what_is_no_slerp_implies_no_angle():
    a, b = pair()
    other = rounded(sources(UP, "base", "ft-code-seed2")[1])
    values, unit, estimate = read(other, a, b)
    assert implied_angle(values, unit, estimate) == Angle(None, fits=False)


@pytest.mark.parametrize("t", [0.0, 1.0])
def test_the_ends_of_the_way_say_nothing_of_the_angle(t):
    a, b = pair()
    suspect, _ = slerped(a, b, t)
    values, unit, estimate = read(suspect, a, b)
    assert implied_angle(values, unit, estimate) == Angle(None, fits=True)


def test_an_angle_far_from_that_of_the_rows_is_not_believed():
    a, b = pair()
    suspect, _ = slerped(a, b, 0.4)
    values, unit, estimate = read(suspect, a, b)
    assert implied_angle(values, unit, 1 - (1 - estimate) * 40) == Angle(None, fits=True)


def test_too_few_elements_imply_nothing():
    a, b = pair()
    suspect, _ = slerped(a, b, 0.4)
    values, unit, estimate = read(suspect, a, b)
    assert implied_angle(values[:, :40], unit[:40], estimate) == Angle(None, fits=False)
