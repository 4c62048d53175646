"""The report of a comparison of two runs, or of two searches: its lines for people, and its document for programs."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from jaxtrain.replay.pair import Pair, StateDifference
from jaxtrain.replay.report import comparison_line
from jaxtrain.replay.search_pair import SearchPair

MOST_KEYS = 20
"""Keys of configs, or numbers of a row, that are printed; the document has all."""


def pair_document(pair: Pair) -> dict[str, Any]:
    """Returns what `diff` tells programs of two runs."""
    state = pair.state
    return {
        "runs": list(pair.names),
        "same": pair.are_the_same,
        "config": _as_texts(pair.config),
        "without_effect": _as_texts(pair.without_effect),
        "environment": None if pair.environment is None else _as_texts(pair.environment),
        "same_data": pair.same_data,
        "other_batches_from": pair.order,
        "steps": pair.steps,
        "rows": pair.rows,
        "row": None if pair.row is None else {**pair.row._asdict(), "numbers": dict(pair.row.numbers)},
        "last_equal": pair.last_equal,
        "state": None if state is None else state._asdict(),
        "exact": pair.is_exact if any(pair.comparisons) else None,
        "comparisons": [[{**c._asdict(), "equal": c.is_equal} for c in own] for own in pair.comparisons],
        "unreached": [list(own) for own in pair.unreached],
    }


def search_document(pair: SearchPair) -> dict[str, Any]:
    """Returns what `diff` tells programs of two searches."""
    return {
        "searches": list(pair.names),
        "same": pair.are_the_same,
        "config": _as_texts(pair.config),
        "trials": pair.trials,
        "more": list(pair.more),
        "trial": pair.trial,
        "batch": pair.batch,
        "point": None if pair.point is None else _as_texts(pair.point),
        "step": pair.step,
        "values": None if pair.values is None else list(pair.values),
        "rung": pair.rung,
        "states": None if pair.states is None else pair_document(pair.states),
    }


def _as_texts(apart: Mapping[str, tuple[Any, Any]]) -> dict[str, list[str]]:
    return {name: [str(value) for value in values] for name, values in apart.items()}


def pair_lines(pair: Pair) -> Iterator[str]:
    """Yields the lines for people on two runs; the last one is the verdict."""
    yield from _heading(pair)
    if pair.without_effect:
        yield f"  without an effect on numbers: {', '.join(pair.without_effect)}"
    if pair.environment is None:
        yield "environment: not compared, since a run that did not end has written none"
    else:
        yield from _both("environment", pair.environment, "the same")
    yield "data: the same" if pair.same_data else "data: OTHER, by their fingerprints"
    if pair.same_data:
        same = (
            f"the same rows in all {pair.steps:,} steps"
            if pair.order is None
            else f"other rows from step {pair.order:,} on"
        )
        yield f"batches: {same}"
    yield from _row_lines(pair)
    yield from _state_lines(pair)
    yield _verdict(pair)


def _both(title: str, apart: Mapping[str, tuple[Any, Any]], same: str) -> Iterator[str]:
    if not apart:
        yield f"{title}: {same}"
        return
    yield f"{title}:"
    for name, (one, other) in list(apart.items())[:MOST_KEYS]:
        yield f"  {name}: {one} in A, {other} in B"
    if len(apart) > MOST_KEYS:
        yield f"  and {len(apart) - MOST_KEYS:,} more"


def _row_lines(pair: Pair) -> Iterator[str]:
    if pair.row is None:
        yield f"logged: all {pair.rows:,} rows of both are equal" if pair.rows else "logged: no row is in both"
        return
    yield f"logged: the first row that differs is that of {pair.row.split} at step {pair.row.step:,}"
    for name, (one, other) in list(pair.row.numbers.items())[:MOST_KEYS]:
        yield f"  {name}: {one} in A, {other} in B"


def _state_lines(pair: Pair) -> Iterator[str]:
    for name, comparisons, unreached in zip("AB", pair.comparisons, pair.unreached, strict=True):
        apart = [comparison for comparison in comparisons if not comparison.is_equal]
        if comparisons and not apart:
            yield f"recomputed {name}: equal to the bit to what it recorded, in {len(comparisons)} places"
        for comparison in apart:
            yield f"recomputed {name}: {comparison_line(comparison)}"
        for what in unreached:
            yield f"recomputed {name}: {what}, was not compared, since it takes too long to reach"
    if not pair.is_exact:
        yield "  what is recomputed is NOT the run: what follows is true of the recomputed ones"
    if pair.last_equal is not None and (pair.state is not None or not pair.are_the_same):
        yield f"states: the same to the bit after {pair.last_equal:,} steps"
    if pair.state is not None:
        yield from state_lines(pair.state)


def state_lines(state: StateDifference) -> Iterator[str]:
    """Says in which arrays states differ."""
    when = f"after {state.step:,} steps" if state.step else "at the start"
    yield f"states: they part {when}: {state.leaves} of {state.total} arrays differ"
    yield f"  the first is {state.leaf}, {_how_much(state.difference)}"
    if state.worst[0] != state.leaf:
        yield f"  most differs {state.worst[0]}, {_how_much(state.worst[1])}"


def _how_much(difference: float) -> str:
    if math.isnan(difference):
        return "which one of them does not have, or in another shape"
    return f"by {difference:.2g} of its largest number"


def _verdict(pair: Pair) -> str:
    if pair.are_the_same:
        return f"the same to the bit, over {pair.steps:,} steps"
    if pair.state is not None:
        return f"they part in step {max(pair.state.step - 1, 0):,}" if pair.state.step else "they part at the start"
    if pair.last_equal == pair.steps and not pair.ended_alike:
        return f"the same to the bit over the {pair.steps:,} steps that both took, and they ended otherwise"
    if pair.last_equal == pair.steps:
        return "the same states to the bit; what was logged of them differs"
    return "no difference was found, and not all could be compared"


def _heading(pair: Pair | SearchPair) -> Iterator[str]:
    """Yields the names of both, and what their configs differ in."""
    yield f"A: {pair.names[0]}"
    yield f"B: {pair.names[1]}"
    yield from _both("config", pair.config, "the same, where it changes numbers")


def search_lines(pair: SearchPair) -> Iterator[str]:
    """Yields the lines for people on two searches; the last one is the verdict."""
    yield from _heading(pair)
    if pair.more:
        yield f"trials that only one has: {', '.join(map(str, pair.more[:MOST_KEYS]))}"
    if pair.trial is None:
        yield f"the same to the bit, in {pair.trials:,} trials"
        return
    yield f"the first trial that differs is {pair.trial}, in batch {pair.batch}"
    if pair.point is not None:
        yield from _both("its point", pair.point, "")
        yield "the samplers part, before anything is trained"
        return
    rung = "" if pair.rung is None else f", after {pair.rung} rungs"
    assert pair.values is not None
    one, other = pair.values
    yield f"its first evaluation that differs is at step {pair.step:,}{rung}: {one} in A, {other} in B"
    if pair.states is not None:
        yield from pair_lines(pair.states)
