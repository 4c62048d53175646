"""Questions about the rate and what changes it or works against it: schedules, decay, regularisation."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.check.answers import Answer, fault, not_asked, ok, warning
from jaxtrain.check.context import Context, is_regulariser
from jaxtrain.check.short_runs import Outcome, ShortRuns
from jaxtrain.tasks.augment import augmentation_of

POINTS = 200
"""Steps at which a schedule is looked at."""

IDLE = 1e-6
"""The share of its largest value below which a scheduled value is called 0."""

RISING = 0.95
"""The fraction of a run at which the rate must have had its largest value, unless it is nearly constant."""

TINY = 0.04
"""The mean of the rate over a run, relative to its peak, below which it is told; a decay to a millionth has 0.07."""

TRIED = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0, 1e3)
"""Rates of the short range test, as multiples of the config's."""

TEST_STEPS = (12, 60)
"""The least and the most steps of a run of the short range test."""

NEARLY_BEST = 0.9
"""The share of the best rate's gain with which a lower rate is preferred: it is steadier in longer runs."""

GAIN = 0.05
"""The least gain, relative to the loss of a run that stands still, by which rates can be compared."""

FAR_TOO_LOW = 0.25
"""The share of the best rate's gain that the config's whole way (rate times steps) must reach in a short run."""

FAR_TOO_HIGH = 0.1
"""The share of the best rate's gain that the config's rate, or a tenth of it, must reach after warming up."""

REPLACED = 1.0
"""The change of the weights by one step, relative to their size, from which steps replace what was learned."""

REPLACED_GAIN = 0.5
"""The share of the best rate's gain below which such steps are a fault."""

STIFLED = (0.1, 0.3)
"""The shares of a short run's gain that must be left with the config's dropout, smoothing, decay and augmentations:
else a fault, else a warning."""

DECAY = (0.5, 2.0)
"""The sizes of the decay's part of an update, relative to the gradient's, from which it is a warning, and a fault.

In the sound and shipped configs that were asked it is at most 0.02; a weight decay of 5 with AdamW reaches 0.7.
"""

FIRST_STEPS = 3
"""Steps over which the size of an update is averaged."""


def schedule(context: Context) -> Answer:
    """Which values do schedules take at the start, in the middle and at the end, and are they 0 for most of the run?"""
    experiment = context.experiment
    targets = experiment.schedule.targets
    if not targets:
        return not_asked("nothing is scheduled")
    curves = _curves(context)
    told = []
    for name in targets:
        curve = curves[name]
        told.append(f"{name} {curve[0]:.3g}, {curve[len(curve) // 2]:.3g}, {curve[-1]:.3g}")
        largest = np.abs(curve).max()
        idle = float((np.abs(curve) <= IDLE * largest).mean()) if largest else 1.0
        if name == rate_name(context) and idle > 0.5:
            return fault(
                f"{'; '.join(told)}: it is 0 for {idle:.0%} of the run",
                "nothing is learned in most of the run",
                "Check the length and the knobs of the schedule: fractions are of the run, not steps",
            )
        if name == rate_name(context):
            found = _never_there(curve, float(experiment.hparams[name]), "; ".join(told))
            if found:
                return found
    return ok(f"at the start, in the middle and at the end: {'; '.join(told)}")


def _never_there(curve: np.ndarray, given: float, text: str) -> Answer | None:
    """Returns an answer for a rate that does not reach its peak before the run ends, or is tiny in most of it."""
    largest = float(np.abs(curve).max())
    rising = int(np.abs(curve).argmax()) >= RISING * (len(curve) - 1) and abs(curve[0]) < 0.5 * largest
    if len(curve) > 10 and rising:
        return (fault if largest < 0.1 * abs(given) else warning)(
            f"{text}: it rises to the end, to {largest:.3g} of {given:.3g}",
            "the warm-up is as long as the run, or longer, so the rate that was given is never reached",
            "Check the knobs of the schedule: lengths are fractions of the run",
        )
    mean = float(np.abs(curve).mean()) / max(largest, 1e-30)
    if mean < TINY:
        return warning(
            f"{text}: on the mean it is {mean:.1%} of its peak",
            "the run learns at its peak rate for a moment, and hardly moves in the rest",
            "Check the knobs of the schedule: a decay that is too fast, or lengths in steps in place of fractions",
        )
    return None


