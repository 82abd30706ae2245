"""Verify a claimed recipe: recompute it with mergekit, compare every tensor, ask the weights what they are instead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from reconstruct.api import Progress, Silent, fit, load_run
from reconstruct.checkpoints.catalog import Catalog
from reconstruct.checkpoints.open import open_checkpoint
from reconstruct.claims.recipe_file import ClaimedRecipe, parse_recipe, read_recipe, resolve_models
from reconstruct.engine.store import RunStore
from reconstruct.errors import AlignmentError, ConfigurationError, StoreError
from reconstruct.mergekit_parameters import layer_positions
from reconstruct.reconstruction import Reconstruction
from reconstruct.replay.comparison import CheckState, TensorCheck, cannot_say, compare
from reconstruct.sampling import SamplingPlan
from reconstruct.verification.claimed_numbers import claimed_coefficients
from reconstruct.verification.conclusion import Conclusion, ConclusionKind, Instead, conclude

if TYPE_CHECKING:
    from reconstruct.replay.mergekit import RecipeOutput

__all__ = ["Verification", "load_verification", "verify"]


@dataclass(frozen=True)
class Verification:
    """`checks`: one a tensor of suspect or recipe, in the recipe's order. `instead`: what a fit of the recipe's models
    found, where not every bit agrees; `run` is that fit, and `claimed` the coefficients claimed for its tensors where
    the method is a fixed blend. `folder`: where everything is kept.
    """

    suspect: str
    recipe: ClaimedRecipe
    checks: tuple[TensorCheck, ...]
    conclusion: Conclusion
    instead: Instead | None
    run: Reconstruction | None
    claimed: dict[str, tuple[float, ...]]
    folder: Path

    @property
    def refuted(self) -> bool:
        """Whether the weights show something else than what is claimed."""
        return self.conclusion.kind is ConclusionKind.REFUTED


def verify(
    suspect: str | Path,
    recipe: str | Path,
    *,
    paths: Mapping[str, str] | None = None,
    seed: int | None = None,
    folder: str | Path | None = None,
    threads: int = 0,
    sampling: SamplingPlan | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Is `suspect` what mergekit makes of the configuration in the file `recipe`?

    `paths`: model reference of the recipe -> local folder, where the reference itself is none. `seed`: that of
    mergekit-yaml, for methods that draw random numbers. Raises ReconstructError.
    """
    watch = progress or Silent()
    claimed = read_recipe(Path(recipe))
    folders = resolve_models(claimed, paths or {}, Path(recipe).parent)
    catalog = open_checkpoint(str(suspect))
    stamp = datetime.now(UTC).strftime("%Y-%m-%d_%H-%M-%S")
    target = Path(folder) if folder is not None else Path("runs") / f"verify-{stamp}"
    from reconstruct.replay.mergekit import MergekitReplay  # imports torch; mergekit itself when it is made
    from reconstruct.replay.thread_counts import with_the_makers_threads

    replay = MergekitReplay(claimed.document, folders, seed=seed)
    replayable = not replay.random or seed is not None
    with RunStore.create(target) as store:
        _begin(store, str(suspect), claimed, folders, seed)
        size = sum(info.end - info.begin for info in catalog.tensors.values())
        watch.phase("recomputing and comparing", size)
        checks, count = list[TensorCheck](), None
        if replayable:
            checks, count = with_the_makers_threads(
                replay, catalog, lambda outputs: _checks(catalog, outputs, watch), lambda made: made
            )
        if count is not None:
            store.event("recomputed", f"on {count} thread(s)")
        for check in checks:
            store.event("checked", f"{check.name}: {check.state.value}")
        instead, run, numbers = None, None, dict[str, tuple[float, ...]]()
        wrong = [c.name for c in checks if c.state is CheckState.MISMATCH]
        if wrong:
            run = _fit(catalog, claimed, folders, target, threads, sampling, watch)
            if run is not None:
                numbers = _claimed_numbers(run, claimed, folders)
                instead = _instead(run, numbers, folders)
        conclusion = conclude(checks, replayable=replayable, instead=instead)
        settled = conclusion.kind is ConclusionKind.ROUNDING or (instead is not None and instead.agrees)
        if wrong and not settled:
            others = _other_numbers(catalog, claimed, folders, wrong, seed)
            conclusion = conclude(checks, replayable=replayable, instead=instead, other_numbers=others)
        if count is not None:
            note = f"recomputed on {count} thread(s): their number decides the last bits of large tensors here"
            conclusion = replace(conclusion, reasons=(*conclusion.reasons, note))
        if conclusion.kind is ConclusionKind.ROUNDING:
            checks = [replace(c, state=CheckState.ROUNDING) if c.state is CheckState.MISMATCH else c for c in checks]
        result = Verification(str(suspect), claimed, tuple(checks), conclusion, instead, run, numbers, target)
        store.put("checks", [asdict(check) for check in checks])
        store.put("conclusion", asdict(conclusion))
        store.put("instead", asdict(instead) if instead is not None else None)
        store.put("claimed", numbers)
        store.put("fitted", run is not None)
        store.put("finished", value=True)
        return result


