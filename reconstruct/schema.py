"""The configuration of every verb as dataclasses; Hydra composes them, nothing of Hydra lives beyond `to_dataclass`."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, TypeVar

from reconstruct.byte_size import parse_bytes
from reconstruct.errors import ConfigurationError
from reconstruct.sampling import SamplingPlan

__all__ = [
    "DEFAULT_FAMILIES",
    "FAMILIES",
    "ComputeConfig",
    "EngineConfig",
    "FitConfig",
    "HypothesesConfig",
    "RecipeConfig",
    "ReportConfig",
    "ReportVerbConfig",
    "SamplingConfig",
    "ScanConfig",
    "ScanSamplingConfig",
    "VerifyConfig",
    "register",
    "to_dataclass",
]

DEFAULT_FAMILIES = ("linear", "slerp", "task_arithmetic")
#: Families whose coefficients are functions of the sources' inner products: fitted from moments.
_FITTED = (*DEFAULT_FAMILIES, "nuslerp", "multislerp", "karcher", "model_stock", "passthrough")
#: Families that keep or drop single elements: only the program itself computes them.
_ELEMENTWISE = ("ties", "breadcrumbs", "breadcrumbs_ties", "sce", "nearswap", "ram", "ramplus_tl", "arcee_fusion")
FAMILIES = (*_FITTED, *_ELEMENTWISE)
_KERNELS = ("auto", "triton", "processor", "reference")
_ENGINES = ("local",)
_FORMATS = ("png", "svg")
_T = TypeVar("_T")


def _choose(value: str, allowed: tuple[str, ...], option: str) -> None:
    if value not in allowed:
        raise ConfigurationError(f"no {value!r}", subject=option, remedy=f"There are {', '.join(allowed)}")


@dataclass
class HypothesesConfig:
    """`families`: the merge families that are fitted."""

    families: list[str] = field(default_factory=lambda: list(DEFAULT_FAMILIES))

    def __post_init__(self) -> None:
        if not self.families:
            raise ConfigurationError("empty", subject="hypotheses.families", remedy="Name at least one family")
        for family in self.families:
            _choose(family, FAMILIES, "hypotheses.families")


@dataclass
class ComputeConfig:
    """`threads`: 0 for one a processor core; `kernels`: auto, triton, processor or reference."""

    threads: int = 0
    kernels: str = "auto"

    def __post_init__(self) -> None:
        if self.threads < 0:
            raise ConfigurationError("must not be negative", subject="compute.threads")
        _choose(self.kernels, _KERNELS, "compute.kernels")

    @property
    def workers(self) -> int:
        """Number of threads to use."""
        return self.threads or len(os.sched_getaffinity(0))


@dataclass
class EngineConfig:
    """`name`: what maps units to results."""

    name: str = "local"

    def __post_init__(self) -> None:
        _choose(self.name, _ENGINES, "engine.name")


@dataclass
class SamplingConfig:
    """See `reconstruct.sampling.SamplingPlan`; `bytes` may have a unit, all other sizes are in elements."""

    block: int = 1 << 22
    elements: int = 65536
    total: int = 1 << 23
    seed: int = 0
    bytes: Any = None
    requests: int = 3000

    def __post_init__(self) -> None:
        self.plan()

    def plan(self) -> SamplingPlan:
        """The same as a plan; raises ConfigurationError for numbers that make none."""
        size = parse_bytes(self.bytes, "sampling.bytes")
        return SamplingPlan(self.block, self.elements, self.total, self.seed, size, self.requests)


@dataclass
class ReportConfig:
    """`plots`, `console`, `table`: what is made; `formats` of the plots."""

    plots: bool = True
    table: bool = True
    console: bool = True
    formats: list[str] = field(default_factory=lambda: list(_FORMATS))

    def __post_init__(self) -> None:
        for name in self.formats:
            _choose(name, _FORMATS, "report.formats")


@dataclass
class FitConfig:
    """`reconstruct fit`. `resume`: a run folder to go on with; `refit`: one to fit again from, without weights;
    `proof`: whether mergekit runs the recipe that is found, and those that only it can compute.
    """

    suspect: str | None = None
    parents: list[str] = field(default_factory=list)
    base: str | None = None
    folder: str | None = None
    resume: str | None = None
    refit: str | None = None
    proof: bool = True
    hypotheses: HypothesesConfig = field(default_factory=HypothesesConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    report: ReportConfig = field(default_factory=ReportConfig)

    def __post_init__(self) -> None:
        if self.resume and self.refit:
            raise ConfigurationError("resume and refit exclude each other", subject="refit")
        if self.resume:
            if self.suspect or self.parents or self.base:
                raise ConfigurationError(
                    "a resumed run keeps its own models", subject="resume", remedy="Leave suspect, parents and base out"
                )
            return
        if self.refit:
            if self.suspect:
                raise ConfigurationError("a re-fit keeps its own suspect", subject="refit", remedy="Leave suspect out")
            return
        if not self.suspect:
            raise ConfigurationError("missing", subject="suspect", remedy="Say suspect=<folder, file or org/name>")
        if not self.parents:
            raise ConfigurationError("missing", subject="parents", remedy="Say parents=[<folder>,<folder>]")


@dataclass
class RecipeConfig:
    """`file`: a mergekit configuration; `paths`: its model references -> local folders; `seed`: of mergekit-yaml."""

    file: str | None = None
    paths: Any = None
    seed: int | None = None

    @property
    def folders(self) -> dict[str, str]:
        """`paths`, which may also be a list of "reference=folder": Hydra's command line takes no slash in a key."""
        pairs = self.paths.items() if isinstance(self.paths, dict) else (str(p).split("=", 1) for p in self.paths or [])
        try:
            return {str(reference).strip(): str(folder).strip() for reference, folder in pairs}
        except ValueError:
            raise ConfigurationError(
                "not a mapping of models to folders", subject="recipe.paths",
                remedy="Say recipe.paths={org/a: ./a, org/b: ./b}",
            ) from None  # fmt: skip


