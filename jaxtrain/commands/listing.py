"""The command `list`: prints the families, their members with knobs, and the other sections of a config."""

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Entry:
    """A member or a section as `list NAME` shows it: its line of help, the source of its formula, its knobs."""

    name: str
    help: str
    knobs: Mapping[str, Knob]
    source: str = ""

    def to_json(self) -> dict[str, Any]:
        """Returns a dict for JSON; the default of a knob is a text, null where a value must be given."""
        knobs = [
            {"name": name, "default": None if knob.default is MISSING else default_of(knob), "allowed": knob.allowed}
            for name, knob in self.knobs.items()
        ]
        return {"name": self.name, "help": self.help, "source": self.source, "knobs": knobs}


def run(options: Options) -> int:
    """Prints the families, or the members of the family that is named; returns 0."""
    entries = entries_of(options.words[0]) if options.words else None
    print("\n".join(families() if entries is None else _entry_lines(entries)))
    options.document.show(
        {
            "families": {name: list(table.members) for name, table in _tables().items()},
            "sections": list(SECTIONS),
            "members": None if entries is None else [entry.to_json() for entry in entries],
        }
    )
    return 0


def families() -> list[str]:
    """Formats the output of `list`: each family with the names of its members, then the other sections."""
    lines = [f"{name:<15}{', '.join(table.members)}" for name, table in _tables().items()]
    other = f"other sections of a config: {', '.join(SECTIONS)}"
    return [*lines, "", other, "list NAME shows the members of a family or the keys of a section, with defaults"]


def members(name: str) -> list[str]:
    """Formats the output of `list NAME`: each member with one line of help, its knobs, their defaults and types."""
    return _entry_lines(entries_of(name))


def entries_of(name: str) -> list[Entry]:
    """Returns what a family or a section consists of; raises UsageError for a name of neither."""
    singular = {plural(section): section for section in FAMILIES} | {section: section for section in FAMILIES}
    if table := METRIC_TABLES.get(name) or METRIC_TABLES.get(f"{name}s"):
        return [_member(member, function, {}) for member, function in table.members.items()]
    if name in SECTIONS:
        nested = [_section(path, NESTED[path]) for path in NESTED if path.startswith(f"{name}.")]
        return [_section(name, SECTIONS[name]), *nested]
    if name not in singular:
        names = [*map(plural, FAMILIES), *METRIC_TABLES, *SECTIONS]
        raise UsageError("list", name, one_of(names), nearest(name, names))
    return _family_entries(singular[name])


def _tables() -> dict[str, Any]:
    return {**{plural(section): family(section) for section in FAMILIES}, **METRIC_TABLES}


def plural(section: str) -> str:
    """Returns the name of a family: "losses" for the section "loss"."""
    return PLURALS.get(section, section)


def _family_entries(section: str) -> list[Entry]:
    table = family(section)
    entries = [_member(name, function, table.own_knobs(function)) for name, function in table.members.items()]
    if table.common is not None:
        knobs = knobs_of(table.common, table.common_supplied)
        entries.append(Entry(f"any {section}", _first_line(table.common), knobs))
    if table.beside is not None:
        entries.append(_section(f"{section} itself", table.beside))
    return entries


def _member(name: str, function: Any, knobs: Mapping[str, Knob]) -> Entry:
    return Entry(name, _first_line(function), knobs, source_of(function))


def _section(name: str, signature: Any) -> Entry:
    return Entry(name, _first_line(signature), knobs_of(signature))


def _entry_lines(entries: Sequence[Entry]) -> list[str]:
    lines: list[str] = []
    for entry in entries:
        lines += [entry.name, f"    {entry.help}"]
        lines += [f"    source: {entry.source}"] if entry.source else []
        lines += [f"    {name} = {default_of(knob)}    ({knob.allowed})" for name, knob in entry.knobs.items()]
    return lines


def default_of(knob: Knob) -> str:
    """Formats the default of a knob."""
    return "<must be given>" if knob.default is MISSING else format_value(knob.default)


def source_of(function: Any) -> str:
    """Returns the sentences of a docstring that cite the source of its formula: a paper or a library."""
    text = " ".join((inspect.getdoc(function) or "").partition(">>> ")[0].split())
    return " ".join(sentence for sentence in _SENTENCE_ENDS.split(text) if _SOURCE.search(sentence)).rstrip(";:")


def _first_line(function: Any) -> str:
    return (inspect.getdoc(function) or "no docstring").splitlines()[0]
