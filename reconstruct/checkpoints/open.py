"""The one door to checkpoints, wherever they lie."""

from __future__ import annotations

from reconstruct.checkpoints.catalog import Catalog
from reconstruct.checkpoints.local import open_local
from reconstruct.checkpoints.reference import Reference, ReferenceKind
from reconstruct.checkpoints.wire import Wire

__all__ = ["open_checkpoint"]


def open_checkpoint(given: str, wire: Wire | None = None, endpoint: str | None = None) -> Catalog:
    """Find, parse and validate a checkpoint: a folder or file, "org/name@revision", or a URL that fsspec opens.

    `wire` counts what is transferred, for all models of a run; `endpoint`: the Hub, else the one that HF_ENDPOINT
    names. No weights are read. Raises CheckpointError (HeaderError, RemoteError among them) or BudgetExhausted.
    """
    reference = Reference.parse(given)
    wire = wire if wire is not None else Wire()
    if reference.kind is ReferenceKind.REPOSITORY:
        from reconstruct.checkpoints.hub import open_repository  # imports huggingface_hub: only where it is needed

        return open_repository(reference, wire, endpoint)
    if reference.kind is ReferenceKind.URL:
        from reconstruct.checkpoints.object_store import open_url

        return open_url(reference, wire)
    return open_local(reference)
