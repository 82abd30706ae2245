"""tensors.parquet: one row a compared tensor, everything that was measured on it, for anyone's own statistics."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from reconstruct.evidence import ModelEvidence, TensorEvidence
from reconstruct.kernels.results import ReplayResult
from reconstruct.report.wording import unique
from reconstruct.statistics.moments import affine

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["tensor_table", "write_parquet"]

_TYPES = {str: "string", bool: "bool", int: "int64", float: "float64"}

#: Columns that do not depend on the sources, in order, with their types.
_BEFORE: dict[str, type] = {
    "name": str, "layer": str, "layer_number": int, "module_kind": str, "expert": int, "shape": str, "elements": int,
    "informative": int, "votes": bool, "lattice_mantissa": int, "lattice_coarser": bool, "lattice_regular": bool,
    "dtype": str,
}  # fmt: skip
#: Columns of each source, headed `name[source]`.
_PER_SOURCE: dict[str, type] = {
    "dtype": str, "identical": int, "coefficient": float, "interval_fit": float, "least_squares": float,
    "certified_low": float, "certified_high": float,
}  # fmt: skip
_AFTER: dict[str, type] = {
    "exact": int, "novel": int, "novel_exact": int, "close": int, "inside_box": int, "decoy_novel": int,
    "decoy_novel_exact": int, "decisive": int, "decisive_exact": int, "untouched_share": float, "spike_ratio": float,
    "spike_z": float, "residual": float, "floor": float, "decoy_residual": float, "explained": float,
    "condition": float, "box_share": float, "replayed": int, "notes": str,
}  # fmt: skip


def tensor_table(evidence: ModelEvidence) -> pd.DataFrame:
    """One row per compared tensor, in the order of comparison. Columns and types depend on the sources' names alone.

    `certified_low`, `certified_high`: bounds of the interval fit, NaN where it certifies none. `untouched_share`,
    `spike_ratio`, `spike_z`: of the decisive elements. Counts are of replayed elements; `layer_number` is -1 outside
    the blocks, `expert` outside experts.
    """
    import pandas as pd

    names = unique(evidence.sources.names)
    columns: dict[str, list[Any]] = {name: [] for name in _types(names)}
    for tensor in evidence.tensors:
        for name, value in _row(tensor, names).items():
            columns[name].append(value)
    return pd.DataFrame({name: pd.array(columns[name], dtype=dtype) for name, dtype in _types(names).items()})


def _types(names: list[str]) -> dict[str, Any]:
    """Every column with the name of its dtype."""
    per_source = {f"{column}[{name}]": kind for column, kind in _PER_SOURCE.items() for name in names}
    plain = {"float64": np.dtype("float64"), "int64": np.dtype("int64"), "bool": np.dtype("bool"), "string": "string"}
    return {name: plain[_TYPES[kind]] for name, kind in {**_BEFORE, **per_source, **_AFTER}.items()}


def _row(tensor: TensorEvidence, names: list[str]) -> dict[str, Any]:
    m, fit = tensor.measurement, tensor.fit
    row: dict[str, Any] = {
        "name": m.name,
        "layer": m.module.layer_label,
        "layer_number": -1 if m.module.layer is None else m.module.layer,
        "module_kind": m.module.kind,
        "expert": -1 if m.module.expert is None else m.module.expert,
        "shape": " x ".join(map(str, m.shape)),
        "elements": m.elements,
        "informative": m.informative,
        "votes": m.votes,
        "lattice_mantissa": m.lattice.lattice.mantissa,
        "lattice_coarser": m.lattice.coarser,
        "lattice_regular": m.lattice.regular,
        "dtype": m.dtypes[0],
        "untouched_share": tensor.spike.untouched,
        "spike_ratio": tensor.spike.ratio,
        "spike_z": tensor.spike.z,
        "decisive": tensor.spike.count,
        "decisive_exact": tensor.spike.reproduced,
        "residual": tensor.residual,
        "floor": tensor.floor,
        "decoy_residual": tensor.decoy_residual,
        "explained": fit.least_squares.explained,
        "condition": fit.least_squares.condition,
        "box_share": fit.box,
        "notes": "; ".join(m.notes),
        "replayed": int(tensor.replay.total[0]),
        **_counts(tensor.replay),
        "decoy_novel": int(tensor.decoy.novel[0]),
        "decoy_novel_exact": int(tensor.decoy.novel_exact[0]),
    }
    low, high = _certified(tensor)
    per_source: dict[str, Any] = {
        "dtype": m.dtypes[1:], "identical": m.moments.identical, "coefficient": tensor.coefficients,
        "interval_fit": affine(fit.interval), "least_squares": affine(fit.least_squares.weights),
        "certified_low": low, "certified_high": high,
    }  # fmt: skip
    for column, values in per_source.items():
        for name, value in zip(names, values, strict=True):
            row[f"{column}[{name}]"] = value
    return row


def _counts(replay: ReplayResult) -> dict[str, int]:
    return {name: int(getattr(replay, name)[0]) for name in ("exact", "novel", "novel_exact", "close", "inside_box")}


def _certified(tensor: TensorEvidence) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Certified bounds of every source's coefficient, pivot first; NaN where there are none."""
    box = tensor.fit.affine
    if box is None:
        nothing = np.full(len(tensor.coefficients), np.nan)
        return nothing, nothing
    return np.r_[1 - box.high_sum, box.low], np.r_[1 - box.low_sum, box.high]


def write_parquet(frame: pd.DataFrame, path: Path) -> Path:
    """Write the table; the same table gives the same bytes with the same version of pyarrow."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(frame, preserve_index=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="zstd")
    return path
