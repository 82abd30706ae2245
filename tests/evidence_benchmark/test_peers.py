"""How the peer's answers are read, and that its run goes on where it stopped. Its own program is not run here."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import peers
import pytest
from support.evidence_lines import case_line


def answer(summary: str | None, gain: float | None, cosine: float | None = 1.0, **alphas: float) -> peers.PeerAnswer:
    return peers.PeerAnswer("x", summary, alphas, gain, cosine, None if summary else "ValueError: no")


def test_only_one_summary_calls_it_a_merge_and_an_error_is_no_answer() -> None:
    said = {summary: answer(summary, 0.5).accuses for summary in peers.ANSWERS}
    assert said == {"MERGE": True, "SINGLE_PARENT": False, "AMBIGUOUS": False, "UNEXPLAINED": False}
    assert answer(None, None).accuses is None


def test_its_score_reaches_its_threshold_where_it_says_merge() -> None:
    assert answer("MERGE", 0.4, a=0.5, b=0.3, base=0.2).score("base") == 0.4
    alone = answer("SINGLE_PARENT", 0.9, a=0.6, b=0.0, base=0.4)
    assert alone.score("base") == float("-inf")  # the base does not count, as in the peer
    assert answer("UNEXPLAINED", 0.9, 0.5, a=0.5, b=0.5).score(None) == float("-inf")
    assert answer(None, None, None).score(None) == float("-inf")


def test_it_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = tmp_path / "worker.py"
    worker.write_text(
        "import json, sys\n"
        "for line in sys.stdin:\n"
        "    case = json.loads(line)\n"
        "    print(json.dumps({'case': case['name'], 'summary': 'MERGE', 'alphas': {p: .5 for p in case['parents']},\n"
        "                      'gain_vs_single': .9, 'recon_cos': 1.0, 'error': None}))\n"
    )
    monkeypatch.setattr(peers, "_WORKER", worker)
    python = tmp_path / "peer-environment" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    (tmp_path / "peer-environment" / "ready").write_text("made before")
    cases = [case_line("a"), case_line("b")]
    (tmp_path / "cases.jsonl").write_text("".join(json.dumps(case) + "\n" for case in cases))
    earlier = {"case": "a", "summary": None, "alphas": {}, "gain_vs_single": None, "recon_cos": None, "error": "kept"}
    (tmp_path / "modeldna.jsonl").write_text(json.dumps(earlier) + "\n")
    peers.main(tmp_path)
    found = peers.read_answers(tmp_path)
    assert found["a"].error == "kept"
    assert found["b"].accuses
    assert found["b"].alphas == {"f/a": 0.5, "f/b": 0.5}
    assert not (tmp_path / "modeldna.questions").exists()
    peers.main(tmp_path)
    assert len((tmp_path / "modeldna.jsonl").read_text().splitlines()) == 2
