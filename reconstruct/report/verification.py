"""A verification for readers and for other programs: console, result.json, checks.parquet."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from reconstruct.checkpoints.module_names import describe
from reconstruct.claims.recipe_file import Finding
from reconstruct.replay.comparison import CheckState, TensorCheck
from reconstruct.report.wording import share, shorten

if TYPE_CHECKING:
    import pandas as pd

    from reconstruct.verification.card import CardVerification
    from reconstruct.verification.run import Verification

__all__ = ["card_json", "check_table", "print_card", "print_verification", "verification_json"]

_SHOWN = 24  # rows of the table by layer
_SCHEMA = 1


def print_verification(console: Console, result: Verification) -> None:
    """Conclusion, reasons, tensors by layer, what the weights say instead, findings in the recipe."""
    console.print(Text.assemble((result.conclusion.kind.value, "bold"), f"   {shorten(result.suspect, 60)}"))
    _lines(console, [*result.conclusion.reasons, f"the claim: {result.recipe.method}, {result.recipe.location}"])
    if result.checks:
        console.print(Text("\nBy layer", style="bold"))
        console.print(Padding(_layers(result.checks), (0, 0, 0, 2), expand=False), highlight=False)
    if result.instead is not None:
        numbers = ", ".join(f"{value:.4f} of {name}" for name, value in result.instead.coefficients.items())
        console.print(Text("\nWhat a fit of the same models finds", style="bold"))
        _lines(console, [f"{result.instead.verdict}: {numbers}", *filter(None, [result.instead.arithmetic])])
    if result.recipe.findings:
        console.print(Text("\nIn the recipe", style="bold"))
        _lines(console, [_finding(f) for f in result.recipe.findings])
    details = sorted({c.detail for c in result.checks if c.detail})
    if details:
        console.print(Text("\nNotes", style="bold"))
        _lines(console, details)


def _finding(finding: Finding) -> str:
    place = ": ".join(filter(None, [f"line {finding.line}" if finding.line else "", finding.path]))
    return f"{place}: {finding.message}" if place else finding.message


def _lines(console: Console, lines: Sequence[str]) -> None:
    for line in lines:
        console.print(Padding(Text(line), (0, 0, 0, 2)), highlight=False)


def _layers(checks: Sequence[TensorCheck]) -> Table:
    table = Table("layer", "tensors", "identical tensors", "identical weights", "farthest, spacings", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    groups: dict[str, list[TensorCheck]] = {}
    for check in checks:
        groups.setdefault(describe(check.name).layer_label, []).append(check)
    # Where there are many layers, those that differ are the ones to see.
    rows = sorted(groups.items(), key=lambda item: all(c.state is CheckState.MATCH for c in item[1]))
    shown = {label for label, _ in rows[:_SHOWN]}
    for label, members in groups.items():
        if label not in shown:
            continue
        compared = [c for c in members if c.state is not CheckState.CANNOT_SAY]
        total = sum(c.total for c in compared)
        exact = sum(c.state is CheckState.MATCH for c in compared)
        farthest = max((c.farthest for c in compared), default=math.nan)
        table.add_row(
            label, str(len(members)), f"{exact} of {len(compared)}",
            share(sum(c.identical for c in compared) / total) if total else "-", f"{farthest:.3g}",
        )  # fmt: skip
    return table


def verification_json(result: Verification) -> str:
    """As text, with a final newline; free of times and of paths of this machine."""
    conclusion = result.conclusion
    document: dict[str, Any] = {
        "schema": _SCHEMA,
        "suspect": result.suspect,
        "recipe": {
            "method": result.recipe.method, "text": result.recipe.text,
            "findings": [asdict(finding) for finding in result.recipe.findings],
        },
        "conclusion": {
            "kind": conclusion.kind.value, "reasons": list(conclusion.reasons), "tensors": list(conclusion.tensors),
        },
        "instead": asdict(result.instead) if result.instead is not None else None,
        "tensors": [
            _facts(c) | {"state": c.state.value, "farthest": c.farthest if math.isfinite(c.farthest) else None}
            for c in result.checks
        ],
    }  # fmt: skip
    return json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def print_card(console: Console, card: CardVerification) -> None:
    """Every claim, what the weights say of it, and what of the card could not be read."""
    console.print(Text.assemble((f"{len(card.outcomes)} claims", "bold"), f"   {shorten(card.suspect, 60)}"))
    for outcome in card.outcomes:
        claim = outcome.claim
        what = f"{claim.kind.value} of {', '.join(claim.models)}" if claim.models else claim.kind.value
        console.print(Text.assemble("\n", (outcome.state.value, "bold"), f"   {what} ({claim.source})"))
        _lines(console, [outcome.reason])
    if not card.outcomes:
        _lines(console, ["The folder claims nothing: no base_model in README.md, no mergekit_config.yml"])
    if card.notes:
        console.print(Text("\nNotes", style="bold"))
        _lines(console, card.notes)


def card_json(card: CardVerification) -> str:
    """As text, with a final newline; verifications and runs are kept in folders of their own."""
    document = {
        "schema": _SCHEMA,
        "suspect": card.suspect,
        "claims": [
            {
                "kind": o.claim.kind.value, "models": list(o.claim.models), "source": o.claim.source,
                "state": o.state.value, "reason": o.reason,
            }
            for o in card.outcomes
        ],
        "notes": list(card.notes),
    }  # fmt: skip
    return json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def _facts(check: TensorCheck) -> dict[str, Any]:
    """All but the comparison with the sources, which a verification does not make."""
    return {key: value for key, value in asdict(check).items() if key != "apart"}


def check_table(result: Verification) -> pd.DataFrame:
    """One row a tensor."""
    import pandas as pd

    rows = []
    for check in result.checks:
        module = describe(check.name)
        rows.append(
            _facts(check) | {"state": check.state.value, "layer": module.layer_label, "module_kind": module.kind}
        )
    return pd.DataFrame(rows)
