"""Formats a config and the metrics of a run for the terminal."""

from collections.abc import Mapping
from typing import Any

from jaxtrain.config.defaults import Config, flatten
from jaxtrain.core.metric_names import is_printed


def select_readable(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Selects the metrics to print: drops the step, diagnostics that are read as curves, and scheduled values."""
    return {n: v for n, v in numbers.items() if n != "step" and "." not in n and is_printed(n)}


def format_numbers(numbers: Mapping[str, Any]) -> str:
    """Formats names and numbers as one line."""
    return "  ".join(f"{name} {format_number(value)}" for name, value in numbers.items())


def format_number(value: float | None) -> str:
    """Formats a number; None, which stands for a number that is not finite in result.json, becomes nan."""
    return "nan" if value is None else format(value, ".4g")


def config_lines(config: Config, changed: Mapping[str, Any]) -> list[str]:
    """Formats a resolved config, one line per section; a star marks what differs from the default config."""
    lines = [f"config ({len(changed)} changed from the default, marked *)"]
    for section, value in config.items():
        inner = flatten(value) if isinstance(value, Mapping) else {"": value}
        shown = {name: f"{name}={format_value(item)}" if name else format_value(item) for name, item in inner.items()}
        knobs = [f"{'*' if _key(section, name) in changed else ''}{text}" for name, text in shown.items()]
        lines.append(f"  {section:<11}{'  '.join(knobs)}")
    return lines


def _key(section: str, name: str) -> str:
    return f"{section}.{name}" if name else section


def format_value(value: Any) -> str:
    """Formats a value of the config; floats without trailing zeros."""
    return f"{value:g}" if isinstance(value, float) else str(value)
