"""Tensors of the Open Inference Protocol v2: their types, and what becomes of their data in JSON or in binary."""

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxtrain.data.tables import TEXT
from jaxtrain.serve.refusal import bad_request

DATATYPES: dict[str, np.dtype] = {
    "BOOL": np.dtype(np.bool_),
    **{f"UINT{8 * size}": np.dtype(f"<u{size}") for size in (1, 2, 4, 8)},
    **{f"INT{8 * size}": np.dtype(f"<i{size}") for size in (1, 2, 4, 8)},
    **{f"FP{8 * size}": np.dtype(f"<f{size}") for size in (2, 4, 8)},
    "BYTES": TEXT,
}
"""Name of a type in the protocol -> the dtype, in the byte order of the protocol."""

NAMES = {dtype: name for name, dtype in DATATYPES.items()}

LENGTH_BYTES = 4
"""Bytes before each text of a binary tensor, which hold its length."""


class TensorSpec(NamedTuple):
    """A tensor of a model: its name, its type in the protocol, the shape of one example, whether values may miss."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    may_miss: bool = False

    def describe(self) -> dict[str, Any]:
        """Returns the tensor as the metadata of a model list it; -1 is any number of examples."""
        return {"name": self.name, "datatype": self.datatype, "shape": [-1, *self.shape]}


def datatype_of(dtype: np.dtype) -> str:
    """Returns the name of a dtype in the protocol."""
    return NAMES[np.dtype(dtype).newbyteorder("<")]


def from_json(data: object, spec: TensorSpec, shape: Sequence[int]) -> np.ndarray:
    """Returns an array of a list of values, flat or nested as the shape is; raises Refusal for any other data."""
    values = _flatten(data, spec, shape)
    expected = math.prod(shape)
    if len(values) != expected:
        raise bad_request(_data_of(spec), f"{len(values)} values", f"{expected}, as the shape declares")
    kinds = set(map(type, values))
    if spec.datatype == "BYTES":
        return _texts(values, kinds, spec).reshape(shape)
    if spec.datatype == "BOOL":
        _demand_kinds(kinds, {bool}, spec, "true or false")
        return np.array(values, np.bool_).reshape(shape)
    return _numbers(values, kinds, spec).reshape(shape)


def from_bytes(content: memoryview, spec: TensorSpec, shape: Sequence[int]) -> np.ndarray:
    """Returns an array of the bytes of a binary tensor; raises Refusal where they do not fill the shape."""
    count = math.prod(shape)
    if spec.datatype == "BYTES":
        return _texts_of_bytes(content, spec, count).reshape(shape)
    dtype = DATATYPES[spec.datatype]
    if len(content) != count * dtype.itemsize:
        got = f"{len(content)} bytes"
        raise bad_request(_data_of(spec), got, f"{count * dtype.itemsize}, as shape and datatype declare")
    if spec.datatype == "BOOL" and count and np.frombuffer(content, np.uint8).max() > 1:
        raise bad_request(_data_of(spec), "a byte above 1", "the bytes 0 and 1")
    return np.frombuffer(content, dtype).reshape(shape)


def to_bytes(array: np.ndarray) -> bytes:
    """Returns the bytes of a binary tensor."""
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()


def _data_of(spec: TensorSpec) -> str:
    return f"data of {spec.name!r}"


def _flatten(data: object, spec: TensorSpec, shape: Sequence[int]) -> list[Any]:
    """Returns the values of a list that is flat, or nested as the shape is."""
    if not isinstance(data, list):
        raise bad_request(_data_of(spec), "no list", "a list of values")
    if not data or not isinstance(data[0], list):
        return data
    values = data
    for length in shape[1:]:
        if set(map(type, values)) != {list} or set(map(len, values)) != {length}:
            raise bad_request(_data_of(spec), "lists of other lengths", "lists nested as the shape, or one flat list")
        values = list(itertools.chain.from_iterable(values))
    return values


def _demand_kinds(kinds: set[type], allowed: set[type], spec: TensorSpec, expected: str) -> None:
    if not kinds <= allowed:
        raise bad_request(_data_of(spec), "a value of another type", f"{expected}, for the type {spec.datatype}")


def _numbers(values: list[Any], kinds: set[type], spec: TensorSpec) -> np.ndarray:
    dtype = DATATYPES[spec.datatype]
    if dtype.kind == "f":
        missing = {type(None)} if spec.may_miss else set()
        _demand_kinds(kinds, {int, float} | missing, spec, "numbers")
        return _finite(values, type(None) in kinds, spec)
    _demand_kinds(kinds, {int}, spec, "integers")
    limits = np.iinfo(dtype)
    if values and not (limits.min <= min(values) and max(values) <= limits.max):
        expected = f"integers from {limits.min} to {limits.max}, for the type {spec.datatype}"
        raise bad_request(_data_of(spec), "an integer out of range", expected)
    return np.array(values, dtype)


def _finite(values: list[Any], some_missing: bool, spec: TensorSpec) -> np.ndarray:
    """Returns numbers, with nan for those that are missing."""
    given = [0.0 if value is None else value for value in values] if some_missing else values
    try:
        with np.errstate(over="ignore"):
            numbers = np.array(given, np.float64).astype(DATATYPES[spec.datatype])
    except OverflowError:
        numbers = np.array([np.inf])
    if not np.isfinite(numbers).all():
        raise bad_request(_data_of(spec), "a number out of range", f"finite numbers of the type {spec.datatype}")
    if some_missing:
        numbers[[value is None for value in values]] = np.nan
    return numbers


def _texts(values: list[Any], kinds: set[type], spec: TensorSpec) -> np.ndarray:
    missing = {type(None)} if spec.may_miss else set()
    _demand_kinds(kinds, {str} | missing, spec, "texts")
    try:
        return np.array([value or "" for value in values], TEXT)
    except UnicodeEncodeError as error:  # half of a pair of surrogates
        raise bad_request(_data_of(spec), "a text that is no Unicode", "texts") from error


def _texts_of_bytes(content: memoryview, spec: TensorSpec, count: int) -> np.ndarray:
    """Returns `count` texts, each behind its length in 4 bytes."""
    texts: list[bytes] = []
    begin = 0
    while begin < len(content):
        start = begin + LENGTH_BYTES
        begin = start + int.from_bytes(content[begin:start], "little")
        texts.append(bytes(content[start:begin]))
    if begin != len(content) or len(texts) != count:
        got = "texts that do not fill it" if begin != len(content) else f"{len(texts)} texts"
        raise bad_request(_data_of(spec), got, f"{count} texts, each behind its length in {LENGTH_BYTES} bytes")
    try:
        return np.array([text.decode() for text in texts], TEXT)
    except UnicodeDecodeError as error:
        raise bad_request(_data_of(spec), "a text that is not in UTF-8", "texts in UTF-8") from error
