"""The tests that `make test FAST=1` leaves out are chosen by their measured costs, and each file keeps some."""

import re
from pathlib import Path

import costs


def cost(cpu: float, slow: bool = False) -> dict[str, object]:
    return {"cpu": cpu, "slow": slow}


def test_each_file_keeps_its_cheapest_tests_within_the_budget_and_at_least_one():
    measured = {
        "tests/test_a.py::test_cheap": cost(1.0),
        "tests/test_a.py::test_cases[1]": cost(1.0),
        "tests/test_a.py::test_cases[2]": cost(1.5),
        "tests/test_a.py::test_dear": cost(3.0),
        "tests/test_a.py::test_marked": cost(0.1, slow=True),
        "tests/test_a.py::test_skipped": {},
        "tests/test_b.py::test_alone": cost(30.0),
        "tests/test_b.py::test_dearer": cost(31.0),
    }
    assert costs.choose_dear_tests(measured) == ["test_a.py::test_dear", "test_b.py::test_dearer"]


def test_every_dear_test_exists():
    folder = Path(__file__).parent
    known = {
        f"{path.name}::{name}"
        for path in folder.glob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    unknown = costs.read_dear_tests() - known
    assert not unknown, f"renamed or removed: take {sorted(unknown)} from {costs.DEAR.name}"
