"""Curves of scores for targets of 0 and 1: precision and recall, ROC, calibration."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxtrain.core.pictures import Chart, Charts, Curve

MOST_CURVES = 8
MOST_POINTS = 300
BINS = 10


class Scores(NamedTuple):
    """Curves over all thresholds of a score, and the areas below them; precision ends where recall reaches 1."""

    precision: np.ndarray
    recall: np.ndarray
    false_positive_rate: np.ndarray
    average_precision: float
    area: float


def measure_scores(positive: np.ndarray, scores: np.ndarray) -> Scores | None:
    """Measures scores (n,) of examples that are `positive` or not; None unless there are both.

    Examples of equal scores count together. The average precision is the sum of precision times growth of recall.
    """
    order = np.argsort(-scores, kind="stable")
    is_last = np.append(np.diff(scores[order]) != 0, True)
    hits = np.cumsum(positive[order])[is_last].astype(np.float64)
    taken = np.flatnonzero(is_last) + 1.0
    positives = float(positive.sum())
    negatives = len(positive) - positives
    if not positives or not negatives:
        return None
    precision = hits / taken
    recall = np.append(0.0, hits / positives)
    false = np.append(0.0, (taken - hits) / negatives)
    average = float((np.diff(recall) * precision).sum())
    whole = int(np.argmax(recall >= 1)) + 1  # beyond, precision only falls
    area = float((np.diff(false) * (recall[1:] + recall[:-1]) / 2).sum())
    return Scores(np.append(1.0, precision)[:whole], recall, false, average, area)


def score_charts(positive: np.ndarray, scores: np.ndarray, names: Sequence[str], noun: str) -> Charts | None:
    """Draws precision and recall, and ROC, of columns of scores (n, k) for targets (n, k) of 0 and 1.

    Of more than MOST_CURVES columns those with the lowest average precision are drawn. None where no column has both
    targets.
    """
    measured = [(name, measure_scores(positive[:, i] > 0, scores[:, i])) for i, name in enumerate(names)]
    found = [(name, own) for name, own in measured if own is not None]
    if not found:
        return None
    drawn = sorted(found, key=lambda item: item[1].average_precision)[:MOST_CURVES]
    which = f" of the {len(drawn)} hardest {noun}" if len(drawn) < len(found) else ""
    precision = tuple(
        _curve(
            f"{name}: average precision {own.average_precision:.3f}", own.recall[: len(own.precision)], own.precision
        )
        for name, own in drawn
    )
    roc = tuple(_curve(f"{name}: area {own.area:.3f}", own.false_positive_rate, own.recall) for name, own in drawn)
    left = Chart(f"Precision and recall{which}", "recall", "precision", precision)
    right = Chart(f"ROC{which}", "false positive rate", "true positive rate", roc, "diagonal")
    return Charts(tuple(chart._replace(x_limits=(0.0, 1.0), y_limits=(0.0, 1.02)) for chart in (left, right)))


def calibration_chart(confidence: np.ndarray, right: np.ndarray) -> Chart:
    """Draws the share of right predictions against the confidence in them, both in (n,), in tenths of confidence."""
    places = np.clip((confidence * BINS).astype(int), 0, BINS - 1)
    counts = np.bincount(places, minlength=BINS)
    kept = counts > 0
    mean = np.bincount(places, weights=confidence, minlength=BINS)[kept] / counts[kept]
    share = np.bincount(places, weights=right.astype(np.float64), minlength=BINS)[kept] / counts[kept]
    error = float((counts[kept] * np.abs(mean - share)).sum() / max(counts.sum(), 1))
    curves = (
        Curve(f"calibration error {error:.3f}", mean, share),
        Curve("", mean, share, points=True),
    )
    chart = Chart("Calibration", "mean confidence", "share of right predictions", curves, "diagonal")
    return chart._replace(x_limits=(0.0, 1.02), y_limits=(0.0, 1.02))


def _curve(name: str, x: np.ndarray, y: np.ndarray) -> Curve:
    places = np.unique(np.linspace(0, len(y) - 1, min(len(y), MOST_POINTS)).astype(int))
    return Curve(name, x[places], y[places])
