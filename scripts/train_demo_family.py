"""Train the tiny model family that the demo and the tests use, from text that ships with Python.

Command: python scripts/train_demo_family.py            (writes tests/support/family/, about six minutes on two cores)

The family is small (five checkpoints of about 370 KB in bfloat16) but nothing in it is synthetic: the base is
pretrained on Python source and documentation, every fine-tune starts from the base *as saved in bfloat16* and is
optimised by AdamW in float32 before it is saved in bfloat16 again, the way most public fine-tunes are made.

    base            pretraining on code, documentation and HTML help
    ft-code         fine-tune on Python source
    ft-docs         fine-tune on the language reference's prose
    ft-code-half    `ft-code` at half of its training: the earlier checkpoint, an innocent near miss
    ft-code-seed2   the same data as `ft-code` in another order: the sibling, an innocent near miss
"""

from __future__ import annotations

import argparse
import copy
import json
import sysconfig
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen3Config, Qwen3ForCausalLM

DEFAULT_FOLDER = Path(__file__).resolve().parent.parent / "tests" / "support" / "family"
CONTEXT, BATCH = 96, 12


def corpus(kind: str) -> torch.Tensor:
    """Bytes of text that every CPython installation carries: int64 [length]."""
    library = Path(sysconfig.get_paths()["stdlib"])
    if kind == "code":
        files = sorted((library / "email").glob("*.py")) + sorted((library / "asyncio").glob("*.py"))
    elif kind == "docs":
        files = [library / "pydoc_data" / "topics.py"]
    elif kind == "help":
        files = [library / "idlelib" / "help.html"]
    else:
        raise ValueError(f"unknown corpus {kind!r}; there are code, docs, help")
    text = b"\n".join(f.read_bytes() for f in files if f.exists())
    return torch.tensor(list(text), dtype=torch.int64)


def configuration() -> Qwen3Config:
    return Qwen3Config(
        vocab_size=256, hidden_size=64, intermediate_size=176, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, max_position_embeddings=256, tie_word_embeddings=False,
    )  # fmt: skip


def train(model: Qwen3ForCausalLM, data: torch.Tensor, *, steps: int, rate: float, seed: int, at: int | None = None):
    """Run AdamW in float32; returns the state at step `at` (a copy) or None, and the last loss in nats per byte."""
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps, pct_start=0.1)
    halfway, loss = None, torch.tensor(0.0)
    for step in range(steps):
        start = torch.randint(0, len(data) - CONTEXT - 1, (BATCH,), generator=generator)
        tokens = torch.stack([data[i : i + CONTEXT] for i in start.tolist()])
        loss = model(input_ids=tokens, labels=tokens).loss
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if at is not None and step + 1 == at:
            halfway = copy.deepcopy(model.state_dict())
    return halfway, float(loss)


def save(folder: Path, state: dict[str, torch.Tensor]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.detach().to(torch.bfloat16).contiguous().clone() for k, v in state.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    described = configuration().to_dict() | {"architectures": ["Qwen3ForCausalLM"], "dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps(described, indent=1, sort_keys=True) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=DEFAULT_FOLDER)
    parser.add_argument("--pretraining-steps", type=int, default=2500)
    parser.add_argument("--fine-tuning-steps", type=int, default=160)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    code, docs, help_pages = corpus("code"), corpus("docs"), corpus("help")
    model = Qwen3ForCausalLM(configuration())
    _, loss = train(model, torch.cat([code, docs, help_pages]), steps=arguments.pretraining_steps, rate=3e-3, seed=0)
    save(arguments.folder / "base", model.state_dict())
    print(f"base: {sum(p.numel() for p in model.parameters())} parameters, loss {loss:.3f} nats per byte")
    steps = arguments.fine_tuning_steps
    for name, data, seed in (("ft-code", code, 1), ("ft-docs", docs, 2), ("ft-code-seed2", code, 3)):
        model = Qwen3ForCausalLM(configuration())
        model.load_state_dict({k: v.float() for k, v in load_file(arguments.folder / "base/model.safetensors").items()})
        half, loss = train(model, data, steps=steps, rate=3e-4, seed=seed, at=steps // 2)
        save(arguments.folder / name, model.state_dict())
        print(f"{name}: loss {loss:.3f} nats per byte")
        if name == "ft-code" and half is not None:
            save(arguments.folder / "ft-code-half", half)


if __name__ == "__main__":
    main()
