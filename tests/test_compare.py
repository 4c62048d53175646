"""`compare` reads what runs left, averages over seeds, pairs by seed, and leaves out what is unfinished or damaged."""

import json
import os
import shutil
import signal
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from json_schema import faults
from scipy import stats
from tiny_runs import GIVEN, PATIENCE, config_file, start, tiny

from jaxtrain.config.completion import complete_config
from jaxtrain.config.defaults import flatten
from jaxtrain.config.identity import difference
from jaxtrain.config.resolve import resolve_config
from jaxtrain.main import main
from jaxtrain.reports.comparison import Comparison, compare_runs
from jaxtrain.reports.comparison_picture import COLOURS, curve_of, draw_comparison
from jaxtrain.reports.differences import difference_of
from jaxtrain.storage.seals import read_sealed, write_sealed
from jaxtrain.tasks.metrics import LOWER_IS_BETTER, METRICS
from jaxtrain.trackers.jsonl import read_rows
from jaxtrain.training.train import train_and_evaluate

COMMON = {"eval.metric": "accuracy", "track.tensorboard": False, "track.pictures": None}
SHOWN = ("run.json", "config.json", "result.json", "metrics.jsonl", "environment.json")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two learning rates with seeds 0 to 2 each, three seeds of SGD in one run, and one run of seed 7."""
    folder = tmp_path_factory.mktemp("compared") / "runs"
    for rate in (3e-2, 3e-3):
        for seed in range(3):
            made = tiny({**COMMON, "optimizer.learning_rate": rate, "seed": seed})
            train_and_evaluate(made, folder / f"rate-{rate}-seed-{seed}", quiet=True)
    sgd = {"optimizer.name": "sgd", "optimizer.learning_rate": 0.05, "train.seeds": 3}
    train_and_evaluate(tiny({**COMMON, **sgd}), folder / "sgd", quiet=True)
    other = {"optimizer.learning_rate": 1e-3, "seed": 7}
    train_and_evaluate(tiny({**COMMON, **other}), folder / "inner" / "seed-7", quiet=True)
    return folder


@pytest.fixture
def copied(runs: Path, tmp_path: Path) -> Path:
    """A copy of the runs, to spoil."""
    return Path(shutil.copytree(runs, tmp_path / "runs", ignore=shutil.ignore_patterns("checkpoints")))


def result_of(workdir: Path) -> dict[str, Any]:
    return read_sealed(workdir / "result.json", "a result")


def names(found: Comparison) -> list[list[str]]:
    return [[run.workdir.name for run in group.runs] for group in found.groups]


def numbers_of(folder: Path, state: str) -> list[float]:
    """Returns the accuracies of three runs as their own files say."""
    found = []
    for workdir in sorted(folder.parent.glob(f"{folder.name}*")):
        result = result_of(workdir)
        part = {"best": {"accuracy": result["best"]["value"]}, "last": result["last"]["validation"]}
        found.append(part.get(state, result["test"])["accuracy"])
    return found


def test_runs_that_differ_in_the_seed_alone_are_one_group_and_the_best_is_first(runs):
    found = compare_runs([runs])
    assert names(found)[0] == [f"rate-0.03-seed-{seed}" for seed in range(3)]
    assert sorted(names(found)[1:]) == [[f"rate-0.003-seed-{s}" for s in range(3)], ["seed-7"], ["sgd"]]
    assert [len(group.numbers) for group in found.groups if len(group.runs) == 1] == [3, 1]
    assert found.higher_is_better
    assert found.metric == "accuracy"


@pytest.mark.parametrize("state", ["best", "last", "test"])
def test_means_and_intervals_are_those_of_scipy(runs, state):
    found = compare_runs([runs])
    values = numbers_of(runs / "rate-0.03", state)
    spread = found.groups[0].spread(state, "accuracy")
    expected = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert spread is not None
    np.testing.assert_allclose([spread.mean, spread.low, spread.high], [np.mean(values), *expected], rtol=1e-9)


def test_seeds_of_one_run_have_the_interval_that_the_run_itself_reported(runs):
    own = next(group for group in compare_runs([runs]).groups if len(group.runs) == 1 and len(group.numbers) == 3)
    reported = result_of(runs / "sgd")["seeds"]["validation"]["accuracy"]
    spread = own.spread("last", "accuracy")
    assert spread is not None
    np.testing.assert_allclose([spread.mean, spread.low, spread.high], [reported[k] for k in ("mean", "low", "high")])


def test_differences_are_paired_by_seed_where_the_seeds_are_the_same(runs):
    found = compare_runs([runs])
    at = names(found).index([f"rate-0.003-seed-{seed}" for seed in range(3)])
    own = found.differences("test")[at]
    low, high = numbers_of(runs / "rate-0.003", "test"), numbers_of(runs / "rate-0.03", "test")
    expected = stats.ttest_rel(low, high).confidence_interval(0.95)
    assert own is not None
    assert own.paired
    assert own.verdict == "worse"
    np.testing.assert_allclose([own.spread.low, own.spread.high], expected, rtol=1e-9)
    alone = found.differences("test")[names(found).index(["seed-7"])]
    assert alone is not None
    assert (alone.paired, alone.verdict) == (False, "unknown")


def test_without_common_seeds_the_interval_is_that_of_welch():
    left, right = [0.9, 0.92, 0.97, 0.91], [0.8, 0.86, 0.81]
    own = difference_of(dict(enumerate(left)), dict(enumerate(right, start=10)), higher_is_better=True)
    expected = stats.ttest_ind(left, right, equal_var=False).confidence_interval(0.95)
    assert own is not None
    assert (own.paired, own.verdict) == (False, "better")
    np.testing.assert_allclose([own.spread.low, own.spread.high], expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("values", "others", "higher", "verdict"),
    [
        ({0: 0.9, 1: 0.91, 2: 0.92}, {0: 0.8, 1: 0.82, 2: 0.81}, True, "better"),
        ({0: 0.9, 1: 0.91, 2: 0.92}, {0: 0.8, 1: 0.82, 2: 0.81}, False, "worse"),
        ({0: 0.9, 1: 0.7, 2: 0.8}, {0: 0.8, 1: 0.82, 2: 0.81}, True, "a tie"),
        ({0: 0.9, 1: 0.91}, {0: 0.9, 1: 0.91}, True, "equal"),
        ({0: 0.9}, {0: 0.8}, True, "unknown"),
        ({0: 0.9}, {0: 0.9}, True, "equal"),
        ({0: 0.9, 1: 0.99, 2: None}, {0: 0.8, 1: 0.81, 2: 0.8}, True, "worse"),
        ({0: 0.1, 1: 0.2, 2: 0.3}, {0: 0.8, 1: 0.81, 2: None}, True, "better"),
    ],
)
def test_a_difference_is_called_what_its_interval_says_and_diverging_is_worse(values, others, higher, verdict):
    own = difference_of(values, others, higher)
    assert own is not None
    assert own.verdict == verdict


def test_values_on_no_common_living_seed_have_no_difference():
    assert difference_of({0: None, 1: 0.5}, {0: 0.5, 1: None}, higher_is_better=True) is None


def test_only_what_tells_runs_apart_is_shown(runs, capsys):
    assert main(["compare", str(runs)]) == 0
    head = capsys.readouterr().out.splitlines()[1]
    assert "learning_rate" in head
    assert "optimizer" in head
    assert not {"momentum", "b1", "weight_decay", "seed ", "hidden"} & set(head.split())


def test_keys_that_an_earlier_version_lacks_have_their_defaults(copied, capsys):
    for workdir in copied.glob("rate-0.003*"):
        saved = read_sealed(workdir / "run.json", "a run")
        del saved["config"]["lora"], saved["config"]["data"]["fold"], saved["config"]["optimizer"]["b2"]
        write_sealed(workdir / "run.json", saved)
    assert main(["compare", *map(str, copied.glob("rate*"))]) == 0
    shown = capsys.readouterr()
    assert compare_runs(copied.glob("rate*")).keys == ["optimizer.learning_rate"]
    assert "also differ" not in shown.out


def test_a_completed_config_is_the_resolved_one():
    given = {**GIVEN, "augment": {"flip": True}, "schedule": {"optimizer": {"weight_decay": "constant"}}}
    config = json.loads(json.dumps(resolve_config(given).config))
    saved = json.loads(json.dumps(config))
    for key in ("lora", "lr_range"):
        del saved[key]
    del saved["augment"]["flip"]["probability"], saved["data"]["validation_fraction"], saved["model"]["activation"]
    assert difference(complete_config(saved), config) == {}
    saved["model"] = {"name": "somebody.elses:Model", "width": 8}
    assert complete_config(saved)["model"] == saved["model"], "no code of a config is imported"


def test_settings_without_an_effect_on_numbers_do_not_split_groups(copied, capsys):
    saved = read_sealed(copied / "rate-0.03-seed-1" / "run.json", "a run")
    saved["config"]["log"]["every"] = "10 steps"
    write_sealed(copied / "rate-0.03-seed-1" / "run.json", saved)
    assert main(["compare", *map(str, copied.glob("rate-0.03-*"))]) == 0
    printed = capsys.readouterr().out
    assert "1 config in 3 runs" in printed
    assert "also differ, without an effect on the numbers: log.every" in printed


def test_versions_that_differ_are_said_with_their_runs(copied, capsys):
    path = copied / "sgd" / "environment.json"
    changed = json.loads(path.read_text())
    changed["packages"]["jax"] = "0.1.2"
    path.write_text(json.dumps(changed))
    assert main(["compare", str(copied)]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  jax: ")]
    assert "0.1.2: sgd" in line
    assert "rate-0.03-seed-0, rate-0.03-seed-1, rate-0.03-seed-2 and 4 more" in line


def test_a_killed_run_is_named_and_left_out(runs, tmp_path, capsys):
    """A real process, killed when it has written rows."""
    workdir = tmp_path / "killed"
    long = ["--config.train.duration=100000 steps", "--config.track.tensorboard=False"]
    process = start(tmp_path, f"--config={config_file(tmp_path)}", *long, f"--workdir={workdir}")
    deadline = time.monotonic() + PATIENCE
    while not (workdir / "metrics.jsonl").exists() or not read_rows(workdir / "metrics.jsonl"):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert main(["compare", str(runs / "sgd"), str(workdir), f"--output={tmp_path / 'curves.png'}"]) == 0
    printed = capsys.readouterr().out
    assert "1 config in 1 run" in printed
    assert f"{workdir}: unfinished: no result yet" in printed


def test_an_interrupted_run_is_named_and_left_out(copied):
    workdir = copied / "sgd"
    write_sealed(workdir / "result.json", {**result_of(workdir), "status": "interrupted", "signal": 15})
    (own,) = compare_runs([copied]).left_out
    assert (own.workdir.name, own.why) == ("sgd", "unfinished")
    assert "interrupted at step 60" in own.reason


def edit_result(workdir: Path) -> None:
    path = workdir / "result.json"
    path.write_text(path.read_text().replace('"status": "done"', '"status": "done", "note": 1'))


def edit_row(workdir: Path) -> None:
    path = workdir / "metrics.jsonl"
    path.write_text(path.read_text().replace('"loss": ', '"loss": 1', 1))


def cut_rows(workdir: Path) -> None:
    path = workdir / "metrics.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))


def edit_run(workdir: Path) -> None:
    path = workdir / "run.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))


DAMAGES = {
    edit_result: "result.json: got content that fails its checksum",
    edit_row: "metrics.jsonl: line",
    cut_rows: "the row of the best step",
    edit_run: "run.json: got content that fails its checksum",
}


@pytest.mark.parametrize("spoil", DAMAGES, ids=lambda function: function.__name__)
def test_a_damaged_run_is_named_and_left_out(copied, capsys, spoil):
    workdir = copied / "rate-0.03-seed-0"
    spoil(workdir)
    assert main(["compare", str(copied)]) == 0
    printed = capsys.readouterr().out
    assert "left out: 1" in printed
    assert f"{workdir}: damaged: " in printed
    assert DAMAGES[spoil] in printed
    assert [run.workdir.name for run in compare_runs([copied]).runs if run.workdir.name == workdir.name] == []


def test_a_diverged_run_is_compared_and_has_no_value(copied, capsys):
    workdir = copied / "rate-0.003-seed-2"
    result = {**result_of(workdir), "status": "diverged", "reason": "the loss was nan", "test": None}
    write_sealed(workdir / "result.json", result)
    assert main(["compare", str(copied), "--sort=name"]) == 0
    printed = capsys.readouterr().out
    assert "3 (1 diverged)" in printed
    assert "worse, 1 more diverged" in printed
    values = next(group for group in compare_runs([copied]).groups if group.diverged).values("best", "accuracy")
    assert [value is None for value in values.values()] == [False, False, True]


def test_the_same_seed_twice_counts_once_and_is_said(copied, capsys):
    shutil.copytree(copied / "rate-0.03-seed-1", copied / "rate-0.03-seed-again")
    assert main(["compare", str(copied)]) == 0
    assert "rate-0.03-seed-again: repeats the seeds of another run" in capsys.readouterr().out
    assert compare_runs([copied]).groups[0].numbers == [0, 1, 2]


def test_the_document_is_the_standard_output_alone_and_lines_go_to_the_other(runs, tmp_path, capsys):
    picture = tmp_path / "new" / "curves.png"
    assert main(["compare", str(runs), "--json", f"--output={picture}", "--metric=loss"]) == 0
    shown = capsys.readouterr()
    document = json.loads(shown.out)
    assert "4 configs in 8 runs" in shown.err
    assert (document["verb"], document["format"], document["metric"]) == ("compare", 1, "loss")
    assert document["higher_is_better"] is False
    assert document["picture"] == str(picture)
    assert "optimizer.learning_rate" in document["differing"]
    best = document["groups"][document["reference"]]
    assert best["config"]["optimizer.learning_rate"] == 0.03
    values = [result_of(Path(workdir))["test"]["loss"] for workdir in best["runs"]]
    assert best["metrics"]["test"]["loss"]["values"] == dict(zip("012", values, strict=True))
    assert best["difference"] == {"best": None, "last": None, "test": None}
    lone = next(group for group in document["groups"] if group["numbers"] == [7])
    assert lone["metrics"]["test"]["loss"]["low"] is None
    assert struct.unpack(">II", picture.read_bytes()[16:24])[0] >= 1000


def test_groups_are_sorted_by_what_is_asked_for(runs):
    rates = [
        group.settings["optimizer.learning_rate"]
        for group in compare_runs([runs], sort="optimizer.learning_rate").groups
    ]
    assert rates == sorted(rates)
    seconds = [group.seconds for group in compare_runs([runs], sort="seconds").groups]
    assert seconds == sorted(seconds)
    tests = [group.spread("test", "accuracy") for group in compare_runs([runs], sort="test").groups]
    means = [spread.mean for spread in tests if spread is not None]
    assert means == sorted(means, reverse=True)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["compare"], "compare: got nothing; expected directories of runs"),
        (["compare", "nowhere"], "nowhere: got a path that leads to no directory"),
        (["compare", "empty"], "empty: got a folder without a run; expected the directory of a run"),
        (
            ["compare", "study"],
            "study: got a search, whose trials are not runs; expected a finished run. Open study/search/",
        ),
        (["compare", "study/search"], "study/search: got a search, whose trials are not runs; expected a finished run"),
        (["compare", "RUNS", "--metric=acuracy"], "--metric: got 'acuracy'; expected one of accuracy, loss"),
        (["compare", "RUNS", "--sort=rate"], "--sort: got 'rate'; expected one of best, last, test, seconds, name"),
        (["compare", "RUNS", "--workdir=x"], "compare: got a config or a directory"),
    ],
)
def test_what_cannot_be_compared_is_said_in_one_line(runs, tmp_path, monkeypatch, capsys, words, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "study" / "search").mkdir(parents=True)
    write_sealed(tmp_path / "study" / "search" / "run.json", {"format": 1, "id": "1", "config": {}})
    (tmp_path / "study" / "search" / "trials.jsonl").touch()
    assert main([str(runs) if word == "RUNS" else word for word in words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {told}")


def test_a_search_beside_runs_is_named(copied, capsys):
    (copied / "study" / "search").mkdir(parents=True)
    (copied / "study" / "search" / "trials.jsonl").touch()
    assert main(["compare", str(copied)]) == 0
    assert f"{copied / 'study'}: search: Open " in capsys.readouterr().out


def test_a_picture_that_cannot_be_written_is_said_before_anything_is_read(runs, capsys):
    assert main(["compare", str(runs), "--output=/proc/none/curves.png"]) == 5
    assert "curves.png: got the error" in capsys.readouterr().err


def test_a_curve_is_the_mean_of_the_rows_over_seeds(runs):
    group = compare_runs([runs]).groups[0]
    curve = curve_of(group, "validation", "accuracy")
    rows = [read_rows(run.workdir / "metrics.jsonl") for run in group.runs]
    by_step = {
        s: [r["accuracy"] for own in rows for r in own if (r["step"], r["split"]) == (s, "validation")]
        for s in (20, 40, 60)
    }
    np.testing.assert_allclose(curve.mean, [np.mean(values) for values in by_step.values()])
    assert curve.steps.tolist() == [20, 40, 60]
    low, high = stats.t.interval(0.95, 2, np.mean(by_step[60]), stats.sem(by_step[60]))
    np.testing.assert_allclose([curve.low[-1], curve.high[-1]], [low, high])


def test_steps_are_scaled_by_their_logarithm_where_runs_are_of_very_unlike_length(runs):
    found = compare_runs([runs])
    assert {axes.get_xscale() for axes in draw_comparison(found).axes} == {"linear"}
    for run in found.groups[-1].runs:
        run.rows[:] = [{**row, "step": 50 * row["step"]} for row in run.rows]
    for axes in draw_comparison(found).axes:
        assert axes.get_xscale() == "log"
        shown = [value for line in axes.get_lines() for value in np.asarray(line.get_xdata())]
        assert 0 < axes.get_xlim()[0] < min(shown)
        assert axes.get_xlim()[1] > max(shown)


def many_runs(template: Path, folder: Path, count: int, seeds: int) -> None:
    """Writes runs as a real one wrote its own, of many learning rates."""
    saved = read_sealed(template / "run.json", "a run")
    for number in range(count):
        workdir = folder / f"run-{number:03}"
        workdir.mkdir(parents=True)
        for name in SHOWN:
            shutil.copy(template / name, workdir / name)
        rate = 1e-3 * 1.01 ** (number // seeds)
        config = {**saved["config"], "seed": number % seeds}
        config["optimizer"] = {**config["optimizer"], "learning_rate": rate}
        write_sealed(workdir / "run.json", {**saved, "config": config})


def test_twenty_groups_share_a_picture_whose_best_are_coloured_and_named(runs, tmp_path):
    many_runs(runs / "rate-0.03-seed-0", tmp_path / "many", 20, 1)
    figure = draw_comparison(compare_runs([tmp_path / "many"]))
    left, right = figure.axes
    assert [line.get_color() for line in left.get_lines()] == list(COLOURS)
    assert all(len(axes.collections[-1].get_paths()) == 20 - len(COLOURS) for axes in (left, right))
    (legend,) = figure.legends
    assert len(legend.get_texts()) == len(COLOURS)
    assert legend.get_title().get_text() == "The 7 best of 20 configs; grey: the others"
    assert left.get_xlabel() == "step"
    assert left.get_ylabel() == "accuracy (higher is better)"


def test_five_hundred_runs_are_compared_at_once(tmp_path, capsys):
    """As many rows as a run of the default intervals writes."""
    config = tiny({**COMMON, "log.every": "1 steps", "eval.every": "6 steps"})
    train_and_evaluate(config, tmp_path / "template", quiet=True)
    assert len(read_rows(tmp_path / "template" / "metrics.jsonl")) > 60
    many_runs(tmp_path / "template", tmp_path / "many", 500, 5)
    (tmp_path / "many" / "run-007" / "result.json").unlink()
    edit_row(tmp_path / "many" / "run-123")
    begin = time.process_time()
    assert main(["compare", str(tmp_path / "many")]) == 0
    assert time.process_time() - begin < 60
    printed = capsys.readouterr().out
    assert "100 configs in 498 runs" in printed
    assert "left out: 2" in printed


def test_every_metric_of_ours_is_known_by_its_direction():
    """A metric says it itself; here the three are asked that take plain classes, numbers and labels."""
    logits, labels = jnp.eye(3), jnp.arange(3)
    said: Mapping[str, bool] = {}
    for name, metric in METRICS.members.items():
        for arguments in ((logits, labels), (jnp.ones((3, 1)), jnp.ones((3, 1))), (jnp.ones(3), jnp.ones(3))):
            try:
                said = {**said, name: metric(*arguments, jnp.ones(3)).higher_is_better}
            except Exception:
                continue
            break
    assert len(said) > 25
    wrong = {name for name, higher in said.items() if higher == (name in LOWER_IS_BETTER)} - {"confusion_matrix"}
    assert wrong == set()


def test_flattened_settings_hold_no_seed(runs):
    for group in compare_runs([runs]).groups:
        assert not {"seed", "train.seeds"} & group.settings.keys()
        assert "train.duration" in flatten(group.runs[0].config)


def test_a_document_of_many_runs_is_as_the_page_describes_it(runs, tmp_path, capsys):
    assert main(["compare", str(runs), "--json", "--quiet", f"--output={tmp_path / 'curves.png'}"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert faults(document, "compare") == []
    assert any(found["difference"]["best"] for found in document["groups"])
