"""Arguments that some optax transformations need besides gradients, state and parameters."""

import inspect
from collections.abc import Callable
from typing import Any

import jax


def extra_arguments(
    update: Callable[..., Any], value: jax.Array, grad: Any, objective: Callable[[Any], jax.Array]
) -> dict[str, Any]:
    """Returns the keyword arguments that the signature of a transformation's `update` asks for.

    optax names them in `optax.GradientTransformationExtraArgs`: `value`, the loss of the batch; `grad`, its gradients,
    as they are before clipping; `value_fn`, the loss of the same batch as a function of parameters, for line searches;
    `obj_fn`, the same under the name that Sophia's estimate of the Hessian uses. An `update` with `**extra_args` gets
    all of them. What is not used is no part of the compiled program.
    """

    def value_fn(params: Any, obj_fn: Any = None) -> jax.Array:
        # Line searches pass on to value_fn what they do not use, and reject what it does not name.
        del obj_fn
        return objective(params)

    available = {"value": value, "grad": grad, "value_fn": value_fn, "obj_fn": objective}
    parameters = inspect.signature(update).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return available
    return {name: argument for name, argument in available.items() if name in parameters}


def uses_argument(function: Callable[[jax.Array], Any], argument: jax.Array) -> bool:
    """Traces a function, and returns whether its results depend on its argument."""
    jaxpr = jax.make_jaxpr(function)(argument).jaxpr
    used = [*jaxpr.outvars, *(variable for equation in jaxpr.eqns for variable in equation.invars)]
    return any(variable is jaxpr.invars[0] for variable in used)
