"""Repositories on a Hugging Face Hub: the commit is resolved once, its headers are read by ranges, and so are weights.

What the local cache of huggingface_hub has of that commit is read from disk; with HF_HUB_OFFLINE, only that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from huggingface_hub import constants, is_offline_mode, try_to_load_from_cache

from reconstruct.checkpoints.adapters import Adapter
from reconstruct.checkpoints.catalog import Catalog, FileState
from reconstruct.checkpoints.hub_refusals import Asked
from reconstruct.checkpoints.hub_requests import Address, HubRequests, any_length
from reconstruct.checkpoints.opened_parts import OpenedParts
from reconstruct.checkpoints.ranged_reads import RangedReads
from reconstruct.checkpoints.reference import Reference
from reconstruct.checkpoints.remote_catalog import RemotePlace, remote_model
from reconstruct.checkpoints.retries import RetryPolicy
from reconstruct.checkpoints.wire import Wire
from reconstruct.errors import RemoteError

__all__ = ["open_repository"]

_SHA = re.compile(r"^[0-9a-f]{40}$")


def open_repository(
    reference: Reference,
    wire: Wire,
    endpoint: str | None = None,
    *,
    retries: RetryPolicy | None = None,
    timeout: float = 60.0,
    parts: OpenedParts | None = None,
) -> Catalog | Adapter:
    """The catalog of a repository, or the adapter that is all it holds; its reference names the commit, which is all
    that is read from then on.

    `endpoint`: the Hub, else the one that HF_ENDPOINT names; `timeout` in seconds for every piece of an answer;
    `parts`: what was read to open files earlier, and is from now on.

    Raises RemoteError (no such repository or revision, no access, not in the cache while offline), UnreachableError,
    CheckpointError for what holds no weights, HeaderError, and BudgetExhausted.
    """
    hub = (endpoint or constants.ENDPOINT).rstrip("/")
    repository, revision = str(reference.location), reference.revision or constants.DEFAULT_REVISION
    requests = HubRequests(hub, wire, retries or RetryPolicy(), timeout)
    commit, files = _in_cache(repository, revision) if is_offline_mode() else _listed(requests, repository, revision)
    place = RemotePlace(
        files, RangedReads(requests, repository, commit, files), f"{repository}@{commit}",
        f"Download it (hf download {repository} --revision {commit}), and give the folder",
        _cached(repository, commit, files), parts if parts is not None else {}, digests=True,
    )  # fmt: skip
    return remote_model(replace(reference, revision=commit), place)


def _listed(requests: HubRequests, repository: str, revision: str) -> tuple[str, dict[str, FileState]]:
    """The commit behind a revision, and the files in its topmost folder."""
    asked = Asked(requests.endpoint, repository, revision)
    url = f"{requests.endpoint}/api/models/{repository}/revision/{quote(revision, safe='')}?blobs=true"
    answer = requests.get(Address(url), asked, any_length)
    try:
        found = json.loads(answer)
        commit, siblings = str(found["sha"]), [_file(sibling) for sibling in found["siblings"]]
    except (ValueError, KeyError, TypeError) as error:
        raise RemoteError(
            f"{requests.endpoint} does not answer as a Hub does ({type(error).__name__}: {error})", subject=repository,
            remedy="Check HF_ENDPOINT",
        ) from None  # fmt: skip
    if not _SHA.match(commit) or (_SHA.match(revision) and commit != revision):
        raise RemoteError(
            f"revision {revision!r} was asked for, and {requests.endpoint} answers with {commit!r}", subject=repository
        )
    return commit, {file.name: file for file in siblings if "/" not in file.name}


def _file(sibling: Mapping[str, Any]) -> FileState:
    lfs = sibling.get("lfs") or {}
    return FileState(str(sibling["rfilename"]), int(sibling["size"]), str(lfs.get("sha256") or sibling["blobId"]))


def _in_cache(repository: str, revision: str) -> tuple[str, dict[str, FileState]]:
    """The same from the local cache: what it has of a commit, or of the one it last saw a branch at."""
    home = Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
    reference = home / "refs" / revision
    commit = reference.read_text("utf-8").strip() if reference.is_file() else revision
    snapshot = home / "snapshots" / commit
    if not _SHA.match(commit) or not snapshot.is_dir():
        raise RemoteError(
            "HF_HUB_OFFLINE is set, and this revision is not in the local cache", subject=f"{repository}@{revision}",
            remedy="Unset it, or download the repository first",
        )  # fmt: skip
    files = (path for path in sorted(snapshot.iterdir()) if path.is_file())
    return commit, {path.name: FileState(path.name, path.stat().st_size, path.resolve().name) for path in files}


def _cached(repository: str, commit: str, files: Mapping[str, FileState]) -> dict[str, Path]:
    """Copies on disk of files of this commit; one that is not whole is none."""
    found = {}
    for name, file in files.items():
        place = try_to_load_from_cache(repository, name, revision=commit)
        if isinstance(place, str) and Path(place).stat().st_size == file.size:
            found[name] = Path(place)
    return found
