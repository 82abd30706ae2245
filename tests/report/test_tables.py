"""tensors.parquet: its columns, their types, and that they hold what the evidence holds."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from reconstruct.report.tables import tensor_table, write_parquet

NAMES = ("base", "ft-code", "ft-docs")
PER_SOURCE = ("coefficient", "interval_fit", "least_squares", "certified_low", "certified_high")


@pytest.fixture(scope="module")
def frame(blend):
    return tensor_table(blend.evidence)


def test_one_row_a_tensor_in_order(blend, frame):
    assert list(frame["name"]) == [t.measurement.name for t in blend.evidence.tensors]
    assert frame["votes"].sum() == len(blend.evidence.voting)


@pytest.mark.parametrize(("column", "dtype"), [
    ("name", "string"), ("layer", "string"), ("layer_number", "int64"), ("module_kind", "string"), ("expert", "int64"),
    ("shape", "string"), ("elements", "int64"), ("votes", "bool"), ("lattice_mantissa", "int64"),
    ("lattice_coarser", "bool"), ("lattice_regular", "bool"), ("dtype", "string"),
    ("exact", "int64"), ("novel", "int64"), ("novel_exact", "int64"),
    ("close", "int64"), ("inside_box", "int64"), ("decoy_novel", "int64"), ("decoy_novel_exact", "int64"),
    ("untouched_share", "float64"), ("spike_ratio", "float64"), ("spike_z", "float64"), ("residual", "float64"),
    ("floor", "float64"), ("decoy_residual", "float64"), ("explained", "float64"), ("condition", "float64"),
    ("notes", "string"), *((f"{column}[{name}]", "float64") for column in PER_SOURCE for name in NAMES),
    ("dtype[base]", "string"), ("identical[ft-code]", "int64"),
])  # fmt: skip
def test_types(frame, column, dtype):
    assert frame[column].dtype == dtype


def test_types_do_not_depend_on_the_evidence(blend, nothing, half, frame):
    for case in (nothing, half):
        assert tensor_table(case.evidence).dtypes.equals(frame.dtypes)
    assert len(tensor_table(nothing.evidence)) == 0


def test_values_are_those_of_the_evidence(blend, frame):
    for row, tensor in zip(frame.to_dict("records"), blend.evidence.tensors, strict=True):
        m, fit = tensor.measurement, tensor.fit
        assert row["elements"] == np.prod(m.shape)
        assert row["shape"] == " x ".join(str(n) for n in m.shape)
        assert (row["dtype"], row["dtype[base]"]) == ("BF16", "BF16")
        assert row["lattice_mantissa"] == 7
        assert row["exact"] == tensor.replay.exact[0]
        assert row["novel_exact"] == tensor.replay.steps[0, :, 20].sum()
        assert row["decoy_novel"] == tensor.decoy.novel[0]
        assert row["residual"] == tensor.residual
        assert row["explained"] == fit.least_squares.explained
        assert [row[f"coefficient[{n}]"] for n in NAMES] == tensor.coefficients.tolist()
        assert [row[f"least_squares[{n}]"] for n in NAMES[1:]] == fit.least_squares.weights.tolist()
        assert row["interval_fit[base]"] == pytest.approx(1 - fit.interval.sum())
        if fit.affine is not None:
            assert [row[f"certified_low[{n}]"] for n in NAMES[1:]] == fit.affine.low.tolist()
            assert row["certified_high[base]"] == 1 - fit.affine.low_sum


def test_certified_bounds_hold_the_truth_or_are_missing(frame, half):
    votes = frame[frame["votes"]]
    assert (votes["certified_low[ft-code]"] <= 0.565 + 1e-6).all()
    assert (votes["certified_high[ft-code]"] >= 0.565 - 1e-6).all()
    other = tensor_table(half.evidence)
    without = [t.fit.affine is None for t in half.evidence.tensors]
    assert any(without)
    assert other["certified_low[base]"].isna().tolist() == without


def test_layers_outside_the_blocks_have_no_number(frame):
    assert set(frame.loc[frame["layer_number"] < 0, "layer"]) == {"embedding", "final", "head"}
    inside = frame[frame["layer_number"] >= 0]
    assert (inside["layer_number"].astype(str) == inside["layer"]).all()


def test_one_source_alone(alone):
    frame = tensor_table(alone.evidence)
    assert (frame["coefficient[ft-code]"] == 1).all()
    assert np.isinf(frame["condition"]).all()


def test_a_name_given_twice_heads_two_columns(blend):
    frame = tensor_table(blend.named(["m", "x", "m"], "s").evidence)
    assert {"coefficient[m]", "coefficient[x]", "coefficient[m #2]"} <= set(frame.columns)
    assert frame.columns.is_unique


def test_parquet_returns_the_table_and_the_same_bytes(frame, tmp_path):
    first = write_parquet(frame, tmp_path / "new" / "a.parquet")
    second = write_parquet(frame, tmp_path / "b.parquet")
    assert first.read_bytes() == second.read_bytes()
    pd.testing.assert_frame_equal(pd.read_parquet(first), frame)
