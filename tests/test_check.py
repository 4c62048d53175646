"""The command `check`: planted faults and sound experiments, its table of answers, its files and exit codes."""

import json
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import planted_faults as planted
import pytest
from tiny_runs import config_file, tiny

from jaxtrain import Source
from jaxtrain.check.answers import Answer, ok, warning
from jaxtrain.check.ask import ask, exit_code, to_json
from jaxtrain.check.context import Context, joined
from jaxtrain.check.layers import look_at_layers
from jaxtrain.check.questions import QUESTIONS, questions_of
from jaxtrain.check.references import references
from jaxtrain.commands import check_pictures
from jaxtrain.config.defaults import Config
from jaxtrain.config.identity import digest
from jaxtrain.config.resolve import load_config, resolve_config
from jaxtrain.core.state import TrainState
from jaxtrain.core.steps import train_step
from jaxtrain.main import main

ROOT = Path(__file__).parents[1]
EIGHT = (
    "labels shuffled",
    "softmax before the loss",
    "loss of the wrong sign",
    "layer behind stop_gradient",
    "all rectifiers dead",
    "rate a thousandfold too high",
    "dropout on in evaluation",
    "validation copied from train",
)
RUNS = (
    *("decay", "rate", "regularisers", "same_step", "modes", "splits_agree"),
    *("shuffled_labels", "zero_inputs", "overfit"),
)
"""Questions that train."""

ONE_TASK = [(name, tasks[place % len(tasks)]) for name, tasks, place in planted.places()]
"""Each fault in one task: those of a question take turns. benchmarks/planted_faults.py breaks every task."""


def first_not_ok(config: Config) -> tuple[str, Answer] | None:
    """Asks the questions in their order until one is not ok."""
    answers = ask(Context(config), questions_of(()))
    return next(((name, answer) for name, answer in answers if answer.status in ("warning", "fault")), None)


def not_ok(config: Config, skip: tuple[str, ...] = ()) -> list[tuple[str, Answer]]:
    answers = ask(Context(config), questions_of((), skip=skip))
    return [(name, answer) for name, answer in answers if answer.status in ("warning", "fault")]


def asked(config: Config, *names: str, **options: Any) -> dict[str, Answer]:
    return dict(ask(Context(config, **options), questions_of((), names)))


@pytest.mark.parametrize("name", EIGHT)
def test_a_planted_fault_is_named_by_its_question(name: str):
    found = first_not_ok(planted.broken(name, "digits"))
    assert found is not None, found
    assert found[0] == planted.FAULTS[name].question, found


@pytest.mark.one_fast_of(8)
@pytest.mark.parametrize(("name", "task"), ONE_TASK)
def test_the_question_of_a_planted_fault_names_it(name: str, task: planted.TaskName):
    """Asked alone; the sound experiments are asked all questions, and a few broken ones those before it, too."""
    question = planted.FAULTS[name].question
    assert asked(planted.broken(name, task), question)[question].status in ("warning", "fault")


def judge_sound(config: Config, skip: tuple[str, ...] = ()) -> None:
    found = not_ok(config, skip)
    assert len(found) <= 1, found
    assert all(answer.status == "warning" for _, answer in found), found


def test_the_sound_digits_have_no_fault():
    judge_sound(planted.sound("digits"))


@pytest.mark.slow
@pytest.mark.parametrize("task", [task for task in planted.TASKS if task != "digits"])
def test_sound_experiments_have_no_fault_and_at_most_one_warning(task: planted.TaskName):
    """Of one seed; benchmarks/planted_faults.py takes three."""
    judge_sound(planted.sound(task))


@pytest.mark.slow
def test_a_config_of_a_language_model_has_no_fault_and_at_most_one_warning():
    """The README's commands check the other config whose data need no file; the task "words" is asked what trains."""
    smaller = {"model.layers": 1, "model.width": 16, "data.context": 32, "data.batch_size": 8}
    judge_sound(load_config(ROOT / "configs" / "python_source_gpt.py", smaller), RUNS)


