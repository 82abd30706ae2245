"""What the pages say follows from the runs that are published with them."""

from __future__ import annotations

import json

import archive
import page
import pytest
import summary


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    archive.unpack(folder)
    return json.loads(json.dumps(summary.summarise(folder)))


def test_the_summary_is_that_of_the_published_runs(document):
    assert document == page.read_summary()


def test_the_pages_say_what_the_summary_says():
    page.check()


def test_nobody_is_accused_and_the_numbers_of_merges_are_exact(document):
    assert document["false accusations"]["hits"] == 0
    assert document["false accusations"]["total"] >= 300
    assert document["exact merges"]["share"] >= 0.99
