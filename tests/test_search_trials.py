"""Outcomes: their ranking, ties, and a lossless round trip through JSON."""

import json
import math

import numpy as np
import pytest
from scipy.stats import ttest_1samp
from tiny_runs import tiny

from jaxtrain.config.trial_value import last_evaluations
from jaxtrain.search.results import Comparison
from jaxtrain.search.trials import Judgement, Outcome, Record, compare_with_best, is_tie, rank
from jaxtrain.training.intervals import interval


def ties(trials):
    return {trial for trial, difference in compare_with_best(rank(trials, False)).items() if is_tie(difference)}


def outcome(trial, values, status="done", step=100, **more):
    seeds = dict(enumerate(values))
    value = None if status == "diverged" else float(np.mean(values))
    fields = {"point": {"model.hidden": (8, 8)}, "difference": {}, "curve": [[10, 0.5]], "seconds": 1.0}
    return Outcome(trial=trial, status=status, value=value, seeds=seeds, step=step, **fields | more)


@pytest.mark.parametrize(
    ("last", "curve", "read"),
    [
        (None, [0.7, 0.63, 0.9], [20, 0.63]),
        (1, [0.7, 0.63, 0.9], [30, 0.9]),
        (2, [0.7, 0.5, 1.0], [30, 0.75]),
        (9, [0.75, 0.5, 1.0], [30, 0.75]),
        (1, [0.7, 0.63, math.inf], None),
        (2, [0.7, math.nan, 0.5], None),
        (None, [0.7, math.nan, 0.5], [30, 0.5]),
        (1, [], None),
    ],
)
def test_a_lane_is_judged_by_its_best_or_by_its_last_evaluations(last, curve, read):
    record = Record([[10 * step, value] for step, value in enumerate(curve, 1)])
    assert Judgement(False, None, last).reading(record) == read


def test_a_rate_that_bursts_at_its_end_is_not_the_best_by_default():
    restless, calm = ([[10, 0.8], [20, 0.630], [30, 1.4]], [[10, 0.8], [20, 0.66], [30, 0.65]])
    last = last_evaluations(tiny()["search"]["value"])
    bursting, steady = (Judgement(False, None, last).value([Record(curve)]) for curve in (restless, calm))
    assert bursting is not None
    assert steady is not None
    assert bursting > steady


def test_an_outcome_comes_back_from_json_as_it_was():
    one = outcome(3, [0.25, 1 / 3])
    assert Outcome.from_json(json.loads(json.dumps(one.to_json()))) == one


@pytest.mark.parametrize("higher", [False, True])
def test_whole_budgets_come_first_then_the_latest_stopped_then_the_diverged(higher):
    trials = [
        outcome(0, [0.0], "stopped", 10),
        outcome(1, [None], "diverged", 50),
        outcome(2, [0.5]),
        outcome(3, [0.9], "stopped", 30),
        outcome(4, [0.7]),
    ]
    order = [one.trial for one in rank(trials, higher)]
    assert order == ([4, 2] if higher else [2, 4]) + [3, 0, 1]


def test_the_interval_is_students_over_paired_seeds():
    differences = np.array([0.1, 0.3, 0.2, 0.25])
    low, high = ttest_1samp(differences, 0.0).confidence_interval(0.95)
    found = interval(differences)
    assert (found.mean, found.low, found.high) == pytest.approx((differences.mean(), low, high))
    assert found.excludes_zero


def test_ties_are_those_whose_paired_difference_may_be_nothing():
    best = outcome(0, [0.10, 0.20, 0.30])
    always_worse = outcome(1, [0.15, 0.25, 0.351])  # by the same amount with every seed, though within the spread
    sometimes_better = outcome(2, [0.30, 0.10, 0.29])
    stopped = outcome(3, [0.11, 0.21, 0.31], "stopped")
    assert ties([stopped, sometimes_better, always_worse, best]) == {2}


def test_with_one_seed_only_the_same_value_is_a_tie():
    assert ties([outcome(0, [0.1]), outcome(1, [0.1]), outcome(2, [0.1001])]) == {1}


@pytest.mark.parametrize(
    ("higher", "best", "own", "verdict"),
    [
        (True, [0.9, 0.91, 0.92], [0.8, 0.81, 0.83], "better"),
        (False, [0.9, 0.91, 0.92], [0.8, 0.81, 0.83], "worse"),
        (True, [0.9, 0.8, 0.7], [0.8, 0.9, 0.71], "a tie"),
        (False, [0.1, 0.1, 0.1], [0.2, None, 0.2], "better"),
        (False, [0.1, None, 0.1], [0.2, 0.1, 0.21], "worse"),
        (False, [None, None, None], [None, None, None], "a tie"),
    ],
)
def test_a_comparison_says_which_is_better(higher, best, own, verdict):
    found = Comparison("test", "m", higher, 5, dict(enumerate(best, 7)), dict(enumerate(own, 7)))
    assert found.verdict == verdict
    assert Comparison.from_json(json.loads(json.dumps(found.to_json(), default=str))) == found
    assert math.isnan(found.gain.mean) == (best == [None] * 3)
