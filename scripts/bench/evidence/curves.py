"""Detections against false accusations, as the threshold of a score falls: what a receiver operating curve draws."""

from __future__ import annotations

import math
from collections.abc import Iterable

__all__ = ["operating_curve"]


def operating_curve(scores: Iterable[tuple[bool, float]]) -> list[tuple[float, float]]:
    """From (is a merge, score) to rising points (share of others accused, share of merges detected).

    Cases with a score of -inf are never accused, so the curve may end before (1, 1). Raises ValueError without a merge
    or without anything else.
    """
    rows = sorted(scores, key=lambda row: -row[1])
    merges = sum(merge for merge, _ in rows)
    others = len(rows) - merges
    if not merges or not others:
        raise ValueError("a curve needs merges and others")
    points, accused, detected = [(0.0, 0.0)], 0, 0
    for place, (merge, value) in enumerate(rows):
        if value == -math.inf:
            break
        detected, accused = detected + merge, accused + (not merge)
        if place + 1 == len(rows) or rows[place + 1][1] < value:
            points.append((accused / others, detected / merges))
    return points