def decay(context: Context) -> Answer:
    """Does the decay of the weights leave them room to grow?"""
    names = [name for name in context.values if name.startswith("optimizer.") and is_regulariser(name)]
    found = {name: float(context.experiment.hparams[name]) for name in names}
    if not any(found.values()):
        return not_asked("weights do not decay")
    runs = short_runs(context)
    peak = _peak_if_any(context)
    without = runs.run(1, rate=peak).state.params
    decayed = runs.run(1, rate=peak, hparams=found).state.params
    size = _norm(jax.tree.map(jnp.subtract, without, context.state.params))
    if not size:
        return not_asked("there is no update without the decay")
    share = _norm(jax.tree.map(jnp.subtract, decayed, without)) / size
    text = f"{', '.join(f'{name} = {value:g}' for name, value in found.items())}: {share:.2g} of the gradient's part"
    if share > DECAY[0]:
        return (fault if share > DECAY[1] else warning)(
            text,
            "the decay outweighs the gradients, and shrinks the weights to nothing",
            "Lower it: usual values are 1e-4 to 0.1",
        )
    return ok(text)


def rate(context: Context) -> Answer:
    """Does the config's learning rate lie in the interval of a short range test?"""
    target = rate_name(context)
    if target not in context.experiment.hparams:
        return not_asked(f"the optimizer has no {target}")
    test = range_test(context)
    if not peak_rate(context):
        return fault("the rate is 0", "nothing is learned", "Give a rate above 0; the command lr_range finds one")
    if isinstance(test, str):
        return not_asked(test)
    gains, still, steps, peak = test
    best = max(gains, key=lambda share: gains[share])
    text = f"{target} {peak:.3g} at its peak; of {steps} steps the best is {best * peak:.3g}"
    if gains[best] < GAIN * max(abs(still), 1e-6):
        return not_asked(f"{text}, and no rate lowers the loss by more than {GAIN:.0%}")
    way = _gain_of_whole_way(context, gains, steps)
    text += f"; it gains {gains[1.0] / gains[best]:.0%} of the best, its whole way {way / gains[best]:.0%}"
    if way < FAR_TOO_LOW * gains[best]:
        return fault(
            text,
            "the rate is so low that the whole run does not get where the best rate is in these steps",
            f"Raise it, to {best * peak:.2g} for example; the command lr_range finds it",
        )
    lost = gains[1.0] / gains[best]
    size = median(moved(context))
    if best < 1 and (max(lost, gains[0.1] / gains[best]) < FAR_TOO_HIGH or (lost < REPLACED_GAIN and size > REPLACED)):
        return fault(
            f"{text}; a step changes weights by {size:.2g} of their size",
            "the rate is so high that steps jump over what they should find, even after warming up",
            f"Lower it, to {best * peak:.2g} for example; the command lr_range finds it",
        )
    if best < 0.1 and gains[1.0] < FAR_TOO_HIGH * gains[best]:
        return warning(
            text,
            "the rate may be too high",
            f"Try {best * peak:.2g}, a longer warm-up, or the command lr_range",
        )
    return ok(text)


class RangeTest(NamedTuple):
    """The result of a short range test.

    gains: by how much each rate, as a multiple of the config's peak, ends below a run that stands still on the same
    batches; still: the loss of that run; steps: of each run; peak: the largest rate of the config's run.
    """

    gains: dict[float, float]
    still: float
    steps: int
    peak: float


def range_test(context: Context) -> RangeTest | str:
    """Returns the short range test, which is run once; or why it was not run."""
    return context.once("range test", lambda: _run_range_test(context))


def _run_range_test(context: Context) -> RangeTest | str:
    runs = short_runs(context)
    least, most = TEST_STEPS
    time_left = 0.35 * context.left
    steps = int(min(most, time_left / (len(TRIED) * max(runs.step_seconds, 1e-6))))
    if steps < least:
        return f"{len(TRIED)} runs of {least} steps take longer than the {time_left:.0f} s there are"
    peak = peak_rate(context)
    if not peak:
        return "the rate is 0"
    context.say(f"rate: {1 + len(TRIED)} runs of {steps} steps")
    still = runs.run(steps, rate=0.0).end
    ends = {share: runs.run(steps, rate=share * peak, warm_up=_warm_up(steps)).end for share in TRIED}
    return RangeTest({share: max(0.0, still - end) for share, end in ends.items()}, still, steps, peak)


