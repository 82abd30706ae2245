"""Tables of the console report: coefficients, pooled evidence, orientations, reasons. Built for 100 columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from reconstruct.evidence import ModelEvidence, PoolEvidence, RecipeProof
from reconstruct.recipe import Recipe, WholeRecipe
from reconstruct.report.wording import (
    coefficient,
    coefficient_range,
    interval_word,
    material_sources,
    model_order,
    number,
    share,
    short_names,
    shorten,
)
from reconstruct.verdict import Reason, Verdict

__all__ = ["coefficient_table", "orientation_table", "parameter_table", "pool_table", "reason_table", "thin"]

ROWS = 40
_SOURCES = 3  # columns of coefficients beside the other numbers


def _table(*headers: str, left: int = 1) -> Table:
    """A table without frame; the first `left` columns are words, the others numbers."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False, header_style="bold")
    for n, header in enumerate(headers):
        table.add_column(Text(header), justify="left" if n < left else "right", overflow="fold", vertical="bottom",
                         min_width=max(map(len, header.split("\n"))) if n >= left else None)  # fmt: skip
    return table


def _fixed(value: float) -> str:
    """Four decimals; the dust of binary arithmetic has no sign."""
    return f"{value + 0.0:.4f}".replace("-0.0000", "0.0000") if np.isfinite(value) else "-"


def _add(table: Table, *cells: str) -> None:
    table.add_row(*(Text(cell) for cell in cells))  # as text: a name may hold square brackets


