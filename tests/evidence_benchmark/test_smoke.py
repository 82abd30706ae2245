"""The benchmark on one small family: trained, merged, examined, scored. Nobody is accused, every merge is found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import summary

SCRIPTS = Path(__file__).parents[2] / "scripts" / "bench" / "evidence"


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evidence")
    command = [sys.executable, str(SCRIPTS), "smoke", "--folder", str(folder)]
    return folder, subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_case_of_each_kind_gets_a_verdict_that_is_right(smoke):
    _, finished = smoke
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "falsely accused: 0" in finished.stdout


def test_the_results_are_scored(smoke):
    folder, _ = smoke
    document = summary.summarise(folder)
    groups = {(entry["sort"], entry["group"]) for entry in document["verdicts"]}
    assert {("merge", "slices"), ("no merge", "sibling"), ("modified merge", "partly trained")} <= groups
    assert all(entry["accused"]["count"] == 0 for entry in document["verdicts"] if "count" in entry["accused"])
