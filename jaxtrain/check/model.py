"""Questions about the model and the loss at initial weights: what depends on what, and what must not."""

import jax
import numpy as np

from jaxtrain.check.answers import Answer, fault, not_asked, ok, warning
from jaxtrain.check.context import Context, as_array, joined
from jaxtrain.tasks import TASKS
from jaxtrain.training.task_checks import check_task

SAME = 1e-3
"""The difference, relative to the spread of the outputs, up to which two outputs are equal but for rounding.

Products of other rows may round otherwise; those of the embedded configs do not on a CPU.
"""

SAME_IN_BFLOAT16 = 0.1
"""The same for a model that computes in bfloat16, with eight bits of precision."""


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


def masked_rows(context: Context) -> Answer:
    """Is the loss independent of masked rows, which pad the last batch of an evaluation?"""
    experiment = context.experiment
    first, second, third = context.parts
    alone = context.evaluate(joined(first, second, (1, 0)))
    beside = context.evaluate(joined(first, _larger(context, third), (1, 0)))
    text = f"loss {alone[1]:.5g} and {beside[1]:.5g} beside other masked rows"
    if not np.allclose(alone, beside, rtol=tolerance(context), equal_nan=True):
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
    if np.isclose(trained, moved, rtol=tolerance(context), equal_nan=True):
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
    near = tolerance(context)
    if not np.isclose(forth, back, rtol=near):
        return fault(
            f"{text}; {forth:.5g}, and {back:.5g} in another order",
            "the loss compares an example with the target of another",
            "Check the axes of the loss: the first one is that of the examples",
        )
    if np.isclose(once, twice, rtol=near):
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
    if moved > tolerance(context):
        return fault(
            text,
            "examples are mixed: a reshape or transposition takes the axis of the batch for another, or a mean runs "
            "over the batch",
            "Keep the first axis apart: `reshape(inputs.shape[0], -1)`, means over the axes after the first",
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
    if bend < max(SAME, tolerance(context)):
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
    hidden += [path for path, leaf in kernels.items() if path not in equal and _same_units(leaf)]
    if hidden:
        return warning(
            f"{text}; all units of {hidden[0]} are equal",
            "units with equal weights get equal gradients and stay equal",
            "Initialise them at random",
        )
    return ok(text)


def _same_units(kernel: np.ndarray) -> bool:
    """Tells whether all units, along the last axis, have the same weights, which differ from each other."""
    return kernel.shape[-1] > 1 and bool((kernel == kernel[..., :1]).all())


def tolerance(context: Context) -> float:
    """Returns the difference, relative to their spread, up to which outputs are equal in the precision of the run."""
    return SAME_IN_BFLOAT16 if context.config["train"]["precision"] == "bfloat16" else SAME


def _larger(context: Context, rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns rows whose float inputs are larger than those of the data, so that a maximum sees them, too."""
    inputs = rows["inputs"]
    may_grow = np.issubdtype(inputs.dtype, np.floating) and context.info.layout is None
    return {**rows, "inputs": inputs * 10 if may_grow else inputs}
