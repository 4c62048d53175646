"""The cost of each test: the programs that it compiles, which are limited, and its CPU seconds.

Operations that JAX runs outside of a compiled function are programs, too, of one operation each. They are counted
apart and not limited: the first test of a worker that needs one compiles it, and which that is is chance.

`python -m tests.costs costs.json > tests/dear_tests.txt` chooses the slow tests anew, from what `--costs` measured.
"""

import json
import os
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from jaxtrain.parallel.compilation import COMPILED

LIMIT = 40
"""The programs that a test may compile or fetch from the cache unless it is marked `slow`."""

BUDGET = 4.0
"""The CPU seconds of each file in `make test FAST=1`: its cheapest tests that fit, and at least one."""

DEAR = Path(__file__).with_name("dear_tests.txt")
"""The tests that do not fit, `test_file.py::test_name`, each on a line."""

FETCHED = "/jax/compilation_cache/cache_hits"


def cpu_seconds() -> float:
    """Returns the CPU time of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


@dataclass
class Cost:
    """What a test costs; `shared` counts the programs of fixtures that a module or the session shares."""

    begun: float
    programs: int = 0
    operations: int = 0
    fetched: int = 0
    shared: int = 0

    def count_compilation(self, event: str, duration_secs: float, *, fun_name: str | int = "", **_: str | int) -> None:
        """Counts a program by the name of its function."""
        if event == COMPILED and is_operation(str(fun_name)):
            self.operations += 1
        elif event == COMPILED:
            self.programs += 1

    def count_fetch(self, event: str, **_: str | int) -> None:
        """Counts a program that came from the cache."""
        self.fetched += event == FETCHED


def is_operation(program: str) -> bool:
    """Tells an operation of JAX, such as `jit(_where)`, from a function that a user compiles."""
    name = program.removeprefix("jit(").removesuffix(")").removeprefix("_")
    return hasattr(jax.lax, name) or hasattr(jnp, name)


def name_of(test: str) -> str:
    """Returns `test_file.py::test_name` of the id of a test or of one of its cases."""
    return test.partition("[")[0].rpartition("/")[2]


def read_dear_tests() -> set[str]:
    """Reads the names of the tests that do not fit into the budget of their file."""
    return set(DEAR.read_text().splitlines())


def choose_dear_tests(costs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns the tests that do not fit, of those that are not marked slow themselves; costs are those of `--costs`."""
    files: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for test, cost in costs.items():
        if cost and not cost["slow"]:
            files[name_of(test).partition("::")[0]][name_of(test)] += cost["cpu"]
    dear: list[str] = []
    for tests in files.values():
        spent = 0.0
        for number, name in enumerate(sorted(tests, key=lambda name: tests[name])):
            spent += tests[name]
            dear += [name] if number and spent > BUDGET else []
    return sorted(dear)


def mark_slow(items: Sequence[pytest.Item]) -> None:
    """Marks dear tests slow, and the cases of tests with the mark `one_fast_of` but for one of so many."""
    dear = read_dear_tests()
    seen: dict[str, int] = {}
    for item in items:
        if name_of(item.nodeid) in dear:
            item.add_marker(pytest.mark.slow("dear"))
        if marker := item.get_closest_marker("one_fast_of"):
            test = item.nodeid.partition("[")[0]
            if seen.setdefault(test, 0) % marker.args[0]:
                item.add_marker("slow")
            seen[test] += 1


_current: Cost


@contextmanager
def measured() -> Iterator[None]:
    """Measures the test that runs inside a `with` block."""
    global _current
    _current = cost = Cost(cpu_seconds())
    jax.monitoring.register_event_duration_secs_listener(cost.count_compilation)
    jax.monitoring.register_event_listener(cost.count_fetch)
    try:
        yield
    finally:
        jax.monitoring.unregister_event_listener(cost.count_fetch)
        jax.monitoring.unregister_event_duration_listener(cost.count_compilation)


@contextmanager
def shared() -> Iterator[None]:
    """Counts what is compiled for other tests, too, apart: which of them comes first is chance."""
    before = _current.programs
    yield
    _current.shared += _current.programs - before


def settle(item: pytest.Item) -> None:
    """Reports what a test cost, and fails it where it compiled more than it may."""
    own = _current.programs - _current.shared
    cost = {
        "cpu": round(cpu_seconds() - _current.begun, 2),
        "programs": own,
        "shared": _current.shared,
        "operations": _current.operations,
        "fetched": _current.fetched,
        "slow": any(not mark.args for mark in item.iter_markers("slow")),  # whatever the table of dear tests says
    }
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


if __name__ == "__main__":
    print("\n".join(choose_dear_tests(json.loads(Path(sys.argv[1]).read_text()))))
