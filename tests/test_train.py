"""A run from a config to its files: the files it writes, the configs it rejects, the programs it compiles."""

import dataclasses
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from test_trackers import read_scalars
from tiny_runs import PATIENCE, Interrupting, config_file, environment, outcome, result_of, run, tiny

from jaxtrain.commands.train import train_report
from jaxtrain.config import resolve as configs
from jaxtrain.config.hparams import hyperparameters
from jaxtrain.core.steps import train_step
from jaxtrain.core.trees import state_digest
from jaxtrain.errors import ConfigError, DataError, StorageError, UsageError
from jaxtrain.parallel.compilation import count_compilations
from jaxtrain.storage.checkpoints import Checkpoints
from jaxtrain.storage.locks import run_lock
from jaxtrain.storage.result import Result
from jaxtrain.trackers.base import ROW_KEYS
from jaxtrain.trackers.jsonl import read_rows
from jaxtrain.trackers.memory import MemoryTracker
from jaxtrain.training.experiment import build
from jaxtrain.training.train import train_and_evaluate


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a finished tiny run."""
    directory = tmp_path_factory.mktemp("runs") / "tiny"
    train_and_evaluate(tiny(), directory, quiet=True)
    return directory


def trained(config: configs.Config, directory: Path) -> Result:
    return train_and_evaluate(config, directory, quiet=True)


def test_a_run_leaves_the_files_that_its_report_names_and_no_others(workdir):
    lines = train_report(Result(**result_of(workdir)), workdir)
    begin, end = lines.index(f"wrote {workdir}/:"), lines.index("next:")
    named = [line.split()[0] for line in lines[begin + 1 : end]]
    assert all(list(workdir.glob(name)) for name in named)
    there = {path.name for path in workdir.iterdir() if not path.name.startswith(".")}
    assert there == {path.name for name in named for path in workdir.glob(name)}
    assert {"config.json", "environment.json", "metrics.jsonl", "result.json", "checkpoints"} <= there


def test_the_rows_of_a_run(workdir):
    """At most one row for each step and split; all have the loss, training rows the applied rate and the norms."""
    rows = read_rows(workdir / "metrics.jsonl")
    places = [(row["step"], row["split"]) for row in rows]
    expected = [(step, split) for step in (20, 40, 60) for split in ("train", "validation")]
    assert sorted(places[:-1]) == expected
    assert places[-1][1] == "test"
    assert all(math.isfinite(row["loss"]) for row in rows)
    train = next(row for row in rows if row["split"] == "train")
    assert {"accuracy", "optimizer.learning_rate", "norm_gradient", "norm_update", "norm_parameter"} <= train.keys()


def test_training_rows_hold_every_float_that_the_optimizer_applied(workdir):
    """Unscheduled ones as in the config, rounded to float32; a scheduled one at the step before the row."""
    configured = {name: value for name, value in hyperparameters(tiny()).items() if name.startswith("optimizer.")}
    rate = configured.pop("optimizer.learning_rate")
    assert {"optimizer.b1", "optimizer.b2", "optimizer.eps", "optimizer.weight_decay"} <= configured.keys()
    for row in read_rows(workdir / "metrics.jsonl"):
        applied = {name: value for name, value in row.items() if name.startswith("optimizer.")}
        if row["split"] == "train":
            scheduled = applied.pop("optimizer.learning_rate")
            decayed = 0.5 + 0.5 * math.cos(math.pi * (row["step"] - 1 - 3) / 57)  # 3 of 60 steps are warm-up
            assert scheduled == pytest.approx(rate * decayed, rel=1e-4)
            assert applied == {name: float(np.float32(value)) for name, value in configured.items()}
        else:
            assert not applied


def test_floats_without_a_schedule_are_recorded_and_not_printed(tmp_path, capfd):
    given = {"schedule.optimizer.learning_rate": None, "train.duration": "20 steps"}
    tracker = MemoryTracker()
    result = train_and_evaluate(tiny(given), tmp_path, trackers=[tracker])
    printed = [*capfd.readouterr().err.splitlines(), *train_report(result, tmp_path)]
    rate = float(np.float32(0.001))
    assert tracker.rows[0]["optimizer.learning_rate"] == rate
    assert read_scalars(tmp_path)[20, "hyperparameters/optimizer.learning_rate"] == rate
    assert any("train" in line and "loss" in line for line in printed)
    assert not [line for line in printed if "optimizer." in line]


def clocked_step(state, batch, **options):
    """A user's step with a metric whose name is a key of the rows."""
    state, metrics = train_step(state, batch, **options)
    return state, metrics | {"time": metrics["loss"]}


