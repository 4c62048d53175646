"""The space and the outcomes in Optuna's terms: distributions, params, states."""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from jaxtrain.search.space import Dimension, Point, Space
from jaxtrain.search.trials import Outcome

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

CURVE_POINTS = 20  # of a trial's curve that Optuna is given: its storages write each in a transaction of its own


def suggest(trial: "Trial") -> Callable[[Dimension], Any]:
    """Returns the function that lets an Optuna trial choose the value of a dimension, for `Space.suggest`."""

    def choose(dimension: Dimension) -> Any:
        key, low, high = dimension.key, dimension.low, dimension.high
        if dimension.choices:
            labels = _labels(dimension.choices)
            return dimension.choices[labels.index(trial.suggest_categorical(key, labels))]
        if dimension.kind == "int":
            return trial.suggest_int(key, int(low), int(high))
        return trial.suggest_float(key, low, high, log=dimension.kind == "log_uniform")

    return choose


def running_trial(space: Space, point: Point, user_attrs: Mapping[str, Any]) -> "FrozenTrial":
    """Makes a trial of a point that no sampler of Optuna chose; a value outside its dimension is left out."""
    from optuna.trial import TrialState, create_trial

    known = {d.key: d for d in space.dimensions if d.key in point and _contains(d, point[d.key])}
    return create_trial(
        state=TrialState.RUNNING,
        params={key: _label(dimension, point[key]) for key, dimension in known.items()},
        distributions={key: _distribution(dimension) for key, dimension in known.items()},
        user_attrs=dict(user_attrs),
    )


def trial_id(study: "Study", number: int) -> int:
    """Returns the id that a study's storage knows a trial by."""
    return study._storage.get_trial_id_from_study_id_trial_number(study._study_id, number)


def end_trial(study: "Study", number: int, outcome: Outcome, in_space: bool = True) -> None:
    """Tells a study what came of its running trial of a number.

    A diverged trial is one that was pruned without a value: Optuna's TPE ranks it below all others, and so leaves its
    surroundings, whereas it never sees a failed one. That is what becomes of a trial outside the space (`in_space`
    False): it lacks params, and one such trial takes them out of the joint search space for the rest of the study.
    """
    from optuna.trial import TrialState

    if outcome.status != "diverged":
        stride = max(1, math.ceil(len(outcome.curve) / CURVE_POINTS))
        for step, value in outcome.curve[::-stride]:
            study._storage.set_trial_intermediate_value(trial_id(study, number), int(step), value)
    if not in_space:
        study.tell(number, state=TrialState.FAIL)
    elif outcome.status == "done":
        study.tell(number, outcome.value, state=TrialState.COMPLETE)
    else:  # pruned at its last reported value
        study.tell(number, state=TrialState.PRUNED)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps Optuna from announcing on the console that it made a study; warnings come through."""
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
    if dimension.kind == "int":
        return IntDistribution(int(dimension.low), int(dimension.high))
    return FloatDistribution(dimension.low, dimension.high, log=dimension.kind == "log_uniform")


def _labels(choices: tuple[Any, ...]) -> tuple[Any, ...]:
    """Returns what Optuna can keep in the choices' place: text, where it could not keep or tell apart one of them."""
    kept = all(value is None or isinstance(value, bool | int | float | str) for value in choices)
    return choices if kept and len(set(choices)) == len(choices) else tuple(map(repr, choices))


def _label(dimension: Dimension, value: Any) -> Any:
    return _labels(dimension.choices)[_index(dimension, value)] if dimension.choices else value


def _contains(dimension: Dimension, value: Any) -> bool:
    if dimension.choices:
        return _index(dimension, value) is not None
    allowed = int if dimension.kind == "int" else int | float
    return isinstance(value, allowed) and not isinstance(value, bool) and dimension.low <= value <= dimension.high


def _index(dimension: Dimension, value: Any) -> Any:
    """Returns the place of a value among the choices, where 1 is 1.0 but not True; None where it has none."""
    alike = (i for i, choice in enumerate(dimension.choices) if choice == value)
    return next((i for i in alike if isinstance(dimension.choices[i], bool) == isinstance(value, bool)), None)
