"""The rules of a range test, on curves whose best rate is known."""

import itertools

import numpy as np
import pytest

from jaxtrain.lr_range.rules import RULES, TOLERANCE, Reading, near_minimum, read_curve, tolerance_for

RATES = np.geomspace(1e-7, 10.0, 41)


def curve(rates: np.ndarray, minimum: float) -> np.ndarray:
    """A loss that falls from 2.3 to 0.3 around a decade below its minimum, and diverges above it."""
    decades = np.log10(rates / minimum)
    fallen = 1.0 / (1.0 + np.exp(-4.0 * (decades + 1.0)))
    return 2.3 - 2.0 * fallen + np.where(decades > 0, np.minimum(10 ** (1.5 * decades) - 1.0, 50.0), 0.0)


def read(losses: np.ndarray) -> Reading:
    reading = read_curve(RATES, losses.reshape(len(RATES), -1))
    assert reading is not None
    return reading


@pytest.mark.parametrize("seeds", [1, 8])
@pytest.mark.parametrize("noise", [0.01, 0.03, 0.10])
def test_the_default_stays_within_threefold_under_noise(noise: float, seeds: int) -> None:
    """Minima over four decades, lognormal noise: 95 % of 200 suggestions are near the one without noise."""
    generator, near = np.random.default_rng(0), 0
    for _ in range(200):
        clean = curve(RATES, 10 ** generator.uniform(-5.0, -1.0))
        answer = read(clean)
        assert answer.suggestion is not None
        assert answer.falling is not None
        assert answer.falling[0] <= answer.suggestion <= answer.falling[1]
        noisy = read(clean[:, None] * np.exp(generator.normal(0.0, noise, (len(RATES), seeds))))
        near += noisy.suggestion is not None and 1 / 3 <= noisy.suggestion / answer.suggestion <= 3
    assert near >= 190


def test_the_suggestion_moves_with_the_minimum() -> None:
    """It moves up a decade when the minimum does, so a rule that returns a constant fails."""
    found = [read(curve(RATES, minimum)).suggestion for minimum in (1e-4, 1e-3, 1e-2)]
    ratios = [later / earlier for earlier, later in itertools.pairwise(found) if earlier and later]
    assert ratios == pytest.approx([10.0, 10.0], rel=0.05)


def test_the_parts_of_a_curve_are_in_order() -> None:
    """The suggestion is in the falling interval, and the unstable rates are above it."""
    reading = read(curve(RATES, 1e-2))
    assert reading.falling is not None
    assert reading.suggestion is not None
    assert reading.unstable is not None
    assert 1e-4 < reading.falling[0] < reading.suggestion <= reading.falling[1] < reading.unstable < 0.2
    assert reading.agreed


def test_rules_that_disagree_are_not_agreed() -> None:
    """No single rate suits seeds whose curves are three decades apart."""
    apart = np.stack([curve(RATES, 1e-4), curve(RATES, 1e-4), curve(RATES, 1e-1)], axis=1)
    reading = read(apart)
    assert not reading.agreed
    assert set(reading.rules) == set(RULES)


def test_a_flat_curve_suggests_nothing() -> None:
    """Noise without a drop: no interval and no suggestion, but every rule still gives a rate."""
    reading = read(2.3 * np.exp(np.random.default_rng(1).normal(0.0, 0.01, len(RATES))))
    assert (reading.suggestion, reading.falling, reading.agreed) == (None, None, False)
    assert set(reading.rules) == set(RULES)


def test_lanes_that_diverged_are_the_unstable_edge() -> None:
    """The lowest rate with nan is unstable; a curve of nan alone gives None."""
    losses = curve(RATES, 1e-2)
    losses[RATES > 0.012] = np.nan
    reading = read(losses)
    assert reading.unstable == pytest.approx(RATES[RATES > 0.012][0])
    assert read_curve(RATES, np.full((len(RATES), 3), np.nan)) is None


def test_losses_below_zero_are_read_as_they_are() -> None:
    """A negative loss, such as a negative log-density, has no logarithm; the rules read the loss itself."""
    below = near_minimum(RATES, curve(RATES, 1e-2) - 5.0)
    assert below == pytest.approx(near_minimum(RATES, curve(RATES, 1e-2)), rel=2.0)


@pytest.mark.parametrize("name", RULES)
def test_every_rule_gives_a_rate_within_the_range(name: str) -> None:
    """Also on a curve that diverges at its end; only `minimum/10` may be below the range."""
    losses = curve(RATES, 1e-3)
    losses[-5:] = np.inf
    assert RATES[0] / 10 <= RULES[name](RATES, losses) <= RATES[-6]


def test_steep_is_the_steepest_slope_against_the_logarithm() -> None:
    """The drop of the curve is a logistic function, steepest a decade below the minimum."""
    assert RULES["steep"](RATES, curve(RATES, 1e-2)) == pytest.approx(1e-3, rel=0.3)


def test_minimum_over_ten() -> None:
    """A tenth of the rate with the lowest loss."""
    losses = curve(RATES, 1e-2)
    assert RULES["minimum/10"](RATES, losses) == pytest.approx(RATES[np.argmin(losses)] / 10)


def test_too_few_finite_rates_give_no_rules_and_no_error() -> None:
    """Only one of three seeds, or two rates, are finite: no curve to read, though not every lane diverged."""
    losses = np.full((len(RATES), 3), np.nan)
    losses[:, 0] = curve(RATES, 1e-2)
    pair = np.full((len(RATES), 3), np.nan)
    pair[:2] = 2.3
    for few in (losses, pair):
        assert read(few) == Reading({}, None, None, None, None, agreed=False)


def test_slide_is_the_left_end_of_the_last_interval_whose_slopes_differ() -> None:
    """Computed by hand like fastai: slopes 0 up to index 5, then -1, and an interval of three rates."""
    rates, losses = np.geomspace(1e-4, 1e-1, 10), np.array([9, 9, 9, 9, 9, 8, 7, 6, 5, 4.0])
    assert RULES["slide"](rates, losses) == pytest.approx(rates[6])
    assert RULES["slide"](rates, losses**2) == pytest.approx(rates[1])


def test_lanes_that_trained_longer_are_followed_nearer_to_their_minimum() -> None:
    """Four times the steps halve the tolerance; the rate moves towards that of the minimum, never above it."""
    assert [tolerance_for(steps) for steps in (5, 25, 100)] == pytest.approx([TOLERANCE, TOLERANCE, TOLERANCE / 2])
    losses = curve(RATES, 1e-2)
    found = [near_minimum(RATES, losses, tolerance_for(steps)) for steps in (25, 100, 400)]
    assert found[0] < found[1] < found[2] <= 1e-2
