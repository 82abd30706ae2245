"""The proof of a recipe: mergekit computes it, and every bit is compared with the suspect's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from reconstruct.checkpoints.alignment import AlignedTensor
from reconstruct.checkpoints.catalog import Catalog
from reconstruct.errors import ReconstructError
from reconstruct.evidence import RecipeProof, TensorProof
from reconstruct.replay.comparison import CheckState, TensorCheck, compare
from reconstruct.replay.mergekit import KNOWN_VERSION, Folders, MergekitReplay, RecipeOutput
from reconstruct.replay.thread_counts import with_the_makers_threads

__all__ = ["prove"]


def prove(
    document: Mapping[str, Any],
    folders: Folders,
    catalogs: Sequence[Catalog],
    tensors: Sequence[AlignedTensor],
) -> RecipeProof:
    """Run a configuration through mergekit and compare every tensor of the suspect (the first of `catalogs`) with what
    it makes. Tensors that are aligned with all other catalogs are compared with these, too.

    Where only large tensors differ, and not by much, other numbers of threads are tried. Never raises for what mergekit
    cannot do: the proof then says why there is none.
    """
    program = f"mergekit {KNOWN_VERSION}"
    try:
        (checks, unmade, surplus), threads = with_the_makers_threads(
            MergekitReplay(document, folders), catalogs[0],
            lambda outputs: _compared(outputs, catalogs, tensors), lambda compared: compared[0],
        )  # fmt: skip
    except ReconstructError as error:
        return RecipeProof(program, dict(document), (), (), (), str(error))
    compared = tuple(
        TensorProof(c.name, c.total, c.identical, c.apart) for c in checks if c.state is not CheckState.CANNOT_SAY
    )
    refused = [check.name for check in checks if check.state is CheckState.CANNOT_SAY]
    return RecipeProof(
        program, dict(document), compared, tuple(sorted([*unmade, *refused])), tuple(sorted(surplus)), threads=threads
    )


def _compared(
    outputs: Iterable[RecipeOutput], catalogs: Sequence[Catalog], tensors: Sequence[AlignedTensor]
) -> tuple[list[TensorCheck], set[str], list[str]]:
    """Comparisons; tensors of the suspect that are not made; tensors that only the recipe makes."""
    suspect, others = catalogs[0], catalogs[1:]
    aligned = {tensor.name: tensor for tensor in tensors}
    checks, unmade, surplus = [], set(suspect.tensors), []
    for output in outputs:
        info = suspect.tensors.get(output.name)
        if info is None:
            surplus.append(output.name)
            continue
        unmade.discard(output.name)
        tensor = aligned.get(output.name)
        whole = tensor is not None and tensor.shape == info.shape
        sources = list(zip(others, tensor.sources[1:], strict=True)) if tensor is not None and whole else []
        checks.append(compare(suspect, info, output.tensor, sources))
    return checks, unmade, surplus
