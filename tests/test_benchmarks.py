"""The benchmarks run to their end in a tiny form and say what they were measured on; no timing is asserted."""

import json
import platform
import sys
from pathlib import Path
from typing import Any

import forked_commands
import jax
import pytest
from tiny_runs import environment, on_devices

ROOT = Path(__file__).parents[1]


def run(output: Path, name: str, *arguments: str, devices: int = 1) -> tuple[str, dict[str, Any]]:
    """Runs a benchmark with --quick; returns what it printed and the JSON that it wrote."""
    command = [sys.executable, f"benchmarks/{name}.py", "--quick", f"--output={output / 'figures.json'}", *arguments]
    done = forked_commands.run(command, ROOT, environment(**on_devices(devices)))
    assert done.returncode == 0, done.stderr
    found = json.loads((output / "figures.json").read_text())
    assert found["environment"]["packages"]["jax"] == jax.__version__
    assert f"jax {jax.__version__}" in done.stdout
    assert f"Python {platform.python_version()}" in done.stdout
    assert found["environment"]["processor"] in done.stdout
    return done.stdout, found


def names(found: dict[str, Any]) -> list[str]:
    """Returns what was compared, having looked at each ratio."""
    assert all(ratio["lowest"] <= ratio["ratio"] <= ratio["highest"] for ratio in found["ratios"])
    assert all(ratio["ours"] > 0 and ratio["theirs"] > 0 for ratio in found["ratios"])
    return [ratio["name"] for ratio in found["ratios"]]


@pytest.mark.slow
def test_configs_runs_each_by_its_command_again_and_keeps_other_rows(tmp_path: Path) -> None:
    only = ("--seeds=2", f"--folder={tmp_path / 'runs'}")
    printed, found = run(tmp_path, "configs", "--only=digits", *only)
    row = found["configs"]["digits"]
    assert (row["metric"], row["seeds"], row["reached"]) == ("accuracy", 2, False)
    assert row["lowest"] <= row["mean"] <= row["highest"]
    assert row["mean"] == pytest.approx(row["test"]["accuracy"])
    assert row["environment"]["packages"]["jax"] == jax.__version__
    assert "MISSED" in printed
    (tmp_path / "figures.json").write_text(json.dumps(found | {"configs": {"digits_folder": row}}))
    _, again = run(tmp_path, "configs", "--only=digits", *only)
    assert list(again["configs"]) == ["digits_folder", "digits"]
    assert again["configs"]["digits"]["seconds"] == row["seconds"]  # it was read, not trained again


@pytest.mark.slow
def test_step_compares_calls_with_programs_by_hand(tmp_path: Path) -> None:
    """A program of the MLP, one of the others by hand, and the CNN, on random images, which it says."""
    printed, found = run(tmp_path, "step", "mlp", "norm", "cnn")
    expected = ["MLP", "MLP, norm", "CNN, stock layers"]
    assert names(found) == expected
    assert all(name in printed for name in expected)
    assert "random images" in printed


@pytest.mark.slow
def test_families_compares_optimizers_with_optax_and_schedules_with_none(tmp_path: Path) -> None:
    """One of each; the optimizer has one rate for the whole run."""
    _, found = run(tmp_path, "families", "optimizer:rprop", "schedule:sgdr")
    assert names(found) == ["optimizer rprop", "schedule sgdr"]
    assert [ratio["bar"] for ratio in found["ratios"]] == [1.1, 1.02]


@pytest.mark.slow
def test_augmentation_times_each_member_inside_a_loop(tmp_path: Path) -> None:
    _, found = run(tmp_path, "augmentation", "pad_and_crop+flip", "mixup")
    assert list(found["ms"]) == ["", "pad_and_crop+flip", "mixup"]
    assert all(milliseconds > 0 for milliseconds in found["ms"].values())


@pytest.mark.slow
def test_run_compares_a_whole_run_with_bare_calls(tmp_path: Path) -> None:
    """The part "logged" takes the CNN, and otherwise what "hand" takes."""
    printed, found = run(tmp_path, "run", "calls", "hand", "tracking")
    assert names(found) == [
        "whole run, 1 epochs",
        "MLP, 20 steps, by hand",
        "fashion_mnist_mlp, a call of 2 steps, not tracked",
        *["fashion_mnist_mlp, 20 steps, not tracked"] * 2,
    ]
    assert "steps a run" in printed


