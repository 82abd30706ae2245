"""LoRA adapters of the trained family, saved by peft and merged by peft."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from support.family import BASE
from transformers import AutoModelForCausalLM


def save_adapter(folder: Path, seed: int = 0, base: Path = BASE, size: float = 0.02, **options: Any) -> Path:
    """An adapter whose factors are seeded noise around peft's initial ones, as after training."""
    settings = {"r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "k_proj", "v_proj", "gate_proj", "down_proj"]}
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
        adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **(settings | options)))
        with torch.no_grad():
            for name, parameter in adapted.named_parameters():
                if "lora_" in name or "modules_to_save" in name:
                    parameter.add_(torch.randn_like(parameter) * size)
        adapted.save_pretrained(folder)
    return folder


def merged_by_peft(adapter: Path, base: Path = BASE) -> dict[str, torch.Tensor]:
    """merge_and_unload of base and adapter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
        merged = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    return {name: tensor.detach().clone() for name, tensor in merged.state_dict().items()}
