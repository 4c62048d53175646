"""The command `lr_range`: from config to files, rejected configs, and range tests before training."""

import contextlib
import csv
import dataclasses
import io
import json
import os
import shlex
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_trackers import read_events
from tiny_runs import Interrupting, command, on_devices, outcome, result_of, run, tiny

from jaxtrain.commands.options import use_a_host_device_per_core
from jaxtrain.config.defaults import Config
from jaxtrain.config.identity import to_json
from jaxtrain.config.resolve import load_config
from jaxtrain.config.schema import Text
from jaxtrain.lr_range import from_config as range_test
from jaxtrain.lr_range.curves import Curve
from jaxtrain.lr_range.from_config import check, lr_range_test, suggested_floats
from jaxtrain.lr_range.result import LRRangeResult
from jaxtrain.lr_range.rules import RULES
from jaxtrain.lr_range.suggestion import Reading
from jaxtrain.main import main
from jaxtrain.storage.seals import without_seal, write_sealed
from jaxtrain.trackers.jsonl import read_rows
from jaxtrain.trackers.memory import MemoryTracker
from jaxtrain.training.experiment import build
from jaxtrain.training.train import train_and_evaluate

pytestmark = pytest.mark.unfused
SMALL = {
    "lr_range.rates": 8,
    "lr_range.seeds": 2,
    "lr_range.start": 1e-5,
    "lr_range.stop": 10.0,
    "lr_range.steps": "30 steps",
    "optimizer.name": "sgd",
}
CONSTANT = {"schedule": {"optimizer": {"learning_rate": {"name": "constant"}}}}
TARGET = "optimizer.learning_rate"


