"""Whether and how a run's recipe is proved: the one that was fitted, else one that only the program can compute."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from reconstruct.checkpoints.alignment import AlignedTensor
from reconstruct.checkpoints.catalog import Catalog
from reconstruct.checkpoints.reference import ReferenceKind
from reconstruct.evidence import ModelEvidence, RecipeProof
from reconstruct.recipe import Recipe
from reconstruct.verdict import Verdict, VerdictKind

__all__ = ["proved"]

_SETTLED = {VerdictKind.COPY, VerdictKind.UNDETERMINED}


def proved(
    evidence: ModelEvidence,
    verdict: Verdict,
    catalogs: Sequence[Catalog],
    tensors: Sequence[AlignedTensor],
    families: Collection[str],
) -> RecipeProof | None:
    """The proof of the verdict's recipe; where there is none, or the program makes other bits of it, the proof of a
    recipe of another of the `families`, if one makes every bit. None where nothing was to be proved.

    `catalogs`: suspect first, then the sources as the run names them.
    """
    fitted = verdict.recipe.to_mergekit() if isinstance(verdict.recipe, Recipe) else None
    if verdict.kind in _SETTLED:
        return None
    folders = {c.reference.given: c.reference.path for c in catalogs[1:] if c.reference.kind is ReferenceKind.FOLDER}
    own = None
    if fitted is not None:
        own = _prove(fitted, folders, catalogs, tensors)
        if own.complete or own.failure:
            return own
    other = _searched(evidence, folders, catalogs, tensors, families)
    return other if other is not None else own


def _prove(
    document: dict[str, object], folders: dict[str, Path], catalogs: Sequence[Catalog], tensors: Sequence[AlignedTensor]
) -> RecipeProof:
    from reconstruct.replay.proof import prove

    loose = [c.reference.given for c in catalogs[1:] if c.reference.kind is not ReferenceKind.FOLDER]
    if loose:
        failure = f"mergekit takes models in local folders, which these are not: {', '.join(loose)}"
        return RecipeProof("mergekit", document, (), failure=failure)
    return prove(document, folders, catalogs, tensors)


def _searched(
    evidence: ModelEvidence,
    folders: dict[str, Path],
    catalogs: Sequence[Catalog],
    tensors: Sequence[AlignedTensor],
    families: Collection[str],
) -> RecipeProof | None:
    from reconstruct.replay.recipe_templates import TEMPLATE_FAMILIES, templates_for

    chosen = set(families) & {*TEMPLATE_FAMILIES}
    folders_only = all(c.reference.kind is ReferenceKind.FOLDER for c in catalogs[1:])
    if not chosen or not evidence.voting or not folders_only:
        return None
    from reconstruct.replay.recipe_search import RecipeSearch

    names = {evidence.tensors[i].measurement.name for i in evidence.voting}
    voting = [tensor for tensor in tensors if tensor.name in names]
    search = RecipeSearch(templates_for(evidence, chosen), folders, catalogs, voting)
    for candidates in (search.uniform, search.varied):
        found = [
            (family, proof)
            for family, document in candidates()
            if (proof := _prove(document, folders, catalogs, tensors)).complete
        ]
        if found:
            return replace(found[0][1], families=tuple(dict.fromkeys(family for family, _ in found)))
    return None