def _warm_up(steps: int) -> int:
    return max(1, steps // 3)


def _gain_of_whole_way(context: Context, gains: dict[float, float], steps: int) -> float:
    """Returns the gain of the best rate tried whose way in these steps is no longer than that of the whole run.

    The way is the sum of the rates of all steps: a low rate of a long run goes as far as a high one of a few steps. The
    gain between two rates tried is interpolated over their logarithms.
    """
    curve = _curves(context).get(rate_name(context))
    mean = 1.0 if curve is None else float(curve.mean() / max(curve.max(), 1e-30))
    reach = mean * context.experiment.lengths.total / steps
    shares = sorted(gains)
    best_so_far = np.maximum.accumulate([gains[share] for share in shares])
    return float(np.interp(math.log10(max(reach, 1e-12)), np.log10(shares), best_so_far))


def regularisers(context: Context) -> Answer:
    """Does the run still learn with its own dropout, smoothing, decay and augmentations?"""
    found = {name: float(value) for name, value in context.values.items() if is_regulariser(name)}
    chosen = {name: value for name, value in found.items() if value}
    augmentations = augmentation_of(context.config).names
    if not chosen and not augmentations:
        return not_asked("there is no dropout, smoothing, decay or augmentation")
    test = range_test(context) if rate_name(context) in context.experiment.hparams else "the optimizer has no rate"
    if isinstance(test, str):
        return not_asked(test)
    runs = short_runs(context)
    options = {"rate": best_rate(context), "warm_up": _warm_up(test.steps), "judge": True}
    still = runs.run(1, rate=0.0, judge=True).judged
    without = runs.run(test.steps, **options).judged
    given = runs.run(test.steps, hparams=chosen, augment=bool(augmentations), **options)
    if not still - without > GAIN * abs(still):
        return not_asked("without them nothing is learned in a short run either")
    share = max(0.0, still - given.judged) / (still - without) if given.live else 0.0
    named = [*(f"{name} = {value:g}" for name, value in chosen.items()), *(f"augment.{name}" for name in augmentations)]
    text = f"{', '.join(named)}: in {test.steps} steps a run "
    text += f"gains {share:.0%} of what it gains without, on examples held out"
    if share < STIFLED[1]:
        return (fault if share < STIFLED[0] else warning)(
            text, "regularisation keeps the model from learning", "Lower these, one after the other"
        )
    return ok(text)


def first_steps(context: Context) -> Outcome:
    """Returns a run of a few steps at the peak rate; the first one moves nothing behind a last layer of zeros."""
    return context.once("first steps", lambda: short_runs(context).run(FIRST_STEPS, rate=_peak_if_any(context)))


def moved(context: Context) -> dict[str, float]:
    """Returns path -> the mean change of each array of weights by a step at the peak rate, relative to its size."""
    outcome = first_steps(context)
    changes = short_runs(context).moved(outcome.state) if outcome.live else {}
    weights = [path for path, leaf in context.named_params.items() if leaf.ndim >= 2 and leaf.any()]
    return {path: changes.get(path, math.inf) / FIRST_STEPS for path in weights if not changes or path in changes}


def median(changes: dict[str, float]) -> float:
    """Returns the median change, 0 for none."""
    return float(np.median(list(changes.values()))) if changes else 0.0


def best_rate(context: Context) -> float | None:
    """Returns the lowest rate of the short range test that gains nearly as much as the best; None: the config's own."""
    if rate_name(context) not in context.experiment.hparams:
        return None
    test = range_test(context)
    if isinstance(test, str):
        return peak_rate(context)
    enough = NEARLY_BEST * max(test.gains.values())
    return min(share for share, gain in test.gains.items() if gain >= enough) * test.peak


def short_runs(context: Context) -> ShortRuns:
    """Returns the short runs of a context, whose program is compiled once."""
    runs = context.once("short runs", lambda: ShortRuns(context, rate_name(context)))
    context.learn_pace(runs.step_seconds)
    return runs


def rate_name(context: Context) -> str:
    """Returns the name of the float that is the learning rate."""
    return context.config["lr_range"]["target"]


def peak_rate(context: Context) -> float:
    """Returns the largest value that the rate takes in the run."""
    curve = _curves(context).get(rate_name(context))
    return float(context.experiment.hparams[rate_name(context)]) if curve is None else float(np.abs(curve).max())


def _peak_if_any(context: Context) -> float | None:
    """Returns `peak_rate`; None for an optimizer without a rate."""
    return peak_rate(context) if rate_name(context) in context.experiment.hparams else None


def _curves(context: Context) -> dict[str, np.ndarray]:
    """Returns the scheduled values over the run, at evenly spaced steps."""
    return context.once("curves", lambda: _scheduled(context))


def _scheduled(context: Context) -> dict[str, np.ndarray]:
    experiment = context.experiment
    names = experiment.schedule.targets
    if not names:
        return {}
    steps = np.unique(np.linspace(0, experiment.lengths.total - 1, POINTS).round().astype(np.int32))
    hparams = {name: jnp.asarray(value) for name, value in experiment.hparams.items()}
    scheduled = jax.jit(jax.vmap(lambda step: [experiment.rules.schedule(step, hparams)[name] for name in names]))
    return dict(zip(names, map(np.asarray, scheduled(steps)), strict=True))


def _norm(tree: Any) -> float:
    return math.sqrt(sum(float(np.square(np.asarray(leaf, np.float64)).sum()) for leaf in jax.tree.leaves(tree)))
