"""Optuna's samplers: made by name, and adapted to the `Sampler` protocol."""

import contextlib
import importlib.util
import inspect
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from jaxtrain.errors import ConfigError, unknown
from jaxtrain.search.optuna_trials import end_trial, running_trial, silence_optuna, suggest
from jaxtrain.search.space import Point, Space
from jaxtrain.search.trials import Outcome

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.study import Study

PREFIX = "optuna:"
NEEDS = {"GPSampler": "torch", "CmaEsSampler": "cmaes"}
"""Sampler -> the package that it imports after some trials."""

UNPICKLING = ("CmaEsSampler",)
"""Samplers that unpickle data from the storage."""

# Our own grid replaces both; the brute force sampler ends a study itself, which Optuna allows only in `optimize`.
_REPLACED = ("GridSampler", "BruteForceSampler")


def optuna_sampler(name: str, seed: int) -> "BaseSampler":
    """Makes the sampler named by `search.sampler`, "tpe" or "optuna:SAMPLER".

    Raises ConfigError for one that is unknown or that needs a package that is not installed.
    """
    with require_search_extra("search.sampler", name):
        from optuna import samplers
        from optuna.exceptions import ExperimentalWarning
    class_name = _class_name(name)
    allowed = [other for other in samplers.__all__ if _needs_only_a_seed(getattr(samplers, other))]
    if class_name not in allowed:
        raise unknown("search.sampler", name, [PREFIX + other for other in allowed])
    needed = NEEDS.get(class_name)
    if needed and importlib.util.find_spec(needed) is None:
        raise ConfigError("search.sampler", name, "a sampler that is installed", f"Run pip install {needed}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # the user chose the sampler by name
        return getattr(samplers, class_name)(seed=seed)


def refuse_unpickling(name: str) -> None:
    """Raises ConfigError for a sampler that unpickles data, which is unsafe in a storage that others write to."""
    if _class_name(name) in UNPICKLING:
        expected = "a sampler that does not unpickle what it finds in search.storage"
        hint = "Leave search.storage out, or take 'tpe': who can write to the database could run any program here"
        raise ConfigError("search.sampler", name, expected, hint)


@contextlib.contextmanager
def require_search_extra(key: str, got: str) -> Iterator[None]:
    """Converts an ImportError in the block into a ConfigError that says how to install the missing package."""
    try:
        yield
    except ImportError as error:
        hint = f"Run pip install 'jaxtrain[search]': {error.name or error} is missing"
        raise ConfigError(key, got, "one whose packages are installed", hint) from error


class OptunaSampler:
    """Adapts an Optuna sampler over a study in memory; the same calls give the same points."""

    def __init__(self, space: Space, name: str, higher_is_better: bool) -> None:
        """Makes the sampler; raises ConfigError for one that is unknown or not installed."""
        sampler = optuna_sampler(name, space.config["seed"])
        self._space = space
        self._study = _study_in_memory(sampler, higher_is_better)
        self._asked: dict[int, int] = {}  # our trial number -> Optuna's

    def ask(self, numbers: Sequence[int]) -> list[Point]:
        """Returns a point for each trial number; number 0 is the config's own values."""
        return [self._suggest(number) if number else self._add_own() for number in numbers]

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        """Learns from outcomes."""
        for outcome in outcomes:
            if outcome.trial in self._asked:
                end_trial(self._study, self._asked.pop(outcome.trial), outcome)

    def _suggest(self, number: int) -> Point:
        trial = self._study.ask()
        self._asked[number] = trial.number
        return self._space.suggest(suggest(trial))

    def _add_own(self) -> Point:
        """Adds a trial with the config's own values to Optuna's study, unless a value is outside the space."""
        point = self._space.own
        trial = running_trial(self._space, point, {})
        if trial.params.keys() == point.keys():
            self._asked[0] = len(self._study.get_trials(deepcopy=False))
            self._study.add_trial(trial)
        return point


def _study_in_memory(sampler: "BaseSampler", higher_is_better: bool) -> "Study":
    import optuna

    with silence_optuna():
        return optuna.create_study(sampler=sampler, direction="maximize" if higher_is_better else "minimize")


def _class_name(name: str) -> str:
    return "TPESampler" if name == "tpe" else name.removeprefix(PREFIX)


def _needs_only_a_seed(member: object) -> bool:
    """Tells whether a member of Optuna's module is a sampler class that can be made from a seed alone."""
    if not inspect.isclass(member) or inspect.isabstract(member) or member.__name__ in _REPLACED:
        return False
    parameters = inspect.signature(member).parameters.values()
    has_defaults = all(parameter.default is not parameter.empty for parameter in parameters)
    return has_defaults and any(parameter.name == "seed" for parameter in parameters)
