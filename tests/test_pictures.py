"""What a run shows of itself: pictures, texts, histograms and performance, by real runs of every kind of task."""

import io
import json
import math
import threading
from pathlib import Path
from typing import Any

import flax.linen as nn
import numpy as np
import pytest
from PIL import Image
from test_trackers import read_events
from tiny_runs import PATIENCE, SHOWN, Interrupting, tiny

from jaxtrain.config.identity import digest
from jaxtrain.config.resolve import resolve_config
from jaxtrain.core.pictures import Panel, Panels
from jaxtrain.data.source import Source, Split
from jaxtrain.parallel.peak_flops import peak_flops
from jaxtrain.tasks.classification import classification
from jaxtrain.trackers.base import Histogram
from jaxtrain.trackers.memory import MemoryTracker
from jaxtrain.trackers.picture_files import read_exhibits
from jaxtrain.training import background, pictures
from jaxtrain.training.train import train_and_evaluate

RNG = np.random.default_rng(0)
OFF = {"track.pictures": None, "track.histograms": None, "track.performance": False, "track.layers": False}


def shown(directory: Path) -> dict[tuple[int, str], bytes | int | str]:
    """Returns (step, tag) -> content of pictures, histograms and texts of steps in the event files, each there once."""
    found: list[tuple[tuple[int, str], Any]] = []
    for event in read_events(directory):
        for value in event.summary.value:
            if value.HasField("image"):
                found.append(((event.step, value.tag), value.image.encoded_image_string))
            elif value.HasField("histo"):
                found.append(((event.step, value.tag), tuple(value.histo.bucket)))
            elif value.metadata.plugin_data.plugin_name == "text" and event.step:
                found.append(((event.step, value.tag), value.tensor.string_val[0]))
    assert len(found) == len(dict(found)), "a (step, name) more than once"
    return dict(found)


def names(tracker: MemoryTracker) -> dict[str, list[int]]:
    """Returns name -> steps of the pictures."""
    found: dict[str, list[int]] = {}
    for step, name in sorted(tracker.images):
        found.setdefault(name, []).append(step)
    return found


def test_a_run_shows_fixed_examples_at_intervals_and_its_result_at_the_end(tmp_path):
    own = MemoryTracker()
    config = tiny({"track.pictures": "30 steps", "track.histograms": "20 steps"})
    train_and_evaluate(config, tmp_path, trackers=[own], quiet=True)
    result = json.loads((tmp_path / "result.json").read_text())
    best = result["best"]["step"]
    assert names(own) == {
        "examples/fixed": [40, 60],  # the first evaluation after 30 steps, and the last
        "examples/worst": [best],
        "examples/best": [best],
        "summary/confusion matrix": [best],
        "summary/curves": [best],
    }
    for (step, name), picture in own.images.items():
        assert (tmp_path / "plots" / name / f"{step}.png").read_bytes() == picture.png
        image = Image.open(io.BytesIO(picture.png))
        assert image.size == (picture.width, picture.height)
    assert {name for _, name in own.histograms} >= {"parameters/Dense_0/kernel", "changes of parameters/Dense_1/bias"}
    assert own.histograms.keys() == {key for key in shown(tmp_path) if key not in own.images}
    assert [path.name for path in own.artifacts] == ["config.json", "environment.json", "result.json"]


def test_nothing_is_shown_where_it_is_off_and_no_number_differs(tmp_path):
    on = tiny({**SHOWN, "track.layers": True, "track.histograms": "20 steps"})
    off = tiny(OFF | {"track.tensorboard": False})
    digests = [
        train_and_evaluate(config, tmp_path / name, quiet=True).state_digest
        for name, config in (("on", on), ("off", off))
    ]
    assert digests[0] == digests[1]
    assert digest(on) == digest(off)
    assert (tmp_path / "on" / "plots").exists()
    assert not (tmp_path / "off" / "plots").exists()
    assert not list((tmp_path / "off").glob("*tfevents*"))