def test_call_memory_compares_a_call_with_its_step_and_says_which_part_is_left_out(tmp_path: Path) -> None:
    printed, found = run(tmp_path, "call_memory")
    assert names(found)[0].startswith("CPU, state of")
    assert found["ratios"][0]["ratio"] < 1.3
    assert len(found["ratios"]) == 2 or "libtpu is not installed" in printed


@pytest.mark.slow
def test_frozen_lanes_compares_lanes_that_hold_a_body_once(tmp_path: Path) -> None:
    printed, found = run(tmp_path, "frozen_lanes")
    assert names(found) == ["CPU time of 20 steps, with one trial", "planned memory of lanes with a body each"]
    assert found["ratios"][1]["ratio"] > 2
    assert "of the parameters" in printed


@pytest.mark.slow
def test_throughput_measures_any_config_with_overrides(tmp_path: Path) -> None:
    printed, found = run(
        tmp_path, "throughput", "--config=configs/digits.py", "--config.model.hidden=(16,)", "--config.model.norm=None"
    )
    figures = found["figures"]
    assert set(figures) == {
        "examples/s",
        "ms/step",
        "compile seconds",
        "MiB of each device, as compiled",
        "GFLOP/step",
        "GFLOP/s",
    }
    assert all(name in printed for name in figures)
    # A multiplication and an addition for each weight and example, forwards and twice backwards but for the inputs.
    batch_size, weights = 64, 64 * 16 + 16 * 10
    assert figures["GFLOP/step"] * 1e9 > 4 * batch_size * weights


def test_throughput_tells_an_error_of_the_config_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "benchmarks/throughput.py", "--config=configs/digits.py", "--config.model.widht=1"]
    done = forked_commands.run(command, ROOT, environment())
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "model.widht" in done.stderr


@pytest.mark.slow
def test_startup_finds_the_first_step_of_both_programs(tmp_path: Path) -> None:
    printed, found = run(tmp_path, "startup")
    assert names(found) == ["first step, cold cache", "first step, warm cache"]
    assert "it imports: none" in printed


@pytest.mark.slow
def test_reliability_tries_each_promise_and_counts_what_held(tmp_path: Path) -> None:
    _, found = run(tmp_path, "reliability", "damage", "moves", "edits", "inputs")
    assert {name: (count["tried"], count["held"]) for name, count in found["promises"].items()} == {
        "damage": (2, 2),
        "moves": (2, 2),
        "edits": (2, 2),
        "inputs": (2, 2),
    }


@pytest.mark.slow
def test_input_pipeline_compares_feeds_and_measures_memory_and_start(tmp_path: Path) -> None:
    printed, found = run(tmp_path, "input_pipeline", "mlp", "jpeg", "memory", "start")
    assert names(found)[0] == "mlp, 20 steps a call"
    assert "images of 32x32 a second" in printed or "JPEG in folders" in printed
    assert "GiB of RssAnon + RssShmem" in printed
    assert "s to the first step on 500 files" in printed


@pytest.mark.slow
def test_duration_runs_a_command_for_a_time(tmp_path: Path) -> None:
    printed, found = run(tmp_path, "duration")
    assert [made["config"] for made in found["runs"]] == ["digits"]
    assert "of 1 within -5% and +2% of 40 s" in printed


@pytest.mark.slow
def test_serving_loads_servers_in_turns_and_looks_at_memory(tmp_path: Path) -> None:
    printed, found = run(tmp_path, "serving")
    compared = names(found)
    assert compared[:2] == ["jit, first", "jit, first, p99"]
    assert compared[-1] == "memory after 500 and 50 requests"
    assert "ours, again:" in printed


@pytest.mark.slow
def test_spikes_counts_bad_batches_that_were_named_and_undone(tmp_path: Path) -> None:
    _, found = run(tmp_path, "spikes")
    assert found["sound batches skipped"] == 0
    assert {fault: own["named"] for fault, own in found["faults"].items()} == {
        "scaled": 1,
        "inverted": 1,
        "mislabelled": 1,
    }
