"""How far each threshold could be moved: chosen on the tuning half of the families, judged on the other.

Every run carries the verdicts that it would have had, were one threshold of the table another. A value is *safe* if on
the tuning half it accuses nobody falsely and loses no right verdict that today's value gives. Thresholds are conditions
of one conjunction: where a range is open, the others hold the line, which is not to say that any value would do.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from observations import Observation, main_runs, read_observations
from threshold_scales import Scale, scale_of

from reconstruct.criteria import THRESHOLDS

__all__ = ["Edge", "Outcome", "ThresholdReport", "describe", "ends", "examine", "examine_all", "main", "outcome"]


@dataclass(frozen=True)
class Outcome:
    """What one value of a threshold does to some cases: names of those accused falsely, of right verdicts lost and
    gained against today's value, and how many merges are detected.
    """

    accused: tuple[str, ...]
    lost: tuple[str, ...]
    gained: tuple[str, ...]
    detected: int

    @property
    def safe(self) -> bool:
        """Nobody is accused falsely, and nothing is lost."""
        return not self.accused and not self.lost


@dataclass(frozen=True)
class Edge:
    """An end of the safe range: the last safe value, and the first unsafe one (None: none was tried) with its harm."""

    safe: float
    unsafe: float | None
    harm: Outcome | None


@dataclass(frozen=True)
class ThresholdReport:
    """`binds`: some value that was tried changes some verdict of either half; `low`, `high`: ends of the safe range
    around today's value, or None where today's value is not safe itself; `chosen`: the middle of the range, by the
    tuning half alone; today's value where the range is open on a side or today's value is not safe.
    """

    key: str
    today: float
    tried: tuple[float, ...]
    binds: bool
    low: Edge | None
    high: Edge | None
    chosen: float
    tuning_today: Outcome
    reporting_today: Outcome
    reporting_chosen: Outcome

    @property
    def bounded(self) -> bool:
        """Whether the tuning half limits the value on either side."""
        return any(edge is not None and edge.unsafe is not None for edge in (self.low, self.high))

    @property
    def closed(self) -> bool:
        """Whether it limits the value on both sides: only then the range has a middle that the grid did not make."""
        return all(edge is not None and edge.unsafe is not None for edge in (self.low, self.high))


def examine_all(observations: Iterable[Observation], grid: dict[str, list[float]]) -> list[ThresholdReport]:
    """One report a threshold, in the order of the table; `grid`: threshold -> values that were tried."""
    runs = main_runs(observations)
    return [examine(key, runs, grid[key]) for key in THRESHOLDS if key in grid]


def examine(key: str, observations: Sequence[Observation], tried: Sequence[float]) -> ThresholdReport:
    """Of one threshold. Raises KeyError if the table has no such one, ValueError if the runs were made with another."""
    today = float(THRESHOLDS[key])
    stale = next((o.truth.name for o in observations if today in o.finding.sweep.get(key, {})), None)
    if stale:
        raise ValueError(f"{stale}: was run with another value of {key!r} than today's {today:g}; run it again")
    values = sorted({today, *map(float, tried)})
    tuning = [o for o in observations if o.truth.half == "tuning"]
    reporting = [o for o in observations if o.truth.half == "reporting"]
    place = values.index(today)
    low = high = None
    chosen = today
    if outcome(tuning, key, today).safe:
        low, high = (_edge(tuning, key, side) for side in (values[place::-1], values[place:]))
        if low.unsafe is not None and high.unsafe is not None:
            chosen = _middle([v for v in values if low.safe <= v <= high.safe], scale_of(key))
    return ThresholdReport(
        key=key, today=today, tried=tuple(values), binds=any(o.finding.sweep.get(key) for o in observations),
        low=low, high=high, chosen=chosen, tuning_today=outcome(tuning, key, today),
        reporting_today=outcome(reporting, key, today), reporting_chosen=outcome(reporting, key, chosen),
    )  # fmt: skip


def outcome(observations: Iterable[Observation], key: str, value: float) -> Outcome:
    """What the verdicts are with another value of one threshold, beside those with today's."""
    accused: list[str] = []
    lost: list[str] = []
    gained: list[str] = []
    detected = 0
    for o in observations:
        verdict = o.finding.sweep.get(key, {}).get(value, o.finding.verdict)
        name, right = o.truth.name, verdict in o.truth.expected
        detected += right and o.truth.is_merge
        if verdict in o.truth.forbidden:
            accused.append(name)
        elif right != o.right:
            (gained if right else lost).append(name)
    return Outcome(tuple(accused), tuple(lost), tuple(gained), detected)


def _edge(tuning: Sequence[Observation], key: str, values: Sequence[float]) -> Edge:
    """The end of the safe values, going away from today's, which comes first."""
    safe = values[0]
    for value in values[1:]:
        harm = outcome(tuning, key, value)
        if not harm.safe:
            return Edge(safe, value, harm)
        safe = value
    return Edge(safe, None, None)


def _middle(values: Sequence[float], scale: Scale) -> float:
    """That of the values which lies nearest to the middle of the first and the last, on the scale."""
    positions = {value: scale.position(value) for value in values}
    inner = {value: position for value, position in positions.items() if math.isfinite(position)}
    middle = (min(inner.values()) + max(inner.values())) / 2
    return min(inner, key=lambda value: (abs(inner[value] - middle), value))


def main(work: Path) -> None:
    """Print one line a threshold of the runs in `work`."""
    grid: dict[str, list[float]] = json.loads((work / "grid.json").read_text())
    for report in examine_all(read_observations(work), grid):
        print(f"{report.key:20} {report.today:<8g} {describe(report)}")


def describe(report: ThresholdReport) -> str:
    """The safe range in words, and how far its ends are."""
    if not report.binds:
        return f"never binds from {report.tried[0]:g} to {report.tried[-1]:g}"
    if report.low is None or report.high is None:
        return "today's value accuses falsely on the tuning half: " + ", ".join(report.tuning_today.accused)
    low, high = ends(report)
    return f"safe down to {low}, up to {high}; tuning half alone: {report.chosen:g}"


def ends(report: ThresholdReport) -> tuple[str, str]:
    """Lower and upper end of the safe range in words. Raises ValueError where today's value is not safe."""
    if report.low is None or report.high is None:
        raise ValueError(f"{report.key}: today's value is not safe")
    return _end(report, report.low), _end(report, report.high)


def _end(report: ThresholdReport, edge: Edge) -> str:
    if edge.unsafe is None or edge.harm is None:
        return f"{edge.safe:g} (the last tried)"
    scale = scale_of(report.key)
    apart = scale.distance(report.today, edge.safe)
    far = f"{apart:.3g} away" if scale is Scale.DIFFERENCE else f"{scale} {apart:.3g}"
    far = far if math.isfinite(apart) else "the end of its scale"
    kinds = (("accused", edge.harm.accused), ("lost", edge.harm.lost))
    harm = [f"{len(names)} {word}" for word, names in kinds if names]
    return f"{edge.safe:g} ({far}; at {edge.unsafe:g}: {', '.join(harm)})"
