"""The suggestion of a range test, on curves whose best rate is known for every length of lanes."""

import numpy as np
import pytest

from jaxtrain.lr_range.curves import Curve
from jaxtrain.lr_range.rules import RULES
from jaxtrain.lr_range.suggestion import Reading, read_lanes, read_ramp

RATES = np.geomspace(1e-6, 10.0, 36)
LENGTHS = (60, 120, 240)
UNTRAINED = np.full(3, 2.3)


def losses(best: float, width: float = 1.0) -> np.ndarray:
    """Losses (rates,) that are lowest, 0.3, at a rate, rise to both sides, and are as untrained far below it."""
    decades = np.log10(RATES / best) / width
    return 0.3 + np.where(decades < 0, 2.0 * (1 - np.exp(-(decades**2))), np.minimum(3.0 * decades**2, 50.0))


def curves(best: float, slope: float, noise: float = 0.0, seeds: int = 3) -> list[Curve]:
    """Curves whose best rate falls by `slope` decades for each of the length, and is `best` at the longest lanes."""
    generator = np.random.default_rng(0)
    made = []
    for steps in LENGTHS:
        clean = losses(best * (steps / LENGTHS[-1]) ** slope)
        made.append(Curve(steps, RATES, clean[:, None] * np.exp(generator.normal(0.0, noise, (len(RATES), seeds)))))
    return made


def read(row: list[Curve], total: int = 2400) -> Reading:
    reading = read_lanes(row, UNTRAINED, total)
    assert reading is not None
    return reading


@pytest.mark.parametrize("slope", [0.0, -0.5, -0.9])
def test_the_best_rate_is_carried_on_to_the_length_of_the_run(slope):
    """By nine tenths of the slope that the lanes show, from the longest lanes on."""
    found = read(curves(1e-2, slope)).suggestion
    assert found is not None
    assert np.log10(found) == pytest.approx(-2.0 + 0.9 * slope, abs=0.12)
    assert read(curves(1e-2, slope), total=240).suggestion == pytest.approx(1e-2, rel=0.3)


def test_a_slope_that_no_run_has_is_not_believed():
    """Lanes that differ by chance: the rate falls by one decade at most where the run is ten times as long."""
    steep = read(curves(1e-2, -2.0)).suggestion
    rising = read(curves(1e-2, 1.0)).suggestion
    assert steep is not None
    assert rising is not None
    assert np.log10(steep) == pytest.approx(-2.9, abs=0.12)
    assert np.log10(rising) == pytest.approx(-1.82, abs=0.12)


def test_the_interval_holds_the_suggestion_of_every_seed_and_grows_with_noise_and_flatness():
    quiet = read(curves(1e-2, -0.5))
    noisy = read(curves(1e-2, -0.5, noise=0.1))
    assert quiet.interval is not None
    assert noisy.interval is not None
    assert quiet.suggestion is not None
    assert quiet.interval[0] < quiet.suggestion < quiet.interval[1]
    assert noisy.interval[1] / noisy.interval[0] > quiet.interval[1] / quiet.interval[0]
    for seed in range(3):
        alone = [curve._replace(losses=curve.losses[:, [seed]]) for curve in curves(1e-2, -0.5, noise=0.1)]
        suggestion = read(alone).suggestion
        assert suggestion is not None
        assert noisy.interval[0] <= suggestion <= noisy.interval[1]
    flat = [Curve(steps, RATES, np.tile(losses(1e-2, width=2.0)[:, None], 3)) for steps in LENGTHS]
    sharp = [Curve(steps, RATES, np.tile(losses(1e-2, width=0.5)[:, None], 3)) for steps in LENGTHS]
    widths = [np.log10(interval[1] / interval[0]) for row in (sharp, flat) if (interval := read(row).interval)]
    assert widths[0] < widths[1]


def test_a_suggestion_is_not_reliable_where_seeds_disagree_or_the_range_ends():
    assert read(curves(1e-2, -0.5)).reliable
    columns = [losses(1e-3), losses(1e-3), losses(3e-2)]
    apart = read([Curve(steps, RATES, np.stack(columns, axis=1)) for steps in LENGTHS])
    assert not apart.reliable
    assert "decades" in apart.doubt
    for best, edge in ((1.5e-6, "low"), (8.0, "high")):
        reading = read(curves(best, 0.0))
        assert (reading.edge, reading.reliable) == (edge, False)
        assert f"{edge} end" in reading.doubt


def test_a_lane_whose_loss_bursts_is_not_near_the_minimum():
    """Above some rate the loss ends at 19, where the untrained has 2.3: the suggestion stays below."""
    row = []
    for curve in curves(1e-3, -0.5):
        burst = np.where(RATES > 2e-3, 19.0, curve.losses.T).T
        row.append(curve._replace(losses=burst))
    found = read(row)
    assert found.suggestion is not None
    assert found.suggestion < 2e-3
    assert found.unstable == pytest.approx(RATES[RATES > 2e-3][0], rel=0.6)