def test_the_command_prints_and_writes_the_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = config_file(tmp_path)
    only = "--only=inputs,classes,balance,duplicates,leak"
    assert main(["check", f"--config={file}", f"--workdir={tmp_path / 'run'}", only]) == 0
    printed = capsys.readouterr().out
    assert "data:\n  ok        inputs" in printed
    assert "5 questions in" in printed
    assert "5 ok, 0 warning, 0 fault, 0 not asked" in printed
    result = json.loads((tmp_path / "run" / "check" / "result.json").read_text())
    assert list(result["answers"]) == ["inputs", "classes", "balance", "duplicates", "leak"]
    assert result["status"] == "ok"
    assert result["counts"]["ok"] == 5
    for picture in ("inputs.png", "distributions.png"):
        assert (tmp_path / "run" / "check" / picture).read_bytes().startswith(b"\x89PNG")


def test_what_there_was_no_time_for_is_named_at_the_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    arguments = ["check", f"--config={config_file(tmp_path)}", f"--workdir={tmp_path}", "--only=inputs,overfit"]
    assert main([*arguments, "--config.check.seconds=0.001"]) == 0
    assert "nothing is known of inputs, overfit: raise check.seconds, or choose" in capsys.readouterr().out


def test_augmentations_that_leave_nothing_are_told_and_usual_ones_are_not():
    """Noise beneath a square that covers most of the picture keeps the scale of the inputs."""
    strong = {"augment": {"cutout": {"side": 1.0}, "noise": {"deviation": 5.0}}, "model.dropout": 0.0}
    usual = {"augment": {"pad_and_crop": {"pixels": 1.0}, "mixup": {"alpha": 0.2}}, "model.dropout": 0.0}
    found = {}
    for name, chosen in {"strong": strong, "usual": usual}.items():
        context = Context(load_config(ROOT / "configs" / "digits.py", chosen))
        found[name] = dict(ask(context, {name: QUESTIONS[name] for name in ("augmentation", "regularisers")}))
    assert found["strong"]["augmentation"].status == "ok"
    assert found["strong"]["regularisers"].status == "fault"
    assert "augment.noise, augment.cutout: in 60 steps" in found["strong"]["regularisers"].measured
    assert found["usual"]["regularisers"].status == "ok"


def test_a_target_in_other_units_in_validation_is_named_with_its_scale():
    draw = np.random.default_rng(0)
    inputs, targets = draw.normal(size=(400, 3)), draw.normal(size=400)
    splits = {"train": (inputs, targets), "validation": (inputs[::2] + 0.01, targets[::2] / 1000)}
    chosen = {"task.name": "regression", "loss.name": "mse"}
    context = Context(load_config(ROOT / "configs" / "digits.py", chosen), data=Source(splits))
    found = QUESTIONS["splits_alike"](context)
    assert found.status == "warning"
    assert (
        "the distribution of the target in validation is another, its middle half 0.001 times as wide" in found.measured
    )


def test_pictures_of_a_table_name_its_columns_and_classes():
    columns = {"width in m": np.arange(300.0), "kind": np.array(["oak", "elm", "ash"] * 100)}
    source = Source({"train": (columns, np.array(["a $ tree", "a bush"] * 150))})
    context = Context(load_config(ROOT / "configs" / "digits.py", {"data.batch_size": 32}), data=source)
    distributions = [axes.get_title(loc="left") for axes in check_pictures.draw_distributions(context).axes]
    names = ["width in m", "kind=ash", "kind=elm", "kind=oak"]
    assert distributions == [f"{name}: share of values" for name in [*names, "targets"]]
    table = check_pictures.draw_inputs(context).axes[0]
    assert [label.get_text() for label in table.get_xticklabels()] == names
    assert {label.get_text() for label in table.get_yticklabels()} == {r"a \$ tree", "a bush"}


def test_a_fault_ends_with_exit_code_6_and_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    off = "--config.schedule.optimizer.learning_rate.name=planted_faults:off_after_a_tenth"
    arguments = ["check", f"--config={config_file(tmp_path)}", f"--workdir={tmp_path / 'run'}", "--only=schedule", off]
    assert main(arguments) == 6
    printed = capsys.readouterr().out
    assert "FAULT     schedule" in printed
    assert "it is 0 for 90% of the run" in printed
    assert "it means: nothing is learned in most of the run" in printed
    assert "do: Check the length" in printed
    assert json.loads((tmp_path / "run" / "check" / "result.json").read_text())["status"] == "fault"
    assert main([*arguments, "--quiet"]) == 6
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "error: check: got a fault in schedule" in captured.err


