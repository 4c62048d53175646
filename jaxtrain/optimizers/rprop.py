"""Rprop in its variant iRprop⁻: steps from the signs of gradients alone."""

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxtrain.config.schema import NonNegative, OncePerRun, Positive, Probability


class RpropState(NamedTuple):
    """Two trees like the parameters: step sizes, and the signs of the gradients that the last step followed."""

    step_sizes: Any
    signs: Any


def rprop(
    learning_rate: Annotated[Positive, OncePerRun()],
    eta_minus: Probability = 0.5,
    eta_plus: NonNegative = 1.2,
    min_step_size: NonNegative = 1e-6,
    max_step_size: Positive = 50.0,
) -> optax.GradientTransformation:
    """Rprop: a step size for each weight, adapted by the signs of its gradients; for full-batch training.

    w ← w - s sign(g), where s is multiplied by `eta_plus` if g has the sign of the previous gradient, and by
    `eta_minus` if it has the opposite one; the weight then rests for one step, and s is the same in the step after. s
    stays between `min_step_size` and `max_step_size`. `learning_rate` is the initial step size, read once.
    iRprop⁻ of Igel and Hüsken (2000), which PyTorch has; its pseudocode is in https://doi.org/10.1016/S0925-2312(01)00700-7.
    Rprop is by Riedmiller and Braun (1993), https://doi.org/10.1109/ICNN.1993.298623. `optax:rprop` differs: it applies
    each step one call later and drops one after a change of sign.

    >>> optimizer, weights = rprop(learning_rate=0.1), jnp.array([3.0, -4.0])
    >>> optimizer.update(weights, optimizer.init(weights), weights)[0].round(3)
    Array([-0.1,  0.1], dtype=float32)
    """

    def init(params: Any) -> RpropState:
        step_sizes = jax.tree.map(lambda leaf: jnp.full_like(leaf, learning_rate), params)
        return RpropState(step_sizes, jax.tree.map(jnp.zeros_like, params))

    def adapt(step_size: jax.Array, gradient: jax.Array, previous: jax.Array) -> jax.Array:
        # Signs are compared, since the product of two small gradients is rounded to 0.
        agreement = jnp.sign(gradient) * previous
        factor = jnp.where(agreement > 0, eta_plus, jnp.where(agreement < 0, eta_minus, 1.0))
        return jnp.clip(step_size * factor, min_step_size, max_step_size).astype(step_size.dtype)

    def follow(gradient: jax.Array, previous: jax.Array) -> jax.Array:
        sign = jnp.sign(gradient)
        return jnp.where(sign * previous < 0, jnp.zeros_like(sign), sign)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, RpropState]:
        del params
        step_sizes = jax.tree.map(adapt, state.step_sizes, updates, state.signs)
        signs = jax.tree.map(follow, updates, state.signs)
        return jax.tree.map(lambda size, sign: -size * sign, step_sizes, signs), RpropState(step_sizes, signs)

    return optax.GradientTransformation(init, update)