def test_a_metric_with_the_name_of_a_key_of_the_rows_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"metrics of the task: got one called time; expected other names"):
        train_and_evaluate(tiny(), tmp_path, step=clocked_step, quiet=True)


def test_the_result_of_a_run(workdir):
    result, rows = result_of(workdir), read_rows(workdir / "metrics.jsonl")
    by_place = {(row["step"], row["split"]): {n: v for n, v in row.items() if n not in ROW_KEYS} for row in rows}
    assert (result["status"], result["step"], result["signal"]) == ("done", 60, None)
    assert result["seconds"] > 0
    assert result["last"] == {split: by_place[60, split] for split in ("train", "validation")}
    best = result["best"]
    assert best["metric"] == "loss"
    assert best["value"] == by_place[best["step"], "validation"]["loss"]
    assert best["value"] == min(row["loss"] for (_, split), row in by_place.items() if split == "validation")
    assert result["test"] == {"step": best["step"], **by_place[best["step"], "test"]}
    assert result["throughput"].keys() == {
        "examples_per_second",
        "milliseconds_per_step",
        "compile_seconds",
        "data_wait_share",
    }
    experiment = build(tiny())
    saved = Checkpoints(workdir / "checkpoints", keep=1, say=print).restore(experiment.state_shapes())
    assert saved is not None
    assert (saved.step, state_digest(saved.state)) == (60, result["state_digest"])


def test_the_environment_names_the_data_and_the_config_can_be_trained_again(workdir, tmp_path):
    environment = json.loads((workdir / "environment.json").read_text())
    assert environment["data_fingerprint"] == build(tiny()).dataset.fingerprint
    assert environment["packages"]["jax"] == jax.__version__
    again = configs.load_config(workdir / "config.json")
    assert again == tiny()
    assert trained(again, tmp_path / "again").state_digest == result_of(workdir)["state_digest"]


def test_the_test_split_is_looked_at_once_with_the_best_state(tmp_path, monkeypatch):
    """With a learning rate of 0 the accuracy is constant, so the first evaluation is the best and is tested."""
    config = tiny({"eval.metric": "accuracy", "optimizer.learning_rate": 0.0, "optimizer.weight_decay": 0.0})
    looked: list[str] = []
    evaluate = type(build(config)).evaluate
    monkeypatch.setattr(
        "jaxtrain.training.experiment.Experiment.evaluate", lambda *given: looked.append(given[2]) or evaluate(*given)
    )
    result = trained(config, tmp_path)
    assert looked == ["validation"] * 3 + ["test"]
    assert result.best is not None
    assert result.test is not None
    assert (result.best["step"], result.test["step"]) == (20, 20)


def test_without_a_validation_split_the_last_state_is_tested_and_there_is_no_best(tmp_path):
    result = trained(tiny({"data.validation_fraction": 0.0}), tmp_path)
    assert result.best is None
    assert result.test is not None
    assert result.test["step"] == 60
    assert set(result.last) == {"train"}
    assert {row["split"] for row in read_rows(tmp_path / "metrics.jsonl")} == {"train", "test"}


