"""A config and the numbers of a run, as commands print them."""

from collections.abc import Mapping
from typing import Any

from jaxtrain.config.defaults import Config, flatten
from jaxtrain.core.metric import is_printed


def readable(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Leaves out the step, what is read as curves, and the values of schedules."""
    return {n: v for n, v in numbers.items() if n != "step" and "." not in n and is_printed(n)}


def shown(numbers: Mapping[str, Any]) -> str:
    """Returns names and numbers as one line."""
    return "  ".join(f"{name} {number(value)}" for name, value in numbers.items())


def number(value: float | None) -> str:
    """Writes a number; what is not finite stands as null in result.json."""
    return "nan" if value is None else format(value, ".4g")


def config_lines(config: Config, changed: Mapping[str, Any]) -> list[str]:
    """Returns a resolved config, a line for each section, with a star before what is not the default's."""
    lines = [f"config ({len(changed)} changed from the default, marked *)"]
    for section, value in config.items():
        inner = flatten(value) if isinstance(value, Mapping) else {"": value}
        shown = {name: f"{name}={value_text(item)}" if name else value_text(item) for name, item in inner.items()}
        knobs = [f"{'*' if _key(section, name) in changed else ''}{text}" for name, text in shown.items()]
        lines.append(f"  {section:<11}{'  '.join(knobs)}")
    return lines


def _key(section: str, name: str) -> str:
    return f"{section}.{name}" if name else section


def value_text(value: Any) -> str:
    """Writes a value of the config; floats without needless digits."""
    return f"{value:g}" if isinstance(value, float) else str(value)
