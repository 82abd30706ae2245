"""What a suspect's own folder claims of its origin, each claim put to the weights. A claim is never evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from reconstruct.api import Progress, fit
from reconstruct.checkpoints.reference import Reference
from reconstruct.claims.model_card import Claim, ClaimKind, read_model_card
from reconstruct.errors import AlignmentError, ConfigurationError
from reconstruct.reconstruction import Reconstruction
from reconstruct.sampling import SamplingPlan
from reconstruct.verification.conclusion import ConclusionKind
from reconstruct.verification.run import Verification, verify

__all__ = ["CardVerification", "ClaimOutcome", "ClaimState", "verify_card"]

_MATERIAL = 0.005  # share from which a model counts as a source
_ALIKE = 0.9  # cosine of the movements of checkpoints of one run
_BLENDS = {"reproduced", "merge_then_modified"}


class ClaimState(StrEnum):
    """What the weights say of one claim."""

    SHOWN = "shown by the weights"
    NOT_CONTRADICTED = "not contradicted"
    CONTRADICTED = "contradicted"
    CANNOT_SAY = "cannot say"


@dataclass(frozen=True)
class ClaimOutcome:
    """`reason`: one sentence. `verification` or `run`: what it rests on."""

    claim: Claim
    state: ClaimState
    reason: str
    verification: Verification | None = None
    run: Reconstruction | None = None


@dataclass(frozen=True)
class CardVerification:
    """All claims of a folder in the order of the card; `notes`: what could not be read."""

    suspect: str
    outcomes: tuple[ClaimOutcome, ...]
    notes: tuple[str, ...]

    @property
    def refuted(self) -> bool:
        """Whether the weights contradict a claim."""
        return any(outcome.state is ClaimState.CONTRADICTED for outcome in self.outcomes)


def verify_card(
    suspect: str | Path,
    *,
    parents: Sequence[str] = (),
    paths: Mapping[str, str] | None = None,
    seed: int | None = None,
    folder: str | Path,
    threads: int = 0,
    sampling: SamplingPlan | None = None,
    progress: Progress | None = None,
) -> CardVerification:
    """Test every claim in README.md and mergekit_config.yml beside the suspect's weights.

    `parents`: further candidates that a claimed origin is tested against. Raises ReconstructError: CheckpointError for
    a suspect that is not on this machine among it.
    """
    place = Path(suspect)
    Reference.parse(str(suspect)).path  # noqa: B018  (a repository or nothing at all must not look like an empty card)
    card = read_model_card(place if place.is_dir() else place.parent)
    tester = _Tester(place, parents, dict(paths or {}), seed, Path(folder), threads, sampling, progress)
    outcomes = tuple(tester.outcome(number, claim) for number, claim in enumerate(card.claims))
    return CardVerification(str(suspect), outcomes, card.notes)


@dataclass(frozen=True)
class _Tester:
    suspect: Path
    parents: Sequence[str]
    paths: dict[str, str]
    seed: int | None
    folder: Path
    threads: int
    sampling: SamplingPlan | None
    progress: Progress | None

    def outcome(self, number: int, claim: Claim) -> ClaimOutcome:
        """Put one claim to the weights."""
        if claim.recipe is not None:
            return self._recipe(number, claim)
        if claim.kind is ClaimKind.QUANTIZED:
            return ClaimOutcome(claim, ClaimState.CANNOT_SAY, "a quantised copy is not tested")
        missing = [m for m in claim.models if self._located(m) is None]
        if missing:
            return ClaimOutcome(claim, ClaimState.CANNOT_SAY, f"not at hand: {', '.join(missing)} (recipe.paths)")
        return self._origin(number, claim)

    def _located(self, model: str) -> Path | None:
        named = Path(self.paths.get(model, model))
        beside = self.suspect / named
        return next((place for place in (named, beside) if place.exists()), None)

    def _recipe(self, number: int, claim: Claim) -> ClaimOutcome:
        assert claim.recipe is not None
        file = self.folder / f"claim-{number}.yml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(claim.recipe.text, "utf-8")
        known = {m: str(place) for m in claim.recipe.models if (place := self._located(m)) is not None}
        try:
            found = verify(
                self.suspect, file, paths=self.paths | known, seed=self.seed, folder=self.folder / f"claim-{number}",
                threads=self.threads, sampling=self.sampling, progress=self.progress,
            )  # fmt: skip
        except ConfigurationError as error:
            return ClaimOutcome(claim, ClaimState.CANNOT_SAY, str(error))
        states = {
            ConclusionKind.REFUTED: ClaimState.CONTRADICTED, ConclusionKind.UNDETERMINED: ClaimState.CANNOT_SAY,
        }  # fmt: skip
        reason = f"{found.conclusion.kind.value}: {found.conclusion.reasons[0]}"
        return ClaimOutcome(claim, states.get(found.conclusion.kind, ClaimState.SHOWN), reason, verification=found)

    def _origin(self, number: int, claim: Claim) -> ClaimOutcome:
        """A fine-tune of one model, or a merge of several, beside whatever other candidates are given."""
        models = {str(self._located(m)): m for m in claim.models}
        others = [p for p in self.parents if p not in models]
        single = len(models) == 1
        base = next(iter(models)) if single and others else None
        candidates = others if base is not None else [*models, *others]
        try:
            run = fit(
                self.suspect, candidates, base, folder=self.folder / f"claim-{number}", threads=self.threads,
                sampling=self.sampling, proof=False, progress=self.progress,
            )  # fmt: skip
        except (AlignmentError, ConfigurationError) as error:
            return ClaimOutcome(claim, ClaimState.CANNOT_SAY, str(error))
        kind = run.verdict.kind.value
        material = {n: c for n, c in run.coefficients.items() if abs(c) >= _MATERIAL}
        blend = " + ".join(f"{value:.4g} of {models.get(name, name)}" for name, value in material.items())
        outside = [name for name in material if name not in models]
        if kind == "copy":  # who was first is not in the weights
            return ClaimOutcome(claim, ClaimState.NOT_CONTRADICTED, f"the suspect is identical to {blend}", run=run)
        if kind in _BLENDS:
            words = "is" if kind == "reproduced" else "was, before it was modified,"
            reason = f"the suspect {words} a blend: {blend}"
            idle = [m for name, m in models.items() if name not in material]
            if single:
                # Checkpoints of one run may be averaged, and it is still one fine-tune.
                alike = (
                    run.evidence.overlap >= _ALIKE and len(material) > 1 and base is not None and base not in material
                )
                state = ClaimState.NOT_CONTRADICTED if alike else ClaimState.CONTRADICTED
            else:
                state = ClaimState.CONTRADICTED if idle else ClaimState.SHOWN
            return ClaimOutcome(claim, state, reason, run=run)
        if kind == "derived" and single and not outside:
            return ClaimOutcome(claim, ClaimState.SHOWN, f"the suspect is derived from {claim.models[0]}", run=run)
        if claim.kind is ClaimKind.MERGE or not single:
            return ClaimOutcome(claim, ClaimState.CANNOT_SAY, f"no merge of these models is found ({kind})", run=run)
        return ClaimOutcome(claim, ClaimState.NOT_CONTRADICTED, f"no other origin is found ({kind})", run=run)
