"""mergekit's merge methods as facts: what each takes, how many models, and what its output depends on.

A table, and not a look-up in mergekit, so that a claim is read without it and without torch. It was taken from the
registry of mergekit 0.1.5 and from running each method; the tests do both again, so a new version is noticed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = [
    "DTYPES",
    "MERGEKIT_METHODS",
    "MERGEKIT_VERSION",
    "BasePolicy",
    "MergeMethod",
    "MethodParameter",
    "Randomness",
    "Scope",
    "ValueKind",
]

MERGEKIT_VERSION = "0.1.5"
#: Names that `dtype` and `out_dtype` may have, with or without "torch." before them.
DTYPES = ("bfloat16", "float16", "float32", "float64", "int64")


class BasePolicy(StrEnum):
    """What a method does with `base_model`. IGNORED: it is one input among the others."""

    REQUIRED = "required"
    OPTIONAL = "optional"
    FORBIDDEN = "forbidden"
    IGNORED = "ignored"


class Scope(StrEnum):
    """Whose value a parameter is: one for all inputs of a tensor, one for each, one for each but the base."""

    SHARED = "shared"
    INPUT = "input"
    NON_BASE = "non_base"


class ValueKind(StrEnum):
    """The type of a parameter."""

    NUMBER = "float"
    INTEGER = "int"
    SWITCH = "bool"


class Randomness(StrEnum):
    """Where a method draws random numbers."""

    NEVER = "never"
    BELOW_FULL_DENSITY = "where density is below 1"
    LARGE_TENSORS = "in tensors of more than 1,000,000 elements"


@dataclass(frozen=True)
class MethodParameter:
    """One parameter. `default` means nothing where it is `required`; None: not applied."""

    name: str
    kind: ValueKind
    scope: Scope
    required: bool = False
    default: float | bool | None = None


@dataclass(frozen=True)
class MergeMethod:
    """One method. Inputs are counted with the base, `others` without; None: no limit.

    `idle`: parameters that are accepted and change nothing.
    `writes_float32`: inputs of 16 bits give a result in float32, which is saved so unless out_dtype is set.
    """

    name: str
    parameters: tuple[MethodParameter, ...]
    base: BasePolicy
    least_inputs: int = 1
    most_inputs: int | None = None
    least_others: int | None = None
    most_others: int | None = None
    randomness: Randomness = Randomness.NEVER
    writes_float32: bool = False
    idle: frozenset[str] = frozenset()

    def parameter(self, name: str) -> MethodParameter | None:
        """The parameter of that name."""
        return next((p for p in self.parameters if p.name == name), None)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all parameters."""
        return tuple(p.name for p in self.parameters)


def _number(name: str, default: float | None, scope: Scope = Scope.SHARED) -> MethodParameter:
    return MethodParameter(name, ValueKind.NUMBER, scope, default=default)


def _switch(name: str, *, default: bool) -> MethodParameter:
    return MethodParameter(name, ValueKind.SWITCH, Scope.SHARED, default=default)


def _needed(name: str, scope: Scope) -> MethodParameter:
    return MethodParameter(name, ValueKind.NUMBER, scope, required=True)


def _deltas(
    name: str,
    *further: MethodParameter,
    normalize: bool = False,
    rescale: bool = False,
    randomness: Randomness = Randomness.NEVER,
    idle: frozenset[str] = frozenset(),
) -> MergeMethod:
    """The methods that add up differences from a base, after thinning them out."""
    parameters = (
        _switch("int8_mask", default=False),
        _switch("normalize", default=normalize),
        _switch("rescale", default=rescale),
        _number("lambda", 1.0),
        _needed("weight", Scope.NON_BASE),
        _number("density", 1.0, Scope.NON_BASE),
        *further,
    )
    return MergeMethod(name, parameters, BasePolicy.REQUIRED, randomness=randomness, idle=idle)


_GAMMA = _number("gamma", 0.01, Scope.NON_BASE)
_EPSILON = _number("epsilon", 0.15, Scope.NON_BASE)
_MASK = frozenset({"int8_mask"})  # without a vote on signs there is no mask
_DRAWN = Randomness.BELOW_FULL_DENSITY

_METHODS = (
    MergeMethod(
        "arcee_fusion", (), BasePolicy.REQUIRED, 2, 2, randomness=Randomness.LARGE_TENSORS, writes_float32=True
    ),
    _deltas("breadcrumbs", _GAMMA, idle=_MASK),
    _deltas("breadcrumbs_ties", _GAMMA),
    _deltas("dare_linear", rescale=True, randomness=_DRAWN, idle=_MASK),
    _deltas("dare_ties", rescale=True, randomness=_DRAWN),
    _deltas("della", _EPSILON, normalize=True, rescale=True, randomness=_DRAWN),
    _deltas("della_linear", _EPSILON, rescale=True, randomness=_DRAWN, idle=_MASK),
    MergeMethod(
        "karcher",
        (MethodParameter("max_iter", ValueKind.INTEGER, Scope.SHARED, default=10), _number("tol", 1e-5)),
        BasePolicy.IGNORED,
    ),
    MergeMethod("linear", (_needed("weight", Scope.INPUT), _switch("normalize", default=True)), BasePolicy.IGNORED),
    MergeMethod("model_stock", (_switch("filter_wise", default=False),), BasePolicy.REQUIRED, 3),
    MergeMethod(
        "multislerp",
        (_needed("weight", Scope.NON_BASE), _switch("normalize_weights", default=True), _number("eps", 1e-8)),
        BasePolicy.OPTIONAL,
        least_others=1,
    ),
    MergeMethod("nearswap", (_needed("t", Scope.SHARED),), BasePolicy.REQUIRED, 2, 2),
    MergeMethod(
        "nuslerp",
        (
            _needed("weight", Scope.NON_BASE),
            _switch("nuslerp_row_wise", default=False),
            _switch("nuslerp_flatten", default=True),
        ),
        BasePolicy.OPTIONAL,
        least_others=2,
        most_others=2,
    ),
    MergeMethod("passthrough", (_number("scale", None, Scope.INPUT),), BasePolicy.IGNORED, most_inputs=1),
    MergeMethod("ram", (_number("epsilon", 1e-5),), BasePolicy.REQUIRED),
    MergeMethod(
        "ramplus_tl",
        (_number("r", 0.1), _number("alpha", 0.2), _number("epsilon", 1e-5)),
        BasePolicy.REQUIRED,
        writes_float32=True,
    ),
    MergeMethod("sce", (_switch("int8_mask", default=False), _number("select_topk", 1.0)), BasePolicy.REQUIRED),
    MergeMethod("slerp", (_needed("t", Scope.SHARED),), BasePolicy.REQUIRED, 2, 2),
    _deltas("task_arithmetic", idle=_MASK | {"density", "rescale"}),
    _deltas("ties", normalize=True),
)
#: Every method of mergekit by its name.
MERGEKIT_METHODS = {method.name: method for method in _METHODS}
