"""A run under a byte budget: read a stage, write the sampled checkpoints, analyse them, stop or go on.

    <run>/run.sqlite            models, configuration, what each stage read and showed, why it ended
    <run>/sampled/*.safetensors the very bytes that the verdict rests on, one file a model
    <run>/stage-2/run.sqlite    the analysis of all that was read up to stage 2, a run like any other

Each step is on record before the next begins: a run that was cut off goes on there, and reads nothing twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from reconstruct.byte_size import byte_text
from reconstruct.checkpoints.alignment import Alignment
from reconstruct.checkpoints.catalog import Catalog, stored_parts
from reconstruct.checkpoints.element_ranges import element_range
from reconstruct.engine.fetched_ranges import FetchedRanges
from reconstruct.engine.store import RunStore
from reconstruct.errors import BudgetExhausted
from reconstruct.evidence import Coverage
from reconstruct.reconstruction import Reconstruction
from reconstruct.row_sampling import ROW_PLAN, RowRange, coverage_of, plan_rows
from reconstruct.sampled_checkpoint import file_of_model, open_sampled, write_sampled
from reconstruct.sampling import SamplingPlan
from reconstruct.stopping import StageOutcome, outcome_of, reason_to_stop

__all__ = ["ModelRead", "StagedReading", "read_in_stages", "stage_folder", "staged_reading"]

_SAMPLED = "sampled"  # folder of the sampled checkpoints
_SURE = 0.98  # of a budget that a network is paid from


class _Progress(Protocol):
    def phase(self, name: str, total_bytes: int) -> None: ...

    def advance(self, count: int) -> None: ...


@dataclass(frozen=True)
class ModelRead:
    """Bytes and requests of one model's ranges."""

    model: str
    bytes: int
    requests: int


@dataclass(frozen=True)
class StagedReading:
    """What a run under a budget read, stage by stage, and why it stopped. `planned`: stages that the budget allowed."""

    budget: int
    requests: int
    seed: int
    row_plan: str
    planned: int
    models: tuple[ModelRead, ...]
    stages: tuple[StageOutcome, ...]
    stopped: str

    @property
    def coverage(self) -> Coverage:
        """What was read in the end."""
        return self.stages[-1].coverage


#: (folder of the stage's own run, catalogs and alignment of the sampled checkpoints, coverage) -> what it shows
AnalyseStage = Callable[[Path, list[Catalog], Alignment, Coverage], Reconstruction]


def stage_folder(folder: Path, stage: int) -> Path:
    """Where the analysis of a stage (from 1) is kept."""
    return folder / f"stage-{stage}"


def staged_reading(store: RunStore) -> StagedReading | None:
    """What a finished run under a budget has on record; None for a run that read everything."""
    record = store.get("reading")
    if record is None:
        return None
    return StagedReading(
        **record | {
            "models": tuple(ModelRead(**item) for item in record["models"]),
            "stages": tuple(_outcome(item) for item in record["stages"]),
        }
    )  # fmt: skip


