"""Training longer: a run that continues another equals one that was never cut, and says what it goes on with."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_undefined_metric import ONE_CLASS
from tiny_runs import Interrupting, outcome, result_of, tiny

from jaxtrain.core.steps import train_step
from jaxtrain.core.trees import named_leaves
from jaxtrain.errors import ConfigError, DataError, JaxtrainError
from jaxtrain.lr_range.from_config import check as check_range_test
from jaxtrain.search.identity import check_config as check_search
from jaxtrain.storage.checkpoints import Checkpoints
from jaxtrain.training.continuation import read_continued
from jaxtrain.training.experiment import build
from jaxtrain.training.plan import plan
from jaxtrain.training.runners import make_runner
from jaxtrain.training.train import train_and_evaluate

KEY = "checkpoint.continue_from"
CONSTANT = {"schedule.optimizer.learning_rate": None}
PLATEAU = {
    "schedule.optimizer.learning_rate": {"name": "reduce_on_plateau", "patience": 1.0, "threshold": 0.5},
    "eval.every": "10 steps",
}
KINDS: dict[str, dict[str, Any]] = {
    "averages": CONSTANT,
    "seeds": CONSTANT | {"train.seeds": 2},
    "plateau": PLATEAU,
    "plateau of seeds": PLATEAU | {"train.seeds": 2},
    "schedule-free": CONSTANT
    | {"optimizer.name": "schedule_free_adamw", "optimizer.learning_rate": 0.01, "train.ema": None},
}


def longer(source: Path, given: dict[str, Any] | None = None, duration: str = "120 steps") -> Any:
    """Returns the config of a run that continues `source`."""
    return tiny({**(given or {}), KEY: str(source), "train.duration": duration})


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a finished run of 60 steps with a constant rate."""
    directory = tmp_path_factory.mktemp("runs") / "source"
    train_and_evaluate(tiny(CONSTANT), directory, quiet=True)
    return directory


def read(source: Path, given: dict[str, Any] | None = None, duration: str = "120 steps") -> Any:
    experiment = build(longer(source, given, duration))
    return read_continued(experiment, make_runner(experiment, train_step).shapes())


@pytest.mark.one_fast_of(5)
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_is_continued_equals_one_that_was_never_cut(kind: str, tmp_path: Path) -> None:
    given = KINDS[kind]
    whole = train_and_evaluate(tiny(given | {"train.duration": "120 steps"}), tmp_path / "whole", quiet=True)
    train_and_evaluate(tiny(given), tmp_path / "half", quiet=True)
    result = train_and_evaluate(longer(tmp_path / "half", given), tmp_path / "longer", quiet=True)
    assert (result.status, result.step, result.state_digest) == (whole.status, whole.step, whole.state_digest)
    rows = {path.name: outcome(path)["rows"] for path in (tmp_path / "whole", tmp_path / "longer")}
    assert rows["longer"] == [row for row in rows["whole"] if row["step"] > 60]