def test_histograms_of_parameters_and_of_their_changes_count_what_the_checkpoints_hold(tmp_path):
    own = MemoryTracker()
    train_and_evaluate(tiny({"track.histograms": "20 steps"}), tmp_path, trackers=[own], quiet=True)
    kernels = {step: own.histograms[step, "parameters/Dense_0/kernel"] for step in (20, 40, 60)}
    assert all(sum(kernel.counts) == 64 * 16 for kernel in kernels.values())
    moved = own.histograms[40, "changes of parameters/Dense_0/kernel"]
    assert moved.sum == pytest.approx(kernels[40].sum - kernels[20].sum, abs=1e-3)
    assert moved.high - moved.low < kernels[40].high - kernels[40].low


def test_histograms_of_gradients_are_of_the_step_that_led_there(tmp_path):
    """Plain gradient descent at a constant rate moves by them, also on lanes, of which the first is shown."""
    descent = {"optimizer.name": "sgd", "optimizer.learning_rate": 0.5, "optimizer.momentum": 0.0}
    constant = {"schedule.optimizer.learning_rate.name": "constant", "train.ema": None}
    shown = {"train.duration": "3 steps", "track.histograms": "1 steps", "track.pictures": None}

    def histograms(seeds: int, every: int) -> dict[tuple[int, str], Histogram]:
        own = MemoryTracker()
        pauses = {f"{section}.every": f"{every} steps" for section in ("eval", "log", "checkpoint")}
        config = tiny({**pauses, **descent, **constant, **shown, "train.seeds": seeds})
        train_and_evaluate(config, tmp_path / f"{seeds} {every}", trackers=[own], quiet=True)
        return own.histograms

    for seeds in (1, 2):
        found = histograms(seeds, every=1)
        for step, layer in ((1, "Dense_0/bias"), (3, "Dense_1/kernel")):
            gradient = found[step, f"gradients/{layer}"]
            moved = found[step, f"changes of parameters/{layer}"]
            assert sum(gradient.counts) == sum(moved.counts)
            assert moved.low == pytest.approx(-0.5 * gradient.high, rel=1e-3)
            assert moved.sum_squares == pytest.approx(0.25 * gradient.sum_squares, rel=1e-3)
        assert sum(found[3, "gradients/Dense_0/kernel"].counts) == 342  # every third of 1,024
        assert not any(name.startswith("gradients") for step, name in found if step == 0)
        at_end = histograms(seeds, every=3)[3, "gradients/Dense_1/kernel"]  # after a call of several steps
        assert at_end == found[3, "gradients/Dense_1/kernel"]


def test_rows_hold_norms_of_layers_that_make_up_the_whole_and_their_ratios(tmp_path):
    own = MemoryTracker()
    train_and_evaluate(tiny({"track.layers": True}), tmp_path, trackers=[own], quiet=True)
    row = next(row for row in own.rows if (row["step"], row["split"]) == (40, "train"))
    for kind in ("gradient", "update", "parameter"):
        layers = {name: value for name, value in row.items() if name.startswith(f"norm_{kind}/")}
        assert len(layers) == 4
        assert math.sqrt(sum(value**2 for value in layers.values())) == pytest.approx(row[f"norm_{kind}"], rel=1e-4)
    ratio = row["norm_update/Dense_0/kernel"] / row["norm_parameter/Dense_0/kernel"]
    assert row["norm_update_to_parameter/Dense_0/kernel"] == pytest.approx(ratio)
    result = json.loads((tmp_path / "result.json").read_text())
    assert "norm_update/Dense_0/kernel" in result["last"]["train"]


def test_performance_is_recorded_beside_the_metrics(tmp_path):
    own = MemoryTracker()
    train_and_evaluate(tiny(), tmp_path, trackers=[own], quiet=True)
    assert sorted(own.speeds) == [20, 40, 60]
    last = own.speeds[60]
    assert last["examples_per_second"] == pytest.approx(64e3 / last["milliseconds_per_step"])
    assert 0 <= last["data_wait_share"] <= 1
    assert not any("examples_per_second" in row for row in own.rows), "rows are the same on any machine"
    kept = [exhibit for exhibit in read_exhibits(tmp_path) if exhibit["kind"] == "performance"]
    assert kept[-1]["values"].keys() == last.keys()


