"""Translates spaces and outcomes to Optuna: distributions, params, trial states."""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from jaxtrain.search.space import Dimension, Point, Space, same
from jaxtrain.search.trials import Outcome

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

CURVE_POINTS = 20  # the most points of a curve given to Optuna, whose storages write each in its own transaction


def suggest(trial: "Trial") -> Callable[[Dimension], Any]:
    """Returns a function, for `Space.suggest`, by which an Optuna trial chooses the value of a dimension."""

    def choose(dimension: Dimension) -> Any:
        if dimension.choices:
            labels = _labels(dimension.choices)
            return dimension.choices[labels.index(trial.suggest_categorical(dimension.key, labels))]
        logarithmic = dimension.is_logarithmic
        if dimension.is_integer:
            ends = int(dimension.low), int(dimension.high)
            return trial.suggest_int(dimension.key, *ends, step=dimension.step, log=logarithmic)
        return trial.suggest_float(dimension.key, dimension.low, dimension.high, log=logarithmic)

    return choose


def running_trial(space: Space, point: Point, user_attrs: Mapping[str, Any]) -> "FrozenTrial":
    """Makes a running trial of a point that Optuna did not choose; values outside their dimension are left out."""
    from optuna.trial import TrialState, create_trial

    known = {d.key: d for d in space.dimensions if d.key in point and d.contains(point[d.key])}
    return create_trial(
        state=TrialState.RUNNING,
        params={key: _label(dimension, point[key]) for key, dimension in known.items()},
        distributions={key: _distribution(dimension) for key, dimension in known.items()},
        user_attrs=dict(user_attrs),
    )


def trial_id(study: "Study", number: int) -> int:
    """Returns a trial's id in the study's storage."""
    return study._storage.get_trial_id_from_study_id_trial_number(study._study_id, number)


def end_trial(study: "Study", number: int, outcome: Outcome, in_space: bool = True) -> None:
    """Ends a study's running trial, given by its number, with an outcome.

    A trial that diverged or whose metric was undefined is reported as pruned without a value: Optuna's TPE ranks it
    below all others and so avoids its neighbourhood, whereas it ignores failed trials. A trial outside the space
    (`in_space` False) is reported as failed: it lacks params, and one such trial would remove them from the joint
    search space for the rest of the study.
    """
    from optuna.trial import TrialState

    if outcome.value is not None:
        stride = max(1, math.ceil(len(outcome.curve) / CURVE_POINTS))
        reported = {step: value for step, value in outcome.curve[::-stride]} | {outcome.step: outcome.value}
        for step, value in reported.items():
            study._storage.set_trial_intermediate_value(trial_id(study, number), int(step), value)
    if not in_space:
        study.tell(number, state=TrialState.FAIL)
    elif outcome.status == "done":
        study.tell(number, outcome.value, state=TrialState.COMPLETE)
    else:  # pruned at its last reported value, which is that of the trial
        study.tell(number, state=TrialState.PRUNED)


@contextlib.contextmanager
def silence_optuna() -> Iterator[None]:
    """Silences Optuna's message that it made a study; warnings are still shown."""
    import optuna

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(level, optuna.logging.WARNING))
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)


def _distribution(dimension: Dimension) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if dimension.choices:
        return CategoricalDistribution(_labels(dimension.choices))
    if dimension.is_integer:
        ends = int(dimension.low), int(dimension.high)
        return IntDistribution(*ends, step=dimension.step, log=dimension.is_logarithmic)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.is_logarithmic)


def _labels(choices: tuple[Any, ...]) -> tuple[Any, ...]:
    """Returns the choices, or their reprs if Optuna cannot store or distinguish all of them."""
    storable = all(value is None or isinstance(value, bool | int | float | str) for value in choices)
    distinct = storable and len(set(choices)) == len(choices)
    return choices if distinct else tuple(map(repr, choices))


def _label(dimension: Dimension, value: Any) -> Any:
    return _labels(dimension.choices)[_index(dimension.choices, value)] if dimension.choices else value


def _index(choices: tuple[Any, ...], value: Any) -> int:
    """Returns the index of the choice that equals a value."""
    return [same(choice) for choice in choices].index(same(value))
