"""The proof of a recipe: mergekit computes it, and every bit is compared with the suspect's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reconstruct.checkpoints.alignment import AlignedTensor
from reconstruct.checkpoints.catalog import Catalog
from reconstruct.errors import ReconstructError
from reconstruct.evidence import RecipeProof, TensorProof

__all__ = ["prove"]


def prove(
    document: Mapping[str, Any],
    folders: Mapping[str, Path],
    catalogs: Sequence[Catalog],
    tensors: Sequence[AlignedTensor],
) -> RecipeProof:
    """Run a configuration through mergekit and compare every tensor of the suspect (the first of `catalogs`) with what
    it makes. Tensors that are aligned with all other catalogs are compared with these, too.

    Never raises for what mergekit cannot do: the proof then says why there is none.
    """
    from reconstruct.replay.comparison import CheckState, compare  # these import torch, and mergekit when it is used
    from reconstruct.replay.mergekit import KNOWN_VERSION, MergekitReplay

    program = f"mergekit {KNOWN_VERSION}"
    suspect, others = catalogs[0], catalogs[1:]
    aligned = {tensor.name: tensor for tensor in tensors}
    checks = []
    unmade = set(suspect.tensors)
    surplus = []
    try:
        for output in MergekitReplay(document, folders).tensors():
            info = suspect.tensors.get(output.name)
            if info is None:
                surplus.append(output.name)
                continue
            unmade.discard(output.name)
            tensor = aligned.get(output.name)
            whole = tensor is not None and tensor.shape == info.shape
            sources = list(zip(others, tensor.sources[1:], strict=True)) if tensor is not None and whole else []
            checks.append(compare(suspect, info, output.tensor, sources))
    except ReconstructError as error:
        return RecipeProof(program, dict(document), (), (), (), str(error))
    compared = tuple(
        TensorProof(c.name, c.total, c.identical, c.apart) for c in checks if c.state is not CheckState.CANNOT_SAY
    )
    refused = [check.name for check in checks if check.state is CheckState.CANNOT_SAY]
    return RecipeProof(program, dict(document), compared, tuple(sorted([*unmade, *refused])), tuple(sorted(surplus)))