def test_lanes_show_the_first_of_them_as_its_solo_run_would(tmp_path):
    one, several = MemoryTracker(), MemoryTracker()
    short = {**SHOWN, "track.histograms": None, "train.ema": None}
    train_and_evaluate(tiny(short), tmp_path / "one", trackers=[one], quiet=True)
    train_and_evaluate(tiny(short | {"train.seeds": 2}), tmp_path / "two", trackers=[several], quiet=True)
    assert names(one)["examples/fixed"] == names(several)["examples/fixed"]
    assert one.images[20, "examples/fixed"].png == several.images[20, "examples/fixed"].png


# ---- a resumed run


def test_an_interrupted_and_resumed_run_shows_what_an_uninterrupted_one_does(tmp_path):
    config = tiny({"track.pictures": "20 steps", "track.histograms": "20 steps"})
    train_and_evaluate(config, tmp_path / "whole", quiet=True)
    train_and_evaluate(config, tmp_path / "cut", trackers=[Interrupting(40)], quiet=True)
    assert json.loads((tmp_path / "cut" / "result.json").read_text())["status"] == "interrupted"
    train_and_evaluate(config, tmp_path / "cut", quiet=True)
    assert shown(tmp_path / "cut") == shown(tmp_path / "whole")


def test_what_a_kill_kept_from_being_drawn_is_drawn_by_the_resumed_run(tmp_path):
    config = tiny({"track.pictures": "20 steps", "track.histograms": "20 steps"})
    train_and_evaluate(config, tmp_path, quiet=True)
    before = shown(tmp_path)
    # As after a kill between the save of step 40 and the drawing: the last lines and the result are missing.
    record = tmp_path / "plots" / "record.jsonl"
    lines = [line for line in record.read_text().splitlines() if json.loads(line)["step"] < 40]
    record.write_text("\n".join(lines) + "\n")
    (tmp_path / "result.json").unlink()
    (tmp_path / "checkpoints" / "60").rename(tmp_path / "gone")
    train_and_evaluate(config, tmp_path, quiet=True)
    after = shown(tmp_path)
    changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    assert {key for key in changed if not key[1].startswith(("changes", "gradients"))} == set()


# ---- what goes wrong


def show_badly(inputs, targets, predictions):
    raise RuntimeError("I cannot draw")


def my_task(model, loss, info):
    """A task of a user's own, whose picture function raises."""
    return classification(model, loss, info)._replace(show=show_badly)


def show_well(inputs, targets, predictions):
    return {"mine": Panels("Mine", tuple(Panel(example) for example in inputs)), "words": f"{len(targets)} examples"}


def my_shown_task(model, loss, info):
    """A task of a user's own with a picture of its own."""
    return classification(model, loss, info)._replace(show=show_well, summarise=None, wrongness=None)


def test_a_picture_function_that_raises_is_said_once_and_the_run_goes_on(tmp_path, capfd):
    own = MemoryTracker()
    result = train_and_evaluate(tiny({**SHOWN, "task.name": f"{__name__}:my_task"}), tmp_path, trackers=[own])
    said = [line for line in capfd.readouterr().err.splitlines() if "I cannot draw" in line]
    assert len(said) == 1, said
    assert said[0].startswith("task.name: got a function show that raises RuntimeError: I cannot draw (line ")
    assert f"{Path(__file__).name}); expected one that returns descriptions" in said[0]
    assert result.status == "done"
    assert set(names(own)) == {"summary/confusion matrix", "summary/curves"}


def test_a_picture_function_of_a_users_own_is_drawn(tmp_path):
    own = MemoryTracker()
    config = tiny({**SHOWN, "task.name": f"{__name__}:my_shown_task"})
    train_and_evaluate(config, tmp_path, trackers=[own], quiet=True)
    assert names(own) == {"examples/fixed/mine": [20, 40, 60]}
    assert own.texts_of_steps[20, "examples/fixed/words"] == "64 examples"


def test_no_step_waits_for_a_drawing_that_hangs_and_the_end_for_a_bounded_time(tmp_path, monkeypatch, capfd):
    """It hangs until the run has ended, so a step that waited for it would never be taken."""
    has_ended = threading.Event()
    drawn = []

    def hang(description: object) -> None:
        drawn.append(has_ended.wait(PATIENCE))

    monkeypatch.setattr(background, "CLOSE_SECONDS", 0.5)
    monkeypatch.setattr(pictures, "draw", hang)
    result = train_and_evaluate(tiny(SHOWN), tmp_path)
    assert not drawn, "a drawing has ended before the run"
    has_ended.set()
    assert (result.status, result.step) == ("done", 60)
    assert "not all were drawn" in capfd.readouterr().err


