"""Columns of a table as inputs of an exported program, which encodes them as the rows of training were encoded."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.data.info import DataInfo
from jaxtrain.data.new_inputs import check_numbers
from jaxtrain.data.source import as_inputs
from jaxtrain.data.table_encoding import LARGEST_QUANTILE, ColumnEncoding, TableEncoding
from jaxtrain.data.tables import Table, absent_in
from jaxtrain.errors import DataError, Words
from jaxtrain.export.array_inputs import Arrays, Specs
from jaxtrain.export.two_floats import centre, split


@dataclass(frozen=True)
class TableInputs:
    """Numbers, as value and remainder, nan where one is missing, and the codes of categories.

    A code is 0 for a category that no training row has, then the place of the category, then, for a missing one, the
    number of categories plus 1. Unknown codes count as 0.
    """

    info: DataInfo
    encoding: TableEncoding

    @property
    def specs(self) -> Specs:
        """The arguments of the program; a table without numbers or without categories lacks theirs."""
        numbers = jax.ShapeDtypeStruct((len(self.numbers),), np.float32)
        codes = jax.ShapeDtypeStruct((len(self.categories),), np.int32)
        of_numbers = {"numbers": numbers, "numbers_remainder": numbers} if self.numbers else {}
        return of_numbers | ({"codes": codes} if self.categories else {})

    @property
    def numbers(self) -> list[ColumnEncoding]:
        """The columns of numbers, in the order of the argument."""
        return [column for column in self.encoding.columns if column.kind == "number"]

    @property
    def categories(self) -> list[ColumnEncoding]:
        """The columns of categories, in the order of the argument."""
        return [column for column in self.encoding.columns if column.kind == "category"]

    def arguments(self, inputs: Any, *, allow_nan: bool = False) -> dict[str, np.ndarray]:
        """Returns the arguments for columns by name; raises DataError where they differ from those of training."""
        given = as_inputs(inputs, "inputs")
        if not isinstance(given, Table):
            got = Words(f"an object of type {type(inputs).__name__}")
            raise DataError("inputs", got, "columns by name, as a mapping or a data frame")
        if not allow_nan:
            check_numbers(given, self.info)
        columns = self.encoding.columns_of(given)
        values = [columns[column.name] for column in self.numbers]
        found = {}
        if values:
            numbers = split(np.stack(values, axis=1))
            found |= {"numbers": numbers.value, "numbers_remainder": numbers.remainder}
        if self.categories:
            codes = [_codes(column, columns[column.name]) for column in self.categories]
            found["codes"] = np.stack(codes, axis=1).astype(np.int32)
        return found

    def prepare(self, arguments: Arrays) -> jax.Array:
        """Returns the inputs of the task inside the program: encoded and normalised rows (n, features)."""
        means = iter(zip(self.info.input_mean, self.info.input_std, strict=True))
        places = {"number": 0, "category": 0}
        parts: list[jax.Array] = []
        for column in self.encoding.columns:
            place = places[column.kind]
            places[column.kind] += 1
            statistics = [next(means) for _ in column.names]
            if column.kind == "category":
                parts.append(_encode_codes(column, arguments["codes"][:, place]))
            else:
                pair = (arguments["numbers"][:, place], arguments["numbers_remainder"][:, place])
                parts += [part[:, None] for part in _encode_numbers(column, *pair, statistics)]
        return jnp.concatenate(parts, axis=1)


def _codes(column: ColumnEncoding, texts: np.ndarray) -> np.ndarray:
    return np.where(absent_in(texts), len(column.categories) + 1, column.places(texts) + 1)


def _encode_codes(column: ColumnEncoding, codes: jax.Array) -> jax.Array:
    """Returns codes (n,) as one column of codes, or as columns of 0 and 1, the last for missing ones."""
    known = (codes >= 0) & (codes < column.codes)
    codes = jnp.where(known, codes, 0)
    if column.coded:
        return codes[:, None].astype(jnp.float32)
    return (codes[:, None] == jnp.arange(1, column.codes)[None]).astype(jnp.float32)


def _encode_numbers(
    column: ColumnEncoding, value: jax.Array, remainder: jax.Array, statistics: list[tuple[float, float]]
) -> Iterator[jax.Array]:
    """Yields the encoded columns (n,) of numbers: standardised, their normal rank, and whether they are missing."""
    assert column.mean is not None
    mean, std = statistics[0]
    absent = jnp.isnan(value)
    filled = centre(*split(column.mean), mean)
    centred = jnp.where(absent, filled, centre(value, remainder, mean))
    yield centred / np.float32(std)
    if column.quantiles:
        mean_rank, std_rank = statistics[1]
        # Centred like the numbers, so that a number is equal to a quantile here where it is so in training.
        quantiles = centre(*split(column.quantiles), mean)
        yield (_normal_ranks(centred, quantiles) - np.float32(mean_rank)) / np.float32(std_rank)
    if column.missing:
        yield absent.astype(jnp.float32)


def _normal_ranks(values: jax.Array, quantiles: np.ndarray) -> jax.Array:
    """Returns the normal deviate of the share of training values below each value, as `data/table_encoding.py` does.

    The deviate of a share near 1 is that of the share above, which float32 holds finely.
    """
    knots = jnp.asarray(quantiles)
    after = jnp.searchsorted(knots, values, side="right") - 1
    before = jnp.searchsorted(knots, values, side="left") - 1
    # A value that occurs often is several quantiles at once: the mean of the first and the last of its shares.
    last = _shares(knots, values, after, values.__ge__, values.__lt__)
    first = _shares(knots, values, before, values.__gt__, values.__le__)
    below = (last[0] + first[0]) / 2.0
    above = (last[1] + first[1]) / 2.0
    deviate = jax.scipy.special.ndtri(jnp.clip(jnp.minimum(below, above), LARGEST_QUANTILE, 0.5))
    return jnp.where(below <= above, deviate, -deviate)


Comparison = Callable[[jax.Array], jax.Array]


def _shares(
    knots: jax.Array, values: jax.Array, start: jax.Array, is_past: Comparison, is_before: Comparison
) -> tuple[jax.Array, jax.Array]:
    """Returns the shares below and above values that lie between the knots `start` and `start` + 1, or past an end."""
    intervals = len(knots) - 1
    start = jnp.clip(start, 0, intervals - 1)
    low = knots[start]
    high = knots[start + 1]
    below = jnp.where(is_past(high), 1.0, jnp.where(is_before(low), 0.0, (values - low) / (high - low)))
    above = jnp.where(is_past(high), 0.0, jnp.where(is_before(low), 1.0, (high - values) / (high - low)))
    before = start.astype(jnp.float32)
    return (before + below) / intervals, (intervals - 1.0 - before + above) / intervals
