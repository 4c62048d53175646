"""Columns of a table as inputs of an exported program, which encodes them as the rows of training were encoded."""

from collections.abc import Callable
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
        parts = self._encode_numbers(arguments) if self.numbers else {}
        for place, column in enumerate(self.categories):
            parts[column.name] = [_encode_codes(column, arguments["codes"][:, place])]
        return jnp.concatenate([part for column in self.encoding.columns for part in parts[column.name]], axis=1)

    def _encode_numbers(self, arguments: Arrays) -> dict[str, list[jax.Array]]:
        """Returns the encoded columns (n, 1) of each column of numbers.

        They are standardised, their normal rank, and whether they are missing. All columns are encoded together, as a
        program would else hold a search of quantiles for each.
        """
        value = arguments["numbers"]
        absent = jnp.isnan(value)
        mean, std = self._statistics(0)
        filled = centre(*split([[column.mean for column in self.numbers]]), mean)
        centred = jnp.where(absent, filled, centre(value, arguments["numbers_remainder"], mean))
        encoded = [centred / std.astype(np.float32)]
        if all(column.quantiles for column in self.numbers):
            # Centred like the numbers, so that a number is equal to a quantile here where it is so in training.
            quantiles = centre(*split([column.quantiles for column in self.numbers]), mean.T)
            mean_rank, std_rank = (numbers.astype(np.float32) for numbers in self._statistics(1))
            encoded.append((_normal_ranks(centred, quantiles) - mean_rank) / std_rank)
        parts = {}
        for place, column in enumerate(self.numbers):
            own = [*encoded, *([absent.astype(jnp.float32)] if column.missing else [])]
            parts[column.name] = [part[:, place : place + 1] for part in own]
        return parts

    def _statistics(self, place: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the mean and the deviation (1, columns) of one of the encoded columns of each column of numbers."""
        columns = self.encoding.columns
        begins = np.cumsum([0, *(len(column.names) for column in columns)])
        places = [begins[i] + place for i, column in enumerate(columns) if column.kind == "number"]
        return np.array([self.info.input_mean])[:, places], np.array([self.info.input_std])[:, places]


def _codes(column: ColumnEncoding, texts: np.ndarray) -> np.ndarray:
    return np.where(absent_in(texts), len(column.categories) + 1, column.places(texts) + 1)


def _encode_codes(column: ColumnEncoding, codes: jax.Array) -> jax.Array:
    """Returns codes (n,) as one column of codes, or as columns of 0 and 1, the last for missing ones."""
    known = (codes >= 0) & (codes < column.codes)
    codes = jnp.where(known, codes, 0)
    if column.coded:
        return codes[:, None].astype(jnp.float32)
    return (codes[:, None] == jnp.arange(1, column.codes)[None]).astype(jnp.float32)


def _normal_ranks(values: jax.Array, quantiles: np.ndarray) -> jax.Array:
    """Returns the normal deviate of the share of training values below each value, as `data/table_encoding.py` does.

    Values are (n, columns), quantiles (columns, m). The deviate of a share near 1 is that of the share above, which
    float32 holds finely.
    """
    count = quantiles.shape[1]
    knots = np.pad(quantiles, ((0, 0), (0, 2 ** count.bit_length() - count)), constant_values=np.inf)
    after = _search(values, knots, jnp.less_equal)
    before = _search(values, knots, jnp.less)
    # A value that occurs often is several quantiles at once: the mean of the first and the last of its shares.
    last = _shares(knots, count, values, after, values.__ge__, values.__lt__)
    first = _shares(knots, count, values, before, values.__gt__, values.__le__)
    below = (last[0] + first[0]) / 2.0
    above = (last[1] + first[1]) / 2.0
    deviate = jax.scipy.special.ndtri(jnp.clip(jnp.minimum(below, above), LARGEST_QUANTILE, 0.5))
    return jnp.where(below <= above, deviate, -deviate)


Comparison = Callable[[jax.Array], jax.Array]


def _search(values: jax.Array, knots: np.ndarray, is_below: Callable[[jax.Array, jax.Array], jax.Array]) -> jax.Array:
    """Returns the last knot, from 0, that lies below each value (n, columns), or -1.

    `knots` (columns, a power of 2) ascend, the last of them to infinity. The search by halves takes few operations,
    which an exported program holds one by one.
    """
    end = jnp.zeros(values.shape, jnp.int32)
    for step in 2 ** np.arange(knots.shape[1].bit_length() - 1, dtype=np.int32)[::-1]:
        end = jnp.where(is_below(_take(knots, end + (step - 1)), values), end + step, end)
    return end - 1


def _take(knots: np.ndarray, places: jax.Array) -> jax.Array:
    """Returns the knots of each column at places (n, columns)."""
    columns, count = knots.shape
    begins = count * np.arange(columns, dtype=np.int32)[None]
    return jnp.asarray(knots.ravel()).at[places + begins].get(mode="promise_in_bounds")


def _shares(
    knots: np.ndarray, count: int, values: jax.Array, start: jax.Array, is_past: Comparison, is_before: Comparison
) -> tuple[jax.Array, jax.Array]:
    """Returns the shares below and above values that lie between the knots `start` and `start` + 1, or past an end.

    Of the knots (columns, m), the first `count` are quantiles.
    """
    intervals = count - 1
    start = jnp.clip(start, 0, intervals - 1)
    low = _take(knots, start)
    high = _take(knots, start + 1)
    below = jnp.where(is_past(high), 1.0, jnp.where(is_before(low), 0.0, (values - low) / (high - low)))
    above = jnp.where(is_past(high), 0.0, jnp.where(is_before(low), 1.0, (high - values) / (high - low)))
    before = start.astype(jnp.float32)
    return (before + below) / intervals, (intervals - 1.0 - before + above) / intervals
