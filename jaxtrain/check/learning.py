"""Questions about learning: what a few dozen steps of the config's own optimizer reach, and what they must not."""

import math

import jax
import numpy as np

from jaxtrain.check.answers import Answer, fault, not_asked, ok, warning
from jaxtrain.check.context import Context
from jaxtrain.check.rates import GAIN, best_rate, short_runs
from jaxtrain.check.references import references
from jaxtrain.check.short_runs import Outcome
from jaxtrain.core.trees import state_digest

LEARNED_STEPS = (60, 400)
"""The least and the most steps of the runs on true and shuffled labels."""

SHUFFLES = 3
"""Orders of the labels that are tried, since one of them may do well by chance on few examples."""

BETTER = 0.02
"""The share of the loss by which true labels must beat the best of the shuffled ones on examples held out."""

OVERFITTED = (0.5, 0.9)
"""The shares of the way from the initial loss to its least value that a run on one batch must reach: else a fault,
else a warning."""

OVERFIT_STEPS = (50, 300)
"""The least and the most steps of a run on one batch."""

BATCH_EXAMPLES = 16
"""Examples of the batch that is learned by heart; two where each has many targets, as a text or a mask."""

PARAMETERS_EACH = 4
"""Trained parameters that a model needs for each target that it learns by heart."""


def same_step(context: Context) -> Answer:
    """Do two runs of the same steps give the same state?"""
    runs = short_runs(context)
    if 6 * runs.step_seconds > 0.2 * context.left:
        return not_asked("steps take too long")
    digests = [state_digest(runs.run(3).state) for _ in range(2)]
    if digests[0] == digests[1]:
        return ok("the same state after three steps, to the bit")
    return warning(
        "two runs of the same three steps differ",
        "the model or the loss calls code with a state of its own, or an operation adds up in a random order",
        "Draw random numbers from the key that is given; on a GPU try XLA_FLAGS=--xla_gpu_deterministic_ops=true",
    )


def shuffled_labels(context: Context) -> Answer:
    """Do true labels teach more about new examples than shuffled ones?"""
    if context.task_name == "contrastive":
        return not_asked("a contrastive task has no labels")
    runs = short_runs(context)
    steps = steps_to_learn(context, 1 + SHUFFLES)
    if not steps:
        return not_asked(f"{1 + SHUFFLES} runs of {LEARNED_STEPS[0]} steps take longer than the time there is")
    context.say(f"shuffled labels: {1 + SHUFFLES} runs of {steps} steps")
    true = learned(context, steps)
    if not math.isfinite(true.judged):
        return not_asked("there are no examples held out" if true.live else "the run on true labels diverges")
    others = []
    for seed in range(SHUFFLES):
        order = np.random.default_rng(seed).permutation(len(runs.rows["inputs"]))
        data = {**runs.rows, "targets": runs.rows["targets"][order]}
        judged = runs.run(len(true.losses), rate=best_rate(context), data=data, judge=True).judged
        others.append(judged if math.isfinite(judged) else math.inf)
    text = (
        f"in {len(true.losses)} steps the loss of examples held out falls to {true.judged:.4g}, with shuffled labels "
    )
    text += f"to {min(others):.4g} at best"
    if true.judged < min(others) - BETTER * abs(min(others)):
        return ok(text)
    return fault(
        text,
        "labels do not belong to their inputs: one of them was shuffled, sorted or moved without the other; or the "
        "inputs say nothing about them",
        "Look at examples with their targets (the command data draws them), and at how the two are joined",
    )


def zero_inputs(context: Context) -> Answer:
    """Does the model learn more from its inputs than from zeros?"""
    runs = short_runs(context)
    steps = steps_to_learn(context, 2)
    if not steps:
        return not_asked(f"two runs of {LEARNED_STEPS[0]} steps take longer than the time there is")
    true = learned(context, steps)
    zeros = runs.run(len(true.losses), rate=best_rate(context), data=runs.rows | {"inputs": 0 * runs.rows["inputs"]})
    text = f"after {len(true.losses)} steps the training loss is {true.end:.4g}, with zeros for inputs {zeros.end:.4g}"
    if not true.live:
        return not_asked("the run diverges")
    if true.end < zeros.end - BETTER * abs(zeros.end):
        return ok(text)
    return fault(
        text,
        "the model learns the mean of the targets and nothing of the inputs",
        "Check what reaches the model (the command data draws it), and whether the inputs say anything on the targets",
    )


def overfit(context: Context) -> Answer:
    """Can a few examples be learned by heart, to near the least value of the loss?"""
    runs = short_runs(context)
    steps = int(min(OVERFIT_STEPS[1], 0.3 * context.left / max(runs.step_seconds, 1e-6)))
    if steps < OVERFIT_STEPS[0]:
        return not_asked(f"{OVERFIT_STEPS[0]} steps take longer than the time there is")
    found = references(context)
    count = _learnable(context)
    rows = np.resize(runs.order(1)[0][:count], (steps, runs.size)).astype(np.int32)
    context.say(f"one batch by heart: {steps} steps")
    best = best_rate(context)
    outcome = runs.run(steps, rate=best, order=rows)
    bottom = found.truth if found else min(0.0, outcome.end)
    if best is not None and _way(outcome, bottom) < OVERFITTED[1]:  # a lower rate is steadier
        outcome = min(outcome, runs.run(steps, rate=0.1 * best, order=rows), key=lambda outcome: outcome.end)
    way = _way(outcome, bottom)
    text = f"the loss of {count} examples goes from {outcome.begin:.4g} to {outcome.end:.4g} in {steps} steps"
    if found is None and outcome.end < outcome.begin - GAIN * abs(outcome.begin):
        return ok(f"{text}; its least value is not known")
    text += f", {way:.0%} of the way to {bottom:.3g}"
    if way >= OVERFITTED[1]:
        return ok(text)
    return (fault if way < OVERFITTED[0] else warning)(
        text,
        "the model cannot even learn a few examples by heart: a part of it does not learn, its outputs have the wrong "
        "form, or equal inputs have different targets",
        "Look at the questions on gradients, outputs and labels; try a wider model",
    )


def _learnable(context: Context) -> int:
    """Returns how many examples the model can be asked to learn by heart: it needs some parameters for each target."""
    trained = sum(leaf.size for leaf in jax.tree.leaves(context.state.params))
    each = max(1, int(np.prod(context.info.target_shape, dtype=np.int64)))
    most = BATCH_EXAMPLES if each < 16 else 2
    return max(1, min(most, context.config["data"]["batch_size"], trained // (PARAMETERS_EACH * each)))


def _way(outcome: Outcome, bottom: float) -> float:
    """Returns the share of the way from the initial loss to its least value that a run has gone."""
    return (outcome.begin - outcome.end) / (outcome.begin - bottom) if bottom < outcome.begin else 0.0


def steps_to_learn(context: Context, runs: int) -> int:
    """Returns the steps of each of some runs that the time allows, 0 where that is too few."""
    least, most = LEARNED_STEPS
    steps = int(min(most, 0.4 * context.left / (runs * max(short_runs(context).step_seconds, 1e-6))))
    return steps if steps >= least else 0


def learned(context: Context, steps: int) -> Outcome:
    """Returns the run on the true data at the best rate, which several questions compare with."""
    return context.once("learned", lambda: short_runs(context).run(steps, rate=best_rate(context), judge=True))
