"""Named rules that suggest a learning rate from the loss curve of a range test.

A rule is `(rates, losses) -> rate`: rates (n,) ascending, losses (n,) with nan or infinity where training diverged.
Slopes are taken over the logarithm of the rate. Over the rate itself they would be steepest at the smallest rate.
"""

import numpy as np

SMOOTHING = 0.25  # standard deviation of the smoothing kernel, in decades of the rate
TOLERANCE = 0.2  # of `near_minimum`: above the minimum loss, as a fraction of the drop


def near_minimum(rates: np.ndarray, losses: np.ndarray, tolerance: float = TOLERANCE) -> float:
    """Returns the lowest rate whose loss is within the tolerance of the minimum: the rule for ramps.

    It uses the smoothed curve of the log loss, interpolates between rates, and takes `tolerance` as a fraction of the
    drop. The result is below the rate of the minimum, since the best rate of a whole run is lower than that of the few
    steps of a test.
    """
    curve = smooth(rates, losses)
    top, bottom = find_drop(curve)
    level = curve[bottom] + tolerance * (curve[top] - curve[bottom])
    after = next(i for i in range(top, bottom + 1) if curve[i] <= level)
    if after == top:
        return float(rates[top])
    fraction = (curve[after - 1] - level) / (curve[after - 1] - curve[after])
    return float(np.exp(np.log(rates[after - 1]) * (1 - fraction) + np.log(rates[after]) * fraction))


def smooth(rates: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """Smooths the clipped log loss over the log rate with a Gaussian kernel of SMOOTHING decades."""
    decades = np.log10(rates)
    weights = np.exp(-0.5 * ((decades[:, None] - decades) / SMOOTHING) ** 2)
    return weights @ clip_log(losses) / weights.sum(axis=1)


def clip_log(losses: np.ndarray) -> np.ndarray:
    """Returns the log losses, clipped at three times the loss at the lowest rates.

    So a diverging rate does not dominate its neighbours in the smoothing. If some losses are not positive, they are
    clipped without a logarithm.
    """
    finite = np.isfinite(losses)
    start = float(np.median(losses[finite][: max(3, finite.sum() // 10)]))
    minimum = losses[finite].min()
    if minimum > 0:
        return np.log(np.where(finite, np.minimum(losses, 3 * start), 3 * start))
    ceiling = start + 2 * (start - minimum)
    return np.where(finite, np.minimum(losses, ceiling), ceiling)


def valley(rates: np.ndarray, losses: np.ndarray) -> float:
    """Returns the middle of the longest falling subsequence, the default of fastai's finder (pull request 3377)."""
    rates, losses = _keep_finite(rates, losses)
    lengths = np.ones(len(losses), int)
    for i in range(1, len(losses)):
        lengths[i] = 1 + max((lengths[j] for j in range(i) if losses[j] > losses[i]), default=0)
    end = int(np.argmax(lengths))
    start = max(0, end - int(lengths[end]))
    third = (end - start) / 3
    return float(rates[start + int(third) + int(third / 2)])


def slide(rates: np.ndarray, losses: np.ndarray, difference: int = 15, threshold: float = 0.005) -> float:
    """Returns the left end of an interval that slides down from the highest rate until the slopes at its ends agree.

    From fastai's finder, whose interval is 15 rates wide; here it is at most a third of the curve.
    """
    rates, losses = _keep_finite(rates, losses)
    slopes = np.gradient(losses)
    width = max(1, min(difference, len(losses) // 3))
    right = len(losses) - 1
    left = right - width
    while right >= width and abs(slopes[right] - slopes[right - width]) > threshold:
        left = right - width
        right -= 1
    return float(rates[left])


def steep(rates: np.ndarray, losses: np.ndarray) -> float:
    """Returns the rate of steepest descent below the minimum, over the logarithm of the rate."""
    rates, losses = _keep_finite(rates, losses)
    slopes = np.gradient(losses, np.log(rates))
    return float(rates[np.argmin(slopes[: max(1, int(np.argmin(losses)) + 1)])])


def minimum_over_10(rates: np.ndarray, losses: np.ndarray) -> float:
    """Returns a tenth of the rate with the lowest loss, the rule of thumb of the first range tests."""
    rates, losses = _keep_finite(rates, losses)
    return float(rates[np.argmin(losses)] / 10)


RULES = {
    "valley": valley,
    "slide": slide,
    "steep": steep,
    "minimum/10": minimum_over_10,
}
"""The rules of other tools, for comparison."""


def find_drop(curve: np.ndarray) -> tuple[int, int]:
    """Returns the indices where the drop of a smoothed curve begins (a tenth of it is done) and ends (its minimum)."""
    bottom = int(np.argmin(curve))
    highest = float(curve[: bottom + 1].max())
    begun = highest - 0.1 * (highest - curve[bottom])
    return int(np.flatnonzero(curve[: bottom + 1] >= begun)[-1]), bottom


def unstable_rate(rates: np.ndarray, losses: np.ndarray, curve: np.ndarray, bottom: int) -> float | None:
    """Returns the lowest rate above the minimum at which the unsmoothed loss has lost half of the drop, or None."""
    half = 0.5 * (curve[: bottom + 1].max() + curve[bottom])
    above = np.flatnonzero(losses[bottom:] > half)
    return float(rates[bottom + above[0]]) if len(above) else None


def _keep_finite(rates: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    kept = np.isfinite(losses)
    return rates[kept], losses[kept]
