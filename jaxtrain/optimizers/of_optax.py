"""Tells optimizers of optax from its other functions, which would train nothing or in the wrong direction."""

from collections.abc import Callable
from typing import Any

OPTIMIZERS_OF_OPTAX = "optax._src.alias"
"""The module of optax that defines its optimizers, and nothing else. `optax.contrib` mixes them with their parts."""

WRAPPERS = ("mechanize", "sam", "schedule_free", "split_real_and_imaginary")
PARTS = ("hutchinson_estimator_diag_hessian", "normalize", "reduce_on_plateau", "schedule_free_eval_params")
PRIVATE = ("differentially_private_aggregate", "dpsgd")

CHAIN = "Name a function of your own that returns an optax.chain(...) with it"
MEAN = "It clips the gradient of each example, and a step has their mean; its parameters would be taken for examples"


def reason_against(function: Callable[..., Any]) -> tuple[str, str] | None:
    """Returns (what is expected, hint) for a function of optax that is no optimizer; None for any other function."""
    module = getattr(function, "__module__", None) or ""
    name = getattr(function, "__name__", "")
    if not module.startswith("optax.") or module == OPTIMIZERS_OF_OPTAX:
        return None
    if not module.startswith("optax.contrib."):
        return "an optimizer of optax, and not a part or a wrapper of one", CHAIN
    if name in PRIVATE:
        return "an optimizer that takes the mean gradient of a batch", MEAN
    if name in WRAPPERS:
        return "an optimizer of optax, and not a wrapper of one", CHAIN.replace("an optax.chain(...) with it", "it")
    if name in PARTS or name.startswith("scale_by_"):
        return "an optimizer of optax, and not a part of one", CHAIN
    return None
