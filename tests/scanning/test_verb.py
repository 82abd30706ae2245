"""`reconstruct scan` on the command line: a scan, its report, and mistakes."""

from __future__ import annotations

import json
import shutil
import sys

import pandas as pd
import pytest
from hydra.core.global_hydra import GlobalHydra
from support.family import BASE, CODE, CODE_HALF, DOCS

from reconstruct.cli import main


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        GlobalHydra.instance().clear()
        monkeypatch.setattr(sys, "argv", ["reconstruct", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        return (code, *capsys.readouterr())

    return call


def test_scan_report_and_resume(run, tmp_path, blend_folder):
    (tmp_path / "list.txt").write_text(f"{CODE} # one\n{DOCS}\n{CODE_HALF}\n./nowhere\n", "utf-8")
    code, out, err = run("scan", f"suspect={blend_folder}", "candidates=list.txt", f"base={BASE}", "folder=case")
    assert (code, err) == (0, "")
    command = f"reconstruct fit suspect={blend_folder} parents=[{CODE},{DOCS}] base={BASE}"
    assert command in out.splitlines()[-2]
    for words in ("parent (shown)", "redundant", "not comparable", "no such file or folder"):
        assert words in out
    first = (tmp_path / "case" / "report" / "result.json").read_bytes()
    assert json.loads(first)["command"] == command
    table = pd.read_parquet(tmp_path / "case" / "report" / "candidates.parquet")
    assert list(table["kind"]) == ["material_parent", "material_parent", "redundant", "not_comparable"]
    shutil.rmtree(tmp_path / "case" / "report")
    assert run("report", "run=case")[0] == 0
    assert (tmp_path / "case" / "report" / "result.json").read_bytes() == first
    assert run("scan", "resume=case")[0] == 0
    assert (tmp_path / "case" / "report" / "result.json").read_bytes() == first
    code, _, err = run("fit", "resume=case")
    assert code == 2
    assert "a scan, not a fit" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["suspect=./s"], "candidates: missing"),
        (["candidates=[./a]"], "suspect: missing"),
        (["suspect=./s", "candidates=nowhere.txt"], "nowhere.txt cannot be read"),
        (["suspect=./s", "candidates=[./a]"], "./s: no such file or folder"),
        (["suspect=./s", "candidates=[./a]", "sampling.bytes=null"], "a scan reads samples"),
        (["suspect=./s", "candidates=[./a]", "sampling.bytes=much"], "'much' is no size"),
        (["suspect=./s", "candidates=[./a]", "sampling.requests=0"], "sampling.requests: must be at least 1"),
        (["suspect=./s", "candidates=[./a]", "+extra=1"], "extra: no such option"),
        (["suspect=./s", "candidates=children:gpt2"], "children:gpt2: names no repository of a Hub"),
        (["suspect=./s", "candidates=[children:x:org/base,./a]"], "no relation 'x' in a model tree"),
        (["suspect=./s", "candidates=[./a]", "most_children=0"], "most_children: must be at least 1"),
        (["resume=./r", "suspect=./s"], "a resumed scan keeps its own models"),
        (["resume=./r"], "no run store"),
    ],
)
def test_mistakes_end_in_one_message(run, arguments, words):
    code, _, err = run("scan", *arguments)
    assert code == 2
    assert words in err
    assert "Traceback" not in err
