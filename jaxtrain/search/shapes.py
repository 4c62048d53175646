"""Counts the programs that a search may need, before it starts: trials of one shape share a program."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from jaxtrain.config.hparams import hyperparameters
from jaxtrain.config.resolve import resolve_config
from jaxtrain.search.space import Dimension, Point, Space, count_points


@dataclass(frozen=True)
class Shaping:
    """The shapes that the values of a dimension give: all floats that enter the program share one."""

    dimension: Dimension
    has_hyperparameters: bool

    @property
    def count(self) -> float:
        """The number of shapes; infinite for a range of floats that shape the program."""
        values = self.dimension.values
        if not self.has_hyperparameters:
            return math.inf if values is None else count_points((self.dimension,))
        return 1 + sum(not isinstance(value, float) for value in values or ())

    def holds(self, value: Any) -> bool:
        """Tells whether a value has one of these shapes."""
        return (self.has_hyperparameters and isinstance(value, float)) or self.dimension.contains(value)

    def is_shaping(self, own: Point) -> bool:
        """Tells whether the dimension gives more than one shape, that of the config's own value among them."""
        key = self.dimension.key
        return self.count > 1 or (key in own and not self.holds(own[key]))


def shapes_line(space: Space, trials: int) -> str:
    """Says in one line how many programs the trials of a search may need, and which entries shape them."""
    shapes = list(_shapes(space))
    count = min(_count(space.own, shapes), trials)
    if count == 1:
        return "programs: one serves all trials"
    dimensions = [each.dimension for _, active in shapes for each in active if each.is_shaping(space.own)]
    keys = dict.fromkeys(dimension.key for dimension in (*space.member_dimensions, *dimensions))
    return f"programs: up to {count:,}, by {', '.join(keys)}; each is compiled when a trial first needs it"


def count_shapes(space: Space) -> float:
    """Counts the shapes of the points of a space, the config's own values among them."""
    return _count(space.own, list(_shapes(space)))


def _count(own: Point, shapes: Sequence[tuple[Point, Sequence[Shaping]]]) -> float:
    own_is_among = any(_holds(own, members, active) for members, active in shapes)
    return sum(math.prod(each.count for each in active) for _, active in shapes) + (not own_is_among)


def _shapes(space: Space) -> Iterator[tuple[Point, Sequence[Shaping]]]:
    """Yields each choice of members, with the shapes of its active dimensions.

    Which floats enter the program is asked of a config that has one of each: None in the own config tells nothing.
    """
    for members, active in space.combinations():
        floats = {d.key: value for d in active for value in d.ends if isinstance(value, float)}
        traced = hyperparameters(resolve_config(space.config, members | floats).config)
        yield members, [Shaping(dimension, dimension.key in floats.keys() & traced.keys()) for dimension in active]


def _holds(point: Point, members: Point, active: Sequence[Shaping]) -> bool:
    """Tells whether a point has these members and shapes."""
    return all(point.get(key) == name for key, name in members.items()) and all(
        each.holds(point[each.dimension.key]) for each in active
    )
