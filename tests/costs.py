"""The cost of each test: the programs that it compiles, which are limited, and its CPU seconds."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import pytest

from jaxtrain.parallel.compilation import Compilations, counted

LIMIT = 40
"""The programs that a test may compile or fetch from the cache unless it is marked `slow`."""

FETCHED = "/jax/compilation_cache/cache_hits"


def cpu_seconds() -> float:
    """Returns the CPU time of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


@dataclass
class Cost:
    """What a test costs; `shared` counts the programs of fixtures that a module or the session shares."""

    begun: float
    compiled: Compilations
    fetched: int = 0
    shared: int = 0


_current: Cost


@contextmanager
def measured() -> Iterator[None]:
    """Measures the test that runs inside a `with` block."""
    global _current
    with counted() as compiled:
        _current = cost = Cost(cpu_seconds(), compiled)

        def listen(event: str, **_: str | int) -> None:
            cost.fetched += event == FETCHED

        jax.monitoring.register_event_listener(listen)
        try:
            yield
        finally:
            jax.monitoring.unregister_event_listener(listen)


@contextmanager
def shared() -> Iterator[None]:
    """Counts what is compiled for other tests, too, apart: which of them comes first is chance."""
    before = _current.compiled.count
    yield
    _current.shared += _current.compiled.count - before


def settle(item: pytest.Item) -> None:
    """Reports what a test cost, and fails it where it compiled more than it may."""
    own, seconds = _current.compiled.count - _current.shared, cpu_seconds() - _current.begun
    cost = {"cpu": round(seconds, 2), "programs": own, "shared": _current.shared, "fetched": _current.fetched}
    item.user_properties.append(("cost", cost))
    if own > LIMIT and item.get_closest_marker("slow") is None:
        pytest.fail(
            f"{item.nodeid} compiled {own} programs; expected at most {LIMIT}. Share programs with other tests, "
            "or mark it slow (docs/testing.md)",
            pytrace=False,
        )


@dataclass
class Ledger:
    """The costs of all tests of a run, by their ids."""

    costs: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, report: pytest.TestReport) -> None:
        """Takes what a worker reports at the end of a test."""
        if report.when == "teardown":
            properties: dict[str, Any] = dict(report.user_properties)
            self.costs[report.nodeid] = properties.get("cost", {})

    def write(self, path: Path) -> None:
        """Writes the costs as JSON, the dearest test first."""
        ordered = sorted(self.costs.items(), key=lambda item: -item[1].get("cpu", 0.0))
        path.write_text(json.dumps(dict(ordered), indent=1) + "\n")
