"""Optimizers: optax transformations, rebuilt inside the trace from this step's values."""

from typing import Any, NamedTuple

import optax

from jaxtrain.config.registry import BoundMember, Family, Values
from jaxtrain.core.averaging import is_schedule_free
from jaxtrain.errors import ConfigError
from jaxtrain.optimizers.adam import adabelief, adam, adamw, adan, amsgrad, lamb, nadam, radam, yogi
from jaxtrain.optimizers.adaptive import adadelta, adafactor, adagrad, rmsprop
from jaxtrain.optimizers.schedule_free import schedule_free_adamw, schedule_free_sgd
from jaxtrain.optimizers.sgd import lars, lion, muon, rprop, sgd
from jaxtrain.optimizers.wrappers import around, is_decayed

__all__ = ["OPTIMIZERS", "Optimizer", "is_decayed"]


class Optimizer(NamedTuple):
    """The chosen member and what is put around it: called with this step's values, an optax transformation."""

    member: BoundMember
    around: BoundMember

    def __call__(self, values: Values) -> optax.GradientTransformation:
        """Builds the transformation from this step's values; in a trace, at no cost at run time."""
        whole = self.around(values, self.member(values))
        return _refusing_averages(whole, scaled) if (scaled := dict(self.around.static).get("scaled")) else whole


def _refusing_averages(transformation: optax.GradientTransformation, scaled: str) -> optax.GradientTransformation:
    """Refuses, when its state is made, an optimizer whose average is worked out from whole steps."""

    def init(params: Any) -> Any:
        state = transformation.init(params)
        if is_schedule_free(state):
            hint = "the average is worked out from whole steps"
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
    common=around,
    common_supplied=1,
)
