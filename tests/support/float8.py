"""Checkpoints quantised to float8 as publishers do: by block, by row or by tensor."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

State = dict[str, torch.Tensor]
LARGEST = 448.0


def quantised(state: State, block: tuple[int, int] | None = (16, 16), suffix: str = "_scale_inv") -> State:
    """Every projection in float8 with a scale per block, largest magnitude 448; `block` None: one per tensor."""
    result: State = {}
    for name, tensor in state.items():
        if not name.endswith("_proj.weight"):
            result[name] = tensor
            continue
        rows, columns = block if block is not None else tensor.shape
        height, width = tensor.shape
        grid = torch.zeros(-(-height // rows), -(-width // columns))
        codes = torch.zeros_like(tensor, dtype=torch.float8_e4m3fn)
        for i in range(grid.shape[0]):
            for j in range(grid.shape[1]):
                at = slice(i * rows, (i + 1) * rows), slice(j * columns, (j + 1) * columns)
                values = tensor[at].float()
                grid[i, j] = values.abs().max() / LARGEST
                codes[at] = (values / grid[i, j]).to(torch.float8_e4m3fn)
        result[name] = codes
        result[name + suffix] = grid if block is not None else grid.reshape(1)
    return result


def dequantised(state: State, block: tuple[int, int] | None = (16, 16), suffix: str = "_scale_inv") -> State:
    """What such a checkpoint stands for: float8 times scale in float32, rounded to bfloat16."""
    result: State = {}
    for name, tensor in state.items():
        if (scale := state.get(name + suffix)) is None:
            if not name.endswith(suffix):
                result[name] = tensor
            continue
        spread = scale.reshape(1, 1) if block is None else scale
        rows, columns = block if block is not None else tensor.shape
        spread = spread.repeat_interleave(rows, 0).repeat_interleave(columns, 1)[: tensor.shape[0], : tensor.shape[1]]
        result[name] = (tensor.float() * spread).to(torch.bfloat16)
    return result


def save_quantised(folder: Path, tensors: State, block: tuple[int, int] | None = (16, 16)) -> Path:
    """Write a checkpoint folder with the configuration of its quantisation."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    said = {"quant_method": "fp8"} | ({"weight_block_size": list(block)} if block is not None else {})
    configuration = {"model_type": "qwen3", "tie_word_embeddings": False, "quantization_config": said}
    (folder / "config.json").write_text(json.dumps(configuration))
    return folder
