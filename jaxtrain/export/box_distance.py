"""Distances of detected boxes from those of a run, in any order.

Of two boxes that are nearly as good, rounding decides which one is kept, and at the last candidate which one is among
them. So detections are compared as sets: one without a partner on the other side counts only if the rules by which
boxes are kept (`tasks/boxes.py:detect`) did not allow that side to leave it out.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

SIDES = 4
"""Numbers before the scores: y, x, height and width."""


class _Scales(NamedTuple):
    """Units of differences: of the sides of boxes and of scores."""

    side: float
    score: float
    middle: float


def overlap_of(task: Mapping[str, Any]) -> float | None:
    """Returns the overlap above which boxes of a task suppress each other; None for a task of no boxes."""
    return task["overlap"] if task["name"] == "detection" else None


def box_distance(found: np.ndarray, expected: np.ndarray, usual: int, tolerance: float, overlap: float) -> float:
    """Returns the largest difference of detections (n, candidates, 4 + classes), relative to spreads of those expected.

    Spreads, of sides and of scores apart, are those of the first `usual` rows. `overlap` is the IoU above which a box
    suppresses another one.
    """
    if found.shape != expected.shape:
        return np.inf
    scales = _scales_of(expected[:usual].astype(np.float64))
    pictures = zip(found.astype(np.float64), expected.astype(np.float64), strict=True)
    return max(
        max(_lacking(theirs, ours, scales, tolerance, overlap), _lacking(ours, theirs, scales, tolerance, overlap))
        for theirs, ours in pictures
    )


def _scales_of(values: np.ndarray) -> _Scales:
    sides = values[..., :SIDES]
    scores = values[..., SIDES:]
    return _Scales(float(np.ptp(sides)) or 1.0, float(scores.max()) or 1.0, float(sides.mean()))


def _lacking(own: np.ndarray, others: np.ndarray, scales: _Scales, tolerance: float, overlap: float) -> float:
    """Returns the largest distance from a kept box of a picture, (candidates, 4 + classes), to one of the others."""
    best = others[:, SIDES:].max(axis=1)
    least = best[best > 0].min(initial=1.0) + tolerance * scales.score if best.any() else -np.inf
    distances = [0.0]
    for label in range(SIDES, own.shape[1]):
        lost = _kept(own, label)
        nearest = _nearest(lost, _kept(others, label), scales)
        is_candidate = _nearest(lost[:, :SIDES], others[:, :SIDES], scales) <= tolerance
        may_lack = (is_candidate & _is_covered(lost, _kept(others, label), scales, tolerance, overlap)) | (
            lost[:, SIDES] <= least
        )
        distances += np.where(may_lack & (nearest > tolerance), 0.0, nearest).tolist()
    return max(distances)


def _kept(picture: np.ndarray, label: int) -> np.ndarray:
    """Returns the boxes that are kept of a class, with their scores: (k, 5)."""
    return picture[picture[:, label] > 0][:, [0, 1, 2, 3, label]]


def _nearest(own: np.ndarray, others: np.ndarray, scales: _Scales) -> np.ndarray:
    """Returns the distance (k,) from boxes, with their scores or without, to the nearest of the others."""
    own = own[:, None]
    others = others[None]
    units = np.maximum(scales.side, np.abs(own[..., :SIDES] - scales.middle))
    sides = (np.abs(own[..., :SIDES] - others[..., :SIDES]) / units).max(axis=-1)
    scores = (np.abs(own[..., SIDES:] - others[..., SIDES:]) / scales.score).max(axis=-1, initial=0.0)
    return np.maximum(sides, scores).min(axis=1, initial=np.inf)


def _is_covered(own: np.ndarray, others: np.ndarray, scales: _Scales, tolerance: float, overlap: float) -> np.ndarray:
    """Tells which boxes (k, 5) a kept one of the others suppresses, up to the tolerance."""
    own = own[:, None]
    others = others[None]
    better = others[..., SIDES] >= own[..., SIDES] - tolerance * scales.score
    covers = _overlap(own, others) > overlap - _slack(own, others, tolerance * scales.side)
    return np.asarray((better & covers).any(axis=1))


def _overlap(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns intersection over union of boxes (k, 1, 5) and (1, m, 5), as (k, m)."""
    ends, other_ends = (b[..., :2] + b[..., 2:SIDES] for b in (boxes, others))
    common = np.maximum(np.minimum(ends, other_ends) - np.maximum(boxes[..., :2], others[..., :2]), 0).prod(axis=-1)
    union = boxes[..., 2:SIDES].prod(axis=-1) + others[..., 2:SIDES].prod(axis=-1) - common
    return common / np.maximum(union, 1e-30)


def _slack(boxes: np.ndarray, others: np.ndarray, pixels: float) -> np.ndarray:
    """Returns by how much the overlap (k, m) may differ where each side differs by a number of pixels."""
    smallest = np.minimum(boxes[..., 2:SIDES].min(axis=-1), others[..., 2:SIDES].min(axis=-1))
    return 8 * pixels / np.maximum(smallest, 1e-30)