def test_an_evaluation_that_is_due_after_the_end_happens_once_at_the_end(tmp_path):
    trained(tiny({"eval.every": "999 steps", "log.every": "50 epochs", "checkpoint.every": "999 steps"}), tmp_path)
    places = [(row["step"], row["split"]) for row in read_rows(tmp_path / "metrics.jsonl")]
    assert places == [(60, "train"), (60, "validation"), (60, "test")]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["60"]


def test_early_stopping_ends_a_run_that_gets_no_better(tmp_path):
    """With a learning rate of 0 nothing improves on the first evaluation; an EMA of equal states does not either."""
    config = tiny({"train.early_stopping": "20 steps", "optimizer.learning_rate": 0.0, "log.every": "50 steps"})
    result = trained(config, tmp_path)
    assert (result.status, result.step, result.exit_code) == ("done", 40, 0)
    assert "no better since step 20" in result.reason
    assert math.isfinite(result.last["train"]["loss"]), "of the last state, although no row of training was due"
    assert result.test is not None


def test_the_same_command_on_a_finished_run_says_so_and_changes_nothing(workdir, capfd):
    before = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file() and path.name != ".lock"}
    with count_compilations() as compiled:
        result = train_and_evaluate(tiny(), workdir)
    assert compiled.count == 0
    assert "nothing to do" in capfd.readouterr().err
    assert dataclasses.asdict(result) == result_of(workdir)
    after = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file() and path.name != ".lock"}
    assert after == before


def test_another_config_in_the_same_directory_is_refused_with_the_difference(workdir):
    with pytest.raises(UsageError) as error:
        trained(tiny({"optimizer.learning_rate": 0.5, "model.hidden": (8,)}), workdir)
    for part in ("optimizer.learning_rate", "0.5", "0.001", "model.hidden", "[8]", "[16]", "a new directory"):
        assert part in str(error.value)
    assert json.loads((workdir / "config.json").read_text())["optimizer"]["learning_rate"] == 0.001
    assert trained(tiny({"log.every": "7 steps", "checkpoint.keep": 5}), workdir).status == "done"


def test_a_directory_in_use_is_refused_and_names_its_owner(tmp_path):
    with run_lock(tmp_path), pytest.raises(UsageError, match="in use by process"):
        trained(tiny(), tmp_path)


def test_a_wrong_metric_is_refused_before_anything_is_compiled_or_claimed(tmp_path):
    with count_compilations() as compiled, pytest.raises(ConfigError) as error:
        trained(tiny({"eval.metric": "acuracy"}), tmp_path)
    assert compiled.count == 0
    for part in ("eval.metric", "acuracy", "loss, accuracy", "Did you mean 'accuracy'"):
        assert part in str(error.value)
    assert trained(tiny({"eval.metric": "accuracy"}), tmp_path).status == "done", "the directory was not claimed"


def test_a_metric_of_no_name_is_refused_with_those_that_there_are(tmp_path):
    with pytest.raises(ConfigError, match=r"task\.metrics.*acuracy.*accuracy, balanced_accuracy"):
        trained(tiny({"task.metrics": ("acuracy",)}), tmp_path)


def test_metrics_of_several_numbers_are_rows_of_several_names_and_judge_no_run(tmp_path):
    chosen = ("accuracy", "recall_per_class", "confusion_matrix")
    overrides = {"task.metrics": chosen, "train.seeds": 2}
    with pytest.raises(
        ConfigError, match=r"eval\.metric: got 'recall_per_class'; expected one of loss, accuracy\. .*several"
    ):
        trained(tiny(overrides | {"eval.metric": "recall_per_class"}), tmp_path)
    result = trained(tiny(overrides | {"eval.metric": "accuracy"}), tmp_path)
    for row in read_rows(tmp_path / "metrics.jsonl"):
        for seed in ("", "seed_0/", "seed_1/"):
            matrix = np.array([[row[f"{seed}confusion_matrix/{i}/{j}"] for j in range(10)] for i in range(10)])
            each = [row[f"{seed}recall_per_class/{i}"] for i in range(10)]
            np.testing.assert_allclose(each, matrix.diagonal() / matrix.sum(axis=1), rtol=1e-6)
            assert row[f"{seed}accuracy"] == pytest.approx(matrix.trace() / matrix.sum())
    assert result.seeds
    assert "recall_per_class/3" in result.seeds["validation"]
    assert not [line for line in train_report(result, tmp_path) if "per_class" in line or "matrix" in line]


