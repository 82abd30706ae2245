"""The way through the house: references, catalogs, alignment, measurements, evidence, verdict."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

from threadpoolctl import threadpool_limits

from reconstruct.analysis import analyse
from reconstruct.byte_size import parse_bytes
from reconstruct.checkpoints.alignment import Alignment, LeftOut, align, align_models
from reconstruct.checkpoints.catalog import Catalog
from reconstruct.checkpoints.model_set import open_models
from reconstruct.checkpoints.open import open_model
from reconstruct.checkpoints.opened_parts import OpenedParts
from reconstruct.checkpoints.reference import ReferenceKind
from reconstruct.checkpoints.wire import Wire
from reconstruct.dataset import Dataset, FullReplay, fit_all, subset, without_duplicates
from reconstruct.engine.feed import Feeds
from reconstruct.engine.foresight import Foresight
from reconstruct.engine.local import JournaledReplay, StoredReplay, load_all, measure_all
from reconstruct.engine.store import RunStore
from reconstruct.errors import ConfigurationError, IncompleteRunError, StoreError, UnreachableError
from reconstruct.evidence import Coverage, Measurement, RecipeProof, SourceTable
from reconstruct.hypotheses.implied_angle import with_implied_angles
from reconstruct.kernels.select import Kernels, select
from reconstruct.reconstruction import Reconstruction, with_proof
from reconstruct.sampling import SamplingPlan
from reconstruct.schema import DEFAULT_FAMILIES, ComputeConfig, HypothesesConfig
from reconstruct.staged_reading import read_in_stages, stage_folder, staged_reading
from reconstruct.verdict import decide

__all__ = ["Progress", "Silent", "fit", "fit_sampled", "load_run", "refit", "resume", "verb_of"]

_MAXIMUM_SOURCES = 9  # the pivot and eight more: what the kernels hold in registers


class Progress(Protocol):
    """What a run tells its watcher."""

    def phase(self, name: str, total_bytes: int) -> None:
        """A new phase begins; it will read so many bytes."""
        ...

    def advance(self, count: int) -> None:
        """So many bytes more are done."""
        ...


class Silent:
    """Nobody watches."""

    def phase(self, name: str, total_bytes: int) -> None:
        """Ignored."""

    def advance(self, count: int) -> None:
        """Ignored."""


def fit(
    suspect: str | Path,
    parents: Sequence[str | Path],
    base: str | Path | None = None,
    *,
    folder: str | Path | None = None,
    families: Sequence[str] = DEFAULT_FAMILIES,
    sampling: SamplingPlan | None = None,
    budget: int | str | None = None,
    threads: int = 0,
    kernels: str = "auto",
    proof: bool = True,
    progress: Progress | None = None,
) -> Reconstruction:
    """Rebuild `suspect` from `parents` (and `base`): folders, weight files, repositories ("org/name@revision") or URLs.

    `budget`: bytes of all models together that may be read (an integer, or such as "200MB"); the same as
    `sampling.bytes`. `proof`: have mergekit run the recipe that is found and compare every bit; and let it search, of
    `families`, those that only it can compute. Everything is kept in `folder`; one that already holds a run of the very
    same models and plan is continued. Raises ReconstructError.
    """
    if not parents:
        raise ConfigurationError("no parents", subject="parents", remedy="Name at least one candidate")
    sampling = sampling or SamplingPlan()
    if budget is not None:
        sampling = replace(sampling, bytes=parse_bytes(budget, "budget"))
    models = [str(suspect), *([str(base)] if base is not None else []), *map(str, parents)]
    config = {
        "models": models, "has_base": base is not None, "families": list(families),
        "sampling": asdict(sampling), "kernels": _kernels(kernels).name,
        "proof": proof,
    }  # fmt: skip
    target = Path(folder) if folder is not None else Path("runs") / datetime.now(UTC).strftime("%Y-%m-%d_%H-%M-%S")
    wire = Wire(sampling.bytes)
    parts: dict[str, bytes] = {}
    catalogs, alignment = _open(models, wire, parts, has_base=base is not None)
    with RunStore.create(target) as store:
        store.begin(config)
        store.put("locations", [catalog.address for catalog in catalogs])
        store.keep_opened(parts)
        return _run(store, catalogs, alignment, wire, threads, progress or Silent())


def fit_sampled(
    catalogs: Sequence[Catalog],
    coverage: Coverage,
    *,
    has_base: bool,
    folder: Path,
    seed: int = 0,
    threads: int = 0,
    kernels: str = "auto",
) -> Reconstruction:
    """Fit the suspect from the sampled rows of all models (suspect first, then the base if there is one, then the
    parents), each a checkpoint of its own under the model's name; the verdict says how far `coverage` carries.

    Kept in `folder`: a run like any other; one that is finished there is not run again. Raises ReconstructError.
    """
    if len(catalogs) - 1 > _MAXIMUM_SOURCES:
        raise ConfigurationError(f"{len(catalogs) - 1} models beside the suspect", subject="parents")
    config = {
        "models": [catalog.reference.given for catalog in catalogs], "has_base": has_base,
        "families": list(DEFAULT_FAMILIES), "sampling": asdict(SamplingPlan(seed=seed)),
        "kernels": _kernels(kernels).name, "proof": False,
    }  # fmt: skip
    with RunStore.create(folder) as store:
        store.begin(config)
        store.put("locations", [catalog.address for catalog in catalogs])
        store.put("coverage", asdict(coverage))
        finished = bool(store.get("finished"))
        if not finished:
            alignment = align(catalogs[0], list(catalogs[1:]))
            return _measure_and_conclude(store, list(catalogs), alignment, threads, Silent())
    return load_run(folder, threads=threads)


def resume(folder: str | Path, *, threads: int = 0, progress: Progress | None = None) -> Reconstruction:
    """Go on with a run that was cut off: finished tensors are taken from its store. Raises ReconstructError."""
    with RunStore.open(Path(folder)) as store:
        _demand_fit(store)
        config = store.get("config")
        wire = Wire(SamplingPlan(**config["sampling"]).bytes)
        catalogs, alignment = _open(
            config["models"], wire, store.opened(), store.get("locations"), has_base=config["has_base"]
        )
        store.event("resumed", "")
        return _run(store, catalogs, alignment, wire, threads, progress or Silent())


def load_run(folder: str | Path, *, threads: int = 0) -> Reconstruction:
    """A finished run from its store; no weights are read. Raises StoreError if it is not finished."""
    with RunStore.open(Path(folder)) as store:
        if (inner := _last_stage(store)) is not None:
            return _of_stages(store, load_run(inner, threads=threads))
        measurements, table = _finished(store)
        run = _conclude(store, measurements, table, StoredReplay(store), store.get("config")["families"], threads, None)
        return with_proof(run, RecipeProof.from_dict(found) if (found := store.get("proof")) else None)


def refit(
    folder: str | Path, parents: Sequence[str] = (), families: Sequence[str] = DEFAULT_FAMILIES, *, threads: int = 0
) -> Reconstruction:
    """Fit a finished run again with fewer parents or other families, from its store alone (replays on the samples).

    `parents` as they were named in the run; empty for all. Raises ConfigurationError for a parent the run has not.
    """
    with RunStore.open(Path(folder)) as store:
        if (inner := _last_stage(store)) is not None:
            return _of_stages(store, refit(inner, parents, families, threads=threads))
        measurements, table = _finished(store)
        known = [table.names[j] for j in table.parents]
        if missing := [name for name in parents if name not in known]:
            raise ConfigurationError(
                f"not in this run: {', '.join(missing)}", subject="parents", remedy=f"It has {', '.join(known)}"
            )
        keep = [
            j for j in range(len(table.names)) if j not in table.parents or not parents or table.names[j] in parents
        ]
        measurements, table = subset(measurements, table, keep)
        return _conclude(store, measurements, table, None, families, threads, None)


def _open(
    models: Sequence[str], wire: Wire, parts: OpenedParts, locations: Sequence[str] | None = None, *, has_base: bool
) -> tuple[list[Catalog], Alignment]:
    """Catalogs and alignment; `locations`: where the models lay when a run began, whatever the working directory is
    and wherever branches point by now; `parts`: what was read to open remote files, filled here.
    """
    if len(models) - 1 > _MAXIMUM_SOURCES:
        raise ConfigurationError(
            f"{len(models) - 1} models beside the suspect", subject="parents",
            remedy=f"At most {_MAXIMUM_SOURCES} are compared at once",
        )  # fmt: skip
    opened = partial(open_model, wire=wire, parts=parts)
    catalogs = open_models(locations or models, models, base=1 if has_base else None, open_one=opened)
    catalogs = [catalog.named(model) for catalog, model in zip(catalogs, models, strict=True)]
    return catalogs, align_models(catalogs[0], catalogs[1:])


def _kernels(name: str) -> Kernels:
    try:
        return select(name)
    except ValueError as error:
        raise ConfigurationError(str(error), subject="compute.kernels") from None


def _sample_kernels(name: str) -> Kernels:
    """Samples are small and lie on the host: the processor searches them, so that no GPU is needed to look at a run."""
    return _kernels("reference" if name == "reference" else "processor")


def _run(
    store: RunStore, catalogs: list[Catalog], alignment: Alignment, wire: Wire, threads: int, progress: Progress
) -> Reconstruction:
    """All of a run; one that a network cuts off can be resumed, as any other."""
    try:
        if SamplingPlan(**store.get("config")["sampling"]).bytes is not None:
            return _run_in_stages(store, catalogs, alignment, wire, threads, progress)
        return _measure_and_conclude(store, catalogs, alignment, threads, progress)
    except UnreachableError as error:
        remedy = f"What is finished is kept; go on with reconstruct fit resume={store.folder}"
        raise IncompleteRunError(error.message, subject=error.subject, remedy=remedy) from None
    finally:
        if wire.requests:
            store.event("transferred", f"{wire.bytes} bytes in {wire.requests} requests")


def _run_in_stages(
    store: RunStore, catalogs: list[Catalog], alignment: Alignment, wire: Wire, threads: int, progress: Progress
) -> Reconstruction:
    """Under a budget: each stage is a run of its own over what was read."""
    config = store.get("config")
    plan = SamplingPlan(**config["sampling"])
    _note_models(store, catalogs, alignment)

    def analyse_stage(folder: Path, read: list[Catalog], part: Alignment, coverage: Coverage) -> Reconstruction:
        with RunStore.create(folder) as inner:
            # What mergekit needs of a model is more than these rows.
            inner.begin(config | {"sampling": asdict(replace(plan, bytes=None)), "proof": False})
            if coverage.elements < coverage.all_elements:
                inner.put("coverage", asdict(coverage))
            inner.put("adapted", store.get("adapted"))
            return _measure_and_conclude(inner, read, part, threads, progress)

    run = read_in_stages(store, catalogs, alignment, plan, analyse_stage, progress, (wire.bytes, wire.requests))
    store.put("finished", value=True)
    store.event("finished", run.verdict.kind.value)
    return replace(run, revisions=store.get("revisions"))


def _note_models(store: RunStore, catalogs: list[Catalog], alignment: Alignment) -> None:
    """What this run is made of. Raises StoreError if it was begun with something else."""
    config = store.get("config")
    parts = [version("merge-reconstruct"), json.dumps(config), *(c.fingerprint() for c in catalogs)]
    fingerprint = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    if store.get("fingerprint") not in {None, fingerprint}:
        raise StoreError(
            "a model, the configuration or the version changed since this run began", subject=str(store.folder),
            remedy="Start a new run",
        )  # fmt: skip
    store.put("fingerprint", fingerprint)
    store.put("version", version("merge-reconstruct"))
    store.put("revisions", _revisions(catalogs))
    adapted = {c.reference.given: c.pair for c in catalogs if c.pair is not None}
    if adapted:  # a stage under a budget has its run's: it sees sampled files
        store.put("adapted", adapted)
    store.put("left_out", [asdict(item) for item in alignment.left_out])
    store.put("tensors", len(alignment.tensors))


def _measure_and_conclude(
    store: RunStore, catalogs: list[Catalog], alignment: Alignment, threads: int, progress: Progress
) -> Reconstruction:
    config = store.get("config")
    workers = ComputeConfig(threads).workers
    kernels = _kernels(config["kernels"])
    plan = SamplingPlan(**config["sampling"])
    _note_models(store, catalogs, alignment)
    total = sum(info.end - info.begin for tensor in alignment.tensors for info in tensor.sources)
    store.event("kernels", f"{kernels.name} ({kernels.reason})")
    progress.phase(f"measuring ({kernels.name} kernels)", total)
    feeds = Feeds(kernels, workers)
    foresight = Foresight(
        _table(config),
        frozenset(config["families"]),
        _sample_kernels(config["kernels"]),
        int(config["sampling"]["seed"]),
    )
    with threadpool_limits(1, user_api="blas"):
        measurements = measure_all(
            alignment.tensors, catalogs, plan, kernels, store, feeds, workers, progress.advance, foresight
        )
    store.event("measured", f"{len(measurements)} tensors")
    replay = JournaledReplay(alignment.tensors, catalogs, plan, kernels, store, feeds)
    sizes = {t.name: sum(i.end - i.begin for i in t.sources) // max(t.elements, 1) for t in alignment.tensors}
    progress.phase("fitting and replaying", total)
    widest = max(sizes.values(), default=0)
    run = _conclude(
        store, measurements, _table(config), replay, config["families"], workers,
        lambda elements: progress.advance(elements * widest),
    )  # fmt: skip
    if config.get("proof"):  # runs of before there were proofs have no such entry
        from reconstruct.replay.proving import proved

        progress.phase("proving the recipe", 0)
        run = with_proof(run, proved(run.evidence, run.verdict, catalogs, alignment.tensors, config["families"]))
        store.put("proof", None if run.evidence.proof is None else asdict(run.evidence.proof))
    store.put("finished", value=True)
    store.event("finished", run.verdict.kind.value)
    return run


def _revisions(catalogs: Sequence[Catalog]) -> dict[str, str]:
    """Model as named -> repository and commit that were read; of an adapter also its base's, where that is one."""
    found = {}
    for catalog in catalogs:
        remote = [r.address for r in catalog.references if r.kind is ReferenceKind.REPOSITORY]
        if remote:
            found[catalog.reference.given] = "+".join(remote)
    return found


