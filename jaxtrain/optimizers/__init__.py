"""Optimizers: optax transformations, rebuilt inside the trace from each step's values."""

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import optax

from jaxtrain.config.registry import BoundMember, Family, Product, Values, having
from jaxtrain.core.averaging import is_schedule_free
from jaxtrain.core.trees import match_paths
from jaxtrain.errors import ConfigError
from jaxtrain.optimizers.adam import adabelief, adam, adamw, adan, amsgrad, lamb, nadam, radam, yogi
from jaxtrain.optimizers.adaptive import adadelta, adafactor, adagrad, rmsprop
from jaxtrain.optimizers.of_optax import reason_against
from jaxtrain.optimizers.rprop import rprop
from jaxtrain.optimizers.schedule_free import schedule_free_adamw, schedule_free_sgd
from jaxtrain.optimizers.sgd import lars, lion, muon, sgd
from jaxtrain.optimizers.wrappers import is_decayed, store_raw_keys, wrap

__all__ = ["OPTIMIZERS", "Optimizer", "is_decayed"]


class Optimizer(NamedTuple):
    """The chosen member and its wrapper; a call with one step's values returns the optax transformation."""

    member: BoundMember
    wrapper: BoundMember

    def of_trained(self) -> "Optimizer":
        """Returns the optimizer of the parameters that are not frozen, for a state that keeps the others apart."""
        static = tuple((name, None if name == "frozen" else value) for name, value in self.wrapper.static)
        return self._replace(wrapper=replace(self.wrapper, static=static))

    def __call__(self, values: Values) -> optax.GradientTransformation:
        """Builds the transformation from one step's values; inside a trace this costs nothing at run time."""
        member = self.member(values)
        own = self.member.function in OPTIMIZERS.members.values()
        wrapped = self.wrapper(values, member if own else store_raw_keys(member))
        scaled = dict(self.wrapper.static).get("scaled")
        return _reject_schedule_free(wrapped, scaled) if scaled else wrapped


class FrozenPaths(NamedTuple):
    """Regular expressions as a mask: true for the parameters whose path one of them matches."""

    patterns: tuple[str, ...]

    def __call__(self, params: Any) -> Any:
        """Returns a tree of bools; raises ConfigError if no parameter is left to train, or none is frozen."""
        mask = match_paths("optimizer.frozen", "|".join(self.patterns), params)
        if all(jax.tree.leaves(mask)):
            hint = "Freeze fewer"
            raise ConfigError("optimizer.frozen", self.patterns[0], "a pattern that leaves a parameter to train", hint)
        return mask


def _reject_schedule_free(transformation: optax.GradientTransformation, scaled: str) -> optax.GradientTransformation:
    """Makes `init` reject schedule-free optimizers: scaled steps would make their average wrong."""

    def init(params: Any) -> Any:
        state = transformation.init(params)
        if is_schedule_free(state):
            hint = "Leave optimizer.scaled out: the average is computed from whole steps"
            raise ConfigError("optimizer.scaled", scaled, "None with a schedule-free optimizer", hint)
        return state

    return transformation._replace(init=init)


OPTIMIZERS = Family(
    "optimizer",
    {
        "sgd": sgd,
        "adam": adam,
        "adamw": adamw,
        "rprop": rprop,
        "rmsprop": rmsprop,
        "adagrad": adagrad,
        "adadelta": adadelta,
        "nadam": nadam,
        "radam": radam,
        "adabelief": adabelief,
        "amsgrad": amsgrad,
        "yogi": yogi,
        "lion": lion,
        "lamb": lamb,
        "lars": lars,
        "adafactor": adafactor,
        "adan": adan,
        "muon": muon,
        "schedule_free_sgd": schedule_free_sgd,
        "schedule_free_adamw": schedule_free_adamw,
    },
    common=wrap,
    common_supplied=1,
    reason_against=reason_against,
    product=Product("an optax transformation", having("init", "update")),
)
