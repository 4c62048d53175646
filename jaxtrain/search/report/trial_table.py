"""The table of trials on the report's page."""

import functools
import html
import re
import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

from jaxtrain.reports.figures import format_value
from jaxtrain.search.results import Findings
from jaxtrain.search.trials import Outcome
from jaxtrain.training.intervals import Interval


class Cell(NamedTuple):
    """A table cell: `value` to sort by, `text` to show."""

    value: str = ""
    text: str = ""


Column = tuple[str, Callable[[Outcome], Cell]]
"""(name, function that returns a trial's cell)."""


def table(findings: Findings) -> str:
    """Returns the table as HTML, from the best trial to the worst; cells are sorted by `data-value`."""
    columns = _columns(findings)
    heads = "".join(_head(name, "ascending" if place == 0 else "none") for place, (name, _) in enumerate(columns))
    rows = "\n".join(_row(outcome, columns, findings) for outcome in findings.order)
    return f"<table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>"


def _columns(findings: Findings) -> list[Column]:
    places = {outcome.trial: place for place, outcome in enumerate(findings.order, 1)}
    several = any(len(outcome.seeds) > 1 for outcome in findings.outcomes)
    return [
        ("place", lambda outcome: _number(places[outcome.trial])),
        ("trial", lambda outcome: _number(outcome.trial)),
        ("status", lambda outcome: Cell(outcome.status, outcome.status)),
        (findings.metric, lambda outcome: _number(outcome.value)),
        *([("deviation", lambda outcome: _number(_deviation(outcome)))] if several else []),
        *(
            [("from best", lambda outcome: _interval(findings.differences_from_best.get(outcome.trial)))]
            if several
            else []
        ),
        ("steps", lambda outcome: _number(outcome.step)),
        ("seconds", lambda outcome: _number(outcome.seconds)),
        *((dimension.key, functools.partial(_point_value, dimension.key)) for dimension in findings.space.dimensions),
    ]


def _number(value: float | None) -> Cell:
    if value is None:
        return Cell()
    return Cell(repr(value), f"{value:.5g}" if isinstance(value, float) else str(value))


def _interval(difference: Interval | None) -> Cell:
    """Returns the difference from the best with its 95 % interval; empty if there is none."""
    if difference is None:
        return Cell()
    return Cell(repr(difference.mean), f"{difference.mean:+.3g} ({difference.low:+.2g} to {difference.high:+.2g})")


def _point_value(key: str, outcome: Outcome) -> Cell:
    """Returns the value of a dimension; empty if it is not active."""
    if key not in outcome.point:
        return Cell()
    value = outcome.point[key]
    return Cell(str(value), format_value(value))


def _deviation(outcome: Outcome) -> float | None:
    """Returns the standard deviation over the seeds that did not diverge."""
    values = [value for value in outcome.seeds.values() if value is not None]
    return statistics.stdev(values) if len(values) > 1 else None


def _head(name: str, order: str) -> str:
    return f'<th scope="col" aria-sort="{order}"><button type="button">{_breakable(name)}</button></th>'


def _breakable(name: str) -> str:
    """Returns a name as HTML that may be broken into lines after dots and underscores."""
    return re.sub(r"([._])(?=.)", r"\1<wbr>", html.escape(name))


def _row(outcome: Outcome, columns: Sequence[Column], findings: Findings) -> str:
    cells = []
    for name, column in columns:
        value, text = map(html.escape, column(outcome))
        badges = _badges(outcome, findings) if name == "trial" else ""
        cells.append(f'<td data-value="{value}" title="{text}">{text}{badges}</td>')
    return f'<tr id="trial-{outcome.trial}" class="{outcome.status}" data-trial="{outcome.trial}">{"".join(cells)}</tr>'


def _badges(outcome: Outcome, findings: Findings) -> str:
    """Returns badges that mark the best trial, its ties, and the config's own values."""
    best = findings.best is not None and outcome.trial == findings.best.trial
    marks = {"best": best, "tie": outcome.trial in findings.ties, "config's own": outcome.trial == 0}
    return "".join(f' <span class="badge">{html.escape(mark)}</span>' for mark, holds in marks.items() if holds)