@pytest.mark.parametrize("option", ["--only=inputs,lables", "--skip=lables"])
def test_unknown_questions_are_refused(option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["check", f"--config={config_file(tmp_path)}", f"--workdir={tmp_path / 'run'}", option]) == 2
    assert f"{option[:6]}: got 'lables'" in capsys.readouterr().err


def test_only_check_takes_names_of_questions(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["train", f"--config={config_file(tmp_path)}", "--only=inputs"]) == 2
    assert "train: got --only; expected it with check alone" in capsys.readouterr().err


def counts_examples(context: Context) -> Answer:
    """Are there many examples?"""
    count = context.dataset.sizes["train"]
    return ok(f"{count} examples") if count > 5000 else warning(f"{count} examples", "few", "Collect more")


def breaks(context: Context) -> Answer:
    raise ArithmeticError("a mistake of its author")


def test_questions_of_ones_own_are_asked_and_one_that_raises_stops_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    own = ("test_check:breaks", "test_check:counts_examples")
    only = f"--only=balance,{','.join(own)}"
    given = [f"--config={config_file(tmp_path)}", f"--config.check.questions={own}"]
    assert main(["check", *given, f"--workdir={tmp_path / 'run'}", only]) == 0
    captured = capsys.readouterr()
    assert "it raised ArithmeticError: a mistake of its author" in captured.out
    assert "raise ArithmeticError" in captured.err, "the frames of its author"
    answers = json.loads((tmp_path / "run" / "check" / "result.json").read_text())["answers"]
    assert [answer["status"] for answer in answers.values()] == ["ok", "not asked", "warning"]


def test_a_name_that_is_no_function_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    given = [f"--config={config_file(tmp_path)}", "--config.check.questions=('inputs',)"]
    assert main(["check", *given, f"--workdir={tmp_path / 'run'}"]) == 2
    assert "check.questions: got 'inputs'; expected package.module:function" in capsys.readouterr().err


def test_a_number_that_is_not_finite_is_named_by_its_row():
    answers = asked(planted.broken("a not-a-number in one example", "diabetes"), "inputs", "weights")
    assert answers["inputs"].status == "fault"
    assert "inputs[154, 3] = nan" in answers["inputs"].measured
    assert answers["weights"].status == "not asked"


def test_questions_beyond_the_time_are_not_asked():
    answers = asked(tiny({"check.seconds": 1e-6}), "inputs", "overfit")
    assert {answer.status for answer in answers.values()} == {"not asked"}
    assert "check.seconds" in answers["overfit"].measured


def test_the_time_and_the_questions_leave_the_directory_of_a_run():
    config = tiny()
    assert digest(tiny({"check.seconds": 5.0, "check.questions": ("a:b",)})) == digest(config)


def test_exit_codes_and_counts():
    answers = {"a": ok("1"), "b": warning("2", "m", "r"), "c": Answer("not asked", "why")}
    assert exit_code(answers) == 0
    assert to_json(answers, 1.0)["counts"] == {"ok": 1, "warning": 1, "fault": 0, "not asked": 1}
    assert exit_code(answers | {"d": Answer("fault", "3")}) == 6


def test_every_question_is_a_sentence():
    for name, question in QUESTIONS.items():
        first = (question.__doc__ or "").splitlines()[0]
        assert first.endswith("?"), f"{name}: {first}"


