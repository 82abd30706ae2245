"""The console report: its numbers, its width, and silence where there is no terminal."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from reconstruct.recipe import Cell
from reconstruct.report.console import print_report, progress
from reconstruct.report.console_tables import thin
from reconstruct.report.wording import coefficient, coefficient_range, model_order, number, share, short_names, shorten
from reconstruct.verdict import Reason

CASES = ("blend", "half", "alone", "nothing", "broken", "tall")


def printed(case, width=100, left_out=0):
    stream = io.StringIO()
    print_report(Console(file=stream, width=width), case.evidence, case.verdict, case.suspect, left_out)
    return stream.getvalue()


def lines_with(text, *parts):
    return [line for line in text.splitlines() if all(part in line for part in parts)]


@pytest.mark.parametrize("name", CASES)
def test_no_line_is_too_wide_and_nothing_is_escaped(name, request):
    for width in (100, 140):
        text = printed(request.getfixturevalue(name), width)
        assert max(map(len, text.splitlines())) <= width
        assert "\x1b" not in text


def test_verdict_coefficients_and_origin(blend):
    text = printed(blend, left_out=12345)
    assert text.splitlines()[0].split() == ["reproduced", "lab/blend"]
    assert "One recipe from" in text
    assert "12,345 could not be compared" in " ".join(text.split())
    assert "Coefficients of the whole model (certified by linear programmes)" in text
    estimate = blend.evidence.estimate
    row = lines_with(text, "ft-code", "[", "0.565")[0].split()
    assert row[1] == "0.565"
    assert float(row[2].strip("[,")) == pytest.approx(estimate.low[1], abs=1e-6)
    assert float(row[3].strip("],")) == pytest.approx(estimate.high[1], abs=1e-6)
    assert float(row[4]) == pytest.approx(estimate.least_squares[1], abs=1e-4)
    assert lines_with(text, "arithmetic", blend.evidence.arithmetic)
    assert all(lines_with(text, "like", program) for program in blend.evidence.programs)


def test_families_that_cannot_be_told_apart(blend):
    case = replace(blend, evidence=replace(blend.evidence, families=("linear", "slerp")))
    assert lines_with(printed(case), "not told apart", "linear, slerp")


def test_reasons_stand_beside_their_thresholds(blend):
    reasons = (Reason("novel elements", 2996207, 1000, passed=True), Reason("spread", 0.0123456, 0.01, passed=False))
    text = printed(replace(blend, verdict=replace(blend.verdict, reasons=reasons)))
    assert lines_with(text, "novel elements")[-1].split()[-3:] == ["2,996,207", "1,000", "yes"]
    assert lines_with(text, "spread")[-1].split()[-3:] == ["0.012346", "0.01", "no"]


def test_layers_are_in_model_order_with_their_numbers(blend):
    text = printed(blend)
    table = text.split("By layer\n")[1].split("By module kind")[0].splitlines()[3:]
    assert [line.split()[0] for line in table if line.strip()] == ["embedding", "0", "1", "2", "head"]
    assert table[0].split()[1:3] == ["1", "0.016"]
    assert table[0].rstrip().endswith("100 %")


def test_many_layers_are_thinned_and_the_report_says_so(tall):
    text = printed(tall)
    table = text.split("By layer\n")[1].split("By module kind")[0].splitlines()
    rows = [line for line in table[3:] if line.startswith("  ") and not line.strip().startswith("─")]
    hidden = lines_with(text, "more layers are hidden; tensors.parquet has every tensor.")
    assert len(hidden) == 1
    shown = len([row for row in rows if "hidden" not in row])
    assert int(hidden[0].split()[0]) == 82 - shown
    assert 30 <= shown <= 40


def test_thinning_keeps_ends_and_what_is_asked_for():
    assert thin(40) == list(range(40))
    chosen = thin(1000, [777])
    assert {0, 777, 999} <= set(chosen)
    assert len(chosen) <= 40


def test_recipe_that_varies_is_listed(blend):
    recipe = blend.evidence.recipe
    values = [np.array([0.1 * n, 0.2]) for n in range(3)]
    cells = tuple(
        Cell((str(n), "mlp"), n, "mlp", tuple(v), tuple(v - 1e-5), tuple(v + 1e-5), certified=n != 2)
        for n, v in enumerate(values)
    )
    changed = replace(recipe, partition="layer and filter", cells=cells)
    case = replace(
        blend, evidence=replace(blend.evidence, recipe=changed), verdict=replace(blend.verdict, recipe=changed)
    )
    text = printed(case)
    assert lines_with(text, "varies by layer and filter")
    assert lines_with(text, "1 mlp", "0.100", "[0.099990, 0.100010]")
    assert lines_with(text, "2 mlp", "0.200", "not certified")
    assert "lowest and highest tensor" in text


def test_orientations_notes_and_limits(blend):
    case = replace(blend, evidence=replace(blend.evidence, notes=("Something to know.",)))
    text = printed(case)
    assert "Each model in the suspect's place" in text
    table = text.split("suspect's place")[1].split("Reasons")[0]
    for orientation in blend.evidence.orientations:
        name = orientation.target.rpartition("/")[2]
        assert lines_with(table, f"  {name} ", share(orientation.exact), share(orientation.spike.untouched))
    assert "- Something to know." in text
    assert all(limit[:40] in text for limit in blend.verdict.limits)


def test_names_are_never_read_as_markup(blend):
    case = blend.named(["[red]base[/red]", "ft-code", "[link=x]y"], "[bold]suspect[/bold]")
    text = printed(case)
    assert "[bold]suspect[/bold]" in text
    assert "[red]base[/red]" in text


def test_colours_on_a_terminal_leave_the_words_alone(blend):
    stream = io.StringIO()
    print_report(Console(file=stream, width=100, force_terminal=True), blend.evidence, blend.verdict, "s", 0)
    assert "\x1b[1m" in stream.getvalue()


def test_progress_counts_bytes_on_a_terminal():
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=120)
    with progress(console) as watch:
        watch.phase("measure [x]", 4 * 2**20)
        for _ in range(4):
            watch.advance(2**20)
        watch.phase("replay", None)
        watch.advance(5)
    text = stream.getvalue()
    assert "measure [x]" in text
    assert "4.0/4.0 MiB" in text
    assert "replay" in text


@pytest.mark.parametrize(("terminal", "enabled"), [(False, True), (True, False)])
def test_progress_is_silent(terminal, enabled):
    stream = io.StringIO()
    with progress(Console(file=stream, force_terminal=terminal), enabled) as watch:
        watch.phase("measure", 10)
        watch.advance(10)
    assert stream.getvalue() == ""


def test_progress_ends_when_the_work_fails():
    console = Console(file=io.StringIO(), force_terminal=True)
    with pytest.raises(RuntimeError, match="broken"), progress(console) as watch:
        watch.phase("measure", 10)
        raise RuntimeError("broken")
    with progress(console) as watch:  # rich allows one live display a console: the first has ended
        watch.phase("measure", 10)


def test_shares_never_round_to_what_is_not_true():
    assert [share(v) for v in (1.0, 1 - 1e-9, 0.5, 1e-9, 0.0, float("nan"))] == [
        "100 %", "> 99.9 %", "50.0 %", "< 0.1 %", "0 %", "-",
    ]  # fmt: skip


def test_numbers():
    assert [number(v) for v in (2996207, 0.0999, 1234.5678, 98765.4, float("inf"), float("nan"))] == [
        "2,996,207", "0.0999", "1234.6", "98,765", "unbounded", "-",
    ]  # fmt: skip
    assert coefficient(0.565, 0.564999, 0.565001) == "0.565"
    assert coefficient(0.50016, 0.4, 0.6) == "0.500"
    assert coefficient(-1e-9, -1e-3, 1e-3) == "0.000"
    assert coefficient(float("nan")) == "-"
    assert coefficient_range(-np.inf, np.inf) == "no limits"
    assert coefficient_range(0.564999, 0.565001) == "[0.564999, 0.565001]"


def test_names_stay_apart_when_cut():
    assert shorten("abcdefghij", 7) == "abc…hij"
    assert short_names(["org/a", "org/b"], 9) == ["a", "b"]
    assert short_names(["one/a", "two/a"], 9) == ["one/a", "two/a"]
    cut = short_names(["m-7b-code-instruct-2507", "m-7b-docs-instruct-2507"], 10)
    assert cut == ["code", "docs"]


def test_layers_in_model_order():
    labels = ["head", "10", "2", "embedding", "visual.1", "visual.0", "final", "mtp"]
    assert model_order(labels) == ["embedding", "2", "10", "visual.0", "visual.1", "mtp", "final", "head"]
