"""The rows that were read, as files that any reader of safetensors opens."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from support.family import BASE, CODE, load

from reconstruct.checkpoints.alignment import align
from reconstruct.checkpoints.open import open_checkpoint
from reconstruct.errors import StoreError
from reconstruct.row_sampling import RowRange, row_length
from reconstruct.sampled_checkpoint import file_of_model, open_sampled, write_sampled

UP, NORM = "model.layers.1.mlp.up_proj.weight", "model.norm.weight"


@pytest.fixture(scope="module")
def models():
    catalogs = [open_checkpoint(str(CODE)), open_checkpoint(str(BASE))]
    return catalogs, align(catalogs[0], catalogs[1:])


def ranges_of(alignment):
    """Rows 16 to 24 and 4 to 6 of a matrix, a whole vector, and every row of another matrix."""
    at = {tensor.name: position for position, tensor in enumerate(alignment.tensors)}
    length = row_length(alignment.tensors[at[UP]])
    whole = at["model.layers.0.self_attn.k_proj.weight"]
    return [
        RowRange(at[UP], 16 * length, 24 * length), RowRange(at[NORM], 0, alignment.tensors[at[NORM]].elements),
        RowRange(at[UP], 4 * length, 6 * length), RowRange(whole, 0, alignment.tensors[whole].elements),
    ]  # fmt: skip


def write(folder, models, model=0, ranges=None):
    catalogs, alignment = models
    catalog = catalogs[model]

    def bits(item, dtype):
        assert dtype == "BF16"
        return catalog.source.read(alignment.tensors[item.tensor].sources[model], item.start, item.stop)

    path = file_of_model(folder, model)
    write_sampled(path, model, catalog, alignment.tensors, ranges or ranges_of(alignment), bits, {"seed": "7"})
    return path


def test_rows_are_those_of_the_model_in_its_own_dtype(tmp_path, models):
    path = write(tmp_path / "sampled", models)
    whole = load("ft-code")
    with safe_open(path, "pt") as file:
        assert set(file.keys()) == {UP, NORM, "model.layers.0.self_attn.k_proj.weight"}
        assert torch.equal(file.get_tensor(UP), torch.cat([whole[UP][4:6], whole[UP][16:24]]))
        for name in (NORM, "model.layers.0.self_attn.k_proj.weight"):
            assert torch.equal(file.get_tensor(name), whole[name])
        metadata = file.metadata()
    assert metadata["model"] == str(CODE)
    assert metadata["seed"] == "7"
    rows = json.loads(metadata["rows"])
    assert rows[UP] == {"tensor": UP, "file": "model.safetensors", "shape": list(whole[UP].shape),
                        "rows": [[4, 6], [16, 24]]}  # fmt: skip


def test_the_same_ranges_give_the_same_bytes(tmp_path, models):
    reversed_ranges = ranges_of(models[1])[::-1]
    first, second = write(tmp_path / "a", models), write(tmp_path / "b", models, ranges=reversed_ranges)
    assert first.read_bytes() == second.read_bytes()


def test_what_is_compared_are_the_rows_under_the_models_own_names(tmp_path, models):
    catalogs, alignment = models
    for model in range(2):
        write(tmp_path, models, model)
    opened, part = open_sampled(tmp_path, catalogs, alignment, ranges_of(alignment))
    assert [catalog.reference.given for catalog in opened] == [str(CODE), str(BASE)]
    by_name = {tensor.name: tensor for tensor in part.tensors}
    assert by_name[UP].shape == (10, row_length(by_name[UP]))
    assert by_name[UP].is_matrix
    assert any(note.startswith("10 of ") for note in by_name[UP].notes)
    assert not by_name[NORM].notes
    assert by_name[UP].module == next(t.module for t in alignment.tensors if t.name == UP)
    base = opened[1].source.read(by_name[UP].sources[1], 0, 2 * row_length(by_name[UP]))
    np.testing.assert_array_equal(base, load("base")[UP][4:6].flatten().view(torch.uint16).numpy())


def test_a_file_that_could_not_be_finished_is_not_there(tmp_path, models):
    catalogs, alignment = models

    def bits(item, dtype):
        raise StoreError("a range is missing")

    with pytest.raises(StoreError, match="missing"):
        write_sampled(file_of_model(tmp_path, 0), 0, catalogs[0], alignment.tensors, ranges_of(alignment), bits, {})
    assert not file_of_model(tmp_path, 0).exists()


def test_files_of_another_plan_are_refused(tmp_path, models):
    catalogs, alignment = models
    for model in range(2):
        write(tmp_path, models, model)
    other = [*ranges_of(alignment)[1:], RowRange(ranges_of(alignment)[0].tensor, 0, 64 * 64)]
    with pytest.raises(StoreError, match=r"not the rows of model.layers.1.mlp.up_proj.weight that were planned"):
        open_sampled(tmp_path, catalogs, alignment, other)
