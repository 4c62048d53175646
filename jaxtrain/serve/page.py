"""The page of a server for a person: a form for one example, and what the model makes of it, without a network."""

import base64
import hashlib
import html
import json
import string
from pathlib import Path
from typing import Any

import numpy as np

from jaxtrain.export.loading import PROGRAM, ExportedModel
from jaxtrain.export.table_inputs import TableInputs
from jaxtrain.files import as_json_value, read_text
from jaxtrain.serve.interface import Interface

MOST_EXAMPLE_VALUES = 200_000
"""Numbers of all examples together, beyond which the page has none: they are part of it."""

LONGEST_EXAMPLE = 80
"""Characters of a text that is an example of a prompt."""

SHOWN_OUTPUTS = (("probabilities", "class"), ("probabilities", "labels"), ("mask",), ("numbers",))
"""Outputs that are asked for together; a model that has none of these groups is asked for all of its outputs."""


def render_page(model: ExportedModel, interface: Interface, name: str) -> str:
    """Returns the page of a model as one HTML document that needs nothing else but the routes of its server."""
    script = _read_file("page.js")
    described = json.dumps(as_json_value(_describe(model, interface, name)), allow_nan=False)
    return string.Template(_read_file("page.html")).substitute(
        title=html.escape(f"{name}: {str(model.description['task']).replace('_', ' ')}"),
        style=_read_file("page.css"),
        origin=html.escape(_origin(model)),
        model=described.replace("<", "\\u003c"),
        script=script,
        # The page's policy allows only this script, so that markup in a name could never run another.
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _origin(model: ExportedModel) -> str:
    file = model.description["files"][PROGRAM]
    return f"Exported on {model.description['written']}; {PROGRAM} has the sha256 {file['sha256']}."


def _read_file(name: str) -> str:
    return read_text(Path(__file__).with_name(name))


def _describe(model: ExportedModel, interface: Interface, name: str) -> dict[str, Any]:
    """Returns what the script needs to know."""
    info = model.info
    examples = _examples(model, interface)
    return {
        "name": name,
        "kind": _kind(model),
        "inputs": [{**spec.describe(), "shape": spec.shape} for spec in interface.inputs.values()],
        "categories": _categories(interface),
        "outputs": next((group for group in SHOWN_OUTPUTS if interface.outputs.keys() >= {*group}), ()),
        "classes": model.class_names,
        "targets": info.with_target_of(model.description["config"]["data"].get("target")).target_names,
        "examples": examples,
        "white": _white(model, examples),
    }


def _kind(model: ExportedModel) -> str:
    """Returns "table", "text", "picture" or "numbers", by what a person can give."""
    info = model.info
    if model.continuation is not None:
        return "text"
    if info.table is not None:
        return "table"
    is_picture = len(info.input_shape) == 3 and info.input_shape[2] in (1, 3, 4)
    return "picture" if is_picture else "numbers"


def _categories(interface: Interface) -> dict[str, list[str]]:
    inputs = interface.of_program
    return {c.name: list(c.categories) for c in inputs.categories} if isinstance(inputs, TableInputs) else {}


def _examples(model: ExportedModel, interface: Interface) -> list[dict[str, Any]]:
    """Returns the examples as a client sends them: name of an input -> flat list, the value of a column, or a text."""
    arguments, _ = model.read_examples()
    if model.continuation is not None and (vocabulary := model.info.vocabulary):
        return [{"text": vocabulary.decode(tokens)[-LONGEST_EXAMPLE:]} for tokens in arguments["inputs"]]
    if sum(array.size for array in arguments.values()) > MOST_EXAMPLE_VALUES:
        return []
    if isinstance(interface.of_program, TableInputs):
        return _rows_of_table(interface.of_program, arguments)
    (name,) = interface.inputs
    values = arguments[name]
    if len(arguments) > 1:
        values = values.astype(np.float64) + arguments[f"{name}_remainder"]
    return [{name: example.ravel().tolist()} for example in values]


def _rows_of_table(inputs: TableInputs, arguments: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    columns: dict[str, list[Any]] = {}
    for place, column in enumerate(inputs.numbers):
        numbers = arguments["numbers"][:, place].astype(np.float64) + arguments["numbers_remainder"][:, place]
        columns[column.name] = numbers.tolist()
    for place, column in enumerate(inputs.categories):
        texts = ["", *column.categories, ""]
        columns[column.name] = [texts[code] for code in arguments["codes"][:, place]]
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _white(model: ExportedModel, examples: list[dict[str, Any]]) -> float:
    """Returns the value of white in pictures, as far as the examples tell: 255, 16 of the digits, or 1."""
    if _kind(model) != "picture":
        return 1
    largest = max((max(example["inputs"]) for example in examples), default=255)
    if model.info.is_raw and largest > 100:
        return 255
    return next((limit for limit in (1, 16, 100, 255) if largest <= limit), largest)
