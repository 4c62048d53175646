"""The formats of an export, and which of them are written."""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import NamedTuple

from jaxtrain.errors import UsageError, Words, nearest

ALWAYS = ("jaxexp", "safetensors")
"""The program and the archive, which every export has."""

OPTIONAL = ("onnx", "mlflow")
"""Formats that can be left out."""

PACKAGES = ("onnx", "onnxruntime")
"""The packages that write and check a model of ONNX."""


class Formats(NamedTuple):
    """The optional formats to write, and whether somebody asked for them, so that none may be left out."""

    names: tuple[str, ...]
    demanded: bool


def choose_formats(given: Sequence[str] | None) -> Formats:
    """Returns the optional formats to write: those given, or all whose packages are installed.

    Raises UsageError for an unknown one, and for one whose packages are missing.
    """
    if given is None:
        return Formats(tuple(name for name in OPTIONAL if name != "onnx" or _has_onnx()), demanded=False)
    known = (*ALWAYS, *OPTIONAL)
    for name in given:
        if name not in known:
            raise UsageError("--format", name, f"some of {', '.join(known)}", nearest(name, known))
    if "onnx" in given and not _has_onnx():
        got = Words("onnx, and its packages are not installed")
        raise UsageError("--format", got, " and ".join(PACKAGES), "Run pip install 'jaxtrain[onnx]'")
    return Formats(tuple(name for name in OPTIONAL if name in given), demanded=True)


def _has_onnx() -> bool:
    return all(find_spec(name) for name in PACKAGES)
