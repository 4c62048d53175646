"""Questions about the signal in a model at initial weights: layer by layer forward, and parameter by parameter back."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxtrain.check.answers import Answer, fault, not_asked, ok, warning
from jaxtrain.check.context import Context
from jaxtrain.check.layers import Layer, look_at_layers
from jaxtrain.core.trees import named_leaves, replace_leaves

DEAD = 0.9
"""The share of dead units of a layer from which it is called dead; initial networks have at most 0.2."""

GROWTH = 30.0
"""The factor by which a layer may change the deviation from its inputs to its outputs, per layer.

Layers of usual initialisers stay near 1; last layers that begin near 0 go lower.
"""

VANISHED = 1e-5
"""The deviation, relative to that of the inputs, below which a layer's outputs have vanished."""

SCALED = (0.1, 4.0)
"""The least and the largest deviation of what the first layer gets, of inputs that are scaled to 1, and its mean."""

UNSCALED = 30.0
"""The deviation, or mean, from which inputs that are not scaled keep a network from learning: a fault."""

FAINT = 1e-6
"""The ratio of the gradients of two arrays of weights, root mean squares, from which one of them vanishes."""

STEPS = (1e-2, 3e-3, 1e-3)
"""The steps of a finite difference in float32, relative to the norm of the parameters they move.

The error has two parts: rounding, 1e-7 times the loss over the change, and the curvature and the kinks of rectifiers.
Steps whose change of the loss is near rounding are left out, and the nearest of the others counts.
"""

EXACT_STEPS = (1e-6, 1e-5)
"""Those in float64: the second is taken where the first finds a difference."""

LEAST_GRADIENT = {"float64": 1e-7, "float32": 1e-4, "bfloat16": 1e-1}
"""Gradients by the precision of the run, times the norm of the parameters over the loss, that rounding hardly moves."""

STEADY = 3e-3
"""The relative difference of two slopes in float64 up to which neither rounding, nor curvature, nor a kink decides."""

DIFFERENT = {True: 0.02, False: 0.1}
"""The relative difference from which the gradient is called wrong, by a slope in float64 and in float32."""


def layers_of(context: Context) -> list[Layer]:
    """Returns the layers of the training loss on `batch`, computed once."""
    return context.once("layers", lambda: _layers(context))


def _layers(context: Context) -> list[Layer]:
    task = context.quiet_task
    key = jax.random.key(0)

    def loss(params: Any, model_state: Any, batch: Any, values: Any) -> Any:
        return task.loss(params, model_state, batch, key, values, True)[0]

    return look_at_layers(loss, context.params, context.state.model_state, context.batch, context.quiet_values)


def dead_units(context: Context) -> Answer:
    """Are there units that are 0 for the whole batch, or at the limit of a tanh or sigmoid, and so get no gradient?"""
    squashed = max((x for x in layers_of(context) if x.kind == "squasher"), key=lambda x: x.dead, default=None)
    if squashed and squashed.dead >= DEAD:
        return warning(
            f"{squashed.dead:.0%} of the outputs of {squashed.name} are at its limits",
            "a tanh or sigmoid has no slope there, and what lies before it hardly gets a gradient",
            "Scale inputs and weights so that it gets numbers of deviation 1",
        )
    rectifiers = [layer for layer in layers_of(context) if layer.kind == "rectifier"]
    if not rectifiers:
        return ok(f"at most {squashed.dead:.0%} of a layer at its limits") if squashed else not_asked("no rectifiers")
    worst = max(rectifiers, key=lambda layer: layer.dead)
    text = f"at most {worst.dead:.0%} of the units of a layer are 0 for all {len(context.batch['mask'])} examples"
    if worst.dead >= DEAD:
        return fault(
            f"{worst.dead:.0%} of {worst.name} are 0 for all {len(context.batch['mask'])} examples",
            "dead units get no gradient, and stay dead",
            "Check biases far below 0, weights far too large, inputs of one sign; or take leaky rectifiers",
        )
    return ok(text)


