"""Questions about the model and the loss at initial weights: what depends on what, and what must not."""

import jax
import numpy as np

from jaxtrain.check.answers import Answer, fault, not_asked, ok, warning
from jaxtrain.check.context import Context, as_array, joined
from jaxtrain.check.references import BINARY, CLASSES, describe, elements, references
from jaxtrain.tasks import TASKS
from jaxtrain.training.task_checks import check_task

SAME = 1e-3
"""The difference, relative to the spread of the outputs, up to which two outputs are equal but for rounding.

Products of other rows may round otherwise; those of the embedded configs do not on a CPU.
"""

SAME_IN_BFLOAT16 = 0.1
"""The same for a model that computes in bfloat16, with eight bits of precision."""

WITH_LOGITS = (*CLASSES, *BINARY, "label_distribution")
"""Tasks whose losses take logits."""

FEW = 8.0
"""The factor by which an initial loss may exceed that of chance.

Sound configs begin at 0.9 to 1.5 times it. A factor of 8 costs the first steps, and no more.
"""


def evaluation(context: Context) -> Answer:
    """Is an evaluation finite, and the same each time, whatever the key?"""
    first = context.evaluate(context.batch, key=0)
    other = context.evaluate(context.batch, key=1)
    text = f"initial loss {first[1]:.4g}"
    if not np.isfinite(first).all():
        return fault(
            f"{text} in evaluation",
            "numbers overflow, or an operation is undefined at the initial weights: a half precision, a logarithm or "
            "a division of 0, weights far too large",
            "Compute in float32, scale the inputs and the weights, keep logarithms and divisions away from 0",
        )
    draws = TASKS.members.get(context.task_name) is not None and TASKS.takes(context.task_name, "augmentation")
    if not draws and not np.allclose(first, other, rtol=1e-5, atol=1e-7):
        return fault(
            f"{text} with one key and {other[1]:.4g} with another",
            "dropout, or other noise, is on in evaluation",
            "Pass `train` on to every layer that draws random numbers",
        )
    context.predict(context.batch["inputs"])
    return ok(f"{text}; its views are drawn by the key" if draws else f"{text}, the same with another key")


def loss(context: Context) -> Answer:
    """Does the loss cost the truth less than a guess, and does it average over outputs?"""
    found = references(context)
    if found is None:
        return not_asked(f"the right predictions of {context.task_name!r} are not known")
    text = describe(found)
    if not found.truth < found.chance:
        return fault(
            text,
            "the loss has the wrong sign or the wrong arguments: training makes the predictions worse",
            "Return the negative logarithm of the likelihood, or an error that is 0 for the truth",
        )
    if found.wrong < found.chance:
        return fault(
            text,
            "the loss rewards certainty, right or wrong",
            "Check the order of the arguments: predictions first, then targets",
        )
    many = elements(context)
    if many >= 4 and found.chance > 0.5 * many * found.usual:
        return warning(
            f"{text}; the usual mean costs {found.usual:.3g} by chance",
            f"the loss adds up the {many:,} outputs of an example: gradients, and the rates that fit, are that much "
            "larger and smaller",
            "Average over all axes but the first",
        )
    return ok(text)


def masked_rows(context: Context) -> Answer:
    """Is the loss independent of masked rows, which pad the last batch of an evaluation?"""
    experiment = context.experiment
    first, second, third = context.parts
    alone = context.evaluate(joined(first, second, (1, 0)))
    beside = context.evaluate(joined(first, _larger(context, third), (1, 0)))
    text = f"loss {alone[1]:.5g} and {beside[1]:.5g} beside other masked rows"
    if not np.allclose(alone, beside, rtol=_tolerance(context), equal_nan=True):
        return fault(
            text,
            "padding rows count in the loss, so the numbers of an evaluation depend on the size of its batches",
            "Compute one number for each example, and add them up with jaxtrain.Mean.of(numbers, batch['mask'])",
        )
    check_task(experiment.rules, context.config, context.dataset, experiment.hparams)  # metrics of the user's own
    if context.task_name == "contrastive" or jax.tree.leaves(context.state.model_state):
        return ok(f"{text}; in training batch statistics, or views of the batch, may mix")
    trained = context.train_loss(joined(first, second, (1, 0)))
    moved = context.train_loss(joined(first, third, (1, 0)))
    if np.isclose(trained, moved, rtol=_tolerance(context), equal_nan=True):
        return ok(f"{text}; in training, too")
    return warning(
        f"{text}; in training {trained:.5g} and {moved:.5g}",
        "examples are mixed in training, or masked rows count in it",
        "Keep the first axis apart, also where `train` is true",
    )


