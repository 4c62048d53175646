"""Questions about what the outputs of a model depend on at initial weights."""

import numpy as np

from jaxtrain.check.answers import Answer, fault, not_asked, ok, warning
from jaxtrain.check.context import Context, as_array
from jaxtrain.check.model import tolerance

PARTS = 8
"""Parts into which each axis of the inputs is cut, to see whether the outputs depend on them."""

NUDGE = 1e-3
"""The deviation of a change of the inputs, of deviation 1, that must move the outputs."""

MOST_ROUNDED = 0.5
"""The share of the examples whose outputs may stay where they are under such a change."""


def uses_inputs(context: Context) -> Answer:
    """Do the outputs differ from example to example, and depend on all parts of the inputs, also on small changes?"""
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
    if context.info.tokens is not None or context.info.box_classes is not None:
        return ok(text)  # some tokens are padding, and boxes are found in a part of the picture
    unused = _unused_parts(context, moved)
    if unused:
        return warning(
            f"{text}; they do not depend on {unused}",
            "the model gets a part of its inputs",
            "Check slices, strides and the first reshape, or leave these inputs out of the data",
        )
    rounded = _rounded(context)
    if rounded > MOST_ROUNDED:
        return warning(
            f"{text}; in {rounded:.0%} of the examples they stay when inputs move by {NUDGE:g} deviations",
            "inputs are rounded in the model: cast to integers, to a narrow float, or compared with a threshold",
            "Compute with the inputs as floats of deviation 1",
        )
    return ok(text)


def _unused_parts(context: Context, outputs: np.ndarray) -> str:
    """Names the parts of the inputs on which no output depends, where they are most of an axis; "" if none are.

    A part is exchanged between examples, and is counted where that changes the inputs.
    """
    inputs = context.batch["inputs"]
    params = context.perturbed(1.0)
    for axis in range(1, inputs.ndim):
        parts = np.array_split(np.arange(inputs.shape[axis]), min(PARTS, inputs.shape[axis]))
        used = []
        for part in parts if len(parts) > 1 else []:
            at = (slice(None),) * axis + (part,)
            changed = inputs.copy()
            changed[at] = np.roll(inputs[at], 1, axis=0)
            if (changed != inputs).any():
                used.append(bool((as_array(context.predict(changed, params)) != outputs).any()))
        if used and sum(used) <= len(used) // 2:
            return f"{len(used) - sum(used)} of {len(used)} parts along axis {axis} of the inputs"
    return ""


def _rounded(context: Context) -> float:
    """Returns the share of the examples whose outputs stay the same when all inputs move a little."""
    if context.info.layout is not None or context.config["train"]["precision"] == "bfloat16":
        return 0.0
    seen = np.asarray(context.seen("train")[: 2 * context.half], np.float32)
    if len(seen) < 2 * context.half:
        return 0.0
    noise = np.random.default_rng(0).normal(0.0, NUDGE, seen.shape).astype(np.float32)
    params = context.perturbed(1.0)
    still, moved = (
        as_array(context.predict(inputs, params)).reshape(len(inputs), -1) for inputs in (seen, seen + noise)
    )
    free = ((still > still.min()) & (still < still.max())).any(axis=1)  # the others may be held by a bound of outputs
    return float((still == moved).all(axis=1)[free].mean()) if free.sum() >= MOST_ROUNDED * len(still) else 0.0


def causal(context: Context) -> Answer:
    """Does the prediction of a token depend on those before it and on their order, and on none after it?"""
    if context.task_name != "language_modelling":
        return not_asked("only texts are continued")
    tokens = context.batch["inputs"]
    length = tokens.shape[1]
    if length < 4:
        return not_asked("windows are too short")
    params = context.perturbed(1.0)
    outputs = as_array(context.predict(tokens, params))
    spread = float(outputs.std()) or 1.0

    def moved(changed: np.ndarray, at: slice) -> float:
        return float(np.abs(as_array(context.predict(changed, params))[:, at] - outputs[:, at]).max()) / spread

    half = length // 2
    last = slice(length - 1, length)
    others = np.roll(tokens, 1, axis=0)
    future = moved(np.concatenate([tokens[:, :half], others[:, half:]], axis=1), slice(0, half))
    past = moved(np.concatenate([others[:, :-1], tokens[:, -1:]], axis=1), last)
    order = moved(np.concatenate([tokens[:, -2::-1], tokens[:, -1:]], axis=1), last)
    text = f"predictions move by {future:.2g} deviations with later tokens, by {past:.2g} with earlier ones, by "
    text += f"{order:.2g} with their order"
    if future > tolerance(context):
        return fault(
            text,
            "the model sees the tokens that it is to predict: its loss falls to nearly 0, and it cannot write",
            "Mask attention so that a place sees itself and those before it, and pad convolutions on the left",
        )
    if past <= tolerance(context):
        return warning(
            text,
            "the model sees one token only, and learns no more than the frequencies of pairs",
            "Check the mask of the attention, and whether its outputs are added to its inputs",
        )
    if order <= tolerance(context):
        return warning(
            text,
            "the model does not see where a token stands: the order of the text is lost",
            "Add embeddings of positions, or rotate queries and keys by them",
        )
    return ok(text)
