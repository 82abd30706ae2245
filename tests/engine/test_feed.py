"""Blocks reach the kernels whole and in order, on the processor and on (interpreted) devices, with the same results."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from support.family import BASE, CODE, CODE_HALF, DOCS, load, save

import reconstruct
from reconstruct.checkpoints.alignment import align
from reconstruct.checkpoints.open import open_checkpoint
from reconstruct.engine.feed import DeviceFeed, Feeds, HostFeed
from reconstruct.engine.measure import measure
from reconstruct.kernels.device import interpreted
from reconstruct.kernels.select import select
from reconstruct.sampling import SamplingPlan

pytest.importorskip("triton")
CPU = torch.device("cpu")
PLAN = SamplingPlan(block=4096, elements=512)


@pytest.fixture(scope="module")
def family():
    catalogs = [open_checkpoint(str(path)) for path in (CODE_HALF, BASE, CODE)]
    return catalogs, align(catalogs[0], catalogs[1:]).tensors


class Counting:
    """A byte source that notes what is asked of it."""

    def __init__(self, source):
        self.source, self.calls = source, []

    def __getattr__(self, name):
        def noted(tensor, start, stop):
            self.calls.append((name, start, stop))
            return getattr(self.source, name)(tensor, start, stop)

        return noted


def counted(catalogs):
    return [dataclasses.replace(catalog, source=Counting(catalog.source)) for catalog in catalogs]


def largest(tensors):
    return max(tensors, key=lambda t: t.elements)


def content(blocks):
    return [np.concatenate([np.asarray(block.views[m].bits) for block in blocks]).view(np.uint16) for m in range(3)]


@pytest.mark.parametrize(
    "feed", [HostFeed(), DeviceFeed(CPU, 1 << 20), DeviceFeed(CPU, 0)], ids=lambda f: str(f)[20:40]
)
def test_every_element_comes_once_and_in_order_each_time(feed, family):
    catalogs, tensors = family
    tensor = largest(tensors)
    whole = [c.source.read(info, 0, tensor.elements) for c, info in zip(catalogs, tensor.sources, strict=True)]
    with feed.open(tensor, catalogs, PLAN) as resident:
        for _ in range(2):
            blocks = list(resident.blocks())
            assert [(b.start, b.stop) for b in blocks] == list(PLAN.blocks(tensor.elements))
            for found, expected in zip(content(blocks), whole, strict=True):
                np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("keep", "reads"), [(1 << 20, 1), (0, 2)])
def test_what_fits_on_the_device_is_read_once(family, keep, reads):
    catalogs, tensors = counted(family[0]), family[1]
    tensor = largest(tensors)
    with DeviceFeed(CPU, keep).open(tensor, catalogs, PLAN) as resident:
        for _ in range(2):
            list(resident.blocks())
    blocks = len(list(PLAN.blocks(tensor.elements)))
    assert sum(name == "read" for name, *_ in catalogs[0].source.stored.calls) == reads * blocks


def test_pages_are_asked_for_ahead_and_let_go_behind(family):
    catalogs, tensors = counted(family[0]), family[1]
    with HostFeed().open(largest(tensors), catalogs, PLAN) as resident:
        list(resident.blocks())
    calls = catalogs[1].source.stored.calls
    order = list(PLAN.blocks(largest(tensors).elements))
    for number, block in enumerate(order):
        assert ("release", *block) in calls
        if number:
            assert calls.index(("ahead", *block)) < calls.index(("read", *block))
            assert calls.index(("ahead", *block)) < calls.index(("release", *order[number - 1]))


def test_devices_are_used_evenly_and_one_worker_at_a_time(monkeypatch):
    kernels = dataclasses.replace(select("processor"), name="triton")
    devices = [torch.device("cpu"), torch.device("meta")]
    feeds = Feeds(kernels, 4, devices)
    with feeds.borrow() as a, feeds.borrow() as b, feeds.borrow() as c, feeds.borrow() as d:
        assert [f.device.type for f in (a, b, c, d)] == ["cpu", "meta", "cpu", "meta"]
        assert len({id(f) for f in (a, b, c, d)}) == 4
    with feeds.borrow() as again:
        assert again is a


@pytest.mark.skipif(not interpreted(), reason="for a GPU there is the same test of whole runs")
def test_a_tensor_measured_on_a_device_is_that_of_the_processor(family):
    catalogs, tensors = family
    for tensor in (largest(tensors), min(tensors, key=lambda t: t.elements)):
        found = []
        for feed, name in ((HostFeed(), "processor"), (DeviceFeed(CPU, 1 << 20), "triton")):
            with feed.open(tensor, catalogs, PLAN) as resident:
                found.append(measure(tensor, catalogs, resident, PLAN, select(name), 300))
        ours, theirs = found
        np.testing.assert_array_equal(ours.index, theirs.index)
        np.testing.assert_array_equal(ours.values, theirs.values)
        np.testing.assert_array_equal(ours.moments.identical, theirs.moments.identical)
        np.testing.assert_allclose(ours.moments.gram, theirs.moments.gram, rtol=1e-5, atol=1e-9)
        assert (ours.informative, ours.moments.count) == (theirs.informative, theirs.moments.count)


def facts(run):
    """What a run says, without what its folder is called and which kernels ran."""
    evidence = run.evidence
    return {
        "verdict": run.verdict.kind.value, "coefficients": run.coefficients, "arithmetic": evidence.arithmetic,
        "exact": evidence.replay.exact.tolist(), "steps": evidence.replay.steps.tolist(),
        "identical": [t.measurement.moments.identical.tolist() for t in evidence.tensors],
        "samples": [t.measurement.index.tolist() for t in evidence.tensors],
    }  # fmt: skip


def test_a_whole_run_on_one_device_on_two_and_on_the_processor(blend_folder, tmp_path, monkeypatch):
    plan = SamplingPlan(elements=2048)
    # One layer of the models: interpreted kernels are slow.
    models = [
        save(tmp_path / path.name, {k: v for k, v in load(path).items() if ".layers.1." in k})
        for path in (blend_folder, CODE, DOCS, BASE)
    ]

    def run(name, kernels, threads):
        return reconstruct.fit(
            models[0], models[1:3], models[3], folder=tmp_path / name, kernels=kernels, threads=threads, sampling=plan
        )

    one = run("one", "triton", 1)
    if interpreted():
        monkeypatch.setattr("reconstruct.kernels.device.devices_at_hand", lambda: [CPU, CPU])
    two = run("two", "triton", 2)
    assert json.dumps(facts(one)) == json.dumps(facts(two))
    assert [t.measurement.moments.gram.tobytes() for t in one.evidence.tensors] == [
        t.measurement.moments.gram.tobytes() for t in two.evidence.tensors
    ]
    processor = facts(run("processor", "processor", 2))
    assert facts(one) == processor
    assert processor["verdict"] == "reproduced"