def activations(context: Context) -> Answer:
    """Does the signal keep its size from layer to layer?"""
    products = [layer for layer in layers_of(context) if layer.kind == "product"]
    if not products:
        return not_asked("no products with weights outside of compiled loops")
    first = products[0]
    sizes = [layer.deviation for layer in products]
    text = f"deviations from {min(sizes):.2g} to {max(sizes):.2g} over {len(products)} products"
    broken = next((layer for layer in products if not layer.finite), None)
    if broken:
        return fault(
            f"{broken.name} is the first whose outputs are not finite",
            "numbers overflow at the initial weights",
            "Scale inputs and weights, or compute this layer in float32",
        )
    size = max(abs(first.input_mean), first.input_deviation)
    if context.info.tokens is None and not (first.input_deviation >= SCALED[0] and size <= SCALED[1]):
        return (fault if size > UNSCALED else warning)(
            f"{first.name} gets inputs of mean {first.input_mean:.3g} and deviation {first.input_deviation:.3g}",
            "inputs are not scaled, or are scaled back in the model: units saturate or die, and one rate fits no layer",
            "Leave the inputs as they are given to the model: mean 0 and deviation 1",
        )
    grown = next((layer for layer in products if layer.deviation > GROWTH * max(layer.input_deviation, 1.0)), None)
    if grown:
        ratio = grown.deviation / max(grown.input_deviation, 1.0)
        return fault(
            f"{grown.name} makes its inputs {ratio:.3g} times as large; {text}",
            "initial weights are far too large: the model is certain and wrong, and gradients explode",
            "Initialise weights by the number of inputs (lecun, he)",
        )
    # Outputs that are exactly 0 come from weights of 0, as at the end of a residual block.
    vanished = [layer for layer in products[:-1] if 0 < layer.deviation < VANISHED]
    if vanished:
        return fault(
            f"{vanished[0].name} has outputs of deviation {vanished[0].deviation:.2g}; {text}",
            "the signal vanishes on its way, and so do the gradients",
            "Initialise weights by the number of inputs (lecun, he), or add norms",
        )
    return ok(text)


def gradients(context: Context) -> Answer:
    """Does a gradient reach each parameter?"""
    found = [context.gradients(), context.gradients(context.perturbed(0.5))]
    broken = [path for path, leaf in found[0].items() if not np.isfinite(leaf.astype(np.float64)).all()]
    if broken:
        return fault(
            f"the gradient of {broken[0]} is not finite",
            "an operation has no derivative at the initial weights: a square root or a norm of 0, a division by 0",
            "Keep the argument away from 0, also in the branch that `where` does not take",
        )
    frozen = {path for path, _ in named_leaves(context.state.frozen)} if context.state.frozen is not None else set()
    unreached = [path for path in found[0] if not any(gradient[path].any() for gradient in found)]
    lost = [path for path in unreached if path not in frozen]
    text = f"{len(found[0]) - len(unreached)} of {len(found[0])} arrays of parameters get a gradient"
    text += f"; {len(frozen)} are frozen" if frozen else ""
    if context.config["checkpoint"]["init_from"] is None and not lost:
        drawn = [path for path in frozen if context.named_params[path].ndim >= 2 and context.named_params[path].std()]
        if drawn:
            return warning(
                f"{text}, {drawn[0]} among them, at their random initial values",
                "weights that were never trained stay as they are, and only the others learn",
                "Name the run or file that they come from (`checkpoint.init_from`), or freeze fewer "
                "(`optimizer.frozen`)",
            )
    if lost:
        more = f" and {len(lost) - 3} more" if len(lost) > 3 else ""
        return fault(
            f"{text}; none reaches {', '.join(lost[:3])}{more}",
            "these parameters stay as they are: they are unused, or lie behind stop_gradient, an argmax or a rounding",
            "Remove what stops the gradient, or freeze the parameters by name (`optimizer.frozen`)",
        )
    sizes = {path: _root_mean_square(leaf) for path, leaf in found[1].items() if leaf.ndim >= 2 and leaf.any()}
    faintest = min(sizes, key=lambda path: sizes[path], default="")
    apart = sizes[faintest] / max(sizes.values()) if sizes else 1.0
    text += f"; those of weights are at most {1 / apart:.2g} times apart"
    if apart < FAINT:
        return warning(
            f"{text}, faintest in {faintest}",
            "gradients vanish on their way back: early layers hardly learn",
            "Take fewer layers, rectifiers in place of sigmoids, norms or residual connections",
        )
    return ok(text)