@pytest.fixture(autouse=True)
def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps commands from changing the environment of later tests."""
    monkeypatch.setenv("XLA_FLAGS", "")


@dataclasses.dataclass(frozen=True)
class Command:
    """A command that ran in this process: its directory and its output."""

    config: Path
    workdir: Path
    code: int
    out: str


def config_file(folder: Path, overrides: dict[str, Any]) -> Path:
    """Writes the tiny config as a config file."""
    path = folder / "tiny.json"
    path.write_text(to_json(tiny(overrides)))
    return path


def ran(folder: Path, *words: str, overrides: dict[str, Any] = SMALL) -> Command:
    config, workdir, out = config_file(folder, overrides), folder / "run", io.StringIO()
    with contextlib.redirect_stdout(out):
        code = main(["lr_range", f"--config={config}", f"--workdir={workdir}", *words])
    return Command(config, workdir, code, out.getvalue())


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("verb")
        patch.setenv("XLA_FLAGS", "")
        yield ran(folder)


def stored(workdir: Path) -> LRRangeResult:
    return LRRangeResult.from_json(json.loads((workdir / "lr_range" / "result.json").read_text()))


# The verb


@pytest.mark.slow
def test_the_files_that_the_report_names_are_there_and_no_others(done):
    assert done.code == 0
    line = next(line for line in done.out.splitlines() if line.startswith("wrote "))
    folder, _, names = line.removeprefix("wrote ").partition("/: ")
    assert Path(folder) == done.workdir / "lr_range"
    patterns = [name.split()[0] for name in names.split(", ")]
    there = sorted(path.name for pattern in patterns for path in Path(folder).glob(pattern))
    assert len(there) == len(patterns)
    assert there == sorted(path.name for path in Path(folder).iterdir())


def test_the_config_beside_the_result_is_the_one_that_was_tested(done):
    assert load_config(done.workdir / "lr_range" / "config.json") == load_config(done.config)


def test_the_rows_of_the_curve_are_the_rates(done):
    result = stored(done.workdir)
    assert (result.status, result.method, result.target) == ("done", "lanes", TARGET)
    np.testing.assert_allclose(result.curves[0].rates, np.geomspace(1e-5, 10.0, 8))
    assert [curve.steps for curve in result.curves] == [7, 15, 30]
    with (done.workdir / "lr_range" / "curve.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["steps"] == "30"]
    np.testing.assert_allclose([float(row["rate"]) for row in rows], result.rates)
    losses = [[float(row["loss_seed_0"]), float(row["loss_seed_1"])] for row in rows]
    np.testing.assert_allclose(losses, result.losses, rtol=1e-6)
    np.testing.assert_allclose([float(row["median"]) for row in rows], result.curves[-1].median, rtol=1e-6)


def test_the_picture_is_a_png_of_the_size_that_was_drawn_and_in_tensorboard(done):
    png = (done.workdir / "lr_range" / "lr_range.png").read_bytes()
    assert png.startswith(b"\x89PNG\r\n")
    size = struct.unpack(">II", png[16:24])
    inches = stored(done.workdir).plot().get_size_inches()
    assert size == tuple(round(120 * side) for side in inches)
    images = [value.image for event in read_events(done.workdir / "lr_range") for value in event.summary.value]
    assert [image.encoded_image_string for image in images] == [png]
    assert (images[0].width, images[0].height) == size


def test_the_table_shows_every_rule_and_what_the_curve_says(done):
    reading = stored(done.workdir).reading
    assert reading is not None
    assert reading.falling is not None
    assert reading.interval is not None
    assert set(reading.rules) == set(RULES)
    assert "other rules: " + ", ".join(f"{name} {rate:.3g}" for name, rate in reading.rules.items()) in done.out
    low, high = reading.interval
    assert f"suggestion    {reading.suggestion:.3g}; the best rate lies between {low:.3g} and {high:.3g}" in done.out
    assert f"the loss falls from {reading.falling[0]:.3g} to {reading.falling[1]:.3g}" in done.out


def test_the_command_that_it_prints_can_be_pasted_and_trains(done, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pasted = shlex.split(done.out.splitlines()[-1])
    assert pasted[1:3] == command()[1:]
    assert main([*pasted[3:], "--quiet"]) == 0
    (workdir,) = (tmp_path / "runs").iterdir()
    trained = load_config(workdir / "config.json")["optimizer"]["learning_rate"]
    assert trained == pytest.approx(stored(done.workdir).suggestion, rel=0.01)
    assert result_of(workdir)["status"] == "done"


def test_a_suggestion_trains_better_than_a_rate_that_is_far_off(done, tmp_path):
    suggestion = stored(done.workdir).suggestion
    assert suggestion is not None
    found = {
        rate: train_and_evaluate(tiny({**SMALL, TARGET: rate}), tmp_path / str(rate), quiet=True).last["validation"]
        for rate in (suggestion, suggestion / 100)
    }
    assert found[suggestion]["loss"] < 0.8 * found[suggestion / 100]["loss"]


def test_where_every_lane_diverges_the_result_is_written_and_the_code_is_four(tmp_path):
    found = ran(tmp_path, "--config.lr_range.start=1e30", "--config.lr_range.stop=1e37")
    assert found.code == 4
    assert "every lane diverged" in found.out
    result = result_of(found.workdir / "lr_range")
    assert (result["status"], result["reliable"], result["suggestion"]) == ("diverged", False, None)
    assert (found.workdir / "lr_range" / "lr_range.png").stat().st_size > 0
    rows = (found.workdir / "lr_range" / "curve.csv").read_text().splitlines()
    assert len(rows) == 1 + 3 * (8 + 4), "two decades below are tried, too"
    assert stored(found.workdir).status == "diverged"
    assert "next:" not in found.out


def test_quiet_prints_nothing(tmp_path):
    assert ran(tmp_path, "--quiet", "--config.track.tensorboard=False").out == ""
    assert not list((tmp_path / "run" / "lr_range").glob("events*"))


def test_a_second_float_through_the_verb(tmp_path):
    words = ("second=optimizer.momentum", "second_start=0.5", "second_stop=0.9", "second_count=2", "seeds=1")
    found = ran(tmp_path, *(f"--config.lr_range.{word}" for word in words))
    result = stored(found.workdir)
    assert result.second is not None
    assert result.second[0] == "optimizer.momentum"
    np.testing.assert_allclose(result.second[1], [0.5, 0.9])
    assert result.grid.shape == (2, len(result.rates))
    best = result.second[1][result.row]
    assert f"--config.{TARGET}={result.suggestion:.3g} --config.optimizer.momentum={best:.3g}" in found.out


@pytest.mark.bits
@pytest.mark.slow
def test_with_four_host_devices_the_losses_are_the_same(done, tmp_path):
    """In a process of its own, on all devices, with a batch that does not divide over them: lanes are not split."""
    flags = on_devices(4)
    config = config_file(tmp_path, SMALL | {"parallel.mesh": None})
    four = run(tmp_path, "lr_range", f"--config={config}", "--workdir=four", **flags)
    assert four.returncode == 0, four.stderr
    np.testing.assert_array_equal(stored(tmp_path / "four").losses, stored(done.workdir).losses)
    odd = run(tmp_path, "lr_range", f"--config={config}", "--workdir=odd", "--config.data.batch_size=66", **flags)
    assert odd.returncode == 0, odd.stderr


def test_a_users_own_xla_flags_are_never_overridden(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=false")
    use_a_host_device_per_core()
    assert os.environ["XLA_FLAGS"] == "--xla_cpu_enable_fast_math=false"
    monkeypatch.delenv("XLA_FLAGS")
    use_a_host_device_per_core()
    assert os.environ["XLA_FLAGS"] == f"--xla_force_host_platform_device_count={os.cpu_count()}"


# What is refused: the key, what was given, what is allowed


@pytest.mark.parametrize(
    ("overrides", "key", "given", "allowed"),
    [
        ({"start": "0"}, "start", "'0'", "above 0"),
        ({"start": "1"}, "stop", "1.0", "a number above lr_range.start, 1"),
        ({"start": "1", "stop": "0.1"}, "stop", "0.1", "a number above lr_range.start, 1"),
        ({"rates": "4"}, "rates", "'4'", "at least 5"),
        ({"method": "ramps"}, "method", "'ramps'", "'ramp'"),
        ({"steps": "0 steps"}, "steps", "'0 steps'", "'10 epochs'"),
        ({"target": "optimizer.lerning_rate"}, "target", "'optimizer.lerning_rate'", "optimizer.learning_rate"),
        ({"target": "model.hidden"}, "target", "'model.hidden'", "one of model.dropout"),
        ({"second": "data.batch_size"}, "second", "'data.batch_size'", "optimizer.weight_decay"),
        ({"second": TARGET}, "second", f"'{TARGET}'", "another float than lr_range.target"),
        ({"second": "model.dropout", "second_start": "2"}, "second_stop", "1.0", "a number above lr_range.second_sta"),
        (
            {"target": "loss.label_smoothing"},
            "target",
            "'loss.label_smoothing'",
            "a float that leaves the loss as it is",
        ),
        ({"target": "train.ema", "stop": "10"}, "stop", "10.0", "1"),
        (
            {"method": "ramp", "target": "schedule.optimizer.learning_rate.warmup"},
            "method",
            "'ramp'",
            "'lanes'. Take lanes: a ramp",
        ),
        (
            {"method": "ramp", "second": "schedule.optimizer.learning_rate.warmup"},
            "method",
            "'ramp'",
            "'lanes'. Take lanes: a ramp",
        ),
    ],
)
def test_bad_values_are_refused_in_one_line(tmp_path, capsys, overrides, key, given, allowed):
    config = config_file(tmp_path, {})
    words = [f"--config.lr_range.{name}={value}" for name, value in {"stop": "1", **overrides}.items()]
    assert main(["lr_range", f"--config={config}", f"--workdir={tmp_path / 'run'}", "--quiet", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: lr_range.{key}: got {given}; expected ")
    assert allowed in line.partition("; expected ")[2]
    assert not (tmp_path / "run").exists()


def test_a_ramp_over_rprop_is_refused_and_lanes_are_not(tmp_path, capsys):
    rprop = {"optimizer.name": "rprop", "schedule": {}}
    found = ran(tmp_path, "--config.lr_range.method=ramp", overrides=SMALL | rprop)
    assert found.code == 2
    line = capsys.readouterr().err
    assert "lr_range.method: got 'ramp'; expected 'lanes'. Take lanes: optimizer.learning_rate is one number" in line
    check(tiny(SMALL | rprop))


def test_more_lanes_than_memory_are_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("jaxtrain.parallel.width.memory_limit", lambda mesh: 1000)
    assert ran(tmp_path).code == 2
    assert "lanes: got 16" in capsys.readouterr().err
    assert not (tmp_path / "run" / "lr_range").exists()


# Before training


def before(**more: Any) -> Config:
    """A config with a range test before training; its constant schedule logs the applied rate."""
    return tiny(SMALL | CONSTANT | {"lr_range.before_training": True} | more)


def applied(workdir: Path) -> set[float]:
    return {row[TARGET] for row in read_rows(workdir / "metrics.jsonl") if row["split"] == "train"}


def refuse(*_: Any, **__: Any) -> None:
    raise AssertionError("tested again")


def test_a_run_trains_with_the_answer_and_a_resume_never_tests_again(tmp_path, monkeypatch, capfd):
    """The interrupted run equals an uninterrupted one; the logged rate is the suggestion."""
    train_and_evaluate(before(), tmp_path / "whole")
    suggestion = stored(tmp_path / "whole").suggestion
    assert suggestion is not None
    assert applied(tmp_path / "whole") == {float(np.float32(suggestion))}
    assert f"range test: {TARGET} = {suggestion:.4g}" in capfd.readouterr().err
    rare = {"eval.every": "100 steps", "checkpoint.every": "100 steps"}
    config = before(**{"train.duration": "300 steps"}, **rare)
    train_and_evaluate(config, tmp_path / "long", quiet=True)
    assert train_and_evaluate(config, tmp_path / "cut", trackers=[Interrupting(40)], quiet=True).status == "interrupted"
    monkeypatch.setattr("jaxtrain.lr_range.from_config.sweep_rates", refuse)
    assert train_and_evaluate(config, tmp_path / "cut", quiet=True).status == "done"
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "long")


def touched(workdir: Path, **changes: Any) -> None:
    path = workdir / "lr_range" / "result.json"
    saved = without_seal(json.loads(path.read_text()))
    write_sealed(path, saved | {"readings": [reading | changes for reading in saved["readings"]]})


def test_a_stored_answer_is_read(tmp_path, monkeypatch):
    """The stored suggestion was edited, which shows that the file is used."""
    config = before()
    lr_range_test(config, tmp_path, quiet=True)
    touched(tmp_path, suggestion=0.0123, doubt="")
    monkeypatch.setattr("jaxtrain.lr_range.from_config.sweep_rates", refuse)
    train_and_evaluate(config, tmp_path, quiet=True)
    assert applied(tmp_path) == {float(np.float32(0.0123))}


def test_a_stored_answer_that_others_changed_is_not_believed(tmp_path, capfd):
    config = before()
    lr_range_test(config, tmp_path, quiet=True)
    path = tmp_path / "lr_range" / "result.json"
    own = path.read_text()
    path.write_text(own.replace('"suggestion": 0.', '"suggestion": 0.9'))
    train_and_evaluate(config, tmp_path)
    assert f"{path}: got content that fails its checksum" in capfd.readouterr().err
    assert json.loads(path.read_text()) == json.loads(own)


def test_the_answer_that_the_verb_left_is_taken_unless_it_is_of_another_config(tmp_path, monkeypatch):
    """The command shares the directory, but its result for another optimizer does not apply."""
    lr_range_test(tiny(SMALL | CONSTANT), tmp_path / "same", quiet=True)
    touched(tmp_path / "same", suggestion=0.0123, doubt="")
    lr_range_test(tiny(SMALL | CONSTANT | {"optimizer.momentum": 0.5}), tmp_path / "other", quiet=True)
    touched(tmp_path / "other", suggestion=0.0123, doubt="")
    assert range_test.apply_suggestion(build(before()), tmp_path / "other", print).suggested != {TARGET: 0.0123}
    monkeypatch.setattr("jaxtrain.lr_range.from_config.sweep_rates", refuse)
    assert range_test.apply_suggestion(build(before()), tmp_path / "same", print).suggested == {TARGET: 0.0123}


def test_where_the_suggestion_is_not_reliable_the_configs_own_rate_is_used_and_said(tmp_path, capfd):
    """Rates too low to lower the loss."""
    config = before(**{"lr_range.start": 1e-12, "lr_range.stop": 1e-11, TARGET: 0.02})
    train_and_evaluate(config, tmp_path)
    assert stored(tmp_path).reliable is False
    assert applied(tmp_path) == {float(np.float32(0.02))}
    assert (
        f"range test: the suggestion is not reliable, so {TARGET} stays 0.02; see {tmp_path}" in capfd.readouterr().err
    )


@pytest.mark.slow
def test_a_cyclic_schedule_gets_the_bounds_between_which_the_loss_falls(tmp_path):
    """The rate cycles between them: the highest applied rate is the upper bound, none is below the lower one."""
    reading = Reading(0.03, (0.02, 0.04), (0.03,), (0.005, 0.08), None, {}, None, "")
    result = LRRangeResult("lanes", TARGET, ((Curve(30, np.ones(8), np.ones((8, 2))),),), (reading,), None, 60)
    cyclic = {"schedule": {"optimizer": {"learning_rate": {"name": "cyclic", "cycles": 3.0}}}}
    found = suggested_floats(result, tiny(cyclic))
    assert found == pytest.approx({TARGET: 0.08, f"schedule.{TARGET}.low": 0.005 / 0.08})
    assert suggested_floats(result, tiny(CONSTANT)) == {TARGET: 0.03}
    tracker = MemoryTracker()
    config = before(**cyclic, **{"log.every": "1 steps"})
    lr_range_test(config, tmp_path, quiet=True)
    touched(tmp_path, falling=[0.005, 0.08], doubt="", suggestion=0.03)
    train_and_evaluate(config, tmp_path, trackers=[tracker], quiet=True)
    rates = [row[TARGET] for row in tracker.rows if row["split"] == "train"]
    assert min(rates) == pytest.approx(0.005, rel=1e-5)
    assert max(rates) == pytest.approx(0.08, rel=1e-5)


def test_a_test_before_training_is_part_of_what_a_directory_is_for(tmp_path):
    """Other bounds of the test change the run, so the directory is rejected; the command's result stays apart."""
    config = before()
    train_and_evaluate(config, tmp_path, quiet=True)
    words = [f"--config={tmp_path / 'config.json'}", f"--workdir={tmp_path}", "--quiet"]
    assert main([*words, "--config.lr_range.stop=5"]) == 2
    assert to_json(load_config(tmp_path / "config.json")) == to_json(config)
    assert load_config(tmp_path / "config.json", {"lr_range.stop": Text("5")}) != config


def test_a_place_that_is_taken_is_refused_before_anything_is_trained(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("jaxtrain.lr_range.from_config.run_range_test", lambda *_: pytest.fail("trained"))
    (tmp_path / "run" / "lr_range" / "curve.csv").mkdir(parents=True)
    assert main(["lr_range", f"--config={config_file(tmp_path, {})}", f"--workdir={tmp_path / 'run'}", "--quiet"]) == 5
    assert "curve.csv: got the error 'Is a directory'" in capsys.readouterr().err
