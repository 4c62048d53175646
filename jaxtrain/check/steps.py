"""Questions about what the optimizer makes of gradients: their size, the memory of running means, the update."""

import math

import numpy as np

from jaxtrain.check.answers import Answer, fault, not_asked, ok, warning
from jaxtrain.check.context import Context
from jaxtrain.check.rates import first_steps, median, moved
from jaxtrain.core.trees import named_leaves

CUT = 1e-3
"""The share of their norm to which clipping may cut the first gradients."""

DROWNED = 30.0
"""The largest multiple of the largest gradient of an array, as a root mean square, that `eps` may be."""

BAND = (1e-6, 0.3)
"""The change of an array of parameters by one update, relative to its size, that leaves room to learn."""

UPHILL = 0.1
"""The cosine of first updates with the gradient from which they go uphill; that of sound optimizers is negative."""


def gradient_size(context: Context) -> Answer:
    """Are gradients left as they are by clipping, and larger than the `eps` that they are divided with?"""
    hparams = context.experiment.hparams
    limits = {name: hparams.get(f"optimizer.{name}") for name in ("clip_norm", "clip_value", "eps")}
    given = {name: float(value) for name, value in limits.items() if value is not None}
    if not given:
        return not_asked("the optimizer has no clipping and no eps")
    found = [leaf.astype(np.float64) for leaf in context.gradients(context.perturbed(0.5)).values()]
    sizes = {
        "clip_norm": math.sqrt(sum(float(np.square(leaf).sum()) for leaf in found)),
        "clip_value": max(float(np.abs(leaf).max()) for leaf in found),
        "eps": max(float(np.sqrt(np.square(leaf).mean())) for leaf in found),
    }
    told = [f"{name} = {value:g} for gradients of {sizes[name]:.3g}" for name, value in given.items()]
    text = "; ".join(told)
    if any(name in given and given[name] < CUT * sizes[name] for name in ("clip_norm", "clip_value")):
        return warning(
            text,
            "clipping cuts all gradients to nearly nothing, not only the rare large ones",
            "Clip near the largest usual norm: 1 is common (`optimizer.clip_norm`)",
        )
    if given.get("eps", 0.0) > DROWNED * sizes["eps"]:
        return warning(
            text,
            "gradients vanish beside eps, so steps are those of plain descent at a rate of learning_rate / eps",
            "Take an eps far below the gradients: 1e-8 is usual",
        )
    return ok(text)


def averages(context: Context) -> Answer:
    """Do averaged weights, and the running mean of gradients, follow the run before it ends?"""
    total = context.experiment.lengths.total
    momentum = {name: context.experiment.hparams.get(name) for name in ("optimizer.momentum", "optimizer.b1")}
    for name, value in momentum.items():
        if value is not None and float(value) < 1 and 1 / (1 - float(value)) > total:
            return warning(
                f"{name} = {float(value):g} averages over {1 / (1 - float(value)):.4g} steps, of {total:,} in all",
                "steps follow gradients of long ago, and grow to a multiple of the learning rate",
                "Lower it: 0.9 to 0.99 are usual",
            )
    decay = context.config["train"]["ema"]
    if decay is None:
        return not_asked("weights are not averaged")
    horizon = math.inf if decay >= 1 else 1 / (1 - decay)
    text = f"train.ema = {decay:g} averages over {horizon:.4g} steps, of {total:,} in all"
    if horizon > total:
        return (fault if horizon > 10 * total else warning)(
            text,
            "what is evaluated lags behind what is trained, up to the end",
            "Lower train.ema, such that 1 / (1 - ema) is a tenth of the steps or less",
        )
    return ok(text)


def updates(context: Context) -> Answer:
    """Do updates go downhill, reach each array of weights, and change them by a sane share of their size?"""
    changes = moved(context)
    if not changes:
        return not_asked("no arrays of weights")
    if not all(map(math.isfinite, changes.values())):
        return fault("one step at the peak of the rate leaves the finite numbers", "the rate is too high", "Lower it")
    middle = median(changes)
    text = f"a step at the peak of the rate changes arrays of weights by {min(changes.values()):.1e} to "
    text += f"{max(changes.values()):.1e} of their size"
    gradients = context.gradients()
    still = [path for path, change in changes.items() if change == 0 and gradients[path].any()]
    if still and max(changes.values()) > 0:
        return fault(
            f"{text}; {', '.join(still[:3])} stay where they are",
            "the optimizer leaves these arrays out, though a gradient reaches them",
            "Check its masks and groups of parameters; to freeze arrays name them (`optimizer.frozen`)",
        )
    cosine = _cosine(context, gradients)
    if cosine > UPHILL:
        return fault(
            f"{text}; their cosine with the gradient is {cosine:.2g}",
            "the optimizer goes uphill: its updates have the sign of the gradient",
            "Return updates that are added to the parameters: minus the rate times the gradient",
        )
    low, high = BAND
    if middle > high:
        return warning(text, "the rate is high: one step replaces much of the weights", "Lower it, or warm up longer")
    if middle < low:
        return warning(text, "the rate is low: the weights hardly move", "Raise it; the command lr_range finds it")
    return ok(text)


def _cosine(context: Context, gradients: dict[str, np.ndarray]) -> float:
    """Returns the cosine between the change of the parameters in a few steps, and the gradient before them."""
    before = dict(named_leaves(context.state.params))
    after = dict(named_leaves(first_steps(context).state.params))
    pairs = [(np.asarray(after[path] - before[path], np.float64), gradients[path]) for path in before]
    product = sum(float((change * gradient).sum()) for change, gradient in pairs)
    sizes = [math.sqrt(sum(float(np.square(pair[i], dtype=np.float64).sum()) for pair in pairs)) for i in (0, 1)]
    return product / (sizes[0] * sizes[1]) if all(sizes) else 0.0