class _Apart(NamedTuple):
    """By how much a slope and a gradient differ, relatively, in which array, and whether float64 says so."""

    relative: float
    path: str
    exactly: bool

    @property
    def share(self) -> float:
        """The difference as a share of the one from which a gradient is wrong."""
        return self.relative / DIFFERENT[self.exactly]


def finite_differences(context: Context) -> Answer:
    """Does the gradient agree with differences of the loss, for each array of parameters?

    Differences are taken along the gradient of each array, in float64 where the task computes in it, else in float32.
    """
    gradients = {path: leaf for path, leaf in context.gradients().items() if leaf.any()}
    if not gradients:
        return not_asked("there is no gradient")
    loss = max(abs(context.train_loss(context.batch)), 1e-3)
    found: list[_Apart] = []
    for path, gradient in gradients.items():
        if context.left < 0.3 * context.seconds:
            break
        line = _Line(path, context.named_params[path].astype(np.float64), gradient.astype(np.float64))
        apart = _apart_in_float64(context, line, loss) or _apart_in_float32(context, line, loss)
        found += [apart] if apart else []
    if not found:
        return not_asked("the gradients are too small to be told from rounding")
    worst = max(found, key=lambda apart: apart.share)
    exactly = sum(apart.exactly for apart in found)
    text = f"{len(found)} of {len(gradients)} arrays judged, {exactly} in float64"
    text += f", at most {worst.relative:.2g} apart, in {worst.path}"
    if worst.share > 1:
        return fault(
            text,
            "the gradient is not that of the loss: a derivative of one's own is wrong, or a part is cut off",
            "Check custom_vjp, custom_jvp and stop_gradient on the way to this parameter",
        )
    return ok(text)


class _Line(NamedTuple):
    """The line along the gradient of an array, through its parameters, both float64."""

    path: str
    own: np.ndarray
    gradient: np.ndarray

    @property
    def norm(self) -> float:
        """The norm of the gradient, which is the slope that the loss should have."""
        return float(np.linalg.norm(self.gradient))

    @property
    def size(self) -> float:
        """The norm of the parameters, or that of small ones."""
        return max(float(np.linalg.norm(self.own)), 0.1 * np.sqrt(self.own.size))

    def apart(self, measure: Callable[[Any], float], params: Any, length: float) -> float:
        """Returns (slope - norm) / norm, of a loss of the parameters between two points of the line."""
        step = length * self.gradient / self.norm
        up, down = (measure(replace_leaves(params, {self.path: self.own + sign * step})) for sign in (1, -1))
        return (up - down) / (2 * length * self.norm) - 1


def _apart_in_float64(context: Context, line: _Line, loss: float) -> _Apart | None:
    """Judges an array by slopes in float64; None where its gradient is rounded, or the slopes differ."""
    rounding = LEAST_GRADIENT[context.config["train"]["precision"]]
    if line.norm * line.size < rounding * loss:
        return None
    near, far = (step * line.size for step in EXACT_STEPS)
    apart = line.apart(context.loss_in_float64, context.params, near)
    if not abs(apart) <= STEADY and not abs(apart - line.apart(context.loss_in_float64, context.params, far)) <= STEADY:
        return None  # also of nan
    return _Apart(abs(apart), line.path, True)


def _apart_in_float32(context: Context, line: _Line, loss: float) -> _Apart | None:
    """Judges an array by the nearest of some slopes in float32; None where rounding hides them."""
    rounding = 1e-2 if context.config["train"]["precision"] == "bfloat16" else 1e-6
    lengths = [step * line.size for step in STEPS if line.norm * step * line.size >= 50 * rounding * loss]
    found = [abs(line.apart(context.train_loss_at, context.params, length)) for length in lengths]
    return _Apart(min(found), line.path, False) if found else None


def norms_by_array(context: Context) -> dict[str, tuple[float, float]]:
    """Returns path -> (root mean square of the parameters, of their gradients), for the picture."""
    found = context.gradients()
    size = _root_mean_square
    return {path: (size(context.named_params[path]), size(leaf)) for path, leaf in found.items()}


def _root_mean_square(values: np.ndarray) -> float:
    return float(np.sqrt(np.square(values.astype(np.float64)).mean()))
