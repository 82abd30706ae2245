"""The one door to checkpoints, wherever they lie."""

from __future__ import annotations

from reconstruct.checkpoints.adapters import Adapter, read_adapter
from reconstruct.checkpoints.catalog import Catalog
from reconstruct.checkpoints.local import open_local
from reconstruct.checkpoints.opened_parts import OpenedParts
from reconstruct.checkpoints.reference import Reference, ReferenceKind
from reconstruct.checkpoints.weight_choice import only_an_adapter
from reconstruct.checkpoints.wire import Wire

__all__ = ["open_checkpoint", "open_model"]


def open_checkpoint(given: str, wire: Wire | None = None, endpoint: str | None = None) -> Catalog:
    """Find, parse and validate a checkpoint: a folder or file, "org/name@revision", or a URL that fsspec opens.

    `wire` counts what is transferred, for all models of a run; `endpoint`: the Hub, else the one that HF_ENDPOINT
    names. No weights are read. Raises CheckpointError (HeaderError, RemoteError among them) or BudgetExhausted.
    """
    found = _opened(Reference.parse(given), wire, endpoint, None)
    if isinstance(found, Adapter):
        raise only_an_adapter(found.weights.rpartition("/")[0])
    return found


def open_model(
    given: str, wire: Wire | None = None, endpoint: str | None = None, parts: OpenedParts | None = None
) -> Catalog | Adapter:
    """The same; a LoRA adapter, which `open_checkpoint` refuses, is opened without its base. `parts`: what was read to
    open remote files earlier, and is from now on.
    """
    reference = Reference.parse(given)
    local = reference.kind in {ReferenceKind.FOLDER, ReferenceKind.FILE}
    adapter = read_adapter(reference) if local else None
    return adapter if adapter is not None else _opened(reference, wire, endpoint, parts)


def _opened(
    reference: Reference, wire: Wire | None, endpoint: str | None, parts: OpenedParts | None
) -> Catalog | Adapter:
    wire = wire if wire is not None else Wire()
    if reference.kind is ReferenceKind.REPOSITORY:
        from reconstruct.checkpoints.hub import open_repository  # imports huggingface_hub: only where it is needed

        return open_repository(reference, wire, endpoint, parts=parts)
    if reference.kind is ReferenceKind.URL:
        from reconstruct.checkpoints.object_store import open_url

        return open_url(reference, wire, parts=parts)
    return open_local(reference)