def test_changed_data_are_refused_on_a_resume(tmp_path):
    generator = np.random.default_rng(0)
    inputs, targets = generator.normal(size=(200, 8)), np.arange(200) % 4
    np.savez(tmp_path / "data.npz", inputs=inputs, targets=targets)
    own = {"data.name": "arrays", "data.file": "data.npz", "data.path": str(tmp_path), "train.duration": "5000 steps"}
    workdir = tmp_path / "run"
    assert train_and_evaluate(tiny(own), workdir, trackers=[Interrupting(40)], quiet=True).status == "interrupted"
    inputs[7, 3] += 1.0
    np.savez(tmp_path / "data.npz", inputs=inputs, targets=targets)
    rows = (workdir / "metrics.jsonl").read_bytes()
    with pytest.raises(DataError, match="fingerprint"):
        trained(tiny(own), workdir)
    assert (workdir / "metrics.jsonl").read_bytes() == rows


def test_a_second_run_with_other_floats_and_lengths_compiles_nothing(tmp_path):
    trained(tiny(), tmp_path / "first")
    floats = {"optimizer.learning_rate": 0.01, "optimizer.b1": 0.8, "model.dropout": 0.3, "train.ema": 0.5, "seed": 3}
    lengths = {
        "train.duration": "3.5 epochs",
        "log.every": "7 steps",
        "eval.every": "1 epochs",
        "checkpoint.every": "31 steps",
    }
    with count_compilations() as compiled:
        result = trained(tiny(floats | lengths | {"schedule.optimizer.learning_rate.warmup": 0.3}), tmp_path / "second")
    assert result.step == 79
    assert compiled.count == 0


def test_a_new_run_compiles_its_initial_state_once_on_a_thread(tmp_path, caplog):
    jax.config.update("jax_log_compiles", True)
    try:
        trained(tiny({"model.hidden": (11,)}), tmp_path)
    finally:
        jax.config.update("jax_log_compiles", False)
    compiled = [record for record in caplog.records if "Finished XLA" in record.getMessage()]
    (init,) = [record for record in compiled if "jit(init_state)" in record.getMessage()]
    (steps,) = [record for record in compiled if "jit(train_call)" in record.getMessage()]
    assert (init.threadName, steps.threadName) == ("compilation", "MainThread")


def losses(config: configs.Config, directory: Path) -> dict[tuple[int, str], float]:
    trained(config, directory)
    return {(row["step"], row["split"]): row["loss"] for row in read_rows(directory / "metrics.jsonl")}


@pytest.mark.one_fast_of(3)
@pytest.mark.parametrize(
    ("backends", "given"),
    [
        (("mesh", "pmap"), {"model.dropout": None}),
        (("mesh",), {"model.dropout": 0.2, "train.duration": "30 steps"}),
        # SGD: Adam amplifies rounding errors of gradients that are 0, such as those of a bias before a batch norm.
        (
            ("mesh", "pmap"),
            {"model.dropout": None, "model.norm": "batch", "train.accumulate": 2, "optimizer.name": "sgd"}
            | {"train.duration": "30 steps"},
        ),
    ],
)
def test_four_devices_give_the_losses_of_one(tmp_path, backends, given):
    """With both backends; with dropout only on a mesh."""
    given = {"train.duration": "100 steps", "log.every": "5 steps"} | given
    one = losses(tiny(given), tmp_path / "one")
    for backend in backends:
        four = losses(tiny(given | {"parallel.mesh": 4, "parallel.backend": backend}), tmp_path / backend)
        assert four.keys() == one.keys()
        np.testing.assert_allclose(list(four.values()), list(one.values()), rtol=0, atol=1e-4)


