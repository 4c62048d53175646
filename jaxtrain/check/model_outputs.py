"""Questions about the loss, and the outputs that it gets at initial weights."""

import numpy as np

from jaxtrain.check.answers import Answer, fault, not_asked, ok, warning
from jaxtrain.check.context import Context, as_array
from jaxtrain.check.references import BINARY, CLASSES, costs_by_chance, describe, elements, references
from jaxtrain.tasks import TASKS

WITH_LOGITS = (*CLASSES, *BINARY, "label_distribution")
"""Tasks whose losses take logits."""

BOUND = 3.0
"""Bounds of logits up to which no prediction is certain; the soft caps in use are at 15 and more."""

FAINT = 1.0
"""The largest output with large random weights below which logits are called scaled down; usual models reach 100."""

WEIGHTED = 2.0
"""The factor by which a class must be more common, and cost more, for weights to be called the wrong way round."""

FEW = 8.0
"""The factor by which an initial loss may exceed that of chance.

Sound configs begin at 0.9 to 1.5 times it. A factor of 8 costs the first steps, and no more.
"""


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
    return _weights_of_classes(context, text) or ok(text)


def _weights_of_classes(context: Context, text: str) -> Answer | None:
    """Returns a warning for a loss that weights a common class more than a rare one."""
    counts = np.asarray(context.info.class_counts, np.float64)
    costs = None if context.labels is None else costs_by_chance(context, np.arange(len(counts)))
    if costs is None or not counts.all():
        return None
    rare = int(counts.argmin())
    common = int(counts.argmax())
    more = float(costs[common]) / max(float(costs[rare]), 1e-30)
    if counts[common] < WEIGHTED * counts[rare] or more < WEIGHTED:
        return None
    return warning(
        f"{text}; an example of class {common} costs {more:.2g} times as much as one of class {rare}, and there are "
        f"{counts[common] / counts[rare]:.2g} times as many",
        "the weights of the classes are the wrong way round, and the rare class is not learned",
        "Weight classes by the inverse of their frequency (`task.class_balance`)",
    )


def output_form(context: Context) -> Answer:
    """Does the model return logits where the loss wants logits, and numbers as far as the targets reach?"""
    large = [as_array(context.predict(context.batch["inputs"], context.perturbed(8.0, seed))) for seed in (1, 2)]
    values = np.concatenate([context.outputs, *large])
    text = f"outputs from {context.outputs.min():.3g} to {context.outputs.max():.3g}"
    text += f", with large random weights from {values.min():.3g} to {values.max():.3g}"
    if context.task_name == "regression" or _like_targets(context):
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
    return _bounded(values, text) or ok(text)


def _bounded(values: np.ndarray, text: str) -> Answer | None:
    """Returns a warning for logits that cannot grow, however large the weights."""
    low = float(values.min())
    high = float(values.max())
    largest = max(-low, high)
    if largest < FAINT:
        return warning(
            f"{text}: never beyond {largest:.2g}",
            "logits are scaled down in the model, so that probabilities stay near those of chance",
            "Leave out the division, or the temperature, after the last layer",
        )
    near = 1e-3 * (high - low)
    at_bounds = float(((values <= low + near) | (values >= high - near)).mean())
    if largest <= BOUND and at_bounds > 0.5:
        return warning(
            f"{text}: {at_bounds:.0%} of them at one of these bounds",
            "the model ends in a nonlinearity that bounds its logits, so no prediction can be certain",
            "Leave the last nonlinearity, or the clipping, out of the model",
        )
    return None


def _like_targets(context: Context) -> bool:
    """Tells whether a task of the user's own has outputs like its targets: of their shape, numbers of both signs."""
    targets = np.asarray(context.rows("train")["targets"])
    own = context.task_name not in TASKS.members and targets.dtype.kind == "f"
    return own and context.outputs.shape[1:] == targets.shape[1:] and targets.min() < 0 < targets.max()


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
