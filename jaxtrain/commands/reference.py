"""Writes the reference of all members as Markdown: `python -m jaxtrain.commands.reference > docs/reference.md`."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from jaxtrain.commands.listing import METRIC_TABLES, default_of, plural
from jaxtrain.config.defaults import FAMILIES, family
from jaxtrain.config.registry import knobs_of
from jaxtrain.config.schema import Knob
from jaxtrain.config.sections import NESTED, SECTIONS

HEAD = """\
# Reference

Every member of every family, from its docstring and signature; written by `make docs`. A knob whose
default is a float is an input of the compiled program: it can be swept, scheduled and searched without compiling again.
"""


def reference() -> str:
    """Returns the whole document."""
    parts = [HEAD]
    for section in FAMILIES:
        table = family(section)
        parts.append(f"## {plural(section).capitalize()}\n")
        for name, function in table.members.items():
            parts += _member(f"`{name}`", function, table.own_knobs(function))
        if table.common is not None:
            parts += _member(f"Around any {section}", table.common, knobs_of(table.common, table.common_supplied))
        if table.beside is not None:
            parts += _member(f"`{section}` itself", table.beside, knobs_of(table.beside))
    for title, table in METRIC_TABLES.items():
        parts.append(f"## {title.replace('_', ' ').capitalize()}\n")
        for name, function in table.members.items():
            parts += _member(f"`{name}`", function, {})
    parts.append("## Other sections\n")
    for name, signature in {**SECTIONS, **NESTED}.items():
        parts += _member(f"`{name}`", signature, knobs_of(signature))
    return "\n".join(parts)


def _member(title: str, function: Callable[..., Any], knobs: dict[str, Knob]) -> Iterator[str]:
    yield f"### {title}\n"
    text, example = split_example(inspect.getdoc(function) or "")
    yield text.replace("<", "&lt;") + "\n"
    if example:
        yield f"```python\n{example}\n```\n"
    if knobs:
        rows = [f"| `{name}` | {default_of(knob)} | {knob.allowed} |" for name, knob in knobs.items()]
        yield "\n".join(["| knob | default | allowed |", "|---|---|---|", *rows]) + "\n"


def split_example(docstring: str) -> tuple[str, str]:
    """Splits a docstring into its text and its runnable example."""
    text, begins, example = docstring.partition(">>> ")
    return text.strip(), (begins + example).strip()


if __name__ == "__main__":
    print(reference(), end="")