def read_in_stages(
    store: RunStore,
    catalogs: list[Catalog],
    alignment: Alignment,
    plan: SamplingPlan,
    analyse: AnalyseStage,
    progress: _Progress,
    spent: tuple[int, int] = (0, 0),
) -> Reconstruction:
    """Stage after stage until `stopping` finds a reason, the budget is spent or everything is read; the last stage's
    answer. `spent`: bytes and requests that the budget has already paid for (headers that came over a network).

    Raises ConfigurationError for a budget that is too small, and whatever reading and analysis raise.
    """
    assert plan.bytes is not None
    # A run that goes on keeps the plan it began with: its headers need not be paid for again.
    limits = store.get("planned from") or _limits(plan, spent)
    rows = plan_rows(alignment.tensors, limits[0], limits[1], plan.seed)
    store.put("planned from", limits)
    outcomes = [_outcome(item) for item in store.get("stages") or []]
    folder = store.folder / _SAMPLED
    run: Reconstruction | None = None
    stopped = reason_to_stop(outcomes, _sources(store)) if outcomes else None
    with FetchedRanges(folder) as kept:
        for stage in range(len(outcomes) + 1, len(rows.stages) + 1):
            if stopped:
                break
            ranges = _up_to(rows.stages, stage)
            coverage = _coverage(alignment, ranges)
            if (store.get("written") or 0) < stage:
                try:
                    _fetch(kept, catalogs, alignment, rows.stages, stage, progress)
                except BudgetExhausted as error:  # answers that had to be asked for twice
                    if not outcomes:
                        raise
                    stopped = f"the budget was spent before stage {stage} was read ({error.message})"
                    break
                for model, catalog in enumerate(catalogs):
                    write_sampled(
                        file_of_model(folder, model), model, catalog, alignment.tensors, ranges,
                        lambda item, dtype, model=model: kept.bits(model, item, dtype),  # type: ignore[misc]
                        {"seed": str(plan.seed), "stage": str(stage), "budget": str(plan.bytes)},
                    )  # fmt: skip
                store.put("written", stage)
            run = analyse(
                stage_folder(store.folder, stage), *open_sampled(folder, catalogs, alignment, ranges), coverage
            )
            models = _models(catalogs, alignment, rows.stages[:stage])
            total = sum(m.bytes for m in models), sum(m.requests for m in models)
            outcomes.append(outcome_of(stage, total, run.evidence, run.verdict, coverage))
            store.put("stages", [asdict(outcome) for outcome in outcomes])
            store.put("distinct sources", len(run.evidence.sources.names))
            store.event("stage", f"{stage}: {run.verdict.kind.value} after {byte_text(total[0])}")
            stopped = reason_to_stop(outcomes, _sources(store))
        ranges = _up_to(rows.stages, len(outcomes))
        coverage = _coverage(alignment, ranges)
        if run is None:  # cut off after the last stage: its own run is finished
            run = analyse(
                stage_folder(store.folder, len(outcomes)), *open_sampled(folder, catalogs, alignment, ranges), coverage
            )
        whole = coverage.elements == coverage.all_elements
        spent_words = "every weight was read" if whole else "the budget was spent"
        models = _models(catalogs, alignment, rows.stages[: len(outcomes)])
        reading = StagedReading(
            plan.bytes, plan.requests, plan.seed, ROW_PLAN, len(rows.stages), models, tuple(outcomes),
            stopped or spent_words,
        )  # fmt: skip
        store.put("reading", asdict(reading))
        store.event("stopped", reading.stopped)
        kept.delete()
    return replace(run, folder=store.folder, reading=reading)


def _limits(plan: SamplingPlan, spent: tuple[int, int]) -> list[int]:
    """Bytes and requests that are left for ranges; over a network some of them for answers that fail."""
    left = max((plan.bytes or 0) - spent[0], 0), max(plan.requests - spent[1], 0)
    return [int(_SURE * number) for number in left] if spent[1] else [*left]


def _fetch(
    kept: FetchedRanges, catalogs: list[Catalog], alignment: Alignment, stages: Sequence[Sequence[RowRange]],
    stage: int, progress: _Progress,
) -> None:  # fmt: skip
    """What this stage adds; ranges of earlier stages that a cut-off left behind are here already."""
    wanted = stages[stage - 1]
    models = _models(catalogs, alignment, [wanted])
    requests = sum(model.requests for model in models)
    progress.phase(
        f"reading, stage {stage} of {len(stages)} ({requests:,} requests)", sum(model.bytes for model in models)
    )
    for model, catalog in enumerate(catalogs):
        kept.fetch(model, catalog, alignment.tensors, wanted, progress.advance)


def _models(
    catalogs: list[Catalog], alignment: Alignment, stages: Sequence[Sequence[RowRange]]
) -> tuple[ModelRead, ...]:
    found = []
    for model, catalog in enumerate(catalogs):
        size = requests = 0
        for ranges in stages:
            last = ("", -1)
            for shard, begin, end in sorted(_places(alignment, ranges, model)):
                requests += (shard, begin) != last  # neighbours come in one request
                size, last = size + end - begin, (shard, end)
        found.append(ModelRead(catalog.reference.given, size, requests))
    return tuple(found)


def _places(alignment: Alignment, ranges: Sequence[RowRange], model: int) -> set[tuple[str, int, int]]:
    """Shard and bytes [begin, end) of each; a tied tensor's rows are read once."""
    found = set()
    for item in ranges:
        for info, start, stop in stored_parts(alignment.tensors[item.tensor].sources[model], item.start, item.stop):
            place = element_range(info, start, stop)
            found.add((info.shard, place.begin, place.end))
    return found


def _up_to(stages: Sequence[Sequence[RowRange]], stage: int) -> list[RowRange]:
    return [item for part in stages[:stage] for item in part]


def _coverage(alignment: Alignment, ranges: Sequence[RowRange]) -> Coverage:
    return coverage_of([alignment.tensors[i] for i in sorted({r.tensor for r in ranges})], alignment.tensors, ranges)


def _sources(store: RunStore) -> int:
    """The suspect and its distinct sources, as the last stage found them."""
    return 1 + int(store.get("distinct sources") or 0)


def _outcome(record: dict[str, Any]) -> StageOutcome:
    return StageOutcome(**record | {"coverage": Coverage(**record["coverage"])})
