"""Optuna's samplers: by name, and behind the search's own way to ask and tell."""

import contextlib
import importlib.util
import inspect
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from jaxtrain.errors import ConfigError, unknown
from jaxtrain.search.optuna_trials import end_trial, quiet, running_trial, suggest
from jaxtrain.search.space import Point, Space
from jaxtrain.search.trials import Outcome

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.study import Study

PREFIX = "optuna:"
NEEDS = {"GPSampler": "torch", "CmaEsSampler": "cmaes"}
"""Sampler -> what it imports once it has seen some trials."""

UNPICKLING = ("CmaEsSampler",)
"""The samplers that unpickle what they find in the storage."""

# A grid is ours; the brute force sampler ends a study by itself, which Optuna allows in `optimize` alone.
_REPLACED = ("GridSampler", "BruteForceSampler")


def optuna_sampler(name: str, seed: int) -> "BaseSampler":
    """Makes the sampler that `search.sampler` names, "tpe" or "optuna:SAMPLER".

    ConfigError for one that is unknown, or that needs what is not installed.
    """
    with search_extra("search.sampler", name):
        from optuna import samplers
        from optuna.exceptions import ExperimentalWarning
    class_name = _class_name(name)
    allowed = [found for found in samplers.__all__ if _can_be_made(getattr(samplers, found))]
    if class_name not in allowed:
        raise unknown("search.sampler", name, [PREFIX + found for found in allowed])
    needed = NEEDS.get(class_name)
    if needed and importlib.util.find_spec(needed) is None:
        raise ConfigError("search.sampler", name, "a sampler that is installed", f"Run pip install {needed}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # who names such a sampler asks for it
        return getattr(samplers, class_name)(seed=seed)


def refuse_unpickling(name: str) -> None:
    """Raises ConfigError for a sampler that cannot be trusted with a storage that others write to."""
    if _class_name(name) in UNPICKLING:
        expected = "a sampler that does not unpickle what it finds in search.storage"
        hint = "Leave search.storage out, or take 'tpe': who can write to the database could run any program here"
        raise ConfigError("search.sampler", name, expected, hint)


@contextlib.contextmanager
def search_extra(key: str, got: str) -> Iterator[None]:
    """Turns a failed import inside into the ConfigError that says how to install what is missing."""
    try:
        yield
    except ImportError as error:
        hint = f"Run pip install 'jaxtrain[search]': {error.name or error} is missing"
        raise ConfigError(key, got, "one whose packages are installed", hint) from error


class OptunaSampler:
    """A sampler of Optuna over a study in memory; the same asks and tells give the same points."""

    def __init__(self, space: Space, name: str, higher_is_better: bool) -> None:
        """Makes the sampler; ConfigError for one that is unknown or not installed."""
        sampler = optuna_sampler(name, space.config["seed"])
        self._space, self._study = space, _study_in_memory(sampler, higher_is_better)
        self._asked: dict[int, int] = {}  # the trial's number -> Optuna's

    def ask(self, numbers: Sequence[int]) -> list[Point]:
        """Returns a point for each number; number 0 is the config's own values."""
        return [self._suggested(number) if number else self._own() for number in numbers]

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        """Learns from outcomes."""
        for outcome in outcomes:
            if outcome.trial in self._asked:
                end_trial(self._study, self._asked.pop(outcome.trial), outcome)

    def _suggested(self, number: int) -> Point:
        trial = self._study.ask()
        self._asked[number] = trial.number
        return self._space.suggest(suggest(trial))

    def _own(self) -> Point:
        """Lets Optuna know of the config's own values, unless one is outside the space."""
        point = self._space.own
        trial = running_trial(self._space, point, {})
        if trial.params.keys() == point.keys():
            self._asked[0] = len(self._study.get_trials(deepcopy=False))
            self._study.add_trial(trial)
        return point


def _study_in_memory(sampler: "BaseSampler", higher_is_better: bool) -> "Study":
    import optuna

    with quiet():
        return optuna.create_study(sampler=sampler, direction="maximize" if higher_is_better else "minimize")


def _class_name(name: str) -> str:
    return "TPESampler" if name == "tpe" else name.removeprefix(PREFIX)


def _can_be_made(found: object) -> bool:
    """Tells a class of samplers that needs nothing but a seed from the other names of Optuna's module."""
    if not inspect.isclass(found) or inspect.isabstract(found) or found.__name__ in _REPLACED:
        return False
    parameters = inspect.signature(found).parameters.values()
    return all(parameter.default is not parameter.empty for parameter in parameters) and "seed" in {
        parameter.name for parameter in parameters
    }
