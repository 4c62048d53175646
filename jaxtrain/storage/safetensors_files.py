"""Arrays by name in a `.safetensors` file, the common archive of weights: https://github.com/huggingface/safetensors."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from ml_dtypes import bfloat16
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from jaxtrain.errors import StorageError, Words
from jaxtrain.files import read_bytes, write_bytes

SUFFIX = ".safetensors"

DTYPES = {
    **{"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": bfloat16, "BOOL": np.bool_},
    **{f"I{8 * size}": np.dtype(f"i{size}") for size in (1, 2, 4, 8)},
    **{f"U{8 * size}": np.dtype(f"u{size}") for size in (1, 2, 4, 8)},
}


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Reads name -> array; raises StorageError for a file that is none, is cut short, or holds other numbers."""
    expected = "a complete file of safetensors"
    content = read_bytes(path)
    try:
        found = deserialize(content)
    except SafetensorError as error:
        raise StorageError(str(path), Words(f"a file that cannot be read ({error})"), expected) from error
    if unknown := sorted({spec["dtype"] for _, spec in found} - DTYPES.keys()):
        got = Words(f"numbers of the type {', '.join(unknown)}")
        raise StorageError(str(path), got, f"one of {', '.join(DTYPES)}", "Convert them to F32 first")
    return {name: np.frombuffer(spec["data"], DTYPES[spec["dtype"]]).reshape(spec["shape"]) for name, spec in found}


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], title: str = "") -> None:
    """Writes name -> array, and a title; the same content is always the same bytes."""
    # The library copies the memory of an array, which is wrong for a transposed one.
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    # One text at most: the library writes several in random order.
    write_bytes(path, save(contiguous, {"title": title} if title else {}))