def test_lanes_that_diverged_count_as_the_highest():
    row = [curve._replace(losses=np.where(RATES > 0.05, np.nan, curve.losses.T).T) for curve in curves(1e-2, 0.0)]
    assert read(row).suggestion == pytest.approx(1e-2, rel=0.4)
    assert read_lanes([curve._replace(losses=np.full((36, 3), np.nan)) for curve in row], UNTRAINED, 100) is None


def test_a_flat_curve_suggests_nothing_and_says_so():
    flat = [Curve(steps, RATES, np.full((36, 3), 2.3)) for steps in LENGTHS]
    found = read(flat)
    assert (found.suggestion, found.interval, found.reliable, found.doubt) == (
        None,
        None,
        False,
        "no rate lowers the loss",
    )


def test_too_few_finite_rates_give_no_answer_and_no_error():
    two = np.full((36, 3), np.nan)
    two[:2] = 2.3
    found = read([Curve(steps, RATES, two) for steps in LENGTHS])
    assert found.suggestion is None
    assert found.doubt.startswith("too few rates have a finite loss")


def test_losses_below_zero_are_read_as_others():
    """A negative loss, such as a negative log-density, has no logarithm."""
    row = curves(1e-2, -0.5)
    below = [curve._replace(losses=curve.losses - 5.0) for curve in row]
    lower = read_lanes(below, UNTRAINED - 5.0, 2400)
    assert lower is not None
    assert lower.suggestion == pytest.approx(read(row).suggestion, rel=1e-6)


def test_without_the_loss_of_the_untrained_the_lowest_rates_stand_for_it():
    row = curves(1e-2, -0.5)
    unknown = read_lanes(row, np.full(3, np.nan), 2400)
    assert unknown is not None
    assert unknown.suggestion == pytest.approx(read(row).suggestion, rel=0.05)


def test_other_rules_are_reported():
    assert set(read(curves(1e-2, 0.0)).rules) == set(RULES)


# A ramp


@pytest.mark.parametrize("noise", [0.01, 0.03, 0.10])
def test_a_ramp_is_read_off_its_smoothed_curve(noise):
    """Minima over four decades: 95 % of 100 suggestions are within threefold of the one without noise."""
    generator = np.random.default_rng(0)
    near = 0
    for _ in range(100):
        clean = losses(10 ** generator.uniform(-4.0, -0.5))[:, None]
        noisy = clean * np.exp(generator.normal(0.0, noise, (len(RATES), 3)))
        pair = [read_ramp(Curve(36, RATES, each)) for each in (clean, noisy)]
        answers = [reading.suggestion for reading in pair if reading and reading.suggestion]
        near += len(answers) == 2 and 1 / 3 <= answers[1] / answers[0] <= 3
    assert near >= 95


def test_a_single_bad_batch_of_a_ramp_is_not_called_unstable():
    curve = losses(1e-1)
    burst = curve.copy()
    burst[8] = 4.0  # one batch, three decades below the best rate
    quiet = read_ramp(Curve(36, RATES, curve[:, None]))
    noisy = read_ramp(Curve(36, RATES, burst[:, None]))
    assert quiet is not None
    assert noisy is not None
    assert noisy.unstable == pytest.approx(quiet.unstable, rel=0.7)
    assert noisy.falling is not None
    assert quiet.falling is not None
    assert noisy.falling[1] == quiet.falling[1]


def test_a_single_lucky_rate_is_not_taken_for_the_best():
    """Far above the rate from which lanes burst, one of the shortest ends low by chance: the longer ones look below."""
    lucky = losses(1e-3)
    lucky[RATES > 1e-2] = 19.0
    lucky[30] = 0.1
    curve = Curve(60, RATES, lucky[:, None])
    assert np.argmin(curve.median) == 30
    assert curve.lowest == pytest.approx(1e-3, rel=0.6)


def test_lanes_that_have_not_learnt_yet_or_have_diverged_do_not_count():
    """Only the longest lanes fall, or the shortest diverged: the answer is that of the rest."""
    row = curves(1e-2, 0.0)
    flat = Curve(60, RATES, np.full((36, 3), 2.3))
    gone = Curve(60, RATES, np.full((36, 3), np.nan))
    for shortest in (flat, gone):
        found = read([shortest, *row[1:]])
        assert found.suggestion == pytest.approx(read(row).suggestion, rel=0.2)
    one = [curve._replace(losses=np.where([True, False, False], np.nan, curve.losses)) for curve in row]
    assert read(one).suggestion == pytest.approx(read(row).suggestion, rel=0.2)


def test_the_interval_is_no_narrower_than_the_spacing_of_the_rates():
    coarse = [Curve(curve.steps, curve.rates[::5], curve.losses[::5]) for curve in curves(1e-2, 0.0)]
    interval = read(coarse).interval
    assert interval is not None
    assert np.log10(interval[1] / interval[0]) >= 2.0


def test_the_loss_falls_up_to_the_suggestion_at_least():
    for slope in (0.0, -0.5, 0.2):
        reading = read(curves(1e-2, slope))
        assert reading.falling is not None
        assert reading.suggestion is not None
        assert reading.falling[1] >= reading.suggestion
