"""Optimizers: optax transformations, rebuilt inside the trace from this step's values."""

from typing import Annotated, Any, NamedTuple

import jax
import optax

from jaxtrain.families import Bound, Family, Values
from jaxtrain.knobs import AtInitialisation, Fraction, NonNegative, Positive, Probability


class Optimizer(NamedTuple):
    """The chosen member and what is put around it: called with this step's values, an optax transformation."""

    member: Bound
    around: Bound

    def __call__(self, values: Values) -> optax.GradientTransformation:
        """Builds the transformation from this step's values; in a trace, at no cost at run time."""
        return self.around(values, self.member(values))


def around(
    transformation: optax.GradientTransformation, clip_norm: Positive | None = None
) -> optax.GradientTransformation:
    """Clips the gradients' global norm ahead of any optimizer; None leaves that out.

    Pascanu et al. (2013), https://arxiv.org/abs/1211.5063.
    """
    if clip_norm is None:
        return transformation
    return optax.chain(optax.clip_by_global_norm(clip_norm), transformation)


def sgd(
    learning_rate: NonNegative,
    momentum: Fraction | None = 0.9,
    nesterov: bool = False,
    weight_decay: NonNegative | None = None,
) -> optax.GradientTransformation:
    """Stochastic gradient descent with momentum, Nesterov's on request; decay is added to the gradients (L2).

    Sutskever et al. (2013), https://proceedings.mlr.press/v28/sutskever13.html. Biases and norms are not decayed.
    """
    descent = optax.sgd(learning_rate, momentum=momentum, nesterov=nesterov)
    if weight_decay is None:
        return descent
    return optax.chain(optax.add_decayed_weights(weight_decay, mask=is_decayed), descent)


def adam(
    learning_rate: NonNegative, b1: Probability = 0.9, b2: Probability = 0.999, eps: NonNegative = 1e-8
) -> optax.GradientTransformation:
    """Adam. Kingma and Ba (2015), https://arxiv.org/abs/1412.6980."""
    return optax.adam(learning_rate, b1=b1, b2=b2, eps=eps)


def adamw(
    learning_rate: NonNegative,
    b1: Probability = 0.9,
    b2: Probability = 0.999,
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 1e-4,
) -> optax.GradientTransformation:
    """Adam with decoupled weight decay, which spares biases and norms.

    Loshchilov and Hutter (2019), https://arxiv.org/abs/1711.05101.
    """
    return optax.adamw(learning_rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, mask=is_decayed)


def rprop(
    learning_rate: Annotated[Positive, AtInitialisation()],
    eta_minus: Probability = 0.5,
    eta_plus: NonNegative = 1.2,
    min_step_size: NonNegative = 1e-6,
    max_step_size: Positive = 50.0,
) -> optax.GradientTransformation:
    """Rprop: a step size for each weight, grown and shrunk by the gradients' signs; made for the whole set as a batch.

    `learning_rate` is the initial step size, read once. Riedmiller and Braun (1993),
    https://doi.org/10.1109/ICNN.1993.298623.
    """
    return optax.rprop(learning_rate, eta_minus, eta_plus, min_step_size, max_step_size)


def is_decayed(params: Any) -> Any:
    """Marks what weight decay applies to: arrays of two axes and more, hence neither biases nor norms."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


OPTIMIZERS = Family(
    "optimizer",
    {"sgd": sgd, "adam": adam, "adamw": adamw, "rprop": rprop},
    common=around,
    common_supplied=1,
)
