"""A recipe against its merge method: parameters that are missing, unknown or never used, and the number of inputs."""

from __future__ import annotations

from collections.abc import Iterator

from reconstruct.claims.mergekit_methods import MERGEKIT_METHODS, BasePolicy, MergeMethod, MethodParameter, Scope
from reconstruct.claims.recipe_findings import Notebook, suggestion
from reconstruct.claims.recipe_settings import always_given, check_setting, is_given
from reconstruct.claims.recipe_structure import Group, Input, Settings, Structure

__all__ = ["check_against_method"]


def check_against_method(notebook: Notebook, structure: Structure, method: MergeMethod) -> None:
    """Raise for what mergekit refuses once it has planned the merge; note what it passes over."""
    for group in structure.groups:
        _check_settings(notebook, group, method)
    for group in structure.groups:
        _check_inputs(notebook, group, method)
    reached: set[tuple[str, str]] = set()
    for group in structure.groups:
        for parameter, chain, owner in _chains(group, method):
            reached |= _resolve(notebook, parameter, chain, owner, method)
    for group in structure.groups:
        for scope in _scopes(group):
            for name in scope.values:
                known = method.parameter(name)
                if known is not None and (scope.path, name) not in reached:
                    notebook.note(f"{scope.path}.{name}", _unreached(known, scope, group))
        _note_idle(notebook, group, method)


def _scopes(group: Group) -> tuple[Settings, ...]:
    """Everything that is set for a group."""
    return (*(item.settings for item in group.inputs), *group.outer)


def _check_settings(notebook: Notebook, group: Group, method: MergeMethod) -> None:
    for scope in _scopes(group):
        for name, setting in scope.values.items():
            path, parameter = f"{scope.path}.{name}", method.parameter(name)
            if parameter is None:
                others = [m.name for m in MERGEKIT_METHODS.values() if m.parameter(name)]
                near = suggestion(name, method.names) or (f"; it belongs to {', '.join(others)}" if others else "")
                notebook.note(path, f"mergekit ignores it: {method.name} has no parameter {name[:80]!r}{near}")
            check_setting(notebook, path, setting, parameter)


def _inputs(group: Group) -> tuple[Input, ...]:
    """With the base that mergekit adds to `models` where it is not among them."""
    if group.sliced or group.base is None or group.base in [item.reference for item in group.inputs]:
        return group.inputs
    return (*group.inputs, Input(group.base, "base_model", Settings("")))


def _check_inputs(notebook: Notebook, group: Group, method: MergeMethod) -> None:
    """How many there may be, and whether the base is one of them."""
    inputs = _inputs(group)
    seen: set[str] = set()
    for item in inputs:
        if item.reference in seen:
            notebook.fail(f"{item.path}.model", f"{item.reference} a second time", "Name each input once in a group")
        seen.add(item.reference)
    ignored = method.base is BasePolicy.IGNORED
    if method.base is BasePolicy.REQUIRED and group.base is None:
        remedy = f"{method.name} needs one: add 'base_model: ...'"
        notebook.fail("base_model", "missing", remedy, at="merge_method")
    if not ignored and group.base is not None and group.base not in seen:
        notebook.fail(group.path, f"the base model {group.base} is not among the sources", "Add it to them")
    if ignored and len(inputs) > len(group.inputs):
        message = f"{method.name} has no base: mergekit merges this model in as one more input"
        notebook.note("base_model", message)
    others = len(inputs) - (not ignored and group.base is not None)
    _check_number(notebook, group, method, len(inputs), (method.least_inputs, method.most_inputs), "models")
    _check_number(
        notebook, group, method, others, (method.least_others or 0, method.most_others), "models beside the base"
    )


def _check_number(
    notebook: Notebook, group: Group, method: MergeMethod, count: int, span: tuple[int, int | None], what: str
) -> None:
    least, most = span
    if count < least or (most is not None and count > most):
        wanted = f"exactly {least}" if least == most else f"at least {least}" if count < least else f"at most {most}"
        notebook.fail(group.path, f"{count} {what}", f"{method.name} takes {wanted}")


def _chains(group: Group, method: MergeMethod) -> Iterator[tuple[MethodParameter, tuple[Settings, ...], Input | None]]:
    """Each parameter with the scopes in which mergekit looks for it, the first that gives a value wins."""
    for parameter in method.parameters:
        if parameter.scope is Scope.SHARED:
            yield parameter, group.outer, None
            continue
        for item in _inputs(group):
            if parameter.scope is Scope.INPUT or item.reference != group.base:
                yield parameter, (item.settings, *group.outer), item


def _resolve(
    notebook: Notebook,
    parameter: MethodParameter,
    chain: tuple[Settings, ...],
    owner: Input | None,
    method: MergeMethod,
) -> set[tuple[str, str]]:
    """The settings that some tensor may take its value from; where they leave tensors out, that is noted or refused."""
    reached: set[tuple[str, str]] = set()
    partial: str | None = None
    for scope in chain:
        if parameter.name not in scope.values:
            continue
        setting, path = scope.values[parameter.name], f"{scope.path}.{parameter.name}"
        reached.add((scope.path, parameter.name))
        if always_given(setting):
            return reached
        partial = path if is_given(setting) else partial
    if partial is not None:
        rest = "mergekit stops there" if parameter.required else f"{method.name} takes {parameter.default} for them"
        notebook.note(partial, f"no default entry: tensors that no filter matches have no value, and {rest}")
    elif parameter.required:
        _fail_missing(notebook, parameter, owner, method)
    return reached


def _fail_missing(notebook: Notebook, parameter: MethodParameter, owner: Input | None, method: MergeMethod) -> None:
    remedy = f"{method.name} requires it: add it under 'parameters'"
    if owner is None:
        notebook.fail(f"parameters.{parameter.name}", "missing", remedy, at="merge_method")
    place = owner.path if owner.path == "base_model" else f"{owner.path}.parameters"
    notebook.fail(
        f"{place}.{parameter.name}",
        f"missing for {owner.reference}",
        f"{remedy} of the model, or of all",
        at=owner.path,
    )


def _unreached(parameter: MethodParameter, scope: Settings, group: Group) -> str:
    if scope in group.outer:
        return "never used: values nearer to the models always win"
    if parameter.scope is Scope.SHARED:
        return f"never used: mergekit reads {parameter.name} only from the parameters around the models"
    return "never used: this model is the base"


def _note_idle(notebook: Notebook, group: Group, method: MergeMethod) -> None:
    """Parameters that mergekit reads, and that change nothing."""
    for scope in _scopes(group):
        for name in method.idle & scope.values.keys():
            notebook.note(f"{scope.path}.{name}", f"never used: {name} changes nothing in {method.name}")
        if "nuslerp_row_wise" in scope.values and not any("nuslerp_flatten" in s.values for s in group.outer):
            message = "never used: it counts only where nuslerp_flatten is false"
            notebook.note(f"{scope.path}.nuslerp_row_wise", message)
