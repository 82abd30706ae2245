"""A scan from end to end: plan, read each candidate's rows, set strangers aside, select, prove, classify.

    <run>/run.sqlite            configuration, what was read of each candidate, the result
    <run>/sampled/*.safetensors the rows themselves, one file a model
    <run>/fits/<numbers>/       the fits of the proof step, runs like any other

Each candidate is on record before the next one is opened: a scan that was cut off goes on with the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from reconstruct.api import Progress, Silent
from reconstruct.byte_size import parse_bytes
from reconstruct.checkpoints.adapters import Adapter
from reconstruct.checkpoints.catalog import Catalog
from reconstruct.checkpoints.model_set import open_models
from reconstruct.checkpoints.open import open_model
from reconstruct.checkpoints.opened_parts import OpenedParts
from reconstruct.checkpoints.wire import Wire
from reconstruct.engine.store import STORE_FILE, RunStore
from reconstruct.errors import ReconstructError, StoreError, UnreachableError
from reconstruct.scanning.candidates import list_candidates
from reconstruct.scanning.conclusion import SAMPLED, CandidateRecord, candidate_file, conclude
from reconstruct.scanning.inner_products import Likeness, compare_raw
from reconstruct.scanning.listing import Listing, list_all
from reconstruct.scanning.pairing import pair
from reconstruct.scanning.reading import open_rows, read_rows
from reconstruct.scanning.result import Scan
from reconstruct.scanning.rows import ScanRows, plan_scan

__all__ = ["DEFAULT_BYTES", "DEFAULT_CHILDREN", "DEFAULT_REQUESTS", "load_scan", "resume_scan", "scan"]

#: Read of each model, in so many ranges.
DEFAULT_BYTES = 4_000_000
DEFAULT_REQUESTS = 64
#: Repositories of one model tree that are compared.
DEFAULT_CHILDREN = 50


def scan(
    suspect: str | Path,
    candidates: str | Path | Sequence[str | Path],
    base: str | Path | None = None,
    *,
    folder: str | Path | None = None,
    bytes_per_model: int | str = DEFAULT_BYTES,
    requests_per_model: int = DEFAULT_REQUESTS,
    most_children: int = DEFAULT_CHILDREN,
    seed: int = 0,
    threads: int = 0,
    progress: Progress | None = None,
) -> Scan:
    """Who among many candidates shares the suspect's base, and who is a material parent?

    `candidates`: references, or a text file with one a line; "children:org/base" stands for the repositories of a Hub
    whose cards name org/base as their base model (at most `most_children` of them, the most downloaded), as they are
    when the scan begins. `bytes_per_model`: rows read of each model, counted in the suspect's dtype, in at most
    `requests_per_model` ranges, headers not counted. A candidate that cannot be read or compared is listed with its
    reason. Everything is kept in `folder`; one that already holds this very scan is continued. Raises ReconstructError
    for a suspect or base that cannot be read, or a model tree that cannot be listed.
    """
    config: dict[str, Any] = {
        "scan": str(suspect), "base": str(base) if base is not None else None,
        "candidates": list(list_candidates(candidates)), "bytes": parse_bytes(bytes_per_model, "sampling.bytes"),
        "requests": requests_per_model, "children": most_children, "seed": seed,
    }  # fmt: skip
    stamp = datetime.now(UTC).strftime("%Y-%m-%d_%H-%M-%S")
    target = Path(folder) if folder is not None else Path("runs") / f"scan-{stamp}"
    wire = Wire()
    listing = _on_list(target, config)
    if listing is None:
        listing = list_all(config["candidates"], config["scan"], config["base"], most_children, wire)
    known = _Known.open(config, listing, wire, {})
    with RunStore.create(target) as store:
        store.begin(config)
        store.put("listing", known.pinned().to_dict())
        store.keep_opened(known.parts)
        return _run(store, known, threads, progress or Silent())


def resume_scan(folder: str | Path, *, threads: int = 0, progress: Progress | None = None) -> Scan:
    """Go on with a scan that was cut off; candidates that a network kept from being read are tried again. Raises
    ReconstructError.
    """
    with RunStore.open(Path(folder)) as store:
        _demand_scan(store)
        if (document := store.get("listing")) is None:
            raise StoreError("cut off before it began", subject=str(folder), remedy="Start the scan anew")
        store.event("resumed", "")
        known = _Known.open(store.get("config"), Listing.from_dict(document), Wire(), store.opened())
        return _run(store, known, threads, progress or Silent())


def load_scan(folder: str | Path) -> Scan:
    """A finished scan from its store alone. Raises StoreError if it is none, or not finished."""
    with RunStore.open(Path(folder)) as store:
        _demand_scan(store)
        if (document := store.get("result")) is None:
            raise StoreError(
                "this scan was not finished", subject=str(folder), remedy=f"reconstruct scan resume={folder}"
            )
        return Scan.from_dict(document, store.folder)


def _demand_scan(store: RunStore) -> None:
    if store.verb != "scan":
        raise StoreError("not a scan", subject=str(store.folder), remedy=f"reconstruct report run={store.folder}")


def _on_list(folder: Path, config: dict[str, Any]) -> Listing | None:
    """The candidates of this very scan as they were when it began, if it did."""
    if not (folder / STORE_FILE).is_file():
        return None
    with RunStore.open(folder) as store:
        document = store.get("listing") if store.get("config") == config else None
    return Listing.from_dict(document) if document is not None else None


@dataclass(frozen=True)
class _Known:
    """The models a scan begins with: suspect, base (or None), the rows planned; and the way to open the others."""

    suspect: Catalog
    base: Catalog | None
    rows: ScanRows
    listing: Listing
    wire: Wire
    parts: OpenedParts
    opened: dict[str, Catalog] = field(default_factory=dict)

    @classmethod
    def open(cls, config: dict[str, Any], listing: Listing, wire: Wire, parts: OpenedParts) -> _Known:
        """Headers only. Raises CheckpointError for a suspect or base that cannot be opened."""
        names = [config["scan"], *([config["base"]] if config["base"] is not None else [])]
        opened = open_models(
            [listing.places[name] for name in names], names, base=1 if len(names) > 1 else None,
            open_one=lambda place: open_model(place, wire, parts=parts),
        )  # fmt: skip
        catalogs = [catalog.named(name) for catalog, name in zip(opened, names, strict=True)]
        rows = plan_scan(catalogs[0], config["bytes"], config["requests"], config["seed"])
        return cls(catalogs[0], catalogs[1] if len(catalogs) > 1 else None, rows, listing, wire, parts)

    def pinned(self) -> Listing:
        """The listing with suspect and base at the commits that were opened: branches move."""
        opened = [self.suspect, *([self.base] if self.base is not None else [])]
        found = {catalog.reference.given: catalog.address for catalog in opened}
        return replace(self.listing, places=self.listing.places | found)

    def candidate(self, name: str) -> Catalog:
        """Open a candidate, or an adapter with the base of this scan or its own. Raises CheckpointError."""
        place, base = self.listing.places[name], self.base
        if base is None:
            return open_models([place], [name], open_one=self._open)[-1].named(name)
        self.opened.setdefault(base.address, base)
        names = [base.reference.given, name]
        return open_models([base.address, place], names, base=0, open_one=self._open)[-1].named(name)

    def _open(self, place: str) -> Catalog | Adapter:
        """Bases that adapters name are opened once for all candidates."""
        if place in self.opened:
            return self.opened[place]
        model = open_model(place, self.wire)
        if isinstance(model, Catalog) and place not in self.listing.places.values():
            self.opened[place] = model
        return model


def _run(store: RunStore, known: _Known, threads: int, progress: Progress) -> Scan:
    config = store.get("config")
    own = [known.suspect, *([known.base] if known.base is not None else [])]
    begun = [catalog.fingerprint() for catalog in own]
    if store.get("fingerprints") not in (None, begun):
        raise StoreError(
            "the suspect or the base changed since this scan began", subject=str(store.folder),
            remedy="Start a new scan",
        )  # fmt: skip
    store.put("fingerprints", begun)
    progress.phase("reading samples", known.rows.bytes * (len(own) + len(known.listing.names)))
    for name, catalog in zip(("suspect", "base"), own, strict=False):
        path = store.folder / SAMPLED / f"{name}.safetensors"
        if not path.is_file():
            read_rows(path, known.rows, catalog, pair(known.rows, known.suspect, catalog), progress.advance)
    suspect = open_rows(store.folder / SAMPLED / "suspect.safetensors", config["scan"])
    records = []
    for number, name in enumerate(known.listing.names):
        record = _on_record(store, number)
        if record is None or record.again:
            record = _read(store, known, suspect, number, name, progress)
            store.put(f"candidate {number}", asdict(record))
            store.event("read", f"{name}: {record.refused or f'{record.bytes} bytes'}")
        records.append(record)
    if known.wire.requests:
        store.event("transferred", f"{known.wire.bytes} bytes in {known.wire.requests} requests")
    progress.phase("selecting and fitting", 0)
    result = conclude(store.folder, config, known.listing, records, known.rows, threads)
    store.put("result", result.to_dict())
    store.event("finished", result.summary)
    return result


def _on_record(store: RunStore, number: int) -> CandidateRecord | None:
    found = store.get(f"candidate {number}")
    if found is None:
        return None
    likeness = Likeness(**found["likeness"]) if found["likeness"] is not None else None
    return CandidateRecord(**found | {"likeness": likeness})


def _read(
    store: RunStore, known: _Known, suspect: Catalog, number: int, name: str, progress: Progress
) -> CandidateRecord:
    """Open one candidate, pair it, read its rows. What is wrong with it is its own affair: it stops nothing."""
    address = ""
    try:
        catalog = known.candidate(name)
        address = catalog.address
        tensors = pair(known.rows, known.suspect, catalog)
        path = candidate_file(store.folder, number)
        size = read_rows(path, known.rows, catalog, tensors, progress.advance)
        return CandidateRecord(address, "", compare_raw(suspect, open_rows(path, name)), size)
    except StoreError:  # the disk of this run, not the candidate
        raise
    except ReconstructError as error:
        words = error.message if error.subject in {None, name, address} else f"{error.subject}: {error.message}"
        return CandidateRecord(address, words, None, 0, isinstance(error, UnreachableError))
