"""Checkpoints at URLs that fsspec opens: buckets (s3://, gs://), web servers, memory. Read by ranges, as the Hub is."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Any

from reconstruct.checkpoints.adapters import Adapter
from reconstruct.checkpoints.catalog import Catalog, FileState
from reconstruct.checkpoints.opened_parts import OpenedParts
from reconstruct.checkpoints.reference import Reference
from reconstruct.checkpoints.remote_catalog import RemotePlace, remote_model
from reconstruct.checkpoints.retries import RetryPolicy
from reconstruct.checkpoints.wire import Wire
from reconstruct.errors import RemoteError, UnreachableError

__all__ = ["StoredFiles", "open_url"]

#: Protocols whose file systems are packages of their own.
_PACKAGES = {
    "s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs", "abfss": "adlfs",
    "http": "aiohttp", "https": "aiohttp", "ssh": "paramiko", "sftp": "paramiko", "oss": "ossfs", "oci": "ocifs",
}  # fmt: skip
#: Where file systems put what changes with a file's content, the surest first.
_VERSIONS = ("ETag", "etag", "md5Hash", "generation", "LastModified", "last_modified", "mtime", "created")
_CHECK = "Check the URL and your access"


class StoredFiles:
    """A RangeReader over an fsspec file system. Thread-safe as that is.

    `folder`: path of the folder in the file system; `files`: its listing.
    """

    def __init__(
        self, filesystem: Any, folder: str, location: str, files: Mapping[str, FileState], wire: Wire,
        retries: RetryPolicy,
    ) -> None:  # fmt: skip
        self._filesystem, self._folder, self._location = filesystem, folder, location
        self._files, self._wire, self._retries = files, wire, retries

    def read(self, file: str, begin: int, end: int) -> bytes:
        """Bytes [begin, end) of a file. Raises ValueError for a range outside of the file, RemoteError,
        UnreachableError or BudgetExhausted.
        """
        if not 0 <= begin <= end <= self._files[file].size:
            raise ValueError(f"bytes {begin} to {end} of {file}, which has {self._files[file].size}")
        if begin == end:
            return b""
        failed = 0
        while True:
            try:
                return self._attempt(file, begin, end)
            except (OSError, TimeoutError) as error:
                failed += 1
                if isinstance(error, FileNotFoundError | PermissionError) or failed >= self._retries.attempts:
                    raise self._error(file, error, failed) from None
                self._retries.pause(failed)

    def whole(self, file: str) -> bytes:
        """All of a small file. Raises as `read` does."""
        return self.read(file, 0, self._files[file].size)

    def _attempt(self, file: str, begin: int, end: int) -> bytes:
        with self._wire.request(end - begin) as transfer:
            try:
                data: bytes = self._filesystem.cat_file(posixpath.join(self._folder, file), start=begin, end=end)
            except OSError:
                raise
            except Exception as error:  # every file system raises what its own client does
                raise self._error(file, error, 1) from None
            transfer.receive(len(data))
        if len(data) != end - begin:
            raise OSError(f"{len(data)} of {end - begin} bytes")
        return bytes(data)

    def _error(self, file: str, error: Exception, failed: int) -> RemoteError:
        subject = f"{self._location}/{file}"
        if failed >= self._retries.attempts:
            return UnreachableError(f"{_reason(error)} ({failed} attempts)", subject=subject, remedy="Try again later")
        return RemoteError(f"cannot be read ({_reason(error)})", subject=subject, remedy=_CHECK)


def open_url(
    reference: Reference, wire: Wire, *, retries: RetryPolicy | None = None, parts: OpenedParts | None = None
) -> Catalog | Adapter:
    """The catalog of the folder or file at a URL, or the adapter that is all it holds. `parts`: what was read to open
    files earlier, and is from now on.

    Raises RemoteError (unknown protocol, a package that is missing, nothing there, no access), UnreachableError,
    CheckpointError for what holds no weights, HeaderError, and BudgetExhausted.
    """
    url = str(reference.location)
    filesystem, path = _filesystem(url)
    try:
        whole = not filesystem.isdir(path)
        folder = posixpath.dirname(path) if whole else path
        listed = filesystem.ls(folder, detail=True)
    except Exception as error:  # every file system raises what its own client does
        raise RemoteError(f"cannot be listed ({_reason(error)})", subject=url, remedy=_CHECK) from None
    files = {}
    for entry in listed:
        name = posixpath.basename(str(entry["name"]).rstrip("/"))
        if entry.get("type") == "file":
            version = next((str(entry[key]) for key in _VERSIONS if entry.get(key) is not None), "")
            files[name] = FileState(name, int(entry["size"]), version)
    named = posixpath.basename(path) if whole else None
    if named is not None and named not in files:
        raise RemoteError("no such file or folder", subject=url, remedy="Check the URL")
    location = posixpath.dirname(url) if whole else url
    stored = StoredFiles(filesystem, folder, location, files, wire, retries or RetryPolicy())
    remedy = "Copy it to this machine, and give the file"
    place = RemotePlace(files, stored, location, remedy, parts=parts if parts is not None else {})
    return remote_model(reference, place, named)


def _filesystem(url: str) -> tuple[Any, str]:
    import fsspec

    protocol = url.partition("://")[0].lower()
    try:
        filesystem, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        package = _PACKAGES.get(protocol)
        raise RemoteError(
            f"{protocol}:// needs a package that is not installed ({error})", subject=url,
            remedy=f"pip install {package}" if package is not None else "Install it",
        ) from None  # fmt: skip
    except Exception as error:  # an unknown protocol, credentials that are missing
        raise RemoteError(f"cannot be opened ({_reason(error)})", subject=url, remedy=_CHECK) from None
    return filesystem, str(path)


def _reason(error: Exception) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
