"""Fused tensors taken apart where models store the same modules in different ways: experts that are stacked in one
tensor beside one tensor an expert, q, k and v in one matrix beside three. Where all models agree nothing is touched.

Rows of a stored matrix are byte ranges, and so is a whole expert; columns are gathered when they are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from itertools import accumulate

from reconstruct.checkpoints.catalog import TensorInfo
from reconstruct.checkpoints.inventory import Inventory
from reconstruct.checkpoints.layouts import TRANSPOSED, Fused, Order, fused_entry
from reconstruct.checkpoints.module_names import short_name
from reconstruct.checkpoints.views import part, strided
from reconstruct.kernels.formats import float_format

__all__ = ["expert_parts", "experts_block", "fused_tensors", "take_apart"]


def take_apart(inventories: Sequence[Inventory], experts_of: Set[str] = frozenset()) -> None:
    """Replace fused tensors by their parts in every inventory where not all store them alike, or where the experts of
    their block are asked for: `experts_of` are short names up to and with "experts.".
    """
    fused = [{_key(info, entry): (info, entry) for info, entry in fused_tensors(i)} for i in inventories]
    for key in dict.fromkeys(key for found in fused for key in found):
        holders = [(i, *found[key]) for i, found in zip(inventories, fused, strict=True) if key in found]
        alike = len({(short_name(info.name), info.shape) for _, info, _ in holders}) == 1
        _, info, entry = holders[0]
        asked = entry.of_experts and experts_block(key) in experts_of
        if not asked and alike and len(holders) == len(inventories):
            continue
        if not asked and alike and not any(_partners(i, info, entry) for i in inventories):
            continue  # others have neither form: taking it apart would pair nothing
        for inventory, info, entry in holders:
            if entry.of_experts:
                inventory.take_apart(info.name, expert_parts(inventory, info, entry, inventories))
            elif parts := _dense_parts(info, entry, inventories):
                inventory.take_apart(info.name, parts)


def _key(info: TensorInfo, entry: Fused) -> str:
    """Short name of the first part (of expert 0): what models share however they store it."""
    return short_name(entry.separate(info.name, 0, 0))


def experts_block(short: str) -> str:
    """Short name of an expert's tensor -> that of the block of experts: "layers.0.mlp.experts."."""
    before, experts, _ = short.rpartition("experts.")
    return before + experts


def fused_tensors(inventory: Inventory) -> Iterable[tuple[TensorInfo, Fused]]:
    """Those that the table knows, have their shape and can be read."""
    for name, info in list(inventory.tensors.items()):
        entry = fused_entry(name)
        if entry is None or float_format(info.dtype) is None or not inventory.unique(name) or not info.elements:
            continue
        axes = 3 if entry.of_experts else 2
        if len(info.shape) == axes or (entry.separate(name, 0, 0).endswith(".bias") and len(info.shape) == axes - 1):
            yield info, entry


def _partners(inventory: Inventory, info: TensorInfo, entry: Fused) -> list[TensorInfo]:
    """The parts as tensors of their own, of the first expert; all of them, or none."""
    found = [inventory.named(short_name(entry.separate(info.name, i, 0))) for i in range(len(entry.parts))]
    return [partner for partner in found if partner is not None] if None not in found else []


