"""The lattice a tensor really uses, read off its values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.cases import cut
from support.family import NAMES, load
from support.tensors import DOWN, QUERY, UP

from reconstruct.kernels.lattice import Lattice
from reconstruct.statistics.effective_lattice import effective_lattice

MATRICES = (QUERY, UP, DOWN)


def runs(tensor: torch.Tensor) -> np.ndarray:
    """Contiguous runs of elements, float32 [runs, length]."""
    flat = tensor.float().flatten().numpy()
    return flat[: len(flat) // 1024 * 1024].reshape(-1, 1024)


def scaled(tensor: torch.Tensor, levels: int, block: int = 128) -> torch.Tensor:
    """Integers of so many levels times a scale per block of neighbours, dequantised to bfloat16."""
    blocks = tensor.float().flatten().reshape(-1, block)
    scale = blocks.abs().amax(dim=1, keepdim=True) / levels
    return ((blocks / scale).round() * scale).bfloat16().reshape(tensor.shape)


@pytest.mark.parametrize("name", NAMES)
def test_trained_bfloat16_weights_fill_their_lattice(name):
    for matrix in MATRICES:
        found = effective_lattice(runs(load(name)[matrix]), "BF16")
        assert found.lattice == Lattice.of_dtype("BF16")
        assert not found.coarser
        assert found.regular
        assert found.occupancy == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("matrix", MATRICES)
def test_bfloat16_weights_saved_in_float32_are_recognised(matrix):
    found = effective_lattice(runs(load("ft-code")[matrix]), "F32")
    assert found.lattice.mantissa == 7
    assert found.coarser
    assert found.regular


def test_float32_weights_use_all_of_float32():
    tensor = load("ft-code")[UP].float() * 0.565 + load("ft-docs")[UP].float() * 0.435123
    found = effective_lattice(runs(tensor), "F32")
    assert found.lattice.mantissa == 23
    assert not found.coarser
    assert found.regular


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_full_precision_weights_have_no_smallest_step_of_their_own(dtype):
    name = {torch.float32: "F32", torch.float16: "F16"}[dtype]
    base, code, docs = (load(model) for model in ("base", "ft-code", "ft-docs"))
    for matrix in (tensor for tensor, values in base.items() if values.dim() == 2):
        start = base[matrix].float()
        moved = start + (0.6 * (code[matrix].float() - start) + 0.7 * (docs[matrix].float() - start))
        assert effective_lattice(runs(moved.to(dtype)), name).lattice == Lattice.of_dtype(name), matrix


def test_a_few_stray_elements_do_not_make_the_lattice_finer():
    values = runs(cut({"x": load("ft-code")[UP]}, 5)["x"])
    values[0, 0] = np.float32(1.0078125)  # eight bits
    assert effective_lattice(values, "BF16").lattice.mantissa == 5


@pytest.mark.parametrize("bits", [4, 5, 6])
def test_cleared_mantissa_bits_are_counted(bits):
    for matrix in MATRICES:
        found = effective_lattice(runs(cut({"x": load("base")[matrix]}, bits)["x"]), "BF16")
        assert found.lattice.mantissa == bits
        assert found.coarser
        assert found.regular


def test_float8_weights_stored_in_bfloat16_keep_their_smallest_step():
    tensor = load("ft-code")[UP].float().to(torch.float8_e4m3fn).float()
    found = effective_lattice(runs(tensor), "BF16")
    assert found.lattice == Lattice.of_dtype("F8_E4M3")
    assert found.coarser


def test_float16_subnormals_bound_the_step():
    values = runs(((0.565 * load("ft-code")[UP].float() + 0.435123 * load("ft-docs")[UP].float()) / 100).half())
    found = effective_lattice(values, "F32")
    assert found.lattice.quantum == -24
    assert (found.lattice.spacing(values) == Lattice.of_dtype("F16").spacing(values)).mean() > 0.999
    assert found.regular


def test_scaled_copies_of_coarser_numbers_leave_gaps():
    assert not effective_lattice(runs((load("ft-code")[UP].float() / 100).half()), "F16").regular


@pytest.mark.parametrize("block", [32, 128])
@pytest.mark.parametrize("matrix", MATRICES)
def test_four_bit_integers_with_a_scale_per_block_are_irregular(matrix, block):
    assert not effective_lattice(runs(scaled(load("ft-code")[matrix], 7, block)), "BF16").regular


@pytest.mark.parametrize("matrix", MATRICES)
def test_eight_bit_integers_with_a_scale_per_block_repeat_their_values_among_neighbours(matrix):
    quantised = effective_lattice(runs(scaled(load("ft-code")[matrix], 127)), "BF16")
    assert quantised.repetition < 0.8
    assert effective_lattice(runs(load("ft-code")[matrix]), "BF16").repetition > 0.97


def test_tensors_of_a_few_elements_are_taken_at_their_dtype():
    few = load("ft-code")["model.layers.0.self_attn.q_norm.weight"].float().numpy()[None]
    found = effective_lattice(few, "BF16")
    assert found.lattice == Lattice.of_dtype("BF16")
    assert found.regular


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_tensors_without_usable_elements_are_taken_at_their_dtype(value):
    found = effective_lattice(np.full((4, 1024), value, np.float32), "F16")
    assert found.lattice == Lattice.of_dtype("F16")
    assert not found.coarser


def test_constant_tensor_does_not_warn():
    found = effective_lattice(np.full((4, 1024), 1 / 3, np.float32), "BF16")
    assert found.lattice.mantissa == 7
    assert np.isfinite(found.occupancy)
