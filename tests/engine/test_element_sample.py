"""The sample gathered block by block is that of the whole tensor, however informative elements are spread."""

from __future__ import annotations

import numpy as np
import pytest
from support.kernel_inputs import encode, part

from reconstruct.engine.element_sample import ElementSample
from reconstruct.engine.feed import Block
from reconstruct.kernels import pick_reference
from reconstruct.kernels.formats import decode
from reconstruct.kernels.select import select

COUNT = 200_000


def models(informative):
    """Suspect, pivot and one source that differs from the pivot where `informative` says so."""
    random = np.random.default_rng(0)
    pivot = random.standard_normal(COUNT)
    source = np.where(informative, pivot + 0.1, pivot)
    return [encode(values, "BF16") for values in (pivot + 0.03, pivot, source)]


def gathered(views, size, blocks):
    sample = ElementSample(COUNT, size, 5, select("processor"))
    passes = 0
    while passes == 0 or sample.short:
        if passes:
            sample.restart()
        for start in range(0, COUNT, COUNT // blocks):
            stop = min(start + COUNT // blocks, COUNT)
            host = part(views, start, stop)
            sample.take(Block(start, stop, host, host))
        passes += 1
    return *sample.chosen(), sample.informative, passes


SPREADS = {
    "everywhere": np.ones(COUNT, bool),
    "nowhere": np.zeros(COUNT, bool),
    "one in fifty": np.random.default_rng(1).random(COUNT) < 0.02,
    "only at the end": np.arange(COUNT) > 0.9 * COUNT,
    "only at the beginning": np.arange(COUNT) < 0.1 * COUNT,
    "rows of an embedding": np.arange(COUNT) // 500 % 7 == 0,
}


@pytest.mark.parametrize("size", [256, 20_000])
@pytest.mark.parametrize("spread", SPREADS)
def test_it_is_the_sample_of_the_whole_tensor(spread, size):
    views = models(SPREADS[spread])
    index, values, informative, passes = gathered(views, size, 8)
    everything = pick_reference.pick(views, seed=5)
    np.testing.assert_array_equal(index, everything[pick_reference.smallest_hashes(everything, size, 5)])
    assert informative == pytest.approx(len(everything), rel=6 / np.sqrt(max(len(index), 1)))
    if len(index) < size:
        assert informative == len(everything)
    np.testing.assert_array_equal(values, np.stack([decode(v.bits[index], v.dtype) for v in views]))
    assert passes <= 2


def test_it_does_not_depend_on_the_blocks():
    views = models(SPREADS["one in fifty"])
    for blocks in (1, 3, 50):
        np.testing.assert_array_equal(gathered(views, 1000, blocks)[0], gathered(views, 1000, 8)[0])


def test_evenly_spread_elements_take_one_pass():
    assert gathered(models(SPREADS["everywhere"]), 5000, 8)[3] == 1
    assert gathered(models(SPREADS["one in fifty"]), 256, 8)[3] == 1