def _table(config: dict[str, object]) -> SourceTable:
    models = config["models"]
    assert isinstance(models, list)
    return SourceTable(tuple(models[1:]), bool(config["has_base"]), tuple(range(1, len(models))))


def verb_of(folder: str | Path) -> str:
    """Whose run a folder holds: "fit", "verify" or "scan". Raises StoreError."""
    with RunStore.open(Path(folder)) as store:
        return store.verb


def _demand_fit(store: RunStore) -> None:
    if store.verb == "scan":
        raise StoreError(
            "a scan, not a fit", subject=str(store.folder), remedy=f"reconstruct report run={store.folder}"
        )
    if store.verb == "verify":
        raise StoreError(
            "a verification, not a fit", subject=str(store.folder),
            remedy=f"reconstruct report run={store.folder}; a fit of its models may be in {store.folder}/fit",
        )  # fmt: skip


def _last_stage(store: RunStore) -> Path | None:
    """The folder of the last stage of a finished run under a budget; None for other runs."""
    reading = staged_reading(store) if store.get("finished") else None
    return stage_folder(store.folder, len(reading.stages)) if reading is not None else None


def _of_stages(store: RunStore, run: Reconstruction) -> Reconstruction:
    """The answer of the last stage as that of the whole run."""
    return replace(run, folder=store.folder, reading=staged_reading(store), revisions=store.get("revisions") or {})


