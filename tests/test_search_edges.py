"""What to search next: said where the best lies at the edge of a numeric range, within what the config accepts."""

from typing import Any

import pytest
from example_findings import space_of

from jaxtrain.search.report.edges import next_ranges
from jaxtrain.search.trials import Outcome

RATE = ("log_uniform", 1e-4, 1e-2)


def said(key: str, entry: tuple[Any, ...], value: Any, **ranges: Any) -> list[str]:
    best = Outcome(1, "done", 0.5, {0: 0.5}, 60, {key: value}, {}, [], 1.0)
    return next_ranges(space_of({key: entry, **ranges}), best)


@pytest.mark.parametrize(
    ("key", "entry", "value", "told"),
    [
        ("optimizer.learning_rate", RATE, 0.0099, "search 0.00099 to 0.099 next"),
        ("optimizer.learning_rate", RATE, 1e-4, "search 1e-5 to 0.001 next"),
        ("optimizer.learning_rate", ("grid", (0.001, 0.01, 0.1)), 0.1, "range, 0.001 to 0.1: search 0.01 to 1 next"),
        ("model.dropout", ("uniform", 0.0, 0.5), 0.49, "search 0.24 to 0.74 next"),
        ("data.batch_size", ("log_int", 16, 256), 256, "search 64 to 1024 next"),
        ("optimizer.b1", ("uniform", 0.5, 0.9), 0.9, "search 0.7 to 0.94 next"),
    ],
)
def test_the_next_range_is_as_long_around_the_value_or_as_far_as_is_allowed(key, entry, value, told):
    (line,) = said(key, entry, value)
    assert line.startswith(f"{key} = ")
    assert told in line


@pytest.mark.parametrize(
    ("key", "entry", "value"),
    [
        ("optimizer.learning_rate", RATE, 1e-3),
        ("model.dropout", ("uniform", 0.0, 0.5), 0.0),
        ("model.dropout", ("choice", (0.1, 0.5)), 0.5),
        ("model.dropout", ("uniform", 0.3, 0.3), 0.3),
        ("model.dropout", ("uniform", 0.1, 0.5), None),
    ],
    ids=["in the middle", "nothing is allowed below", "a choice has no edge", "one value", "no number"],
)
def test_nothing_is_said_where_there_is_no_edge_or_nothing_beyond(key, entry, value):
    assert said(key, entry, value) == []
