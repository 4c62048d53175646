"""The plan of a config, compared with counts by hand, with the schedule, and with runs of the sizes that fit."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.image import imread
from tiny_runs import GIVEN, config_file, tiny

from jaxtrain.commands.plan import NOT_REPORTED, draw_schedules, plan_report
from jaxtrain.config.defaults import Config
from jaxtrain.config.resolve import resolve_config
from jaxtrain.core.steps import train_call, train_step
from jaxtrain.errors import ConfigError
from jaxtrain.main import main
from jaxtrain.parallel.compilation import count_compilations
from jaxtrain.parallel.memory import plan_memory
from jaxtrain.training import plan as planning
from jaxtrain.training.experiment import Experiment, build
from jaxtrain.training.memory_plan import (
    bytes_of_batch,
    bytes_of_lanes,
    demand_memory,
    double_up_to,
    largest_batch,
    largest_fitting,
    memory_by_kind,
    most_lanes,
)
from jaxtrain.training.plan import Plan, plan, scheduled_values
from jaxtrain.training.runners import make_runner
from jaxtrain.training.train import train_and_evaluate

HIDDEN, BATCH, EXAMPLES = (256, 128), 128, 1437
SIZES = list(zip((64, *HIDDEN), (*HIDDEN, 10), strict=True))
RATE = "schedule.optimizer.learning_rate"
TWO = {RATE: "one_cycle", "schedule.optimizer.b1": "cyclic"}


def config_of(overrides: dict[str, Any] | None = None) -> Config:
    given = {"data": {"name": "digits", "batch_size": BATCH}, "model": {"name": "mlp", "hidden": HIDDEN}}
    return resolve_config(given, {"parallel.mesh": 1, "train.duration": "10 epochs", **(overrides or {})}).config


@functools.cache
def experiment() -> Experiment:
    return build(config_of(TWO))


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("planned") / "runs" / "mine-plan.png"


@pytest.fixture(scope="module")
def planned(picture: Path) -> Plan:
    found = plan(config_of(TWO))
    draw_schedules(found, picture)
    return found


# Counts by hand


def test_parameters_are_those_of_the_layers(planned: Plan):
    assert planned.parameters == {f"Dense_{i}": m * n + n for i, (m, n) in enumerate(SIZES)}


def test_work_is_that_of_the_products_and_little_else(planned: Plan):
    """2 FLOP per weight and example: forward, gradient of weights, and gradient of inputs except in the first layer."""
    products = sum(2 * m * n * (2 if i == 0 else 3) for i, (m, n) in enumerate(SIZES)) * BATCH
    assert products < planned.flops < 1.05 * products


def test_durations_are_those_of_the_run(planned: Plan):
    assert planned.steps == 113
    assert planned.steps_per_epoch == EXAMPLES / BATCH
    assert planned.epochs == pytest.approx(10, abs=0.1)
    assert planned.evaluations == 10
    assert (planned.devices, planned.seeds, planned.batch) == (1, 1, BATCH)


def test_memory_is_what_the_compiler_plans_for_the_run_cut_up_by_kind(planned: Plan):
    memory = planned.memory
    assert memory is not None
    weights = 4 * sum(planned.parameters.values())
    assert memory["parameters"] == weights
    assert weights * 2 <= memory["optimizer state"] <= weights * 2 + 64
    assert memory["training data"] == EXAMPLES * (64 + 4)
    assert memory["validation data"] == 180 * (64 + 4)
    assert memory["averaged parameters"] == memory["model state"] == 0
    found = experiment()
    call = jax.jit(train_call, static_argnames="rules", donate_argnums=0)
    compiled = call.lower(found.init(), found.batches(0, 1), np.int32(1), rules=found.rules).compile()
    sizes: Any = compiled.memory_analysis()
    assert memory["temporaries"] == pytest.approx(sizes.temp_size_in_bytes, rel=0.01)
    total = sizes.argument_size_in_bytes + sizes.temp_size_in_bytes + sizes.output_size_in_bytes
    assert planned.total_memory == sum(memory.values())
    expected = total - sizes.alias_size_in_bytes + memory["validation data"]
    assert planned.total_memory == pytest.approx(expected, rel=0.01)


def test_averages_and_statistics_are_kinds_of_their_own():
    found = build(config_of({"train.ema": 0.9, "model.norm": "batch"}))
    memory = memory_by_kind(found)
    assert memory is not None
    statistics = 4 * 2 * sum(HIDDEN)
    assert memory["model state"] == statistics
    assert memory["averaged parameters"] == memory["parameters"] + statistics


def test_time_is_measured(planned: Plan):
    timing = planned.timing
    assert timing is not None
    assert timing.evaluation is not None
    assert planned.epoch_seconds is not None
    assert 0 < timing.step < 1
    steps, evaluations = planned.epoch_seconds
    assert steps == pytest.approx(timing.step * EXAMPLES / BATCH)
    assert evaluations == pytest.approx(timing.evaluation * 10 / planned.epochs)
    assert timing.compilation > 0


# Curves and their picture


def test_curves_are_what_the_schedule_says_at_every_step(planned: Plan):
    found = experiment()
    assert set(planned.curves.values) == {"optimizer.learning_rate", "optimizer.b1"}
    np.testing.assert_array_equal(planned.curves.steps, np.arange(113))
    for step in (0, 1, 33, 34, 90, 112):
        values = found.rules.schedule(jnp.int32(step), found.hparams)
        for name, curve in planned.curves.values.items():
            assert curve[step] == pytest.approx(float(values[name]), rel=1e-5, abs=1e-9)
    assert max(planned.curves.values["optimizer.learning_rate"]) == pytest.approx(1e-3, rel=1e-3)


def test_a_long_run_is_drawn_at_some_of_its_steps_the_first_and_last_among_them(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(planning, "CURVE_POINTS", 50)
    curves = scheduled_values(experiment())
    assert len(curves.steps) == 50
    assert (curves.steps[0], curves.steps[-1]) == (0, 112)
    whole = scheduled_values(dataclasses.replace(experiment(), lengths=experiment().lengths._replace(total=40)))
    np.testing.assert_array_equal(whole.steps, np.arange(40))


def test_the_picture_is_drawn_and_nothing_else_is_written(planned: Plan, picture: Path):
    assert list(picture.parent.parent.rglob("*")) == [picture.parent, picture]
    pixels = imread(picture)[..., :3]
    blue = (pixels[..., 2] > 0.6) & (pixels[..., 0] < 0.3)
    assert np.mean(blue.any(axis=0)) > 0.8, "a curve goes from the left to the right"
    assert np.mean(blue.any(axis=1)) > 0.4, "two panels, each with a curve from its foot to its head"


def test_without_a_schedule_there_is_no_picture(tmp_path: Path):
    found = plan(config_of({"schedule": None, "model.hidden": (4,)}))
    assert found.curves.values == {}
    assert "no picture: nothing is scheduled" in plan_report(found, tmp_path / "plan.png", [])


# What fits


@pytest.mark.slow
def test_the_largest_batch_fits_and_shrinks_with_the_limit():
    found = experiment()
    needed = {size: bytes_of_batch(found, size) or 0 for size in (256, 512, 1024)}
    assert 0 < needed[256] < needed[512] < needed[1024]
    answers = [largest_batch(found, limit) for limit in (needed[512], needed[512] - 1, needed[256])]
    assert answers == [512, 256, 256]


@pytest.mark.parametrize("size", [512, EXAMPLES])
def test_the_largest_batch_runs(planned: Plan, size: int, tmp_path: Path):
    assert planned.largest_batch == planned.batch_cap == EXAMPLES
    config = config_of({"data.batch_size": size, "train.duration": "2 steps", "model.hidden": (4,)})
    assert train_and_evaluate(config, tmp_path, quiet=True).status == "done"


@pytest.mark.slow
def test_lanes_are_as_many_as_the_population_plans_for():
    needed = {lanes: bytes_of_lanes(experiment(), lanes) or 0 for lanes in (8, 16)}
    weights = 3 * 4 * sum(m * n + n for m, n in SIZES)
    assert needed[16] - needed[8] >= 8 * weights  # eight more states
    assert [most_lanes(experiment(), limit) for limit in (needed[8], needed[16] - 1)] == [8, 8]


@pytest.mark.slow
def test_lanes_that_are_too_wide_are_counted_at_the_width_at_which_they_fit(monkeypatch: pytest.MonkeyPatch):
    """Uses the preferred width of a GPU: all lanes at once if they fit, else fewer at a time."""
    monkeypatch.setattr("jaxtrain.training.memory_plan.preferred_width", lambda lanes, width, **_: width or lanes)
    found = build(config_of({"train.seeds": 8, "model.hidden": (512, 512)}))
    memory = memory_by_kind(found)
    narrow = bytes_of_batch(found, BATCH)
    assert memory is not None
    assert narrow is not None
    assert narrow < sum(memory.values())


@pytest.mark.slow
def test_where_nothing_fits_nothing_is_run(tmp_path: Path):
    few = {"data.test_fraction": 0.89, "data.stratify": True, "data.batch_size": 8}
    few |= {"train.duration": "9 steps", "model.hidden": (2,)}
    found = plan(config_of(few), limit=1000)
    assert (found.largest_batch, found.lanes, found.timing, found.epoch_seconds) == (0, 0, None, None)
    text = "\n".join(plan_report(found, tmp_path, []))
    assert "largest batch  none" in text
    assert "lanes          none fit" in text
    assert "not measured: does not fit" in text


def test_a_run_whose_activations_do_not_fit_is_refused_from_the_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """The state and the data fit into the memory, the step does not: nothing runs and no directory is left behind."""
    monkeypatch.setattr("jaxtrain.training.memory_plan.memory_limit", lambda mesh: 2**17)
    assert main([f"--config={config_file(tmp_path)}", f"--workdir={tmp_path / 'run'}"]) == ConfigError.exit_code
    error = capsys.readouterr().err
    assert "data.batch_size: got 64; expected a batch whose activations fit: a step needs " in error
    assert "MiB beside the data, and 0.1 MiB" in error
    assert "Lower it, raise train.accumulate" in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_memory_is_judged_by_the_program_that_the_run_then_uses():
    found = build(tiny({"model.hidden": (18,)}))
    demand_memory(found)
    runner = make_runner(found, train_step)
    state = runner.init()
    batches = found.batches(0, 1)
    jax.block_until_ready(batches.data)
    with count_compilations() as compiled:
        jax.block_until_ready(runner.call(state, batches, 1))
    assert compiled.count == 0


@pytest.mark.parametrize(
    ("key", "value"), [("data.batch_size", 5000), ("checkpoint.init_from", "nowhere"), ("train.accumulate", 7)]
)
def test_what_train_would_refuse_is_refused(key: str, value: Any):
    with pytest.raises(ConfigError) as found:
        plan(config_of(TWO | {key: value}))
    assert found.value.key == (key if key != "train.accumulate" else "data.batch_size")


@pytest.mark.parametrize("fitting", range(-1, 5))
def test_the_largest_that_fits_is_found_by_few_tries(fitting: int):
    candidates, tries = [3, 6, 12, 24, 30], []

    def needed(candidate: int) -> int:
        tries.append(candidate)
        return candidate

    wanted = candidates[fitting] if fitting >= 0 else 0
    assert largest_fitting(candidates, needed, limit=wanted) == wanted
    assert len(tries) == len(set(tries)) <= 4


@pytest.mark.parametrize(
    ("least", "cap", "sizes"), [(1, 5, [1, 2, 4, 5]), (4, 16, [4, 8, 16]), (6, 6, [6]), (3, 30, [3, 6, 12, 24, 30])]
)
def test_sizes_double_up_to_the_cap(least: int, cap: int, sizes: list[int]):
    assert double_up_to(least, cap) == sizes


# Devices, seeds, micro-batches, dtypes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "cap"),
    [
        ({"parallel.mesh": 4, "train.accumulate": 2, "train.precision": "bfloat16"}, 1432),
        ({"parallel.mesh": 2, "train.seeds": 3, "train.precision": "bfloat16"}, 1437),
    ],
)
def test_devices_seeds_micro_batches_and_types(overrides: dict[str, Any], cap: int):
    config = resolve_config(GIVEN, overrides).config
    found = plan(config)
    assert found.devices == config["parallel"]["mesh"]
    assert found.parameters == {"Dense_0": 65 * 16, "Dense_1": 17 * 10}
    assert found.memory is not None
    lanes = -(-config["train"]["seeds"] // found.devices)  # on each device
    assert found.memory["parameters"] == lanes * 4 * sum(found.parameters.values())
    assert all(size >= 0 for size in found.memory.values())
    assert found.largest_batch == found.batch_cap == cap
    assert found.timing is not None
    assert found.flops > 2 * 64 * 64 * 16 * 2
    assert len(plan_report(found, Path("plan.png"), [])) > 10


def test_pmap_takes_each_device_its_share_and_lays_no_output_over_the_state():
    mesh, pmap = (
        memory_by_kind(build(resolve_config(GIVEN, {"parallel.mesh": 2, "parallel.backend": backend}).config))
        for backend in ("mesh", "pmap")
    )
    assert mesh is not None
    assert pmap is not None
    assert mesh["parameters"] == pmap["parameters"]
    state = sum(pmap[kind] for kind in ("parameters", "optimizer state", "averaged parameters"))
    assert pmap["outputs other than the state"] >= mesh["outputs other than the state"] + state


def test_a_compiler_that_says_nothing_is_said_to(planned: Plan, picture: Path):
    silent = dataclasses.replace(planned, memory=None, largest_batch=None, lanes=None)
    lines = plan_report(silent, picture, [])
    assert [line.split()[0] for line in lines if NOT_REPORTED in line] == ["memory", "largest", "lanes"]

    class Silent:
        def memory_analysis(self) -> None:
            return None

    assert plan_memory(Silent()) is None
    assert largest_fitting([1, 2], lambda size: None, limit=5) is None


def test_the_report_tells_the_numbers_and_the_command_that_trains(planned: Plan, picture: Path):
    text = "\n".join(plan_report(planned, picture, ["--config=my file.py"]))
    assert "113 steps of 128 examples, 10.07 epochs, on 1 device (cpu)" in text
    assert "Dense_0 16,640, Dense_1 32,896, Dense_2 1,290" in text
    assert "MFLOP per step" in text
    assert "1,437 (the whole training split)" in text
    assert f"wrote {picture}: optimizer.b1, optimizer.learning_rate" in text
    assert "--config='my file.py'" in text or "'--config=my file.py'" in text
