"""The rules of a range test, on curves whose best rate is known."""

import numpy as np
import pytest

from jaxtrain.lr_range.rules import RULES, near_minimum

RATES = np.geomspace(1e-7, 10.0, 41)


def curve(rates: np.ndarray, minimum: float) -> np.ndarray:
    """A loss that falls from 2.3 to 0.3 around a decade below its minimum, and diverges above it."""
    decades = np.log10(rates / minimum)
    fallen = 1.0 / (1.0 + np.exp(-4.0 * (decades + 1.0)))
    return 2.3 - 2.0 * fallen + np.where(decades > 0, np.minimum(10 ** (1.5 * decades) - 1.0, 50.0), 0.0)


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


def test_slide_is_the_left_end_of_the_last_interval_whose_slopes_differ() -> None:
    """Computed by hand like fastai: slopes 0 up to index 5, then -1, and an interval of three rates."""
    rates, losses = np.geomspace(1e-4, 1e-1, 10), np.array([9, 9, 9, 9, 9, 8, 7, 6, 5, 4.0])
    assert RULES["slide"](rates, losses) == pytest.approx(rates[6])
    assert RULES["slide"](rates, losses**2) == pytest.approx(rates[1])