@dataclass
class VerifyConfig:
    """`reconstruct verify`. `claim`: "card" for what the suspect's own folder says; `strict`: exit 1 if refuted."""

    suspect: str | None = None
    recipe: RecipeConfig = field(default_factory=RecipeConfig)
    claim: str | None = None
    parents: list[str] = field(default_factory=list)
    folder: str | None = None
    strict: bool = False
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    report: ReportConfig = field(default_factory=ReportConfig)

    def __post_init__(self) -> None:
        if not self.suspect:
            raise ConfigurationError("missing", subject="suspect", remedy="Say suspect=<folder, file or org/name>")
        if self.claim is not None:
            _choose(self.claim, ("card",), "claim")
        if (self.recipe.file is None) == (self.claim is None):
            raise ConfigurationError(
                "one claim at a time", subject="recipe", remedy="Say recipe=<configuration.yml>, or claim=card"
            )
        if self.sampling.bytes is not None:
            raise ConfigurationError(
                "a claim is compared with every weight", subject="sampling.bytes",
                remedy="Leave it out, or look for the recipe under a budget with reconstruct fit",
            )  # fmt: skip


@dataclass
class ScanSamplingConfig:
    """`bytes`: rows read of each model (may have a unit), in at most so many `requests`; `seed` of their choice."""

    bytes: Any = "4MB"
    requests: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        if parse_bytes(self.bytes, "sampling.bytes") is None:
            raise ConfigurationError(
                "a scan reads samples", subject="sampling.bytes", remedy="Say how much of each model, such as 4MB"
            )
        for name, least in (("requests", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ConfigurationError(f"must be at least {least}", subject=f"sampling.{name}")


@dataclass
class ScanConfig:
    """`reconstruct scan`. `candidates`: references and model trees ("children:org/base"), or a text file with one a
    line; `most_children`: repositories of a tree that are compared; `resume`: a run folder to go on with.
    """

    suspect: str | None = None
    candidates: Any = None
    most_children: int = 50
    base: str | None = None
    folder: str | None = None
    resume: str | None = None
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    sampling: ScanSamplingConfig = field(default_factory=ScanSamplingConfig)
    report: ReportConfig = field(default_factory=ReportConfig)

    def __post_init__(self) -> None:
        if self.most_children < 1:
            raise ConfigurationError("must be at least 1", subject="most_children")
        if self.resume:
            if self.suspect or self.candidates or self.base:
                raise ConfigurationError(
                    "a resumed scan keeps its own models", subject="resume",
                    remedy="Leave suspect, candidates and base out",
                )  # fmt: skip
            return
        if not self.suspect:
            raise ConfigurationError("missing", subject="suspect", remedy="Say suspect=<folder, file or org/name>")
        if not self.candidates:
            raise ConfigurationError(
                "missing", subject="candidates", remedy="Say candidates=[A,B,...], or a file with one reference a line"
            )
        if not isinstance(self.candidates, str | list):
            raise ConfigurationError("neither a list nor a file", subject="candidates", remedy="Say candidates=[A,B]")


@dataclass
class ReportVerbConfig:
    """`reconstruct report`. `run`: the folder of a finished run."""

    run: str | None = None
    report: ReportConfig = field(default_factory=ReportConfig)

    def __post_init__(self) -> None:
        if not self.run:
            raise ConfigurationError("missing", subject="run", remedy="Say run=<folder of a finished run>")


def register() -> None:
    """Put the schemas where Hydra finds them, and the resolvers that the run folders need. Idempotent."""
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    store = ConfigStore.instance()
    store.store(name="fit_schema", node=FitConfig)
    store.store(name="verify_schema", node=VerifyConfig)
    store.store(name="scan_schema", node=ScanConfig)
    store.store(name="report_schema", node=ReportVerbConfig)
    OmegaConf.register_new_resolver("first", lambda *values: next(v for v in values if v), replace=True)
    OmegaConf.register_new_resolver("subdir_unless", lambda value: None if value else ".hydra", replace=True)


def to_dataclass(config: Any, kind: type[_T]) -> _T:
    """Composed configuration -> dataclass. Raises ConfigurationError for keys that the dataclass does not have."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    _refuse_unknown(OmegaConf.to_container(config), kind, "")
    try:
        result: _T = OmegaConf.to_object(config)  # type: ignore[assignment]
    except OmegaConfBaseException as error:
        raise ConfigurationError(str(error).splitlines()[0]) from None
    return result


def _refuse_unknown(value: Any, kind: Any, prefix: str) -> None:
    known = {f.name: f for f in fields(kind)}
    for key, inner in value.items():
        if key not in known:
            raise ConfigurationError(
                "no such option", subject=f"{prefix}{key}", remedy=f"There are {', '.join(sorted(known))}"
            )
        default = known[key].default_factory
        if is_dataclass(default) and isinstance(inner, dict):
            _refuse_unknown(inner, default, f"{prefix}{key}.")
