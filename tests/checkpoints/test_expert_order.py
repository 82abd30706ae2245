"""Experts in another order: found where they are, never invented, and nothing is changed where it is not clear."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support import mixtures
from support.catalogs import assert_complete
from support.family import load
from support.mixtures import renumbered, save_as, separate, stacked, transposed

from reconstruct.checkpoints.alignment import Alignment, align_models
from reconstruct.checkpoints.catalog import Catalog
from reconstruct.checkpoints.expert_order import find_expert_orders
from reconstruct.checkpoints.expert_samples import ExpertSamples
from reconstruct.checkpoints.open import open_checkpoint

State = mixtures.State
ORDER = (2, 0, 3, 1)
#: For expert n of the original its number in the renumbered model.
INVERSE = (1, 3, 0, 2)
BLOCKS = {f"layers.{n}.mlp.experts." for n in range(3)}


@pytest.fixture(scope="module")
def code() -> State:
    return separate(load("ft-code"))


@pytest.fixture(scope="module")
def docs() -> State:
    return separate(load("ft-docs"))


def opened(folder: Path, *states: State, kind: str = "qwen3_moe") -> list[Catalog]:
    return [open_checkpoint(str(save_as(folder / str(i), state, kind))) for i, state in enumerate(states)]


def unmoved(alignment: Alignment, models: list[Catalog]) -> bool:
    """Whether all compared models hold the same bits."""
    for tensor in alignment.tensors:
        stored = [m.source.read(i, 0, tensor.elements).tobytes() for m, i in zip(models, tensor.sources, strict=True)]
        if len(set(stored)) > 1:
            return False
    return True


@pytest.mark.parametrize(
    "layout", [dict, stacked, mixtures.mixtral, lambda m: transposed(m, alternate=True)],
    ids=["separate", "stacked", "mixtral", "alternating columns"],
)  # fmt: skip
@pytest.mark.parametrize("theirs", [dict, stacked], ids=["separate", "stacked"])
def test_another_order_is_found_and_undone_in_every_layout(layout, theirs, tmp_path: Path, code: State) -> None:
    (suspect,) = opened(tmp_path / "s", layout(code), kind="gpt_oss")
    (parent,) = opened(tmp_path / "p", theirs(renumbered(code, ORDER)))
    assert find_expert_orders(suspect, [parent]).orders == [dict.fromkeys(BLOCKS, INVERSE)]
    result = align_models(suspect, [parent])
    assert result.left_out == ()
    assert_complete(result, [suspect, parent])
    assert unmoved(result, [suspect, parent])


def test_the_order_is_noted_on_every_tensor_it_changes(tmp_path: Path, code: State, docs: State) -> None:
    suspect, parent = opened(tmp_path, code, renumbered(docs, ORDER))
    given = parent.reference.given
    for tensor in align_models(suspect, [parent]).tensors:
        if tensor.module.expert is not None:
            expert = INVERSE[tensor.module.expert]
            note = f"the experts of {given} lie in another order: expert {expert} there is compared"
            assert tensor.notes == (note,)
            assert f".experts.{expert}." in tensor.sources[1].name
        elif tensor.module.kind == "mlp.gate":
            assert tensor.notes == (f"rows in the order of the experts, which is another in {given}",)
        else:
            assert tensor.notes == ()


def test_each_parent_has_its_own_order(tmp_path: Path, code: State, docs: State) -> None:
    models = opened(tmp_path, code, docs, renumbered(docs, ORDER), renumbered(code, (3, 2, 1, 0)))
    orders = find_expert_orders(models[0], models[1:]).orders
    assert orders == [{}, dict.fromkeys(BLOCKS, INVERSE), dict.fromkeys(BLOCKS, (3, 2, 1, 0))]


@pytest.mark.parametrize("name", ["base", "ft-docs", "ft-code-half", "ft-code-seed2"])
@pytest.mark.parametrize("layout", [dict, stacked], ids=["separate", "stacked"])
def test_relatives_are_not_reordered(name: str, layout, tmp_path: Path, code: State) -> None:
    models = opened(tmp_path, layout(code), stacked(separate(load(name))))
    search = find_expert_orders(models[0], models[1:])
    assert search.orders == [{}]
    assert search.unclear == ()


def shuffled(state: State, which: str, seed: int = 0) -> State:
    """Tensors whose name contains `which` with their elements in other places: as unrelated weights."""
    generator = torch.Generator().manual_seed(seed)

    def moved(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.flatten()[torch.randperm(tensor.numel(), generator=generator)].reshape(tensor.shape)

    return {name: moved(tensor) if which in name else tensor for name, tensor in state.items()}


@pytest.mark.parametrize("unrelated", ["experts", "gate.weight"])
def test_where_router_or_experts_do_not_agree_nothing_is_changed_and_that_is_noted(
    unrelated: str, tmp_path: Path, code: State
) -> None:
    models = opened(tmp_path, code, shuffled(renumbered(code, ORDER), unrelated))
    search = find_expert_orders(models[0], models[1:])
    assert search.orders == [{}]
    assert {block for block, _ in search.unclear} == BLOCKS
    for tensor in align_models(models[0], models[1:]).tensors:
        noted = any("do not correlate" in note for note in tensor.notes)
        assert noted == (tensor.module.expert is not None)
        assert tensor.sources[1].name == tensor.name


def test_without_a_router_no_order_is_guessed(tmp_path: Path, code: State) -> None:
    headless = {name: tensor for name, tensor in renumbered(code, ORDER).items() if "gate.weight" not in name}
    models = opened(tmp_path, code, headless)
    assert find_expert_orders(models[0], models[1:]).orders == [{}]


def test_dense_models_are_not_read_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    from support.family import BASE, CODE

    models = [open_checkpoint(str(path)) for path in (CODE, BASE)]
    for model in models:
        monkeypatch.setattr(model.source, "read", None)
    assert find_expert_orders(models[0], models[1:]).orders == [{}]


def test_where_experts_touch_one_read_has_weights_of_two(tmp_path: Path, code: State) -> None:
    for number, layout in enumerate((dict, stacked)):
        (model,) = opened(tmp_path / str(number), layout(code))
        samples = ExpertSamples(model)
        for block in BLOCKS:
            spots = samples.seams(block, 4)
            assert {spot.expert for spot in spots} == {0, 1, 2, 3}
            for before, after in zip(spots[::2], spots[1::2], strict=True):
                one, other = (samples.blocks[block][s.expert][s.kind] for s in (before, after))
                assert one.end == other.begin
                assert before.stop == one.elements
                assert after.start == 0


def test_where_they_do_not_touch_each_is_read_in_its_middle(tmp_path: Path, code: State) -> None:
    (model,) = opened(tmp_path, transposed(code, alternate=True), kind="gpt_oss")
    samples = ExpertSamples(model)
    for block in BLOCKS:
        spots = samples.seams(block, 4)
        assert spots == samples.middles(block, 4)
        assert {spot.kind for spot in spots} == {"up_proj.weight"}


def test_experts_of_which_nothing_is_left_are_the_same_in_both(tmp_path: Path, code: State) -> None:
    empty = {name: torch.zeros_like(tensor) if "experts" in name else tensor for name, tensor in code.items()}
    models = opened(tmp_path, empty, empty)
    search = find_expert_orders(models[0], models[1:])
    assert search.orders == [{}]
    assert search.unclear == ()
