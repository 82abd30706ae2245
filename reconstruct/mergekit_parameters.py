"""mergekit's language of parameters: from one value a tensor to a constant, a gradient over layers, or filters.

A gradient is piecewise linear over layer / (n - 1), separately in each stack of blocks (a vision tower's layers are
not the language model's); outside the blocks it means its first value. A filter is a substring of tensor names, and
the first one that matches wins: so they are written with the longest first. What is written is evaluated again, and
written in finer pieces until every tensor gets back its own value.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from reconstruct.checkpoints.module_names import describe

__all__ = ["evaluate", "layer_positions", "setting_for"]

Value = float | list[float]
_DUST = 1e-10  # differences that twelve written digits leave
_DEFAULTS = 4  # values tried as default


def setting_for(values: Mapping[str, float]) -> Any:
    """The simplest setting that gives each of these tensors its value."""
    rounded = {name: _number(value) for name, value in values.items()}
    first = next(iter(rounded.values()))
    if all(value == first for value in rounded.values()):
        return first
    model = _Model(rounded, layer_positions(rounded))
    for refined in range(len(model.stacks) + 1):
        setting = model.written(refined)
        if model.right(setting, rounded):
            return setting
    return model.by_tensor()


def evaluate(setting: Any, name: str, position: float) -> float:
    """What mergekit makes of a setting for one tensor at `position` in [0, 1] of its stack."""
    if not isinstance(setting, list):
        return float(setting)
    if not isinstance(setting[0], dict):
        return float(np.interp(position * (len(setting) - 1), range(len(setting)), setting))
    return evaluate(next(e["value"] for e in setting if e.get("filter", "") in name), name, position)


def layer_positions(names: Iterable[str]) -> dict[str, float]:
    """Where mergekit sees each tensor: 0 outside the blocks and in the first layer of its stack, 1 in the last."""
    modules = {name: describe(name) for name in names}
    last: dict[str, int] = {}
    for module in modules.values():
        if module.layer is not None:
            stack = module.layer_label.rpartition(".")[0]
            last[stack] = max(last.get(stack, 0), module.layer)
    return {
        name: 0.0 if m.layer is None else m.layer / n if (n := last[m.layer_label.rpartition(".")[0]]) else 1.0
        for name, m in modules.items()
    }


@dataclass(frozen=True, eq=False)
class _Entry:
    """A value for a set of tensors, and the substring that is to catch them."""

    word: str
    value: Value
    names: frozenset[str]


class _Model:
    """Values with the places of their tensors: {stack: {(layer, group): names}}, and the tensors outside."""

    def __init__(self, values: Mapping[str, float], positions: Mapping[str, float]) -> None:
        self.values, self.positions = values, positions
        self.outside: dict[str, list[str]] = {}
        stacks: dict[str, dict[tuple[int, str], list[str]]] = {}
        for name in values:
            module = describe(name)
            if module.layer is None:
                self.outside.setdefault(module.kind, []).append(name)
            else:
                stack = stacks.setdefault(module.layer_label.rpartition(".")[0], {})
                stack.setdefault((module.layer, module.group), []).append(name)
        # The largest stack first: it may have the short words, the others step aside.
        self.stacks = sorted(stacks.values(), key=lambda cells: -sum(map(len, cells.values())))

    def written(self, refined: int) -> Any:
        """Filters with a default; the last `refined` stacks spelt out by layer and group."""
        whole = len(self.stacks) - refined
        entries = [e for i, cells in enumerate(self.stacks) for e in self._stack(cells, by_cell=i >= whole)]
        for kind, names in self.outside.items():
            if len({self.values[name] for name in names}) > 1:
                entries += [_Entry(name, self.values[name], frozenset([name])) for name in names]
            else:
                entries.append(_Entry(self._word(kind.split(".")[0], names), self.values[names[0]], frozenset(names)))
        return self._with_default(entries)

    def by_tensor(self) -> Any:
        """Every tensor by its full name: always right, as no name contains a longer one."""
        return self._with_default([_Entry(name, value, frozenset([name])) for name, value in self.values.items()])

    def right(self, setting: Any, names: Iterable[str]) -> bool:
        """Whether these tensors get their values."""
        return all(abs(evaluate(setting, n, self.positions[n]) - self.values[n]) <= _DUST for n in names)

    def _stack(self, cells: Mapping[tuple[int, str], list[str]], *, by_cell: bool) -> list[_Entry]:
        """One gradient if layers are all there is, else one a group, else (or if asked) one value a cell or tensor."""
        members = [name for names in cells.values() for name in names]
        prefix = _common(members)
        if not by_cell:
            gradient = self._gradient(cells)
            if gradient is not None:
                return [_Entry(prefix, gradient, frozenset(members))]
        entries = []
        for group in dict.fromkeys(group for _, group in cells):
            own = {key: names for key, names in cells.items() if key[1] == group}
            gradient = None if by_cell else self._gradient(own)
            if gradient is not None:
                entries.append(_Entry(group, gradient, frozenset(n for names in own.values() for n in names)))
                continue
            for names in own.values():
                if len({self.values[name] for name in names}) > 1:
                    entries += [_Entry(name, self.values[name], frozenset([name])) for name in names]
                else:
                    entries.append(_Entry(_common(names), self.values[names[0]], frozenset(names)))
        return entries

    def _gradient(self, cells: Mapping[tuple[int, str], list[str]]) -> Value | None:
        """The values as a function of the layer, over all layers of the stack; None if they are no such function."""
        found: dict[float, float] = {}
        for names in cells.values():
            for name in names:
                if found.setdefault(self.positions[name], self.values[name]) != self.values[name]:
                    return None
        return _shortest(found)

    def _word(self, word: str, names: list[str]) -> str:
        """The short word if it catches nothing else, else the name."""
        return word if all(word not in name for name in self.values if name not in names) else _common(names)

    def _with_default(self, entries: list[_Entry]) -> Any:
        """Longest words first, and one of the commonest values as default: the one that needs fewest filters."""
        ordered = sorted(entries, key=lambda e: (-len(e.word), e.word))
        weight: dict[str, int] = {}
        for entry in entries:
            weight[repr(entry.value)] = weight.get(repr(entry.value), 0) + len(entry.names)
        defaults = {repr(e.value): e.value for e in sorted(entries, key=lambda e: -weight[repr(e.value)])}
        settings = [self._without_idle(ordered, value) for value in list(defaults.values())[:_DEFAULTS]]
        return min(settings, key=lambda s: len(s) if isinstance(s, list) and isinstance(s[0], dict) else 0)

    def _without_idle(self, ordered: list[_Entry], default: Value) -> Any:
        """Entries that this default makes idle are left out, unless another filter would catch their tensors."""
        idle = {e for e in ordered if self.right(default, e.names)}
        while True:
            setting = _document([e for e in ordered if e not in idle], default)
            caught = {e for e in idle if not self.right(setting, e.names)}
            if not caught:
                return setting
            idle -= caught


def _document(entries: list[_Entry], default: Value) -> Any:
    if not entries:
        return default
    return [*({"filter": entry.word, "value": entry.value} for entry in entries), {"value": default}]


def _common(names: list[str]) -> str:
    """The longest common beginning of names, up to and with its last dot; of one name, the name."""
    if len(names) == 1:
        return names[0]
    first, last = min(names), max(names)
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    prefix = "".join(letter for letter, _ in same)
    return prefix[: prefix.rfind(".") + 1] or prefix


def _number(value: float) -> float:
    """Without the dust of binary arithmetic: 0.43500000000000005 is written 0.435."""
    return float(f"{value:.12g}") + 0.0


def _shortest(values: Mapping[float, float]) -> Value:
    """Position -> value: a constant where all are equal, else the shortest gradient that passes through all."""
    x, y = np.array(sorted(values)), np.array([values[p] for p in sorted(values)])
    if (y == y[0]).all():
        return float(y[0])
    longest = 1 + next(n for n in itertools.count(1) if np.abs(x * n - np.rint(x * n)).max() < 1e-6)
    for length in range(2, longest):
        hats = np.maximum(1 - np.abs(x[:, None] * (length - 1) - np.arange(length)), 0)
        anchors = [_number(round(a, 10)) for a in np.linalg.lstsq(hats, y, rcond=None)[0].tolist()]
        if np.abs(hats @ anchors - y).max() < _DUST:
            return anchors
    return [_number(v) for v in np.interp(np.linspace(0, 1, longest), x, y).tolist()]
