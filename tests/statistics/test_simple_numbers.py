"""The numbers a person would have written."""

from __future__ import annotations

import numpy as np
import pytest
from support.tensors import rounded

from reconstruct.statistics.simple_numbers import decimals_between, is_simple, simplest


def bfloat16(value: float) -> float:
    return float(rounded(np.array([value]))[0])


def test_decimals_with_fewest_digits_come_first():
    found = list(decimals_between(0.24, 0.36, limit=5))
    assert found[0] == 0.3
    assert all(0.24 <= v <= 0.36 for v in found)
    assert found[1:] == sorted(found[1:], key=lambda v: abs(v - 0.3))
    assert found[1:] == pytest.approx([0.29, 0.31, 0.28, 0.32])


def test_whole_numbers_count_as_decimals():
    assert next(decimals_between(0.9, 1.2)) == 1.0
    assert next(decimals_between(-0.1, 0.1)) == 0.0


def test_wide_interval_yields_the_middle_and_does_not_run_away():
    assert len(list(decimals_between(-1e6, 1e6))) == 12


def test_interval_without_short_decimals_yields_none():
    assert list(decimals_between(0.1234567, 0.1234568, digits=4)) == []


@pytest.mark.parametrize("value", [0.5, 0.565, 0.3, 0.0, 1.0, 0.1234, -0.25, 1.3])
def test_recipe_number_is_the_simplest_in_its_bounds(value):
    assert simplest(value - 4e-6, value + 7e-6)[0] == pytest.approx(value, abs=1e-12)


def test_fraction_is_found_where_no_short_decimal_is():
    assert simplest(4 / 7 - 3e-6, 4 / 7 + 2e-6)[0] == pytest.approx(4 / 7, abs=1e-15)
    assert simplest(1 / 3 - 3e-6, 1 / 3 + 5e-6)[0] == pytest.approx(1 / 3, abs=1e-15)


def test_number_that_a_program_rounded_to_bfloat16():
    assert bfloat16(0.3) == 0.30078125
    assert simplest(0.3007, 0.3009, bfloat16)[0] == 0.3
    assert 0.3 not in simplest(0.3007, 0.3009)


def test_middle_is_always_among_the_candidates():
    random = np.random.default_rng(1)
    for low in random.uniform(-1, 1, 200):
        high = low + 10 ** random.uniform(-9, -1)
        found = simplest(low, high)
        assert any(abs(v - (low + high) / 2) < 1e-8 for v in found)
        assert all(low - 1e-9 <= v <= high + 1e-9 for v in found)


def test_point_interval_gives_the_point():
    assert simplest(0.25, 0.25) == [0.25]


@pytest.mark.parametrize(("value", "simple"), [(0.565, True), (0.1234, True), (4 / 7, True), (1 / 3, True), (2.0, True),
                                               (0.12345, False), (np.pi / 4, False)])  # fmt: skip
def test_simple_numbers_have_four_decimals_or_a_small_denominator(value, simple):
    assert is_simple(value) is simple