def test_a_batch_that_does_not_divide_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"data\.batch_size.*66.*a multiple of 4"):
        trained(tiny({"parallel.mesh": 4, "data.batch_size": 66}), tmp_path)
    with pytest.raises(ConfigError, match=r"parallel\.mesh.*99.*at most"):
        trained(tiny({"parallel.mesh": 99}), tmp_path)


def test_trackers_of_the_callers_own_see_every_row(tmp_path):
    tracker = MemoryTracker()
    train_and_evaluate(tiny(), tmp_path, trackers=[tracker], quiet=True)
    assert [(row["step"], row["split"]) for row in tracker.rows] == [
        (row["step"], row["split"]) for row in read_rows(tmp_path / "metrics.jsonl")
    ]
    assert '"learning_rate": 0.001' in tracker.texts["config"]


def test_an_interrupted_run_whose_checkpoints_are_gone_never_starts_afresh_in_silence(tmp_path):
    config = tiny({"train.duration": "5000 steps"})
    train_and_evaluate(config, tmp_path, trackers=[Interrupting(40)], quiet=True)
    (tmp_path / "checkpoints").rename(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="interrupted at step"):
        trained(config, tmp_path)
    assert read_rows(tmp_path / "metrics.jsonl"), "the rows are left as they were"


LIMITED = """
import resource, sys
limit = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
from jaxtrain.main import run_command
run_command()
"""


@pytest.mark.slow
def test_a_disk_that_fills_up_ends_in_one_line_and_loses_nothing_that_was_saved(tmp_path):
    """A limit on file sizes simulates a full disk: metrics.jsonl reaches it first, long after the first checkpoint."""
    given = {"train.duration": "600 steps", "log.every": "1 steps", "track": {"tensorboard": False}}
    arguments = [f"--config={config_file(tmp_path, given)}", "--quiet", "--workdir"]
    assert run(tmp_path, *arguments, "whole").returncode == 0
    script = [sys.executable, "-c", LIMITED, "60000", *arguments, "full"]
    variables = environment(JAX_ENABLE_COMPILATION_CACHE="false")
    full = subprocess.run(script, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=PATIENCE)
    assert full.returncode == 5
    assert full.stderr.startswith("error: ")
    assert len(full.stderr.splitlines()) == 1
    assert "metrics.jsonl" in full.stderr
    assert not (tmp_path / "full" / "result.json").exists()
    again = run(tmp_path, *arguments[:1], "--workdir=full")
    assert again.returncode == 0
    assert int(re.findall(r"resuming at step (\d+)", again.stderr)[0]) >= 20
    assert outcome(tmp_path / "full") == outcome(tmp_path / "whole")


@pytest.mark.slow
def test_a_checkpoint_that_does_not_fit_on_the_disk_ends_in_one_line(tmp_path):
    arguments = [f"--config={config_file(tmp_path)}", "--quiet"]
    assert run(tmp_path, *arguments, "--workdir=whole").returncode == 0
    script = [sys.executable, "-c", LIMITED, "6000", *arguments, "--workdir=full"]
    variables = environment(JAX_ENABLE_COMPILATION_CACHE="false")
    full = subprocess.run(script, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=PATIENCE)
    assert full.returncode == 5
    assert re.fullmatch(r"error: \S*checkpoints\S*: got the error .*; expected a path that can be .*\n", full.stderr)
    assert run(tmp_path, *arguments, "--workdir=full").returncode == 0
    assert outcome(tmp_path / "full") == outcome(tmp_path / "whole")


@pytest.mark.parametrize("place", ["/dev/full/run", "/proc/run"])
def test_a_directory_that_cannot_be_made_is_refused_in_one_line(place):
    with pytest.raises(StorageError, match=place):
        trained(tiny(), Path(place))
