"""Questions about what must agree: training with evaluation, the splits with each other, the data with themselves."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxtrain.check.answers import Answer, fault, not_asked, ok, warning
from jaxtrain.check.context import Context, jitted
from jaxtrain.check.learning import learned, steps_to_learn
from jaxtrain.check.rates import best_rate, short_runs
from jaxtrain.check.short_runs import ShortRuns
from jaxtrain.core.frozen import join_params
from jaxtrain.core.state import TrainState
from jaxtrain.core.trees import named_leaves
from jaxtrain.data import load
from jaxtrain.tasks import needs_of

LEFT = (0.1, 0.5)
"""The shares of what a run gained on some examples that must be left on others of the same kind: else a fault, else a
warning."""

LEARNED = 0.1
"""The least gain, relative to the loss before, of which shares are judged."""

MOST_STEPS = 150
"""Most steps of the run whose losses on two splits are compared: longer ones learn small data by heart."""

DOUBT = 0.75
"""The quantile of the gains of sets of validation examples that is judged, so that few examples are not judged hard."""

SETS = 8
"""Sets into which the examples of a split are cut whose losses are compared; at least an example each."""

MOST_NUMBERS = 2**26
"""Numbers of the data up to which they are read twice."""


def same_data(context: Context) -> Answer:
    """Does a source of one's own return the same data each time?"""
    section = context.config["data"]
    if context.has_given_data or ":" not in section["name"]:
        return not_asked("only a source of one's own is read twice")
    count = sum(context.dataset.sizes.values()) * max(1, int(np.prod(context.info.input_shape)))
    if count > MOST_NUMBERS or section["processes"]:
        return not_asked("reading takes long")
    if load(section, **needs_of(context.config)).fingerprint == context.dataset.fingerprint:
        return ok("read twice, the same")
    return fault(
        "read twice, the data differ",
        "a run that is resumed gets other data, and examples of its validation split may have been trained on",
        "Draw and cut with a fixed seed, and sort what a file system or a set returns",
    )


def modes(context: Context) -> Answer:
    """Does the model that was trained work in evaluation as it does in training, with statistics that were learned?"""
    steps = steps_to_learn(context, 2)
    if not steps:
        return not_asked("a run takes longer than the time there is")
    outcome = learned(context, steps)
    if not outcome.live:
        return not_asked("the run on true labels diverges")
    statistics = _statistics(context.state.model_state)
    after = _statistics(outcome.state.model_state)
    still = [path for path, value in statistics.items() if np.array_equal(value, after[path])]
    if still and context.config["checkpoint"]["init_from"] is None:
        return warning(
            f"{still[0]} and {len(still) - 1} more are as they were before {len(outcome.losses)} steps",
            "the statistics of a norm are not updated in training, so it does nothing, or another thing in evaluation",
            "Pass `train` on to the norm, such as use_running_average=not train, with a momentum below 1",
        )
    variables = (join_params(outcome.state.params, outcome.state.frozen), outcome.state.model_state)
    before = _loss(context, context.params, context.state.model_state, True)
    trained, evaluated = (_loss(context, *variables, train) for train in (True, False))
    text = f"the loss of the same examples after {len(outcome.losses)} steps is {trained:.4g} as in training, "
    text += f"{evaluated:.4g} as in evaluation, {before:.4g} before"
    if before - trained <= LEARNED * abs(before):
        return not_asked(f"{text}: too little was learned")
    return _judge(
        (before - evaluated) / (before - trained),
        text,
        "the model in evaluation is another one than that which was trained: a norm, a dropout or a scale differs",
        "Compare what `train` changes in the model; dropout must scale what it keeps, norms must keep their means",
    )


def splits_agree(context: Context) -> Answer:
    """Do validation examples gain from training as much as training examples that were kept apart?"""
    if "validation" not in context.dataset.sizes:
        return not_asked("there is no validation split")
    runs = short_runs(context)
    steps = min(MOST_STEPS, steps_to_learn(context, 2))
    order = np.random.default_rng(3).permutation(len(runs.rows["inputs"]))
    count = min(len(runs.judged_rows["inputs"]), len(order) // 4)
    if not steps or count < SETS:
        return not_asked("too few examples" if steps else "a run takes longer than the time there is")
    kept = order[count:]
    apart = order[:count]
    batches = np.random.default_rng(4).integers(0, len(kept), (steps, runs.size))
    outcome = runs.run(steps, rate=best_rate(context), order=kept[batches].astype(np.int32))
    if not outcome.live:
        return not_asked("the run diverges")
    both = [{name: values[apart] for name, values in runs.rows.items()}]
    both.append({name: values[:count] for name, values in runs.judged_rows.items()})
    start = runs.run(1, rate=0.0).state
    losses = np.array([[_losses_of_sets(runs, state, rows) for state in (start, outcome.state)] for rows in both])
    (before, after), (other_before, other_after) = np.median(losses, axis=2)
    gains, other_gains = losses[:, 0] - losses[:, 1]
    text = f"in {steps} steps the loss of training examples kept apart goes from {before:.4g} to {after:.4g}, that of "
    text += f"validation from {other_before:.4g} to {other_after:.4g}"
    if min(before - after, float(np.median(gains))) <= LEARNED * abs(before):
        return not_asked(f"{text}: too little was learned")
    return _judge(
        float(np.quantile(other_gains, DOUBT) / np.median(gains)),
        text,
        "the validation split follows another rule than the training split: its labels are numbered otherwise, its "
        "inputs were prepared otherwise, or it is of another kind",
        "Look at examples of both (the command data draws them), and prepare and number them by the same function",
    )


def _losses_of_sets(runs: ShortRuns, state: TrainState, rows: Mapping[str, np.ndarray]) -> list[float]:
    """Returns the losses of a few sets of examples, of which one example that is certain and wrong moves one alone."""
    size = len(rows["inputs"]) // SETS
    sets = ({name: values[i * size : (i + 1) * size] for name, values in rows.items()} for i in range(SETS))
    return [runs.loss_of(state, each) for each in sets]


def _judge(share: float, text: str, meaning: str, remedy: str) -> Answer:
    """Returns the answer for the share of a gain that is left."""
    if share >= LEFT[1]:
        return ok(text)
    return (fault if share < LEFT[0] else warning)(text, meaning, remedy)


def _statistics(model_state: object) -> dict[str, np.ndarray]:
    """Returns path -> the running means and variances of norms, by the names that libraries give them."""
    names = ("mean", "var", "running_mean", "running_var")
    return {path: np.asarray(leaf) for path, leaf in named_leaves(model_state) if path.split("/")[-1] in names}


def _loss(context: Context, params: object, model_state: object, train: bool) -> float:
    """Returns the loss of the batch of the questions as in training, without dropout and the like, or in evaluation."""

    def compile_it() -> Any:
        return jitted(
            lambda params, model_state, batch, key, values: context.quiet_task.loss(
                params, model_state, batch, key, values, train
            )[0]
        )

    compiled = context.once(f"loss with train={train}", compile_it)
    return float(compiled(params, model_state, context.batch, jax.random.key(0), context.quiet_values))