def test_a_continued_run_that_is_stopped_resumes_exactly_and_needs_the_other_run_no_more(
    source: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(source, copy)
    config = longer(copy, CONSTANT)
    whole = train_and_evaluate(config, tmp_path / "whole", quiet=True)
    for at in (61, 90):
        stop = Interrupting(at)
        assert train_and_evaluate(config, tmp_path / "cut", trackers=[stop], quiet=True).status == "interrupted"
        shutil.rmtree(copy, ignore_errors=True)
    assert train_and_evaluate(config, tmp_path / "cut", quiet=True).state_digest == whole.state_digest
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")


def test_a_run_that_is_killed_before_its_first_step_has_the_state_already(source: Path, tmp_path: Path) -> None:
    """The other run may train on meanwhile: what is continued is fixed by the first session."""
    saved: list[int] = []
    real = Checkpoints.save

    def save(self: Checkpoints, step: int, *rest: Any, **more: Any) -> None:
        saved.append(step)
        real(self, step, *rest, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "save", save)
        train_and_evaluate(longer(source, CONSTANT), tmp_path / "run", quiet=True)
    assert saved[0] == 60


def test_what_goes_on_is_said_in_one_line(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = {"schedule.optimizer.learning_rate": {"name": "linear"}}
    train_and_evaluate(longer(source, given), tmp_path / "run")
    (line,) = [line for line in "".join(capsys.readouterr()).splitlines() if "continues" in line]
    assert f"continues {source} at step 60 of 120" in line
    assert "optimizer.learning_rate goes on at 0.0005 after 0.001" in line
    assert "its best evaluation, loss " in line
    best = result_of(tmp_path / "run")["best"]
    assert best["step"] > 60, "the best state of the run is in its own directory"


def test_all_leaves_of_the_newest_state_are_taken_and_the_floats_are_those_of_the_config(source: Path) -> None:
    continued = read(source, CONSTANT | {"optimizer.learning_rate": 0.5})
    leaves, _ = Checkpoints(source / "checkpoints", keep=1, say=print).restore_leaves(60)
    assert continued.step == 60
    for path, leaf in named_leaves(continued.state):
        if not path.startswith("hparams/"):
            np.testing.assert_array_equal(leaf, leaves[path], err_msg=path)
    assert continued.state.hparams["optimizer.learning_rate"] == np.float32(0.5)
    assert continued.state.hparams["train.total_steps"] == 120


@pytest.mark.parametrize(
    ("given", "duration", "named"),
    [
        ({"train.ema": None}, "120 steps", r"continue_from: .*ema/0/Dense_0/bias: there float32\(16,\), here nothing"),
        ({"model.hidden": (8,)}, "120 steps", r"Dense_0/kernel: there float32\(64, 16\), here float32\(64, 8\).*mu"),
        ({"optimizer.name": "sgd"}, "120 steps", r"continue_from: .*opt_state/.*here nothing"),
        ({"seed": 1}, "120 steps", r"seed: got 1; expected 0, as in .*source"),
        ({"train.seeds": 2}, "120 steps", r"train\.seeds: got 2; expected 1"),
        ({}, "60 steps", r"train\.duration: got '60 steps'; expected more than the 60 steps that .*source has taken"),
        ({"checkpoint.init_from": "other"}, "120 steps", r"init_from: got 'other'; expected None with checkpoint\.con"),
        ({"checkpoint.init_except": "Dense"}, "120 steps", r"init_except: got 'Dense'; expected None with checkpoint"),
        ({"lr_range.before_training": True}, "120 steps", r"before_training: got True; expected False with checkpoint"),
        ({"data.seed": 3}, "120 steps", r"data: got data with the fingerprint .*that checkpoint\.continue_from was"),
        ({KEY: "no/such/run"}, "120 steps", r"continue_from: got 'no/such/run'; expected the directory of a run"),
        ({KEY: ""}, "120 steps", r"continue_from: got ''; expected .*not empty"),
    ],
)
def test_what_cannot_go_on_is_refused_in_one_line(
    source: Path, given: dict[str, Any], duration: str, named: str
) -> None:
    with pytest.raises(JaxtrainError, match=named) as error:
        build_and_read({**CONSTANT, KEY: str(source), **given, "train.duration": duration})
    assert "\n" not in str(error.value)
    assert isinstance(error.value, DataError if "fingerprint" in named else ConfigError)


def build_and_read(given: dict[str, Any]) -> Any:
    experiment = build(tiny(given))
    return read_continued(experiment, make_runner(experiment, train_step).shapes())


def test_a_float_on_which_the_optimizer_built_its_state_is_refused_by_its_name(tmp_path: Path) -> None:
    """Its new value would have no effect, and config.json would show it all the same."""
    given = KINDS["schedule-free"] | {"optimizer.b1": 0.9}
    train_and_evaluate(tiny(given | {"train.duration": "20 steps"}), tmp_path / "source", quiet=True)
    with pytest.raises(ConfigError, match=r"optimizer\.b1: got 0\.95; expected 0\.9, as in "):
        read(tmp_path / "source", given | {"optimizer.b1": 0.95})
    assert read(tmp_path / "source", given | {"optimizer.learning_rate": 0.02}).step == 20


def test_a_plateau_is_not_continued_under_another_measure(tmp_path: Path) -> None:
    train_and_evaluate(tiny(PLATEAU | {"train.duration": "20 steps"}), tmp_path / "source", quiet=True)
    with pytest.raises(ConfigError, match=r"reduce_on_plateau compares|eval\.metric = 'accuracy', there 'loss'"):
        read(tmp_path / "source", PLATEAU | {"eval.metric": "accuracy"})
    with pytest.raises(ConfigError, match=r"loss\.label_smoothing"):
        read(tmp_path / "source", PLATEAU | {"loss.label_smoothing": 0.1})
    assert read(tmp_path / "source", CONSTANT | {"eval.metric": "accuracy"}).step == 20


def test_early_stopping_counts_from_the_first_evaluation_of_the_run(tmp_path: Path) -> None:
    """Where `eval.metric` is undefined at every evaluation: those of the other run are not counted."""
    given = {**ONE_CLASS, **CONSTANT}
    train_and_evaluate(tiny(given), tmp_path / "source", quiet=True)
    stopping = given | {"train.early_stopping": "40 steps"}
    result = train_and_evaluate(longer(tmp_path / "source", stopping, "200 steps"), tmp_path / "run", quiet=True)
    assert (result.step, result.best) == (80 + 40, None)


@pytest.mark.parametrize("check", [check_search, check_range_test])
def test_what_trains_from_step_0_refuses_to_continue(check: Any) -> None:
    with pytest.raises(ConfigError, match=r"checkpoint\.continue_from: got 'runs/x'; expected None in a"):
        check(tiny({KEY: "runs/x"}))


def test_a_plan_counts_the_steps_that_are_left_and_refuses_what_training_would(source: Path) -> None:
    planned = plan(longer(source, CONSTANT, "240 steps"))
    assert (planned.begin, planned.steps) == (60, 240)
    with pytest.raises(ConfigError, match=r"train\.duration"):
        plan(longer(source, CONSTANT, "50 steps"))


def test_the_directory_names_what_it_continues(source: Path, tmp_path: Path) -> None:
    train_and_evaluate(longer(source, CONSTANT), tmp_path / "run", quiet=True)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["checkpoint"]["continue_from"] == str(source)
    assert min(row["step"] for row in outcome(tmp_path / "run")["rows"]) > 60
