"""Bookkeeping of a run: metric sums that do not depend on how it is divided into calls, and the best evaluation."""

import json
import math
from typing import Any

import numpy as np
import pytest

from jaxtrain.core.metric import Mean
from jaxtrain.tasks.metrics import METRICS
from jaxtrain.training.bookkeeping import Bookkeeping

GENERATOR = np.random.default_rng(0)
LOSSES = GENERATOR.normal(size=40).astype(np.float32)
ROWS = GENERATOR.normal(loc=50.0, size=(40, 3)).astype(np.float32) ** 2
ROWS[:, 2] += (
    ROWS[:, 1] ** 2
)  # the sums of R²: residual, target, and squared target, whose mean is above the mean squared
R2: Any = METRICS.members["r2"](np.ones((2, 1), np.float32), np.ones((2, 1), np.float32), np.ones(2, np.float32))


def call(begin: int, end: int, capacity: int = 16) -> dict[str, Mean]:
    """Returns the metrics of a call over these steps: padded to its capacity, norms on the last step only."""

    def padded(values: np.ndarray) -> Any:
        rows = np.zeros((capacity, *values.shape[1:]), np.float32)
        rows[: end - begin] = values[begin:end]
        return rows

    norms = np.zeros(40, np.float32)
    counts = np.zeros(40, np.float32)
    norms[end - 1] = end
    counts[end - 1] = 1.0
    return {
        "loss": Mean(padded(LOSSES), padded(np.full(40, 7.0, np.float32))),
        "r2": R2.replace(sum=padded(ROWS), count=padded(np.ones(40, np.float32))),
        "norm_gradient": Mean(padded(norms), padded(counts)),
    }


def drain_after(cuts: list[int]) -> dict[str, float]:
    """Returns the numbers of 40 steps in calls that end at the cuts, saved and restored after each."""
    bookkeeping = Bookkeeping(info={})
    metrics = {}
    for begin, end in zip([0, *cuts], [*cuts, 40], strict=True):
        metrics = call(begin, end)
        bookkeeping.add(metrics, end - begin)
        bookkeeping = Bookkeeping(**json.loads(json.dumps(bookkeeping.to_json())))
    return bookkeeping.drain(metrics)


@pytest.mark.parametrize("cuts", [[15, 30], [1, 2, 17, 30], [13, 14, 26, 27, 39], list(range(1, 40))])
def test_numbers_are_the_same_to_the_bit_however_a_run_is_cut_and_saved(cuts):
    """Norms too: a call measures them on its last step only, and those of the last call are kept."""
    assert drain_after(cuts) == drain_after([10, 20, 30])
    assert drain_after(cuts)["norm_gradient"] == 40.0
    np.testing.assert_allclose(drain_after(cuts)["loss"], LOSSES.astype(float).sum() / (40 * 7), rtol=1e-12)


def test_a_row_begins_new_sums():
    bookkeeping = Bookkeeping(info={})
    bookkeeping.add(call(0, 10), 10)
    assert bookkeeping.numbers(call(0, 10)) == bookkeeping.drain(call(0, 10))
    bookkeeping.add(call(10, 20), 10)
    np.testing.assert_allclose(
        bookkeeping.drain(call(10, 20))["loss"], LOSSES[10:20].astype(float).sum() / 70, rtol=1e-12
    )


def mean(value: float, higher_is_better: bool) -> Mean:
    return Mean(np.float32(value), np.float32(1.0), higher_is_better=higher_is_better)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(("values", "higher", "best"), [([3, 1, 2, 1], False, 2), ([3, 4, 4, 2], True, 2)])
def test_the_best_is_the_first_of_the_best(values, higher, best):
    bookkeeping = Bookkeeping(info={})
    improved = [bookkeeping.update_best(step, "m", mean(value, higher)) for step, value in enumerate(values, 1)]
    assert bookkeeping.best == {"step": best, "metric": "m", "value": values[best - 1]}
    assert improved == [True, True, False, False] if best == 2 else improved


@pytest.mark.parametrize("higher", [False, True])
def test_not_a_number_is_never_the_best(higher):
    bookkeeping = Bookkeeping(info={})
    assert not bookkeeping.update_best(1, "m", mean(math.nan, higher))
    assert bookkeeping.best is None
    assert bookkeeping.update_best(2, "m", mean(5.0, higher))
    assert not bookkeeping.update_best(3, "m", mean(math.nan, higher))
