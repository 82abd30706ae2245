"""From lines of cases and results to the page, and back: what stands there is what the results say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import page
import page_format
import plots
import pytest
import summary
from support.evidence_lines import case_line, result_line

from reconstruct.criteria import THRESHOLDS


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Both halves: merges, merges changed after, and near misses, of which one is accused falsely."""
    cases, results, answers = [], [], []

    def add(name: str, sort: str, verdict: str, **others: Any) -> None:
        changes = {key: others.pop(key) for key in ("explained", "sweep", "untouched_found") if key in others}
        found = changes.pop("untouched_found", 0.0)
        cases.append(case_line(name, sort, **others))
        results.append(result_line(name, verdict, untouched=found, **changes))
        merge = sort != "no merge"
        answers.append({
            "case": name, "summary": "MERGE" if merge else "SINGLE_PARENT",
            "alphas": {"f/a": 0.6, "f/b": 0.4, "f/base": 0.0}, "gain_vs_single": 0.9 if merge else 0.1,
            "recon_cos": 1.0, "error": None,
        })  # fmt: skip

    for half in ("tuning", "reporting"):
        tail = {"half": half, "family": half}
        add(f"{half}/m", "merge", "reproduced", explained=0.99, **tail)
        add(f"{half}/t", "modified merge", "merge_then_modified", explained=0.9, group="trained on", strength=0.01,
            untouched=0.2, untouched_found=0.19, sweep={"spike z": [[16.0, "related"]]}, **tail)  # fmt: skip
        add(f"{half}/u", "modified merge", "related", explained=0.8, group="trained on", strength=0.1,
            untouched=0.002, **tail)  # fmt: skip
        add(f"{half}/n", "no merge", "related", explained=0.5, sweep={"spike z": [[4.0, "merge_then_modified"]]},
            **tail)  # fmt: skip
    add("reporting/p|q", "no merge", "merge_consistent", explained=0.95, half="reporting", family="reporting")
    results.append(result_line("reporting/m", "undetermined", budget=0.2))
    answers[-1] |= {"summary": None, "gain_vs_single": None, "recon_cos": None, "error": "ValueError: no (at all)"}
    for name, lines in (("cases", cases), ("results", results), ("modeldna", answers)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    grid = {key: [4.0, 16.0] if key == "spike z" else [value] for key, value in THRESHOLDS.items()}
    (tmp_path / "grid.json").write_text(json.dumps(grid))
    return tmp_path


@pytest.fixture
def pages(work: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The two pages with markers, and a summary of their own."""
    monkeypatch.setattr(summary, "SUMMARY", work / "evidence.json")
    renders = list(page.PAGES.values())
    paths = (work / "evidence.md", work / "README.md")
    for path in paths:
        path.write_text("before\n<!-- evidence:begin -->\nstale text\n<!-- evidence:end -->\nafter\n")
    monkeypatch.setattr(page, "PAGES", dict(zip(paths, renders, strict=True)))
    return paths


def test_the_page_says_what_the_results_say(work: Path, pages: tuple[Path, Path]) -> None:
    summary.main(work)
    page.main()
    page.check()
    evidence, readme = (path.read_text() for path in pages)
    for text in (evidence, readme):
        assert text.startswith("before\n<!-- evidence:begin -->\n")
        assert text.endswith("<!-- evidence:end -->\nafter\n")
        assert "stale text" not in text
    assert "| reconstruct | 100 % (1 of 1) | 50 % (1 of 2) | 1 of 2 (at most 97.5 %) | - |" in readme
    assert "modeldna 0.1.0, where it answers | 100 % (1 of 1) | 100 % (2 of 2) | 0 of 1 (at most 95 %) | - |" in readme
    assert "**Falsely accused: 1 of 3**" in evidence
    assert "| reporting/p\\|q | `merge_consistent` | `related` |" in evidence
    assert "| spike z | 8 | 8 (factor 1; at 4: 1 accused) | 8 (factor 1; at 16: 1 lost) | 8 |" in evidence
    assert "| 20 % of all bytes | 0 % (0 of 1) | 100 % (1 of 1) | - |" in evidence
    assert "ValueError: no (1)" in evidence
    assert "| 10 % to 30 % | 100 % (2 of 2) |" in evidence
    assert "Never bind at any value tried: replayed (0.999 to 0.999)" in evidence
    assert "/tmp" not in evidence


def test_a_page_that_says_something_else_is_found(work: Path, pages: tuple[Path, Path]) -> None:
    summary.main(work)
    page.main()
    pages[1].write_text(pages[1].read_text().replace("1 of 2 (at most", "0 of 2 (at most"))
    with pytest.raises(SystemExit, match=r"^README\.md: not what the results say"):
        page.check()


BEGIN, END = "<!-- evidence:begin -->", "<!-- evidence:end -->"


@pytest.mark.parametrize("text", ["nothing", BEGIN, END + BEGIN, BEGIN + BEGIN + END, BEGIN + END + END])
def test_pages_without_a_place_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^page\.md: needs the markers"):
        page.placed(text, "new", "page.md")


def test_the_summary_is_the_same_for_the_same_runs(work: Path) -> None:
    assert json.dumps(summary.summarise(work)) == json.dumps(summary.summarise(work))


def test_only_all_is_a_hundred_per_cent() -> None:
    shares = [0.0, 1e-6, 0.0081, 0.0996, 0.5, 0.9999, 1.0]
    assert [page_format.percent(s) for s in shares] == ["0 %", "<0.01 %", "0.81 %", "10 %", "50 %", "99.9 %", "100 %"]


def test_pictures_are_drawn(work: Path) -> None:
    paths = plots.main(work, work)
    assert [path.name for path in paths] == ["evidence-power.png", "evidence-coefficients.png", "evidence-tests.png"]
    assert all(10_000 < path.stat().st_size < 100_000 for path in paths)
