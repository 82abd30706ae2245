"""Recipes of the merge families that no fixed blend describes, with their numbers left open.

Spherical families and model_stock compute their coefficients from whole tensors; TIES and its kin keep or drop single
elements. Neither is replayed by the kernels: mergekit itself computes them while `recipe_search` walks over the
numbers. Their meaning is mergekit 0.1.5's. Random methods (DARE, DELLA) have no template: no search finds a seed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from reconstruct.evidence import ModelEvidence
from reconstruct.replay.sparse_estimates import SparseEstimate, sparse_estimates

__all__ = ["TEMPLATE_FAMILIES", "Template", "templates_for"]

Numbers = tuple[float, ...]
#: Families that are searched by running the program.
TEMPLATE_FAMILIES = (
    "nuslerp", "multislerp", "karcher", "model_stock", "ties", "breadcrumbs", "breadcrumbs_ties", "sce", "nearswap",
    "ram", "ramplus_tl", "arcee_fusion",
)  # fmt: skip
_DENSITY = (0.01, 1.0)
_MAGNITUDES = tuple((float(f"{digit}e-{power}"),) for power in range(1, 7) for digit in (1, 2, 3, 5, 7))


@dataclass(frozen=True)
class Template:
    """`document`: numbers -> configuration without dtypes; `starts`: where a walk over the numbers may begin (at the
    best of them); `bounds`: of each number; `weights`: positions of numbers of which only the ratio matters, up to
    rounding; `relative`: the one number may have any magnitude, and steps are parts of it.
    """

    family: str
    document: Callable[[Numbers], dict[str, Any]]
    starts: tuple[Numbers, ...] = ((),)
    bounds: tuple[tuple[float, float], ...] = ()
    weights: tuple[int, ...] = ()
    relative: bool = False


def templates_for(evidence: ModelEvidence, families: Collection[str]) -> list[Template]:
    """Every template of these families that the sources allow, those without open numbers first."""
    names, has_base = evidence.sources.names, evidence.sources.has_base
    base = names[0] if has_base else None
    parents = list(names[1:] if has_base else names)
    found: list[Template] = []
    if len(parents) >= 2:
        found += _without_numbers(parents, base)
        found += _spherical(evidence, parents, base)
    found += _of_pairs(parents, base)
    if base is not None:
        found += _thinned(base, parents, sparse_estimates(evidence))
    chosen = [template for template in found if template.family in families]
    return sorted(chosen, key=lambda template: len(template.bounds))


def _document(
    method: str, models: Sequence[str], own: Sequence[dict[str, Any]] = (), base: str | None = None, **shared: Any
) -> dict[str, Any]:
    settings = own or [{}] * len(models)
    listed = [{"model": m, **({"parameters": s} if s else {})} for m, s in zip(models, settings, strict=True)]
    document: dict[str, Any] = {"merge_method": method, "models": listed}
    if base is not None:
        document["base_model"] = base
    if shared:
        document["parameters"] = shared
    return document


def _fixed(method: str, models: Sequence[str], base: str | None = None, **shared: Any) -> Template:
    document = _document(method, models, base=base, **shared)
    return Template(method, lambda _: document)


def _without_numbers(parents: list[str], base: str | None) -> list[Template]:
    found = [_fixed("karcher", parents), _fixed("karcher", parents[::-1])]
    if base is not None:
        found.append(_fixed("karcher", [base, *parents]))
    bases = [base] if base is not None else parents if len(parents) >= 3 else []
    for chosen in bases:
        others = [p for p in parents if p != chosen]
        found += [_fixed("model_stock", others, chosen), _fixed("model_stock", others, chosen, filter_wise=True)]
    return found


def _of_pairs(parents: list[str], base: str | None) -> list[Template]:
    """arcee_fusion and nearswap take a base and one other model: every ordered pair of the models at hand."""
    models = [*([base] if base is not None else []), *parents]
    pairs = [(first, second) for first in models for second in models if first != second]
    found = [_fixed("arcee_fusion", [second], first) for first, second in pairs]
    for first, second in pairs:

        def nearswap(numbers: Numbers, first: str = first, second: str = second) -> dict[str, Any]:
            return _document("nearswap", [second], base=first, t=numbers[0])

        found.append(Template("nearswap", nearswap, _MAGNITUDES, ((0.0, 1.0),), relative=True))
    return found


def _spherical(evidence: ModelEvidence, parents: list[str], base: str | None) -> list[Template]:
    found = []
    bounds, all_weights = ((0.0, 2.0),) * len(parents), tuple(range(len(parents)))
    for on in [None, *([base] if base is not None else [])]:
        if len(parents) == 2:
            for flags in ({}, {"nuslerp_row_wise": True, "nuslerp_flatten": False}, {"nuslerp_flatten": False}):

                def nuslerp(numbers: Numbers, on: str | None = on, flags: dict[str, bool] = flags) -> dict[str, Any]:
                    return _document("nuslerp", parents, [{"weight": _plain(w)} for w in numbers], on, **flags)

                start = _shares(_fitted(evidence, "nuslerp", on, ("t",), (0.5,)))
                found.append(Template("nuslerp", nuslerp, (start,), bounds, all_weights))

        def multislerp(numbers: Numbers, on: str | None = on) -> dict[str, Any]:
            return _document("multislerp", parents, [{"weight": _plain(w)} for w in numbers], on)

        even = tuple(1 / len(parents) for _ in parents[1:])
        start = _shares(_fitted(evidence, "multislerp", on, parents[1:], even))
        found.append(Template("multislerp", multislerp, (start,), bounds, all_weights))
    return found


def _thinned(base: str, parents: list[str], estimates: Sequence[SparseEstimate]) -> list[Template]:
    count = len(parents)
    density = tuple(e.density for e in estimates)
    scale = tuple(e.scale for e in estimates)
    kept = sum(density) / count

    def sce(numbers: Numbers) -> dict[str, Any]:
        return _document("sce", parents, base=base, select_topk=_plain(numbers[0]))

    def ram(numbers: Numbers) -> dict[str, Any]:
        return _document("ram", parents, base=base, epsilon=numbers[0])

    def ramplus(numbers: Numbers) -> dict[str, Any]:
        return _document("ramplus_tl", parents, base=base, r=_plain(numbers[0]), alpha=_plain(numbers[1]))

    found = [
        Template("sce", sce, ((max(kept, 0.05),), (0.5,)), (_DENSITY,)),
        Template("ram", ram, ((1e-5,), *_MAGNITUDES), ((0.0, 1.0),), relative=True),
        Template("ramplus_tl", ramplus, ((0.1, 0.2),), ((0.0, 1.0), (0.0, 1.0))),
    ]
    for method in ("ties", "breadcrumbs", "breadcrumbs_ties"):
        found += [_sparse(method, base, parents, density, scale, normalize=n) for n in (True, False)]
    return found


def _sparse(
    method: str, base: str, parents: list[str], density: Numbers, scale: Numbers, *, normalize: bool
) -> Template:
    """Weights, then densities, then gamma (breadcrumbs)."""
    count = len(parents)
    gamma = method.startswith("breadcrumbs")

    def document(numbers: Numbers) -> dict[str, Any]:
        own = []
        for j in range(count):
            own.append({"weight": _plain(numbers[j]), "density": _plain(numbers[count + j])})
            if gamma:
                own[-1]["gamma"] = _plain(numbers[-1])
        return _document(method, parents, own, base, normalize=normalize)

    weights = tuple(1 / count for _ in parents) if normalize else scale
    start = (*weights, *density, *((0.01,) if gamma else ()))
    bounds = (*(((0.01, 2.0),) * count), *((_DENSITY,) * count), *(((0.0, 0.3),) if gamma else ()))
    return Template(method, document, (start,), bounds, tuple(range(count)) if normalize else ())


def _fitted(evidence: ModelEvidence, family: str, base: str | None, keys: Sequence[str], otherwise: Numbers) -> Numbers:
    """Parameters from the fit of this family to the moments; where there is none, a middle."""
    for fit in evidence.family_fits:
        named = fit.hypothesis.startswith(family) and fit.hypothesis.endswith(f"on {base}") == (base is not None)
        if named and all(key in fit.parameters for key in keys):
            return tuple(min(max(fit.parameters[key], 0.0), 1.0) for key in keys)
    return otherwise


def _shares(numbers: Numbers) -> Numbers:
    """Weights that sum to one, from all but the first."""
    return (1 - sum(numbers), *numbers)


def _plain(value: float) -> float:
    """As a person writes it, without the dust of binary sums."""
    return float(f"{value:.9g}")
