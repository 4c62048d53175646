"""Rungs: where trials are compared, which trials continue, and how Hyperband assigns its brackets."""

from collections import Counter

import pytest
from tiny_runs import tiny

from jaxtrain.errors import ConfigError
from jaxtrain.search.halving import brackets, budget_share, rung_fractions, rung_step, survivors
from jaxtrain.training.experiment import build
from jaxtrain.training.lengths import Lengths


def built(search, every):
    return build(tiny({"eval.every": every} | {f"search.{name}": value for name, value in search.items()}))


@pytest.mark.parametrize(
    ("given", "fractions"),
    [
        ({"halving": None}, []),
        ({"halving": "successive"}, [1 / 9, 1 / 3]),
        ({"halving": "successive", "reduction": 2, "first_rung": "20 %"}, [1 / 4, 1 / 2]),
        ({"halving": "successive", "first_rung": "6 steps"}, [1 / 9, 1 / 3]),
    ],
)
def test_rungs_stand_at_powers_of_the_reduction(given, fractions):
    experiment = built(given, "5 steps")
    assert rung_fractions(experiment.config["search"], experiment) == pytest.approx(fractions)


def test_rungs_that_fall_on_one_evaluation_are_one():
    experiment = built({"halving": "successive"}, "20 steps")
    assert rung_fractions(experiment.config["search"], experiment) == pytest.approx([1 / 3])


@pytest.mark.parametrize(("first_rung", "every"), [("50 %", "5 steps"), ("10 %", "100 %")])
def test_halving_without_a_rung_is_refused(first_rung, every):
    experiment = built({"halving": "successive", "first_rung": first_rung}, every)
    with pytest.raises(
        ConfigError, match=r"search\.halving: got 'successive'.*smaller search\.first_rung.*eval\.every"
    ):
        rung_fractions(experiment.config["search"], experiment)


def test_a_rung_stands_at_an_evaluation():
    lengths = Lengths(total=95, log=10, eval=10, checkpoint=10, patience=None)
    assert [rung_step(fraction, lengths) for fraction in (0.01, 0.111, 0.333, 0.97, 1.0)] == [10, 10, 30, 90, 95]


def test_the_best_part_goes_on_and_the_diverged_never():
    values = {0: 0.5, 1: None, 2: 0.1, 3: 0.4, 4: 0.2, 5: None}
    assert survivors(values, 3, higher_is_better=False) == [2, 4]
    assert survivors(values, 3, higher_is_better=True) == [0, 3]
    assert survivors(values, 10, higher_is_better=False) == [2]
    assert survivors({0: None, 1: None}, 2, higher_is_better=False) == []
    assert survivors({3: 0.1, 1: 0.1, 2: 0.1}, 2, higher_is_better=False) == [1]


def test_hyperband_gives_later_brackets_fewer_trials_and_every_batch_its_share():
    dealt = brackets(90, 2, {"halving": "hyperband", "reduction": 3})
    counts = Counter(dealt)
    assert [counts[bracket] for bracket in (0, 1, 2)] == pytest.approx([90 * 3 / 5.5, 90 * 1.5 / 5.5, 90 / 5.5], abs=2)
    assert set(dealt[:10]) == {0, 1, 2}
    assert brackets(5, 2, {"halving": "successive", "reduction": 3}) == [0] * 5


def test_the_budget_is_what_the_rungs_leave():
    assert budget_share([], 3) == 1.0
    assert budget_share([1 / 9, 1 / 3], 3) == pytest.approx(1 / 9 + 2 / 9 / 3 + 2 / 3 / 9)
