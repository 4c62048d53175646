"""Which hyperparameters the trials' order depends on: a forest learns it, then one column at a time is shuffled."""

from typing import NamedTuple

import numpy as np

from jaxtrain.search.report.scales import scale_of
from jaxtrain.search.results import Findings

FEWEST = 12
"""Trials below which a forest learns nothing that holds for others."""

FOLDS = 4
TREES = 60
SHUFFLES = 4


class Importances(NamedTuple):
    """By how much the forest's R² on trials held out falls when a hyperparameter's values are shuffled among trials.

    drops: key -> fall, averaged over folds and shuffles; explained: that R² itself, which is no more than 0 where the
    drops mean nothing. `lack` says why there are none, and is empty otherwise.
    """

    drops: dict[str, float]
    explained: float
    lack: str


def find_importances(findings: Findings) -> Importances:
    """Returns the importances for the place of a trial in the order of all, those stopped and diverged included."""
    places, count = _places(findings), len(findings.outcomes)
    if count < FEWEST:
        return Importances({}, 0.0, f"too few trials: {count} of the {FEWEST} that importances need")
    if places.std() == 0:
        return Importances({}, 0.0, "no importances: no trial is better than another")
    keys, columns = _columns(findings)
    drops, explained = _shuffled(columns, places)
    return Importances(dict(zip(keys, drops.tolist(), strict=True)), explained, "")


def _places(findings: Findings) -> np.ndarray:
    """Returns each outcome's place, (trials,), 0 for the best; those that diverged share one."""
    diverged = [outcome.trial for outcome in findings.order if outcome.status == "diverged"]
    first = len(findings.order) - len(diverged)
    places = {outcome.trial: float(place) for place, outcome in enumerate(findings.order)}
    places |= dict.fromkeys(diverged, first + (len(diverged) - 1) / 2)
    return np.array([places[outcome.trial] for outcome in findings.outcomes])


def _columns(findings: Findings) -> tuple[list[str], np.ndarray]:
    """Returns keys and values, (trials, dimensions).

    Where a dimension does not count, its value is drawn from those where it does: a gap would tell the forest which
    member was chosen, and the member's importance would be counted as that of its knobs.
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


def _shuffled(columns: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns the falls of R², (dimensions,), and R², means over folds."""
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance
    from sklearn.model_selection import KFold

    drops, explained = [], []
    for train, held_out in KFold(FOLDS, shuffle=True, random_state=0).split(columns):
        forest = RandomForestRegressor(TREES, random_state=0).fit(columns[train], places[train])
        explained.append(forest.score(columns[held_out], places[held_out]))
        test = columns[held_out], places[held_out]
        found = permutation_importance(forest, *test, n_repeats=SHUFFLES, random_state=0)
        drops.append(found["importances_mean"])
    return np.mean(drops, axis=0), float(np.mean(explained))
