"""What `list` and the head of a run show: families, members with their knobs, and a config with what was changed."""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from jaxtrain.config import FAMILIES, SECTIONS, Config, family, flatten
from jaxtrain.errors import UsageError, nearest
from jaxtrain.families import knobs_of
from jaxtrain.knobs import MISSING, Knob
from jaxtrain.metrics import METRICS

PLURALS = {"task": "tasks", "model": "models", "loss": "losses", "optimizer": "optimizers", "schedule": "schedules"}


def families() -> list[str]:
    """Returns the lines of `list`: each family with the names of its members, and the other sections."""
    tables = {**{_plural(section): family(section) for section in FAMILIES}, "metrics": METRICS}
    lines = [f"{name:<12}{', '.join(table.members)}" for name, table in tables.items()]
    other = f"other sections of a config: {', '.join(SECTIONS)}"
    hint = "list NAME shows the members or the keys of one, with knobs and defaults"
    return [*lines, "", other, hint]


def members(name: str) -> list[str]:
    """Returns the lines of `list NAME`: members with one line each, their knobs with default and what is allowed."""
    singular = {_plural(section): section for section in FAMILIES} | {section: section for section in FAMILIES}
    if name in ("metrics", "metric"):
        return [
            line for member, function in METRICS.members.items() for line in (member, f"    {_first_line(function)}")
        ]
    if name in SECTIONS:
        return [name, f"    {_first_line(SECTIONS[name])}", *_knob_lines(knobs_of(SECTIONS[name]))]
    if name not in singular:
        allowed = [*map(_plural, FAMILIES), "metrics", *SECTIONS]
        raise UsageError(f"list: given {name!r}; allowed: {', '.join(allowed)}. {nearest(name, allowed)}".strip())
    return list(_member_lines(singular[name]))


def config_lines(config: Config, changed: Mapping[str, Any]) -> list[str]:
    """Returns a resolved config, a line for each section, with a star before what is not the default's."""
    lines = [f"config ({len(changed)} changed from the default, marked *)"]
    for section, value in config.items():
        inner = flatten(value) if isinstance(value, Mapping) else {"": value}
        shown = {name: f"{name}={_text(item)}" if name else _text(item) for name, item in inner.items()}
        knobs = [f"{'*' if _key(section, name) in changed else ''}{text}" for name, text in shown.items()]
        lines.append(f"  {section:<11}{'  '.join(knobs)}")
    return lines


def _key(section: str, name: str) -> str:
    return f"{section}.{name}" if name else section


def _plural(section: str) -> str:
    return PLURALS.get(section, section)


def _member_lines(section: str) -> Iterator[str]:
    table = family(section)
    for name, function in table.members.items():
        yield name
        yield f"    {_first_line(function)}"
        yield from _knob_lines(knobs_of(function, len(table.supplied)))
    if table.common is not None:
        yield f"any {section}"
        yield f"    {_first_line(table.common)}"
        yield from _knob_lines(knobs_of(table.common, table.common_supplied))


def _knob_lines(knobs: Mapping[str, Knob]) -> list[str]:
    return [f"    {name} = {_default(knob)}    ({knob.allowed})" for name, knob in knobs.items()]


def _default(knob: Knob) -> str:
    return "<must be given>" if knob.default is MISSING else _text(knob.default)


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _first_line(function: Any) -> str:
    return (inspect.getdoc(function) or "no docstring").splitlines()[0]
