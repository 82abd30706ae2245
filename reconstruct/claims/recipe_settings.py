"""A parameter's setting in mergekit's language: a value, a gradient of values, or filters with either."""

from __future__ import annotations

import math
from typing import Any

from reconstruct.claims.mergekit_methods import MethodParameter, ValueKind
from reconstruct.claims.recipe_findings import Notebook, suggestion

__all__ = ["always_given", "check_setting", "ever_below", "is_given"]

_SWITCHES = {"0", "off", "f", "false", "n", "no", "1", "on", "t", "true", "y", "yes"}
_ENTRY_KEYS = ("filter", "value")
_KINDS = {ValueKind.NUMBER: "number", ValueKind.INTEGER: "whole number", ValueKind.SWITCH: "true or false"}


def check_setting(notebook: Notebook, path: str, setting: Any, parameter: MethodParameter | None) -> None:
    """Refuse what mergekit refuses, and note what it reads otherwise than written. Unknown parameters have no type."""
    if isinstance(setting, dict):
        _check_entries(notebook, [setting], [path], parameter)
    elif isinstance(setting, list) and any(isinstance(item, dict) for item in setting):
        _check_entries(notebook, setting, [f"{path}[{i}]" for i in range(len(setting))], parameter)
    else:
        _check_value(notebook, path, setting, parameter)


def always_given(setting: Any) -> bool:
    """Whether every tensor gets a value: there are no filters, or an entry that all tensors match."""
    return any(_matches_all(entry) and entry.get("value") != [] for entry in _entries(setting))


def is_given(setting: Any) -> bool:
    """Whether any tensor gets a value; an empty list gives none."""
    return any(entry.get("value") != [] for entry in _entries(setting))


def ever_below(setting: Any, bound: float) -> bool:
    """Whether some tensor may get a value below `bound`."""
    values = [e["value"] for e in _entries(setting)]
    numbers = [float(v) for value in values for v in (value if isinstance(value, list) else [value])]
    return any(number < bound for number in numbers)


def _entries(setting: Any) -> list[dict[str, Any]]:
    if isinstance(setting, dict):
        return [setting]
    if isinstance(setting, list) and setting and isinstance(setting[0], dict):
        return setting
    return [{"value": setting}]


def _matches_all(entry: dict[str, Any]) -> bool:
    return entry.get("filter") in (None, "*", "")


def _check_entries(notebook: Notebook, entries: list[Any], paths: list[str], parameter: MethodParameter | None) -> None:
    """Filters are tried in order, and the first that is part of a tensor's name wins."""
    earlier: list[str] = []
    for entry, place in zip(entries, paths, strict=True):
        if not isinstance(entry, dict):
            notebook.fail(place, "a value among filters", "Write '- value: ...', or a list of values alone")
        if entry.get("value") is None:
            notebook.fail(place, "a filter without a value", "Add 'value: ...' to it")
        word = entry.get("filter")
        if word is not None and not isinstance(word, str):
            notebook.fail(f"{place}.filter", f"{word!r} is no text", "Put the part of tensor names in quotes")
        for key in entry:
            if key not in _ENTRY_KEYS:
                notebook.note(f"{place}.{key}", f"mergekit ignores {key!r} here{suggestion(key, _ENTRY_KEYS)}")
        covering = "" if "" in earlier else next((e for e in earlier if word and e in word), None)
        if covering is not None:
            first = f"the filter {covering!r}" if covering else "an entry for all tensors"
            notebook.note(place, f"never used: {first} stands before it")
        earlier.append("" if _matches_all(entry) else str(word))
        if isinstance(entry["value"], dict):
            notebook.fail(f"{place}.value", "a mapping as a value", "Filters do not nest")
        _check_value(notebook, f"{place}.value", entry["value"], parameter)


def _check_value(notebook: Notebook, path: str, value: Any, parameter: MethodParameter | None) -> None:
    if isinstance(value, list):
        if not value:
            notebook.note(path, "an empty list: mergekit takes it for no value")
        for index, item in enumerate(value):
            _check_scalar(notebook, f"{path}[{index}]", item, parameter, "in a gradient ")
    else:
        _check_scalar(notebook, path, value, parameter, "")


def _check_scalar(notebook: Notebook, path: str, value: Any, parameter: MethodParameter | None, where: str) -> None:
    if value is None:
        notebook.fail(path, "no value", "Give it one, or remove the key")
    if not isinstance(value, bool | int | float | str):
        notebook.fail(path, f"{where}a {type(value).__name__} is no value", "Give a number, text, true or false")
    if parameter is None:
        return
    expected = _KINDS[parameter.kind]
    if not _fits(value, parameter.kind):
        notebook.fail(path, f"{where}{_short(value)} is no {expected}", f"{parameter.name} is a {parameter.kind} value")
    if parameter.kind != ValueKind.SWITCH:
        if isinstance(value, bool):
            notebook.note(path, f"{str(value).lower()} where a number is meant: mergekit reads it as {int(value)}")
        elif not math.isfinite(float(value)):
            notebook.note(path, f"{value} is not finite, and so would be the merged weights")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _fits(value: bool | float | str, kind: ValueKind) -> bool:
    """As mergekit converts: text that reads as the type is taken for it."""
    if kind is ValueKind.SWITCH:
        return value.lower() in _SWITCHES if isinstance(value, str) else value in (0, 1)
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return False
    if kind is ValueKind.NUMBER:
        return True
    if isinstance(value, str) and not value.strip().removesuffix(".0").lstrip("+-").replace("_", "").isdigit():
        return False
    return math.isfinite(number) and number == int(number)
