"""A search keeps few compiled programs: the others are dropped, and the trials come to the same."""

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import tiny

from jaxtrain.parallel import shared_programs
from jaxtrain.search import programs as search_programs
from jaxtrain.search.batch import Batch
from jaxtrain.search.programs import Programs, plan_line
from jaxtrain.search.results import Findings
from jaxtrain.search.run import run_search
from jaxtrain.search.shapes import count_shapes, shapes_line
from jaxtrain.search.space import read_space

WIDTHS = ((5,), (6,), (7,), (9,))
ONE_WIDTH = 3  # programs: one initialises, one trains, one evaluates


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the pictures out of the reports."""
    monkeypatch.setattr("jaxtrain.search.report.page.FIGURES", {})


@pytest.mark.parametrize(
    ("chunks", "words"),
    [
        ([(0, 1), (1, 31)], "2 programs, 32 lanes in total"),
        ([(0, 16), (1, 16)], "2 programs x 16 lanes"),
        ([(0, 8), (0, 8), (1, 16)], "2 programs x 16 lanes, up to 2 chunks each"),
    ],
)
def test_the_plan_of_a_batch_says_how_many_lanes_each_program_has(chunks: list[tuple[int, int]], words: str):
    assert plan_line(32, chunks, 1.0) == f"32 trials = {words}, about 1 s"


def found(folder: Path) -> Findings:
    """Searches four widths of the network by halving."""
    config = tiny(
        {
            "search.space": {"model": {"hidden": ("choice", WIDTHS)}},
            "search.sampler": "grid",
            "search.trials": len(WIDTHS) + 1,
            "search.compare_seeds": 0,
            "search.halving": "successive",
            "search.reduction": 2,
            "search.first_rung": "30 %",
            "track.tensorboard": False,
        }
    )
    return run_search(config, folder, quiet=True).findings


def _cached(function: Any) -> int:
    """Returns the number of programs of a function; those that other tests left need not be jitted."""
    return function._cache_size() if hasattr(function, "_cache_size") else 0


def compiled(programs: Programs) -> int:
    """Counts the programs that JAX holds for the experiments of a search."""
    rules = [experiment.rules for experiment in programs._experiments.values()]
    functions = [function for key, function in shared_programs._functions.items() if key[1] in rules]
    return sum(_cached(function) for function in functions)


@pytest.mark.slow
def test_a_search_of_many_widths_keeps_few_programs_and_finds_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []
    made: list[weakref.ref[Any]] = []
    note = Programs._note_use

    def note_and_count(programs: Programs, key: str) -> None:
        note(programs, key)
        counts.append(compiled(programs))
        made.extend(map(weakref.ref, shared_programs._functions.values()))

    monkeypatch.setattr(Programs, "_note_use", note_and_count)
    kept = found(tmp_path / "kept")
    assert max(counts) > 2 * ONE_WIDTH, "with few widths all are kept"
    assert compiled_in_process() > 0, "and another search in this process shares them"
    shared_programs.drop_all_programs()
    counts.clear()
    made.clear()
    monkeypatch.setattr(search_programs, "MOST_PROGRAMS", 2 * ONE_WIDTH)
    few = found(tmp_path / "few")
    assert 0 < max(counts) <= 2 * ONE_WIDTH
    told = [(outcome.trial, outcome.status, outcome.value, outcome.step, outcome.curve) for outcome in kept.outcomes]
    assert told == [(o.trial, o.status, o.value, o.step, o.curve) for o in few.outcomes]
    gc.collect()
    assert not [ref for ref in made if ref() is not None], "nothing holds a program that was dropped"


SHAPES = {
    "model": {"hidden": ("choice", ((5,), (6,)))},
    "optimizer": {"name": ("choice", ("adamw", "sgd")), "momentum": ("grid", (0.0, 0.9))},
}


def test_a_search_says_how_many_programs_it_needs_and_compiles_none_after_its_first_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    counts: list[int] = []
    run = Batch.run

    def run_and_count(batch: Batch, work: Any) -> Any:
        yield from run(batch, work)
        counts.append(batch.compiled.count)

    monkeypatch.setattr(Batch, "run", run_and_count)
    space = {"model": SHAPES["model"], "optimizer": {"learning_rate": ("log_uniform", 1e-3, 1e-1)}}
    options = {"search.trials": 13, "search.batch": 4, "search.sampler": "random", "search.compare_seeds": 1}
    run_search(tiny({"search.space": space, **options, "track.tensorboard": False}), tmp_path)
    assert "programs: up to 3, by model.hidden; each is compiled when a trial first needs it" in capfd.readouterr().err
    assert len(counts) > 3
    assert counts[-1] > 0
    assert len(set(counts[2:])) == 1, "however many trials of a shape a batch has, and in the comparison, too"


def test_the_shapes_of_a_space_are_counted() -> None:
    """Two widths by two optimizers; sgd's momentum is a float, and so no shape."""
    assert count_shapes(read_space(tiny({"search.space": SHAPES}))) == 5, "the config's own width is one more"
    own = {**SHAPES, "model": {"hidden": ("choice", (tiny({})["model"]["hidden"], (6,)))}}
    assert count_shapes(read_space(tiny({"search.space": own}))) == 4
    floats = tiny({"search.space": {"optimizer": {"learning_rate": ("log_uniform", 1e-3, 1e-1)}}})
    assert count_shapes(read_space(floats)) == 1
    assert shapes_line(read_space(floats), 8) == "programs: one serves all trials"
    averaged = ("uniform", 0.9, 0.99, 8)
    for own, entry, count in (
        (0.9, averaged, 1),
        (None, averaged, 2),  # the config's own trial averages nothing
        (None, averaged[:3], 2),
        (0.9, ("choice", (None, 0.9, 0.99)), 2),
    ):
        space = read_space(tiny({"train.ema": own, "search.space": {"train": {"ema": entry}}}))
        assert count_shapes(space) == count, entry
        assert ("by train.ema;" in shapes_line(space, 8)) == (count > 1)


def compiled_in_process() -> int:
    return sum(_cached(function) for function in shared_programs._functions.values())


def test_the_process_drops_the_function_that_was_used_longest_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_programs, "_functions", {})
    monkeypatch.setattr(shared_programs, "MOST", 2)
    made: list[int] = []

    def make(rules: Any, number: int) -> object:
        made.append(number)
        return object()

    rules: Any = "rules"
    first = shared_programs.shared_program(make, rules, 1)
    shared_programs.shared_program(make, rules, 2)
    assert shared_programs.shared_program(make, rules, 1) is first
    shared_programs.shared_program(make, rules, 3)
    assert shared_programs.shared_program(make, rules, 1) is first
    shared_programs.shared_program(make, rules, 2)
    assert made == [1, 2, 3, 2]