def load_verification(folder: str | Path) -> Verification:
    """A finished verification from its store: no weights are read, mergekit is not run. Raises StoreError."""
    with RunStore.open(Path(folder)) as store:
        config = store.get("config") or {}
        if store.verb != "verify" or not store.get("finished"):
            what = "not a verification" if store.verb != "verify" else "this verification was not finished"
            raise StoreError(what, subject=str(folder), remedy="Run reconstruct verify again into a new folder")
        checks = tuple(
            TensorCheck(**(c | {"state": CheckState(c["state"]), "apart": tuple(c["apart"])}))
            for c in store.get("checks")
        )
        found = store.get("conclusion")
        conclusion = Conclusion(ConclusionKind(found["kind"]), tuple(found["reasons"]), tuple(found["tensors"]))
        instead = Instead(**kept) if (kept := store.get("instead")) else None
        claimed = {name: tuple(numbers) for name, numbers in store.get("claimed").items()}
        run = load_run(store.folder / "fit") if store.get("fitted") else None
        recipe = parse_recipe(config["recipe"], config["location"])
        return Verification(config["verify"], recipe, checks, conclusion, instead, run, claimed, store.folder)


def _begin(
    store: RunStore, suspect: str, claimed: ClaimedRecipe, folders: Mapping[str, Path], seed: int | None
) -> None:
    config = {
        "verify": suspect, "recipe": claimed.text, "location": claimed.location, "seed": seed,
        "models": {reference: str(folder) for reference, folder in folders.items()},
    }  # fmt: skip
    store.begin(config)


def _checks(catalog: Catalog, outputs: Iterable[RecipeOutput], watch: Progress) -> list[TensorCheck]:
    """Every tensor that the recipe makes or the suspect has."""
    checks: list[TensorCheck] = []
    seen: set[str] = set()
    for output in outputs:
        seen.add(output.name)
        info = catalog.tensors.get(output.name)
        if info is None:
            checks.append(cannot_say(output.name, "the suspect has no such tensor", output.tensor.numel()))
            continue
        checks.append(compare(catalog, info, output.tensor))
        watch.advance(info.end - info.begin)
    for name, info in catalog.tensors.items():
        if name not in seen:
            checks.append(cannot_say(name, "the recipe makes no such tensor", info.elements))
    return checks


def _fit(
    catalog: Catalog, claimed: ClaimedRecipe, folders: Mapping[str, Path], target: Path, threads: int,
    sampling: SamplingPlan | None, watch: Progress,
) -> Reconstruction | None:  # fmt: skip
    """The same models as candidates; None where they are too many or have nothing in common with the suspect."""
    parents = [folders[m] for m in claimed.models if m != claimed.base_model]
    base = folders[claimed.base_model] if claimed.base_model is not None else None
    if not parents:
        return None
    try:
        return fit(
            catalog.reference.address, parents, base, folder=target / "fit", threads=threads, sampling=sampling,
            proof=False, progress=watch,
        )  # fmt: skip
    except (AlignmentError, ConfigurationError):
        return None


def _sources(run: Reconstruction, folders: Mapping[str, Path]) -> tuple[str, ...]:
    """The fit's sources, by the recipe's own names."""
    names = {str(folder): reference for reference, folder in folders.items()}
    return tuple(names.get(name, name) for name in run.evidence.sources.names)


def _claimed_numbers(
    run: Reconstruction, claimed: ClaimedRecipe, folders: Mapping[str, Path]
) -> dict[str, tuple[float, ...]]:
    """Claimed coefficients of every tensor of the fit; empty where the claim is no fixed blend of its sources."""
    sources = _sources(run, folders)
    names = [tensor.measurement.name for tensor in run.evidence.tensors]
    positions = layer_positions(names)
    found = {}
    for name in names:
        numbers = claimed_coefficients(claimed.document, sources, name, positions[name])
        if numbers is None:
            return {}
        found[name] = tuple(numbers.tolist())
    return found


def _instead(run: Reconstruction, claimed: Mapping[str, tuple[float, ...]], folders: Mapping[str, Path]) -> Instead:
    """What the fit found, beside what is claimed."""
    evidence = run.evidence
    voting = [evidence.tensors[i] for i in evidence.voting]
    deviations = {
        t.measurement.name: float(np.abs(np.array(claimed[t.measurement.name]) - t.coefficients).max())
        for t in voting
        if t.measurement.name in claimed
    }
    coefficients = dict(zip(_sources(run, folders), evidence.estimate.coefficients.tolist(), strict=True))
    return Instead(
        run.verdict.kind.value, evidence.arithmetic, coefficients, deviations,
        len({claimed[name] for name in deviations}) == 1, float(evidence.spike.untouched),
    )  # fmt: skip


def _other_numbers(
    catalog: Catalog, claimed: ClaimedRecipe, folders: Mapping[str, Path], wrong: Sequence[str], seed: int | None
) -> list[str]:
    """Changes to the claimed numbers with which the whole model follows the recipe, as sentences."""
    from reconstruct.replay.mergekit import MergekitReplay
    from reconstruct.verification.number_search import search_numbers

    other = search_numbers(claimed.document, folders, catalog, wrong, seed)
    if other is None:
        return []
    outputs = MergekitReplay(other.document, folders, seed=seed).tensors()
    found = [c for c in _checks(catalog, outputs, Silent()) if c.state is not CheckState.CANNOT_SAY]
    # Numbers that do not reproduce the whole model, or hardly more of it, are not those of the merge.
    if any(c.state is not CheckState.MATCH for c in found):
        return []
    changed = "; ".join(f"{_words(place)}: {was:g} is claimed, {now:g} reproduces" for place, was, now in other.changes)
    return [f"{changed} all {len(found)} tensors to the last bit"]


def _words(place: tuple[str | int, ...]) -> str:
    text = ""
    for step in place:
        text += f"[{step}]" if isinstance(step, int) else f".{step}"
    return text.lstrip(".")
