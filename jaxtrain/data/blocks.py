"""Walking large arrays in pieces that stay in the processor's cache."""

from collections.abc import Iterator

import numpy as np

BLOCK_ELEMENTS = 2**17


def blocks(array: np.ndarray, rows: np.ndarray | None = None) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields (slice, values as (examples, features)) over the first axis, or over its `rows` in their order."""
    examples = len(array) if rows is None else len(rows)
    features = array[0].size if len(array) else 1
    length = max(1, BLOCK_ELEMENTS // max(1, features))
    for start in range(0, examples, length):
        place = slice(start, min(start + length, examples))
        values = array[place] if rows is None else array[rows[place]]
        yield place, values.reshape(place.stop - start, features)