def loss_mean(context: Context) -> Answer:
    """Is the loss a mean over the examples, so that it stays where each is there twice, or in another order?"""
    if context.task_name == "contrastive":
        return not_asked("the examples of a contrastive batch are compared with each other")
    first, second, _ = context.parts
    once = context.evaluate(joined(first, second, (1, 0)))[0]
    twice = context.evaluate(joined(first, first))[0]
    forth = context.evaluate(joined(first, second))[0]
    back = context.evaluate(joined(second, first))[0]
    text = f"loss {once:.5g}, {twice:.5g} with each example twice"
    tolerance = _tolerance(context)
    if not np.isclose(forth, back, rtol=tolerance):
        return fault(
            f"{text}; {forth:.5g}, and {back:.5g} in another order",
            "the loss compares an example with the target of another",
            "Check the axes of the loss: the first one is that of the examples",
        )
    if np.isclose(once, twice, rtol=tolerance):
        return ok(text)
    if np.isclose(twice, 2 * once, rtol=0.05):
        return fault(
            text,
            "the loss is a sum over the batch: gradients grow with the batch size, and every rate must shrink with it",
            "Return the mean over the examples",
        )
    return not_asked(f"{text}: the loss compares examples with each other")


def mixing(context: Context) -> Answer:
    """Does the output of an example depend on the other examples of the batch?"""
    first, second, third = context.parts
    half = context.half
    inputs = [np.concatenate([a["inputs"], b["inputs"]]) for a, b in ((first, second), (third, first))]
    front, back = (as_array(context.predict(batch)) for batch in inputs)
    if len(front) != 2 * half:
        return not_asked(f"outputs of shape {front.shape} for {2 * half} examples")
    spread = float(front.std()) or 1.0
    moved = float(np.abs(front[:half] - back[half:]).max()) / spread
    text = f"outputs move by {moved:.2g} deviations when the other examples are replaced"
    if moved > _tolerance(context):
        return fault(
            text,
            "examples are mixed: a reshape or transposition takes the axis of the batch for another, or a mean runs "
            "over the batch",
            "Keep the first axis apart: `reshape(inputs.shape[0], -1)`, means over the axes after the first",
        )
    return ok(text)


def uses_inputs(context: Context) -> Answer:
    """Do the outputs differ from example to example?"""
    outputs = context.outputs
    moved = as_array(context.predict(context.batch["inputs"], context.perturbed(1.0)))
    varies = [float(np.ptp(values, axis=0).max()) for values in (outputs, moved)]
    text = f"outputs differ by up to {varies[0]:.3g}, with other weights by {varies[1]:.3g}"
    size = float(np.abs(moved).max()) or 1.0
    if varies[1] <= 1e-6 * size:
        return fault(
            text,
            "the model ignores its inputs, so it can only learn the mean",
            "Check what the first layer gets: a constant, a wrong slice, a multiplication by 0",
        )
    return ok(text)


def output_form(context: Context) -> Answer:
    """Does the model return logits where the loss wants logits, and numbers as far as the targets reach?"""
    large = [as_array(context.predict(context.batch["inputs"], context.perturbed(8.0, seed))) for seed in (1, 2)]
    values = np.concatenate([context.outputs, *large])
    text = f"outputs from {context.outputs.min():.3g} to {context.outputs.max():.3g}"
    text += f", with large random weights from {values.min():.3g} to {values.max():.3g}"
    if context.task_name == "regression":
        return _reaches_targets(context, values, text)
    if context.task_name not in WITH_LOGITS:
        return not_asked(f"the form that {context.task_name!r} wants is not known")
    inside = values.min() >= 0 and values.max() <= 1 + 1e-6 and np.ptp(values) > 1e-6
    sums = values.sum(axis=-1)
    several = values.ndim > 1 and values.shape[-1] > 1
    if several and inside and np.allclose(sums, 1, atol=1e-3):
        return fault(
            f"{text}; each row adds up to 1",
            "the model ends in a softmax, and the loss takes another one: gradients are small, and the loss cannot "
            "come near 0",
            "Return logits: leave the softmax out of the model",
        )
    if inside:
        return fault(
            f"{text}: never outside of 0 and 1",
            "the model ends in a sigmoid or a softmax, and the loss takes another one",
            "Return logits: leave the last nonlinearity out of the model",
        )
    if values.min() >= 0 or values.max() <= 0 < np.ptp(values):
        log_probabilities = several and np.allclose(np.exp(values).sum(axis=-1), 1, atol=1e-3)
        if not log_probabilities:
            return warning(
                f"{text}: always of one sign",
                "the model ends in a rectifier, so logits of one sign cannot be expressed",
                "Leave the last nonlinearity out of the model",
            )
    return ok(text)


