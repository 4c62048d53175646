"""A comparison as JSON, for programs."""

import math
from dataclasses import asdict
from typing import Any

from jaxtrain.reports.comparison import Comparison
from jaxtrain.reports.differences import Difference
from jaxtrain.reports.saved_runs import STATES, metric_names
from jaxtrain.reports.seed_groups import SeedGroup
from jaxtrain.training.intervals import Interval


def comparison_document(comparison: Comparison) -> dict[str, Any]:
    """Returns a comparison as docs/json.md describes it."""
    columns = {state: comparison.differences(state) for state in comparison.states}
    return {
        "metric": comparison.metric,
        "higher_is_better": comparison.higher_is_better,
        "compared_by": comparison.state,
        "differing": comparison.keys,
        "differing_without_effect": comparison.other_keys,
        "reference": None if comparison.reference is None else comparison.groups.index(comparison.reference),
        "groups": [
            _group_document(comparison, group, {state: own[number] for state, own in columns.items()})
            for number, group in enumerate(comparison.groups)
        ],
        "environments": comparison.environments,
        "left_out": [{"path": str(own.workdir), "why": own.why, "reason": own.reason} for own in comparison.left_out],
    }


def _group_document(
    comparison: Comparison, group: SeedGroup, differences: dict[str, Difference | None]
) -> dict[str, Any]:
    names = {state: sorted({name for run in group.runs for name in metric_names(run, state)}) for state in STATES}
    return {
        "label": comparison.label_of(group),
        "runs": [str(run.workdir) for run in group.runs],
        "config": {key: group.settings.get(key) for key in comparison.keys},
        "over": group.unit,
        "numbers": group.numbers,
        "diverged": group.diverged,
        "metrics": {state: {name: _spread_document(group, state, name) for name in names[state]} for state in STATES},
        "difference": {state: None if own is None else _difference_document(own) for state, own in differences.items()},
        "steps": group.steps,
        "seconds": group.seconds,
        "examples_per_second": group.speed("examples_per_second"),
        "milliseconds_per_step": group.speed("milliseconds_per_step"),
    }


def _spread_document(group: SeedGroup, state: str, name: str) -> dict[str, Any]:
    spread = group.spread(state, name) or Interval(math.nan, math.nan, math.nan)
    return {**asdict(spread), "values": {str(number): value for number, value in group.values(state, name).items()}}


def _difference_document(difference: Difference) -> dict[str, Any]:
    return {
        **asdict(difference.spread),
        "paired": difference.paired,
        "seeds": difference.seeds,
        "verdict": difference.verdict,
    }