def expert_parts(
    inventory: Inventory, info: TensorInfo, entry: Fused, inventories: Sequence[Inventory]
) -> list[TensorInfo] | str:
    """One matrix (or vector) per expert and part: views of the fused tensor, or the reason why there are none."""
    count, matrix = info.shape[0], info.shape[1:]
    by_rows = _by_rows(inventory, info, entry, inventories)
    if by_rows is None:
        return f"experts stacked in a shape, {list(info.shape)}, of which input and output cannot be told"
    pieces = len(entry.parts)
    alternate = False
    if not by_rows and pieces > 1:
        known = TRANSPOSED.get(str(inventory.catalog.configuration.get("model_type")))
        if known is None:
            return (
                "experts stored [experts, input, output] with gate and up in one matrix, and config.json names no "
                "family of which it is known whether their columns alternate"
            )
        alternate = known
    size = matrix[0] if len(matrix) == 1 or by_rows else matrix[1]
    if size % pieces:
        return f"experts stacked in a shape, {list(info.shape)}, that does not divide by {pieces}"
    parts = []
    for expert in range(count):
        for piece, label in enumerate(entry.labels):
            name = f"{info.name}[{expert}]" + (f".{label}" if pieces > 1 else "")
            start = expert * (info.elements // count)
            parts.append(_piece(info, start, piece, size // pieces, name, by_rows=by_rows, alternate=alternate))
    return parts


def _piece(
    info: TensorInfo, start: int, piece: int, size: int, name: str, *, by_rows: bool, alternate: bool
) -> TensorInfo:
    """Outputs `piece` * `size` and on of the matrix or vector that begins at element `start`, or every other one."""
    width = 1 if len(info.shape) == 2 else info.shape[2]
    pieces = info.shape[1 if by_rows or len(info.shape) == 2 else 2] // size
    first, step = (piece, pieces) if alternate else (piece * size, 1)
    if len(info.shape) == 2:
        return strided(info, start + first, (step, 1), (size,), name)
    if by_rows:
        return part(info, start + first * width, (size, width), name)
    return strided(info, start + first, (step, width), (size, info.shape[1]), name)


def _by_rows(inventory: Inventory, info: TensorInfo, entry: Fused, inventories: Sequence[Inventory]) -> bool | None:
    """Whether an expert's matrix is stored [output, input]; None if its shape and those beside it do not say.

    gate_up [2I, H] and down [H, I] against gate_up [H, 2I] and down [I, H]: no two sizes fit both.
    """
    family = str(inventory.catalog.configuration.get("model_type"))
    if len(info.shape) == 2:  # biases: a vector an expert, alternating where the matrices do
        matrices = inventory.catalog.tensors.get(info.name.removesuffix("_bias"))
        known = fused_entry(matrices.name) if matrices is not None and len(matrices.shape) == 3 else None
        if matrices is not None and known is not None:
            return _by_rows(inventory, matrices, known, inventories)
        return family not in TRANSPOSED
    height, width = info.shape[1:]
    sibling = _sibling(inventory, info.name, entry)
    if sibling is not None:
        other = sibling.shape[1:]
        gate_up, down = ((height, width), other) if len(entry.parts) > 1 else (other, (height, width))
        if gate_up[0] == 2 * down[1] and gate_up[1] == down[0]:
            return True
        if gate_up[1] == 2 * down[0] and gate_up[0] == down[1]:
            return False
        return None
    for partner in (p for other in inventories for p in _partners(other, info, entry)[:1]):
        output, input_ = partner.shape[0] * len(entry.parts), partner.shape[-1]
        fits = {by_rows for by_rows, shape in ((True, (output, input_)), (False, (input_, output)))
                if shape == (height, width)}  # fmt: skip
        if len(fits) == 1:
            return fits.pop()
    return family not in TRANSPOSED


def _sibling(inventory: Inventory, name: str, entry: Fused) -> TensorInfo | None:
    """gate_up for down, down for gate_up: the other stored matrix of the same experts (still whole, or in parts)."""
    stem = name[: -len(entry.ending)]
    for ending in (".experts.down_proj", ".experts.gate_up_proj", ".block_sparse_moe.output_linear.weight",
                   ".block_sparse_moe.input_linear.weight"):  # fmt: skip
        found = inventory.catalog.tensors.get(stem + ending)
        if found is not None and ending != entry.ending and len(found.shape) == 3:
            return found
    return None


def _dense_parts(info: TensorInfo, entry: Fused, inventories: Sequence[Inventory]) -> list[TensorInfo] | str | None:
    """Blocks of rows as long as the separate tensors of another model; None if no model has them."""
    partners = next((found for i in inventories if (found := _partners(i, info, entry))), None)
    if partners is None:
        return None
    if entry.order is Order.BY_HEAD:
        return "a fused matrix in which parts take turns from head to head: it is not taken apart"
    sizes = [partner.shape[0] for partner in partners]
    names = [f"{info.name}[{label}]" for label in entry.labels]
    starts = [0, *accumulate(sizes)]
    inner = {partner.shape[1:] for partner in partners}
    total, rest = starts[-1], info.shape[1:]
    if info.shape[0] == total and inner == {rest}:
        width = rest[0] if rest else 1
        return [
            part(info, start * width, (size, *rest), name)
            for start, size, name in zip(starts, sizes, names, strict=False)
        ]
    if entry.order is Order.COLUMNS and rest == (total,) and inner == {info.shape[:1]}:
        return [
            strided(info, start, (1, total), (size, info.shape[0]), name)
            for start, size, name in zip(starts, sizes, names, strict=False)
        ]
    shapes = ", ".join(str(list(partner.shape)) for partner in partners)
    return f"shape {list(info.shape)} is not that of {', '.join(entry.labels)} together in another model ({shapes})"