def test_layers_of_a_plain_function_are_measured():
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(50, 4)).astype(np.float32)
    weights = generator.normal(size=(4, 6)).astype(np.float32)
    bias = np.array([0, 0, -100, 0, -100, 0], np.float32)

    def model(weights: Any, inputs: Any) -> Any:
        return (jax.nn.relu(inputs @ weights + bias[None]) @ jnp.ones((6, 1))).sum()

    product, rectifier, last = look_at_layers(jax.jit(model), weights, inputs)
    assert (product.kind, rectifier.kind, last.kind) == ("product", "rectifier", "product")
    assert product.deviation == pytest.approx(float((inputs @ weights).std()), rel=1e-5)
    assert product.input_deviation == pytest.approx(float(inputs.std()), rel=1e-5)
    assert rectifier.dead == pytest.approx(2 / 6)
    assert product.name in rectifier.name
    assert "test_check.py" in product.name


def test_a_sigmoid_at_its_limits_is_measured():
    def model(weights: Any, inputs: Any) -> Any:
        return (jax.nn.sigmoid(inputs @ weights) @ jnp.ones((2, 1))).sum()

    inputs = np.array([[1.0], [-1.0]], np.float32)
    _, squasher, _ = look_at_layers(jax.jit(model), np.array([[100.0, 1.0]], np.float32), inputs)
    assert (squasher.kind, squasher.dead) == ("squasher", 0.5)


def box_source(path: Any, fault: str = "") -> Source:
    """Two boxes in each of twelve pictures of 8 x 20 pixels."""
    boxes = np.tile(np.array([[0, 1, 12, 4, 6], [0, 3, 2, 3, 4]], np.float32), (12, 1, 1))
    if fault == "x before y":
        boxes = boxes[..., [0, 2, 1, 4, 3]]
    if fault == "fractions":
        boxes = boxes / np.array([1, 8, 20, 8, 20], np.float32)
    pictures = np.random.default_rng(0).integers(0, 255, (12, 8, 20, 1)).astype(np.uint8)
    return Source({"train": (pictures, boxes)}, box_classes=1)


@pytest.mark.parametrize(("fault", "status"), [("", "ok"), ("x before y", "fault"), ("fractions", "fault")])
def test_boxes_are_areas_within_their_pictures(fault: str, status: str):
    given = {"data": {"name": "test_check:box_source", "fault": fault, "batch_size": 4}, "task": {"name": "detection"}}
    given |= {"model": {"name": "grid_resnet"}, "loss": {"name": "focal_giou"}, "parallel": {"mesh": 1}}
    assert asked(resolve_config(given, {}).config, "targets")["targets"].status == status


def test_losses_of_known_predictions():
    found = references(Context(planted.sound("digits")))
    assert found is not None
    assert found.chance == pytest.approx(math.log(10))
    assert found.usual == pytest.approx(math.log(10))
    assert found.truth == pytest.approx(0, abs=1e-6)
    assert found.wrong == pytest.approx(20, rel=1e-3)


def test_parts_are_joined_with_their_mask():
    first, second = {"inputs": np.zeros((2, 3))}, {"inputs": np.ones((1, 3))}
    batch = joined(first, second, (1, 0))
    assert batch["mask"].tolist() == [1, 1, 0]
    assert batch["inputs"].sum() == 3


def stands_still(state: TrainState, batch: Any, *, rules: Any, axis_name: Any = ()) -> Any:
    """A step that learns nothing."""
    moved, metrics = train_step(state, batch, rules=rules, axis_name=axis_name)
    return state.replace(step=moved.step), metrics


def test_a_step_of_ones_own_is_asked():
    answers = asked(planted.sound("digits"), "overfit", step=stands_still)
    assert answers["overfit"].status == "fault"


def test_a_derivative_that_is_5_percent_off_is_found_in_float64(monkeypatch: pytest.MonkeyPatch):
    """Float32 judges a task that cannot be computed in it: its rounding hides so little."""
    config = resolve_config({}, {"data.name": "digits", "parallel.mesh": 1, "model.name": "faulty_models:Bent"}).config
    exact = asked(config, "finite_differences")["finite_differences"]
    assert exact.status == "fault"
    assert "4 of 4 arrays judged, 4 in float64, at most 0.048 apart, in Dense_1/" in exact.measured
    monkeypatch.setattr(Context, "_loss_in_float64", None)
    rounded = asked(config, "finite_differences")["finite_differences"]
    assert rounded.status == "ok"
    assert "4 of 4 arrays judged, 0 in float64" in rounded.measured
