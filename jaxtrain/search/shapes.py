"""Counts the programs that a search may need, before it starts: trials of one shape share a program."""

from collections.abc import Iterator, Sequence

from jaxtrain.config.hparams import hyperparameters
from jaxtrain.config.resolve import resolve_config
from jaxtrain.search.space import Dimension, Point, Space, count_points


def shapes_line(space: Space, trials: int) -> str:
    """Says in one line how many programs the trials of a search may need, and which entries shape them."""
    count = min(count_shapes(space), trials)
    if count == 1:
        return "programs: one serves all trials"
    keys = dict.fromkeys(d.key for members, static in _shapes(space) for d in (*space.member_dimensions, *static))
    return f"programs: up to {count:,}, by {', '.join(keys)}; each is compiled when a trial first needs it"


def count_shapes(space: Space) -> int:
    """Counts the shapes of the points of a space, the config's own values among them; floats change no shape."""
    shapes = list(_shapes(space))
    own_is_among = any(_holds(space.own, members, static) for members, static in shapes)
    return sum(count_points(static) for _, static in shapes) + (not own_is_among)


def _shapes(space: Space) -> Iterator[tuple[Point, Sequence[Dimension]]]:
    """Yields each choice of members, with the active dimensions that shape a program."""
    for members, active in space.combinations():
        floats = hyperparameters(resolve_config(space.config, members).config)
        yield members, [dimension for dimension in active if dimension.key not in floats]


def _holds(point: Point, members: Point, static: Sequence[Dimension]) -> bool:
    """Tells whether a point has these members and values of these dimensions."""
    return all(point.get(key) == name for key, name in members.items()) and all(
        d.contains(point[d.key]) for d in static
    )
