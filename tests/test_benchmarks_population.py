"""The benchmarks of population, search and suggestion run to their end in a tiny form; no timing is asserted."""

import collections
from pathlib import Path

import numpy as np
import pytest
from test_benchmarks import ROOT, names, run


@pytest.mark.slow
def test_population_compares_lanes_with_solo_runs(tmp_path: Path) -> None:
    """On a CPU the parts "cnn" and "lanes" take the program of "calls" with another model, and with more lanes."""
    printed, found = run(tmp_path, "population", "calls", "memory", "commands", devices=2)
    expected = [
        "4 lanes, a Python loop of jitted steps",
        "4 lanes, solo runs by compiled calls",
        "4 lanes, shard_map(lax.map) by hand",
        "half of the lanes dead, all alive",
        "range test by ramp: 8 seeds, one",
        "range test: lanes, ramp of 100 rates",
    ]
    assert [name for name in names(found) if "PyTorch" not in name] == expected
    assert all(name in printed for name in expected)
    assert "memory of 4 lanes: planned" in printed
    assert "fastai" in printed


@pytest.mark.slow
def test_lr_suggestion_reports_development_and_held_out_tasks_apart(tmp_path: Path) -> None:
    printed, found = run(tmp_path, "lr_suggestion")
    assert found["summaries"].keys() == {"development", "held out"}
    for group, summary in found["summaries"].items():
        (made,) = found["combinations"][group]
        assert {"valley, ramp", "usual default"} <= made["regret"].keys() == made["rates"].keys()
        assert len(made["rates"]["valley, ramp"]) == 3
        for kind in ("best", "last"):
            assert min(made["grid"][kind]) == 0.0, "regret is measured from the lowest of the grid"
            assert summary["rules"]["usual default"][kind] == [made["regret"]["usual default"][kind]] * 3
        assert made["seconds"]["grid"] > 0
    sets = [made["combination"]["data"] for group in found["combinations"].values() for made in group]
    assert sets[0] != sets[1]
    (made,) = found["combinations"]["held out"]
    assert made["regret"]["grid, other seeds"]["best"] in made["grid"]["best"]
    assert made["rates"]["grid, other seeds"][0] in made["grid"]["rates"]
    assert "the interval covers the best rate" in printed


def test_combinations_hold_each_value_equally_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from suggestion_tasks import combinations  # pyright: ignore[reportMissingImports] (beside the tests)

    drawn = [combinations(150, held_out=False), combinations(60, held_out=True)]
    for column in range(5):
        counts = collections.Counter(each[column] for each in drawn[0])
        assert max(counts.values()) - min(counts.values()) <= 1
        assert min(counts.values()) >= (13 if column == 0 else 30)
    assert not {each.data for each in drawn[0]} & {each.data for each in drawn[1]}


def test_the_ramp_is_read_as_fastai_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Smoothed, cut where it rises to four times its best, without its ends: a fall to 0.01 gives a rate in it."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from suggestion_tasks import as_fastai  # pyright: ignore[reportMissingImports] (beside the tests)

    rates = np.geomspace(1e-7, 10.0, 100)
    losses = np.interp(np.log10(rates), [-7, -4, -2, -1, 1], [2.3, 2.3, 0.5, 2.0, 200.0])
    assert 1e-4 < as_fastai(rates, losses) < 1e-1
    losses[90:] = np.nan
    assert 1e-4 < as_fastai(rates, losses) < 1e-1


@pytest.mark.slow
def test_search_compares_trials_by_hand_asked_for_and_halved(tmp_path: Path) -> None:
    printed, found = run(tmp_path, "search", "lanes", "asking", "halving", devices=2)
    expected = [
        "4 trials of one epoch, shard_map(lax.map) by hand",
        "halving, random search of the same trials",
    ]
    assert names(found) == expected
    for sampler in ("random", "sobol", "tpe"):
        assert f"asking, telling and ledger, {sampler}:" in printed
    assert "points of accuracy behind random search" in printed
    assert "20 trials of a tiny model" in printed


@pytest.mark.slow
def test_search_compares_the_command_with_optuna_around_single_runs(tmp_path: Path) -> None:
    _, found = run(tmp_path, "search", "wall", devices=2)
    expected = [f"4 trials, {temper} cache: search, Optuna around single runs" for temper in ("cold", "warm")]
    assert [name for name in names(found) if "PyTorch" not in name] == expected


@pytest.mark.slow
def test_search_memory_compares_many_widths_with_one(tmp_path: Path) -> None:
    printed, found = run(tmp_path, "search_memory")
    one, many, growth = found["megabytes"].values()
    assert growth == many - one
    assert "2 widths" in printed


@pytest.mark.slow
def test_search_value_gives_the_regret_of_each_value_on_each_task(tmp_path: Path) -> None:
    printed, found = run(tmp_path, "search_value")
    assert len(found["regrets"]) == 1
    for name, by_value in found["regrets"].items():
        assert name in printed
        assert by_value.keys() == {"best", "last", "mean of last 3", "mean of last 5"}
        assert all(regret[read] >= 0 for regrets in by_value.values() for regret in regrets for read in regret)


@pytest.mark.slow
def test_search_learning_compares_the_default_batch_with_one_trial_at_a_time(tmp_path: Path) -> None:
    printed, found = run(tmp_path, "search_learning")
    (task,) = found["tasks"].values()
    assert {way: len(values) for way, values in task["best"].items()} == {"default": 2, "one at a time": 2}
    ours, theirs = task["best"].values()
    assert task["median difference"] == pytest.approx(np.median(np.subtract(ours, theirs) / theirs))
    assert task["interval"][0] <= task["interval"][1]
    assert "digits_300" in printed


@pytest.mark.slow
def test_search_halving_compares_a_third_of_the_runs_with_all_of_them(tmp_path: Path) -> None:
    printed, found = run(tmp_path, "search_halving")
    (study,) = found["studies"]
    assert study["steps"] <= 0.34
    assert study["low"] <= study["behind"] <= study["high"]
    assert f"in {int(study['not worse'])} of 1 studies" in printed
