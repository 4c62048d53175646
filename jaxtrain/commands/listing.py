"""The command `list`: prints the families, their members with knobs, and the other sections of a config."""

import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

from jaxtrain.commands.options import Options
from jaxtrain.commands.summary import format_value
from jaxtrain.config.defaults import FAMILIES, family
from jaxtrain.config.registry import knobs_of
from jaxtrain.config.schema import MISSING, Knob
from jaxtrain.config.sections import NESTED, SECTIONS
from jaxtrain.errors import UsageError, nearest, one_of
from jaxtrain.tasks.metrics import METRICS
from jaxtrain.tasks.metrics.on_host import HOST_METRICS

PLURALS = {
    "task": "tasks",
    "model": "models",
    "loss": "losses",
    "optimizer": "optimizers",
    "augment": "augmentations",
    "schedule": "schedules",
}


METRIC_TABLES = {"metrics": METRICS, "host_metrics": HOST_METRICS}
"""The tables whose members have no knobs and no section of their own."""

_SENTENCE_ENDS = re.compile(r"(?<=[.;:]) +(?=[A-Z`√]|scikit-learn|\w+ ←)")
_SOURCE = re.compile(r"https?://|scikit-learn's|`optax\.|\boptax's|\((1[789]|20)\d\d\)")


def run(options: Options) -> int:
    """Prints the families, or the members of the family that is named; returns 0."""
    print("\n".join(members(options.words[0]) if options.words else families()))
    return 0


def families() -> list[str]:
    """Formats the output of `list`: each family with the names of its members, then the other sections."""
    tables = {**{plural(section): family(section) for section in FAMILIES}, **METRIC_TABLES}
    lines = [f"{name:<15}{', '.join(table.members)}" for name, table in tables.items()]
    other = f"other sections of a config: {', '.join(SECTIONS)}"
    return [*lines, "", other, "list NAME shows the members of a family or the keys of a section, with defaults"]


def members(name: str) -> list[str]:
    """Formats the output of `list NAME`: each member with one line of help, its knobs, their defaults and types."""
    singular = {plural(section): section for section in FAMILIES} | {section: section for section in FAMILIES}
    if table := METRIC_TABLES.get(name) or METRIC_TABLES.get(f"{name}s"):
        return [line for member, function in table.members.items() for line in (member, *_help_lines(function))]
    if name in SECTIONS:
        lines = [name, f"    {_first_line(SECTIONS[name])}", *_knob_lines(knobs_of(SECTIONS[name]))]
        return [*lines, *(line for path in NESTED if path.startswith(f"{name}.") for line in _nested_lines(path))]
    if name not in singular:
        names = [*map(plural, FAMILIES), *METRIC_TABLES, *SECTIONS]
        raise UsageError("list", name, one_of(names), nearest(name, names))
    return list(_member_lines(singular[name]))


def plural(section: str) -> str:
    """Returns the name of a family: "losses" for the section "loss"."""
    return PLURALS.get(section, section)


def _member_lines(section: str) -> Iterator[str]:
    table = family(section)
    for name, function in table.members.items():
        yield name
        yield from _help_lines(function)
        yield from _knob_lines(table.own_knobs(function))
    if table.common is not None:
        yield f"any {section}"
        yield f"    {_first_line(table.common)}"
        yield from _knob_lines(knobs_of(table.common, table.common_supplied))
    if table.beside is not None:
        yield f"{section} itself"
        yield f"    {_first_line(table.beside)}"
        yield from _knob_lines(knobs_of(table.beside))


def _nested_lines(path: str) -> list[str]:
    return [path, f"    {_first_line(NESTED[path])}", *_knob_lines(knobs_of(NESTED[path]))]


def _knob_lines(knobs: Mapping[str, Knob]) -> list[str]:
    return [f"    {name} = {default_of(knob)}    ({knob.allowed})" for name, knob in knobs.items()]


def default_of(knob: Knob) -> str:
    """Formats the default of a knob."""
    return "<must be given>" if knob.default is MISSING else format_value(knob.default)


def source_of(function: Any) -> str:
    """Returns the sentences of a docstring that cite the source of its formula: a paper or a library."""
    text = " ".join((inspect.getdoc(function) or "").partition(">>> ")[0].split())
    return " ".join(sentence for sentence in _SENTENCE_ENDS.split(text) if _SOURCE.search(sentence)).rstrip(";:")


def _help_lines(function: Any) -> list[str]:
    source = source_of(function)
    return [f"    {_first_line(function)}", *([f"    source: {source}"] if source else [])]


def _first_line(function: Any) -> str:
    return (inspect.getdoc(function) or "no docstring").splitlines()[0]