def thin(count: int, keep: Sequence[int] = (), limit: int = ROWS) -> list[int]:
    """At most `limit` of so many rows: those of `keep`, the first, the last, and others evenly spread."""
    if count <= limit:
        return list(range(count))
    chosen = {0, count - 1, *keep[: limit // 2]}
    for i in np.linspace(0, count - 1, limit - len(chosen)).round().astype(int).tolist():
        chosen.add(i)
    return sorted(chosen)


def coefficient_table(evidence: ModelEvidence) -> Table:
    """Whole-model coefficients, their limits, and both least-squares fits beside them."""
    estimate = evidence.estimate
    table = _table("source", "coefficient", interval_word(evidence), "least squares", "the same, sum 1")
    names = short_names(evidence.sources.names, 32)
    for j, name in enumerate(names):
        value, low, high = (float(v[j]) for v in (estimate.coefficients, estimate.low, estimate.high))
        role = " (base)" if evidence.sources.has_base and j == 0 else ""
        _add(table, name + role, coefficient(value, low, high), coefficient_range(low, high),
             _fixed(float(estimate.least_squares[j])), _fixed(float(estimate.sum_to_one[j])))  # fmt: skip
    return table


def parameter_table(recipe: Recipe) -> tuple[Table, int]:
    """The recipe's parameters where they differ over the model, and how many rows are hidden."""
    names = short_names(recipe.sources, 16)
    words = ["t"] if recipe.pair is not None else names[1:]
    table = _table("where", *(part for word in words for part in (word, "bounds")))
    shown = thin(len(recipe.cells))
    for i in shown:
        cell = recipe.cells[i]
        where = shorten(" ".join(cell.key), 36) or "everywhere"
        numbers = (
            (coefficient(p, low, high), coefficient_range(low, high) if cell.certified else "not certified")
            for p, low, high in zip(cell.parameters, cell.low, cell.high, strict=True)
        )
        _add(table, where, *(text for pair in numbers for text in pair))
    return table, len(recipe.cells) - len(shown)


def pool_table(evidence: ModelEvidence, pools: Sequence[PoolEvidence], by: str, width: int = 100) -> tuple[Table, int]:
    """Pooled evidence, `by` "layer" (in model order) or "kind", for so many columns of text; and how many rows are
    hidden. Of many sources, those with the largest coefficients are shown.
    """
    named = {(p.layer if by == "layer" else p.kind) or "": p for p in pools}
    labels = model_order(named) if by == "layer" else list(named)
    sources = material_sources(evidence.estimate.coefficients, _SOURCES if width >= 100 else 1)
    short = short_names(evidence.sources.names, 8)
    table = _table("layer" if by == "layer" else "module kind", "tensors", "million\nweights",
                   *(short[j] for j in sources), "residual\n/ floor", "identical", "novel\nidentical")  # fmt: skip
    ratios = [named[label].residual / max(named[label].floor, 1e-300) for label in labels]
    shown = thin(len(labels), [int(np.argmax(ratios))] if ratios else [])
    for i in shown:
        p = named[labels[i]]
        novel = share(p.novel_exact / p.novel) if p.novel else "-"
        _add(table, shorten(labels[i], 22), f"{p.tensors:,}", f"{p.elements / 1e6:,.3f}",
             *(_fixed(float(p.coefficients[j])) for j in sources),
             f"{ratios[i]:,.2f}" if p.floor > 0 else "-", share(p.exact / max(p.elements, 1)), novel)  # fmt: skip
    return table, len(labels) - len(shown)


def orientation_table(evidence: ModelEvidence) -> Table:
    """Each model in the suspect's place: what the others replay of it."""
    table = _table("product", "identical", "novel\nidentical", "untouched\nshare", "z", "coefficient\nof the suspect")
    targets = [o.target for o in evidence.orientations]
    names = dict(zip(targets[1:], short_names(targets[1:], 32), strict=True))  # the first is the suspect itself
    for n, o in enumerate(evidence.orientations):
        name, own = (names[o.target], coefficient(o.suspect_share)) if n else (o.target, "-")
        _add(table, name, share(o.exact), share(o.novel_exact) if o.novel else "-", share(o.spike.untouched),
             number(round(o.spike.z, 1), 4), own)  # fmt: skip
    return table


def reason_table(reasons: Sequence[Reason]) -> Table:
    """Every number of the decision beside its threshold."""
    table = _table("reason", "value", "threshold", "passed")
    for r in reasons:
        _add(table, r.name, number(r.value), number(r.threshold), "yes" if r.passed else "no")
    return table


def recipe_lines(evidence: ModelEvidence, verdict: Verdict) -> list[tuple[str, str]]:
    """Arithmetic, programs, families and what else describes the recipe: (label, text)."""
    lines = []
    if evidence.arithmetic is not None:
        lines.append(("arithmetic", evidence.arithmetic))
    if evidence.programs:
        lines.append(("computed like", evidence.programs[0]))
        lines += [("or like", program) for program in evidence.programs[1:]]
    if len(evidence.families) > 1:
        lines.append(("not told apart", ", ".join(evidence.families)))
    elif evidence.families:
        lines.append(("merge family", evidence.families[0]))
    recipe = verdict.recipe
    if isinstance(recipe, Recipe):
        same = recipe.partition == "constant"
        lines.append(("recipe", "the same in every tensor" if same else f"varies by {recipe.partition}"))
    if isinstance(recipe, WholeRecipe):
        label = "merge family" if len(recipe.families) == 1 else "not told apart"
        lines.append((label, ", ".join(recipe.families)))
        lines.append(("below", "the nearest fixed blend, which is not that recipe"))
    if evidence.proof is not None:
        lines.append(("proof", proof_line(evidence.proof)))
    return lines


def proof_line(proof: RecipeProof) -> str:
    """What came of running the recipe through its program."""
    if proof.failure:
        return f"not run by {proof.program}: {proof.failure}"
    weights = sum(tensor.total for tensor in proof.tensors)
    if proof.complete:
        threads = f", on {proof.threads} thread(s)" if proof.threads is not None else ""
        return f"{proof.program} makes all {weights:,} weights from recipe.yml, bit by bit{threads}"
    if proof.identical < 1:
        return (
            f"{proof.program} makes {share(proof.identical)} of {weights:,} weights from recipe.yml, and other bits in "
            f"{len(proof.differing):,} tensors"
        )
    return f"{proof.program} makes the same bits, but not these tensors: {', '.join(proof.uncompared[:3])}"
