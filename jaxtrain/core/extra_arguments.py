"""Arguments that some optax transformations need besides gradients, state and parameters."""

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import jax
from jax.extend import core


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


def uses_argument(function: Callable[..., Any], argument: Any, *others: Any) -> bool:
    """Traces `function(argument, *others)`, and returns whether a result depends on the argument, a tree of arrays."""
    jaxpr = jax.make_jaxpr(function)(argument, *others).jaxpr
    reached = set(jaxpr.invars[: len(jax.tree.leaves(argument))])

    def depend(variables: Iterable[Any]) -> bool:
        return any(variable in reached for variable in variables if not isinstance(variable, core.Literal))

    for equation in jaxpr.eqns:
        if depend(equation.invars):
            reached.update(equation.outvars)
    return depend(jaxpr.outvars)
