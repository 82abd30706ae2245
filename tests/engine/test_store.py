"""What goes into the run store comes out unchanged, and foreign folders are refused."""

from __future__ import annotations

import dataclasses
import pickle
import sqlite3

import numpy as np
import pytest
from support.cases import dataset
from support.family import BASE, CODE, CODE_HALF

from reconstruct.engine.store import STORE_FILE, STORE_SCHEMA, RunStore, replay_key
from reconstruct.errors import StoreError
from reconstruct.kernels.formulas import Formula
from reconstruct.replay.samples import DELTA


@pytest.fixture(scope="module")
def data():
    return dataset(CODE_HALF, [CODE], BASE)


def test_measurements_survive_bit_for_bit(tmp_path, data):
    with RunStore.create(tmp_path) as store:
        store.put("schema", STORE_SCHEMA)
        for position, measurement in enumerate(data.measurements):
            store.save_measurement(position, measurement)
    with RunStore.open(tmp_path) as store:
        assert list(store.measured()) == list(range(len(data.measurements)))
        for position, expected in enumerate(data.measurements):
            found = store.load_measurement(position)
            for field in dataclasses.fields(expected):
                if field.name not in {"moments", "index", "values"}:
                    assert getattr(found, field.name) == getattr(expected, field.name)
            np.testing.assert_array_equal(found.index, expected.index)
            np.testing.assert_array_equal(found.values.view(np.uint32), expected.values.view(np.uint32))
            for field in dataclasses.fields(expected.moments):
                np.testing.assert_array_equal(getattr(found.moments, field.name), getattr(expected.moments, field.name))


def test_replays_survive_and_are_found_by_what_was_replayed(tmp_path, data):
    coefficients, divisors = np.array([[0.4, 0.6]]), np.ones(1)
    result = data.replay_sample(0, coefficients, DELTA)
    key = replay_key("t", (0, 1, 2), coefficients, divisors, DELTA)
    with RunStore.create(tmp_path) as store:
        store.save_replay(key, "t", result)
        found = store.load_replay(key)
        assert found is not None
        for field in dataclasses.fields(result):
            np.testing.assert_array_equal(getattr(found, field.name), getattr(result, field.name))
        assert store.load_replay("another") is None


def test_every_part_of_a_replay_changes_its_key():
    coefficients, divisors = np.array([[0.4, 0.6]]), np.ones(1)
    keys = {
        replay_key("t", (0, 1, 2), coefficients, divisors, DELTA),
        replay_key("u", (0, 1, 2), coefficients, divisors, DELTA),
        replay_key("t", (0, 2, 1), coefficients, divisors, DELTA),
        replay_key("t", (0, 1, 2), np.nextafter(coefficients, 1), divisors, DELTA),
        replay_key("t", (0, 1, 2), coefficients, 2 * divisors, DELTA),
        replay_key("t", (0, 1, 2), coefficients, divisors, Formula("sum", "float32")),
    }
    assert len(keys) == 6


def test_a_folder_without_a_store_is_refused(tmp_path):
    with pytest.raises(StoreError, match=r"no run store.*run\.sqlite"):
        RunStore.open(tmp_path)


def test_a_store_of_another_schema_is_refused(tmp_path):
    with RunStore.create(tmp_path) as store:
        store.put("schema", 99)
    with pytest.raises(StoreError, match="another version"):
        RunStore.open(tmp_path)


def test_a_file_that_is_no_database_is_refused(tmp_path):
    (tmp_path / STORE_FILE).write_text("not a database, though long enough to be read as a header of one " * 20)
    with pytest.raises(StoreError, match="no run store can be made"):
        RunStore.open(tmp_path)


def test_arrays_that_would_run_code_are_not_loaded(tmp_path, data):
    with RunStore.create(tmp_path) as store:
        store.put("schema", STORE_SCHEMA)
        store.save_measurement(0, data.measurements[0])
    connection = sqlite3.connect(tmp_path / STORE_FILE)
    with connection:
        connection.execute("update sample set arrays = ?", (pickle.dumps({"index": print, "values": np.zeros(1)}),))
    connection.close()
    with RunStore.open(tmp_path) as store, pytest.raises(StoreError, match="damaged"):
        store.load_measurement(0)


def test_events_are_kept_in_order_with_their_time(tmp_path):
    with RunStore.create(tmp_path) as store:
        store.event("one", "first")
        store.event("two", "second")
        assert [(kind, detail) for _, kind, detail in store.events()] == [("one", "first"), ("two", "second")]
        assert all(time.endswith("+00:00") for time, _, _ in store.events())