def _finished(store: RunStore) -> tuple[tuple[Measurement, ...], SourceTable]:
    _demand_fit(store)
    if not store.get("finished"):
        raise StoreError(
            "this run was not finished", subject=str(store.folder), remedy=f"reconstruct fit resume={store.folder}"
        )
    return load_all(store), _table(store.get("config"))


def _conclude(
    store: RunStore,
    measurements: tuple[Measurement, ...],
    table: SourceTable,
    full: FullReplay | None,
    families: Sequence[str],
    threads: int,
    advance: Callable[[int], None] | None,
) -> Reconstruction:
    """Everything after the weights: the same for a new run, a resumed one and one from the store."""
    config = store.get("config")
    chosen = frozenset(HypothesesConfig(list(families)).families)
    workers = ComputeConfig(threads).workers
    distinct, remaining = without_duplicates(measurements, table)
    seed = int(config["sampling"]["seed"])
    coverage = store.get("coverage")
    # Our threads work on tensors of their own; threads of the linear algebra beneath them would only wait for these.
    with threadpool_limits(1, user_api="blas"):
        open_angles = 0
        if coverage is not None:
            distinct, open_angles = with_implied_angles(distinct, chosen, workers)
        fits = fit_all(distinct, chosen, workers, seed)
        data = Dataset(remaining, distinct, fits, _sample_kernels(config["kernels"]), chosen, workers, seed, full)
        evidence = analyse(data, advance)
    evidence = replace(
        evidence, coverage=Coverage(**coverage) if coverage else None, open_angles=open_angles,
        recipe=evidence.recipe and replace(evidence.recipe, adapted=store.get("adapted") or {}),
    )  # fmt: skip
    left_out = tuple(LeftOut(**item) for item in store.get("left_out") or [])
    return Reconstruction(
        config["models"][0], evidence, decide(evidence), left_out, store.folder, store.get("revisions") or {}
    )
