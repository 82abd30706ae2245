"""The run store: one SQLite file a run (WAL), every finished unit committed at once.

    run       key -> JSON: versions, configuration, models, fingerprint, what was left out
    tensor    one row a measured tensor: facts as JSON
    moments   its sums over all elements
    sample    positions and values of its sampled elements
    opened    headers and configurations of remote files, by their versions
    replay    results of replays over all elements, by the digest of what was replayed
    event     what happened when

Arrays are safetensors, never pickles: a run folder can be handed on and opened without running anybody's code.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from reconstruct.checkpoints.module_names import ModuleName
from reconstruct.errors import StoreError
from reconstruct.evidence import Measurement
from reconstruct.kernels.formats import decode, encode
from reconstruct.kernels.formulas import Formula
from reconstruct.kernels.lattice import Lattice
from reconstruct.kernels.results import ReplayResult
from reconstruct.statistics.effective_lattice import EffectiveLattice
from reconstruct.statistics.moments import Moments

__all__ = ["STORE_FILE", "STORE_SCHEMA", "RunStore", "replay_key"]

STORE_SCHEMA = 2
STORE_FILE = "run.sqlite"
_TABLES = """
create table if not exists run (key text primary key, value text not null);
create table if not exists tensor (position integer primary key, name text not null, facts text not null);
create table if not exists moments (position integer primary key, arrays blob not null);
create table if not exists sample (position integer primary key, arrays blob not null);
create table if not exists replay (key text primary key, tensor text not null, arrays blob not null);
create table if not exists opened (key text primary key, data blob not null);
create table if not exists event (time text not null, kind text not null, detail text not null);
"""


def replay_key(
    tensor: str,
    models: Sequence[int],
    coefficients: NDArray[np.float64],
    divisors: NDArray[np.float64],
    formula: Formula,
) -> str:
    """Digest of what is replayed: tensor, models in order, exact coefficients and divisors, formula."""
    digest = hashlib.sha256(f"{tensor}\0{tuple(models)}\0{formula}\0{coefficients.shape}\0".encode())
    digest.update(np.ascontiguousarray(coefficients, np.float64).tobytes())
    digest.update(np.ascontiguousarray(divisors, np.float64).tobytes())
    return digest.hexdigest()


class RunStore:
    """Open with `RunStore.create` or `RunStore.open`; usable from several threads, one statement at a time."""

    def __init__(self, connection: sqlite3.Connection, folder: Path) -> None:
        self._connection, self._lock, self.folder = connection, threading.Lock(), folder

    @classmethod
    def create(cls, folder: Path) -> RunStore:
        """A new store, or the one already there. Raises StoreError where none can be made."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(folder / STORE_FILE, check_same_thread=False)
            connection.execute("pragma journal_mode=wal")
            connection.execute("pragma synchronous=normal")
            connection.executescript(_TABLES)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(
                f"no run store can be made here ({error})", subject=str(folder), remedy="Say folder=<another folder>"
            ) from None
        return cls(connection, folder)

    @classmethod
    def open(cls, folder: Path) -> RunStore:
        """An existing store. Raises StoreError if there is none or another version wrote it."""
        if not (folder / STORE_FILE).is_file():
            raise StoreError("no run store", subject=str(folder), remedy=f"Give a folder that holds {STORE_FILE}")
        store = cls.create(folder)
        try:
            schema = store.get("schema")
        except (sqlite3.Error, json.JSONDecodeError) as error:
            raise StoreError(f"damaged run store ({error})", subject=str(folder), remedy="Start a new run") from None
        if schema != STORE_SCHEMA:
            raise StoreError(
                f"written by another version (schema {schema}, this one reads {STORE_SCHEMA})", subject=str(folder),
                remedy="Use that version, or start a new run",
            )  # fmt: skip
        return store

    def close(self) -> None:
        """Fold the write-ahead log into the file."""
        with self._lock:
            self._connection.close()

    def __enter__(self) -> RunStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, *statements: tuple[str, tuple[Any, ...]]) -> None:
        with self._lock, self._connection:
            for text, values in statements:
                self._connection.execute(text, values)

    def _read(self, text: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._connection.execute(text, values).fetchall()

    def begin(self, config: dict[str, Any]) -> None:
        """Note the configuration of the run that is kept here. Raises StoreError if another one is."""
        known = self.get("config")
        if known is not None and known != config:
            raise StoreError(
                "this folder holds another run", subject=str(self.folder), remedy="Say folder=<another folder>"
            )
        self.put("schema", STORE_SCHEMA)
        self.put("config", config)

    @property
    def verb(self) -> str:
        """Whose run is kept here: "fit", "verify" or "scan"."""
        config = self.get("config") or {}
        return next((verb for verb in ("verify", "scan") if verb in config), "fit")

    def put(self, key: str, value: Any) -> None:
        """Keep a fact about the run."""
        self._write(("insert or replace into run values (?, ?)", (key, json.dumps(value))))

    def get(self, key: str) -> Any:
        """A fact about the run, or None."""
        rows = self._read("select value from run where key = ?", (key,))
        return json.loads(rows[0][0]) if rows else None

    def event(self, kind: str, detail: str) -> None:
        """Note what happened, with the time in UTC."""
        self._write(("insert into event values (?, ?, ?)", (datetime.now(UTC).isoformat(), kind, detail)))

    def events(self) -> list[tuple[str, str, str]]:
        """All that happened: time, kind, detail."""
        return [(str(a), str(b), str(c)) for a, b, c in self._read("select time, kind, detail from event")]

    def keep_opened(self, parts: Mapping[str, bytes]) -> None:
        """Keep what was read to open remote files (see `OpenedParts`)."""
        text = "insert or replace into opened values (?, ?)"
        self._write(*((text, (key, zlib.compress(data, 1))) for key, data in parts.items()))

    def opened(self) -> dict[str, bytes]:
        """What was kept so. Raises StoreError if it is damaged."""
        try:
            return {str(key): zlib.decompress(data) for key, data in self._read("select key, data from opened")}
        except zlib.error as error:
            raise StoreError(f"damaged headers ({error})", subject=str(self.folder), remedy="Start a new run") from None

    def save_measurement(self, position: int, measurement: Measurement) -> None:
        """Commit one finished tensor."""
        m = measurement
        facts = {
            "name": m.name, "module": asdict(m.module), "shape": m.shape, "is_matrix": m.is_matrix, "dtypes": m.dtypes,
            "notes": m.notes, "lattices": [asdict(lattice) for lattice in m.lattices], "informative": m.informative,
            "count": m.moments.count, "rounding_energy": m.moments.rounding_energy,
        }  # fmt: skip
        moments = {"gram": m.moments.gram, "identical": m.moments.identical, "blocks": m.moments.blocks}
        self._write(
            ("insert or replace into tensor values (?, ?, ?)", (position, m.name, json.dumps(facts))),
            ("insert or replace into moments values (?, ?)", (position, _pack(moments))),
            ("insert or replace into sample values (?, ?)", (position, _pack(_compact(m)))),
        )

    def measured(self) -> dict[int, str]:
        """Positions and names of the tensors that are finished."""
        return {int(p): str(n) for p, n in self._read("select position, name from tensor order by position")}

    def load_measurement(self, position: int) -> Measurement:
        """One finished tensor. Raises StoreError if it is not there."""
        rows = self._read(
            "select facts, moments.arrays, sample.arrays from tensor join moments using (position) "
            "join sample using (position) where position = ?",
            (position,),
        )
        if not rows:
            raise StoreError(f"tensor {position} is missing", subject=str(self.folder), remedy="Resume the run")
        facts, sums, sample = json.loads(rows[0][0]), self._unpack(rows[0][1]), self._unpack(rows[0][2])
        kept = [_kept_as(dtype) for dtype in facts["dtypes"]]
        lattices = tuple(
            EffectiveLattice(**(item | {"lattice": Lattice(**item["lattice"])})) for item in facts["lattices"]
        )
        moments = Moments(facts["count"], sums["gram"], facts["rounding_energy"], sums["identical"], sums["blocks"])
        return Measurement(
            facts["name"], ModuleName(**facts["module"]), tuple(facts["shape"]), facts["is_matrix"],
            tuple(facts["dtypes"]), tuple(facts["notes"]), moments, lattices, facts["informative"],
            sample["index"].astype(np.int64), np.stack([decode(sample[f"model {i}"], d) for i, d in enumerate(kept)]),
        )  # fmt: skip

    def save_replay(self, key: str, tensor: str, result: ReplayResult) -> None:
        """Commit the replay of one tensor."""
        arrays = {f.name: getattr(result, f.name) for f in fields(result)}
        self._write(("insert or replace into replay values (?, ?, ?)", (key, tensor, _pack(arrays))))

    def load_replay(self, key: str) -> ReplayResult | None:
        """The replay with this key, if it was done."""
        rows = self._read("select arrays from replay where key = ?", (key,))
        return ReplayResult(**self._unpack(rows[0][0])) if rows else None

    def _unpack(self, blob: bytes) -> dict[str, NDArray[Any]]:
        try:
            arrays: dict[str, NDArray[Any]] = load(blob)
        except SafetensorError as error:
            raise StoreError(f"damaged arrays ({error})", subject=str(self.folder), remedy="Start a new run") from None
        return arrays


def _kept_as(dtype: str) -> str:
    """The dtype that holds a model's sampled values without loss in the fewest bytes."""
    return dtype if dtype in {"BF16", "F16"} else "F32"


def _compact(m: Measurement) -> dict[str, NDArray[Any]]:
    """Positions, and each model's values in as many bits as they need."""
    narrow = not len(m.index) or int(m.index[-1]) < 1 << 32
    arrays: dict[str, NDArray[Any]] = {"index": m.index.astype(np.uint32) if narrow else m.index}
    for model, dtype in enumerate(m.dtypes):
        arrays[f"model {model}"] = encode(m.values[model], _kept_as(dtype))
    return arrays


def _pack(arrays: dict[str, NDArray[Any]]) -> bytes:
    return save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