def _reaches_targets(context: Context, values: np.ndarray, text: str) -> Answer:
    targets = np.asarray(context.rows("train")["targets"], np.float64)
    low, high = np.percentile(targets, (1, 99))
    if np.ptp(values) > 0 and (values.min() >= 0 > low or values.max() <= 0 < high or np.abs(values).max() <= 1 + 1e-6):
        reach = f"{text}; standardised targets lie between {low:.3g} and {high:.3g}"
        if np.abs(values).max() <= 1 + 1e-6 and max(-low, high) <= 1.2:
            return ok(reach)
        return fault(
            reach,
            "the model ends in a nonlinearity that cannot reach the targets",
            "Leave the last nonlinearity out of the model",
        )
    return ok(text)


def initial_loss(context: Context) -> Answer:
    """Is the loss at initial weights near that of chance?"""
    found = references(context)
    measured = context.evaluate(context.batch)[1]
    if found is None:
        return not_asked(f"the loss by chance of {context.task_name!r} is not known; it begins at {measured:.4g}")
    text = f"{measured:.4g}, by chance {found.chance:.4g}"
    distance = measured - found.truth
    allowed = found.chance - found.truth
    if allowed > 0 and distance > FEW * allowed:
        return fault(
            text,
            "the initial weights or the inputs are far too large: the model is certain, and wrong",
            "Scale the inputs to deviation 1, and initialise weights by the number of inputs (lecun, he)",
        )
    return ok(text)


def nonlinearity(context: Context) -> Answer:
    """Is a model of several layers more than one linear map?"""
    inputs = context.seen("train")
    if context.info.padding is not None or context.info.tokens is not None or context.info.layout is not None:
        return not_asked("inputs that cannot be added up")
    kernels = [path for path, leaf in context.named_params.items() if leaf.ndim >= 2 and leaf.size > 1]
    if len(kernels) < 2:
        return not_asked(f"{len(kernels)} layer with weights")
    if context.info.per_example:
        return not_asked("each example is normalised by itself, which is not linear")
    half = context.half
    a, b, c = (np.asarray(inputs[np.arange(start, start + half) % len(inputs)], np.float32) for start in (0, half, 7))
    params = context.perturbed(1.0)
    pairs = [np.concatenate([a, b]), np.concatenate([c, a + b - c])]
    (fa, fb), (fc, fd) = (np.split(as_array(context.predict(pair, params)), 2) for pair in pairs)
    spread = float(np.std([fa, fb])) or 1.0
    bend = float(np.abs(fa + fb - fc - fd).max()) / spread
    text = f"outputs bend by {bend:.2g} deviations over {len(kernels)} arrays of weights"
    if bend < max(SAME, _tolerance(context)):
        return warning(
            text,
            "there is no nonlinearity between the layers, so they can learn no more than one of them",
            "Apply a nonlinearity, such as relu, after each layer but the last",
        )
    return ok(text)


def weights(context: Context) -> Answer:
    """Do the initial weights differ from each other, so that units can learn different things?"""
    kernels = {path: leaf for path, leaf in context.named_params.items() if leaf.ndim >= 2 and leaf.size > 1}
    if not kernels:
        return not_asked("no arrays of weights")
    equal = [path for path, leaf in kernels.items() if np.ptp(leaf.astype(np.float64)) == 0]
    text = f"{len(kernels) - len(equal)} of {len(kernels)} arrays of weights are drawn at random"
    bad = [path for path, leaf in context.named_params.items() if not np.isfinite(leaf.astype(np.float64)).all()]
    if bad:
        return fault(f"{bad[0]} is not finite", "no step can repair it", "Check the initialiser or the loaded weights")
    if len(kernels) > 1 and len(equal) == len(kernels):
        return fault(
            f"{text}: all are constant, {equal[0]} among them",
            "all units of a layer get the same gradient, or none, and stay equal",
            "Initialise weights at random (lecun_normal, he_normal); only biases and last layers may be 0",
        )
    hidden = [path for path in equal if kernels[path].any() and "kernel" in path]  # the scales of norms are 1
    if hidden:
        return warning(
            f"{text}; all of {hidden[0]} are equal",
            "units with equal weights get equal gradients and stay equal",
            "Initialise them at random",
        )
    return ok(text)


def _tolerance(context: Context) -> float:
    return SAME_IN_BFLOAT16 if context.config["train"]["precision"] == "bfloat16" else SAME


def _larger(context: Context, rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns rows whose float inputs are larger than those of the data, so that a maximum sees them, too."""
    inputs = rows["inputs"]
    may_grow = np.issubdtype(inputs.dtype, np.floating) and context.info.layout is None
    return {**rows, "inputs": inputs * 10 if may_grow else inputs}
