"""Permutation importances of hyperparameters for the ranking of trials, by a random forest (Breiman 2001)."""

from typing import NamedTuple

import numpy as np

from jaxtrain.search.report.scales import scale_of
from jaxtrain.search.results import Findings

FEWEST = 12
"""The fewest trials for which importances are computed; a forest does not generalise from fewer."""

FOLDS = 4
TREES = 60
SHUFFLES = 4


class Importances(NamedTuple):
    """The drop of the forest's R² on held-out trials when the values of one hyperparameter are shuffled.

    drops: key -> drop, averaged over folds and shuffles; explained: the R² without shuffling, if it is 0 or less the
    drops mean nothing; lack: why there are no importances, otherwise empty.
    """

    drops: dict[str, float]
    explained: float
    lack: str


def find_importances(findings: Findings) -> Importances:
    """Returns the importances for the ranks of all trials, including stopped and diverged ones."""
    places = _places(findings)
    count = len(findings.outcomes)
    if count < FEWEST:
        return Importances({}, 0.0, f"too few trials: {count} of the {FEWEST} that importances need")
    if places.std() == 0:
        return Importances({}, 0.0, "no importances: no trial is better than another")
    keys, columns = _columns(findings)
    drops, explained = _measure_drops(columns, places)
    return Importances(dict(zip(keys, drops.tolist(), strict=True)), explained, "")


def _places(findings: Findings) -> np.ndarray:
    """Returns the rank of each outcome, (trials,), 0 for the best; trials without a value share their mean rank."""
    lost = [outcome.trial for outcome in findings.order if outcome.value is None]
    first = len(findings.order) - len(lost)
    places = {outcome.trial: float(place) for place, outcome in enumerate(findings.order)}
    places |= dict.fromkeys(lost, first + (len(lost) - 1) / 2)
    return np.array([places[outcome.trial] for outcome in findings.outcomes])


def _columns(findings: Findings) -> tuple[list[str], np.ndarray]:
    """Returns keys and values, (trials, dimensions).

    If a dimension is not active in a trial, its value is drawn from the trials in which it is: a gap would reveal the
    chosen member to the forest, which would then attribute the member's importance to its knobs.
    """
    draw = np.random.default_rng(0)
    columns = {}
    for dimension in findings.space.dimensions:
        scale = scale_of(dimension, findings.outcomes)
        points = [outcome.point for outcome in findings.outcomes]
        known = [scale.place(point[scale.key]) for point in points if scale.key in point]
        if known:
            filled = iter(draw.choice(known, len(points)))
            columns[scale.key] = [scale.place(p[scale.key]) if scale.key in p else next(filled) for p in points]
    return list(columns), np.array(list(columns.values())).T


def _measure_drops(columns: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns the drops of R², (dimensions,), and R², averaged over folds."""
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance
    from sklearn.model_selection import KFold

    drops = []
    explained = []
    for train, held_out in KFold(FOLDS, shuffle=True, random_state=0).split(columns):
        forest = RandomForestRegressor(TREES, random_state=0).fit(columns[train], places[train])
        explained.append(forest.score(columns[held_out], places[held_out]))
        test = columns[held_out], places[held_out]
        importance = permutation_importance(forest, *test, n_repeats=SHUFFLES, random_state=0)
        drops.append(importance["importances_mean"])
    return np.mean(drops, axis=0), float(np.mean(explained))
