"""Whether and how a run's recipe is proved: the one that was fitted, else one that only the program can compute."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reconstruct.checkpoints.alignment import AlignedTensor
from reconstruct.checkpoints.catalog import Catalog
from reconstruct.checkpoints.reference import ReferenceKind
from reconstruct.evidence import ModelEvidence, RecipeProof
from reconstruct.recipe import Recipe, with_bases
from reconstruct.verdict import Verdict, VerdictKind

if TYPE_CHECKING:
    from reconstruct.replay.mergekit import Folders

__all__ = ["proved"]

_NEARLY = 0.5  # share of elements that a recipe must replay to be tried by the program itself
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
    loose = [c.reference.given for c in catalogs[1:] if any(r.kind is not ReferenceKind.FOLDER for r in c.references)]
    if loose:
        failure = f"mergekit takes models in local folders, which these are not: {', '.join(loose)}"
        return RecipeProof("mergekit", fitted, (), failure=failure) if fitted is not None else None
    adapted = {c.reference.given: c.pair for c in catalogs[1:] if c.pair is not None}
    with tempfile.TemporaryDirectory() as merged:  # adapters with their bases, as whole models
        folders = _folders(catalogs[1:], adapted, Path(merged))
        return _proved(evidence, fitted, folders, adapted, catalogs, tensors, families)


def _folders(sources: Sequence[Catalog], adapted: Mapping[str, str], merged: Path) -> Folders:
    """Where the models lie, by their names; adapters by those that mergekit gives them, too."""
    from reconstruct.replay.mergekit import AdaptedFolder  # imports torch

    found: dict[str, Path | AdaptedFolder] = {}
    for catalog in sources:
        path, given = catalog.reference.path, catalog.reference.given
        found[given] = path if catalog.adapted is None else AdaptedFolder(catalog.adapted.path, path, merged)
        found[adapted.get(given, given)] = found[given]
    return found


def _proved(
    evidence: ModelEvidence, fitted: dict[str, Any] | None, folders: Folders, adapted: Mapping[str, str],
    catalogs: Sequence[Catalog], tensors: Sequence[AlignedTensor], families: Collection[str],
) -> RecipeProof | None:  # fmt: skip
    from reconstruct.replay.proof import prove  # imports torch, and mergekit

    def proof_of(document: dict[str, Any]) -> RecipeProof:
        return prove(with_bases(document, adapted), folders, catalogs, tensors)

    own = proof_of(fitted) if fitted is not None else None
    if own is not None and (own.complete or own.failure):
        return own
    for document in _nearly_replayed(evidence):
        if (found := proof_of(document)).complete:
            return replace(found, families=("slerp",))
    return _searched(evidence, folders, catalogs, tensors, families, proof_of) or own


def _nearly_replayed(evidence: ModelEvidence) -> list[dict[str, Any]]:
    """Configurations of slerps where something like one replays in large part, and the program's own arithmetic may be
    all that is missing: its float32 cosine is off by 1e-4 in tensors of a million elements, and is that of a stack of
    experts where they are stacked.
    """
    recipe, replay = evidence.recipe, evidence.replay
    if recipe is None or replay.exact[0] < _NEARLY * replay.total[0]:
        return []
    return [slerp.to_mergekit() for slerp in recipe.as_slerps()]


def _searched(
    evidence: ModelEvidence,
    folders: Folders,
    catalogs: Sequence[Catalog],
    tensors: Sequence[AlignedTensor],
    families: Collection[str],
    proof_of: Callable[[dict[str, Any]], RecipeProof],
) -> RecipeProof | None:
    from reconstruct.replay.recipe_templates import TEMPLATE_FAMILIES, templates_for

    chosen = set(families) & {*TEMPLATE_FAMILIES}
    if not chosen or not evidence.voting:
        return None
    from reconstruct.replay.recipe_search import RecipeSearch

    names = {evidence.tensors[i].measurement.name for i in evidence.voting}
    voting = [tensor for tensor in tensors if tensor.name in names]
    search = RecipeSearch(templates_for(evidence, chosen), folders, catalogs, voting)
    for candidates in (search.uniform, search.varied):
        found = [(family, proof) for family, document in candidates() if (proof := proof_of(document)).complete]
        if found:
            return replace(found[0][1], families=tuple(dict.fromkeys(family for family, _ in found)))
    return None