# ---- every kind of task


def source(inputs: np.ndarray, targets: np.ndarray, **more: Any) -> Source:
    return Source({"train": Split(inputs, targets)}, **more)


def short_run(tmp_path: Path, own_data: Source | None, **overrides: Any) -> MemoryTracker:
    """Trains two steps and returns what was shown."""
    given = {
        "train": {"duration": "2 steps"},
        "data": {"name": "digits", "batch_size": 8, "validation_fraction": 0.25},
        "model": {"name": "mlp", "hidden": (4,)},
        "track": {"histograms": None, "performance": False},
        "parallel": {"mesh": 1},
    }
    own = MemoryTracker()
    config = resolve_config(given, overrides).config
    train_and_evaluate(config, tmp_path, data=own_data, trackers=[own], quiet=True)
    return own


def test_a_regression_shows_predictions_and_residuals(tmp_path):
    inputs = RNG.normal(size=(64, 3)).astype(np.float32)
    data = source(inputs, inputs @ np.array([1.0, 2.0, 3.0]) * 1e6 + 1e8)
    own = short_run(tmp_path, data, **{"task.name": "regression", "loss.name": "mse"})
    assert set(names(own)) == {"examples/fixed/predictions", "summary/predictions"}


class Pixels(nn.Module):
    """A logit for each pixel, by a convolution."""

    @nn.compact
    def __call__(self, inputs, train):
        return nn.Conv(1, (3, 3))(inputs)[..., 0]


def pixels(outputs):
    """A model of a user's own."""
    return Pixels()


def test_a_segmentation_shows_outlines(tmp_path):
    inputs = RNG.integers(0, 255, (32, 16, 16, 3)).astype(np.uint8)
    masks = (inputs[..., 0] > 128).astype(np.uint8)
    own = short_run(
        tmp_path,
        source(inputs, masks),
        **{"task.name": "segmentation", "loss.name": "dice_cross_entropy", "model": {"name": f"{__name__}:pixels"}},
    )
    assert set(names(own)) >= {"examples/fixed", "examples/worst", "examples/best", "summary/scores"}


def test_a_language_model_shows_text_that_it_writes(tmp_path):
    (tmp_path / "text.txt").write_text("to be or not to be, that is the question. " * 60)
    own = short_run(
        tmp_path / "run",
        None,
        **{
            "data": {"name": "text", "path": str(tmp_path), "file": "text.txt", "context": 16, "batch_size": 8},
            "task.name": "language_modelling",
            "model": {"name": "transformer", "width": 16, "layers": 1, "heads": 2},
        },
    )
    text = own.texts_of_steps[2, "generated text"]
    assert text.count("│") == 3
    assert all(line.startswith("    ") for line in text.splitlines() if line and line != "---")
    assert names(own) == {}


def test_multi_label_and_tables_show_lines_of_text(tmp_path):
    inputs = RNG.normal(size=(64, 5)).astype(np.float32)
    targets = (inputs[:, :3] > 0).astype(np.int64)
    data = source(inputs, targets, target_names=("a", "b", "c"))
    own = short_run(tmp_path, data, **{"task.name": "multi_label", "loss.name": "binary_cross_entropy"})
    assert set(names(own)) == {"examples/fixed", "examples/worst", "examples/best", "summary/curves"}


# ---- performance and traces


def test_a_profile_of_some_steps_lies_where_tensorboard_looks_and_changes_nothing(tmp_path):
    traced = train_and_evaluate(tiny(), tmp_path / "traced", quiet=True, profile=10)
    plain = train_and_evaluate(tiny(), tmp_path / "plain", quiet=True)
    assert traced.state_digest == plain.state_digest
    (trace,) = (tmp_path / "traced").glob("plugins/profile/*/*.xplane.pb")
    assert trace.stat().st_size > 0


def test_utilisation_is_known_for_known_devices_alone():
    assert peak_flops("NVIDIA H100 80GB HBM3", "bfloat16") == 989e12
    assert peak_flops("NVIDIA H100 PCIe", "bfloat16") == 756e12
    assert peak_flops("cpu", "float32") is None
