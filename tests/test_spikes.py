"""Batches whose loss or gradient norm leaves the range of the recent past are skipped, named, and leave no trace."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import planted_spikes
import pytest
from planted_spikes import SIZE, rows_at, source
from tiny_runs import Interrupting, config_file, outcome, result_of, run, tiny

from jaxtrain.commands.train import train_report
from jaxtrain.config.identity import digest
from jaxtrain.core.recent_past import MOST, WINDOW, RecentPast
from jaxtrain.core.state import Batch, TrainState
from jaxtrain.core.steps import train_step
from jaxtrain.core.trees import leaf_digests
from jaxtrain.errors import ConfigError
from jaxtrain.storage.result import read_result
from jaxtrain.training.experiment import Experiment, build
from jaxtrain.training.train import train_and_evaluate

STEPS = 200
PLANTED = {110: "scaled", 150: "inverted"}
DATA = source(STEPS, PLANTED)
REWINDS = planted_spikes.overrides(STEPS) | {
    "model.dropout": 0.0,
    "optimizer.learning_rate": 0.02,
    "log.every": "50 steps",
    "eval.every": "50 steps",
    "checkpoint.every": "50 steps",
    "track.pictures": None,
}


def past_of(losses: np.ndarray, norms: np.ndarray, skipped: int = 0) -> RecentPast:
    past = RecentPast.none()
    for loss, norm in zip(losses, norms, strict=True):
        past = past.keep(jnp.float32(loss), jnp.float32(norm))
    return past.replace(skipped=jnp.int32(skipped))


def test_a_spike_is_six_times_as_far_from_the_median_as_the_largest_of_the_64_steps_before():
    random = np.random.default_rng(0)
    losses, norms = random.exponential(size=(2, WINDOW + 9)).astype(np.float32)
    past = past_of(losses, norms)
    limits = [float(np.median(own) + 6 * (own.max() - np.median(own))) for own in (losses[9:], norms[9:])]
    for loss, norm, is_spike in [
        (0.999 * limits[0], 0.999 * limits[1], False),
        (1.001 * limits[0], 0.0, True),
        (0.0, 1.001 * limits[1], True),
        (np.nan, 0.0, True),
        (0.0, np.inf, True),
        (-100.0, 0.0, False),
    ]:
        assert bool(past.is_spike(jnp.asarray(loss), jnp.asarray(norm), jnp.int32(80))) is is_spike, (loss, norm)


def test_nothing_is_a_spike_before_64_steps_or_after_too_many():
    far, step = jnp.float32(1e6), jnp.int32(250)
    ones = np.ones(WINDOW)
    assert not past_of(ones[1:], ones[1:]).is_spike(far, far, step)
    assert past_of(ones, ones, skipped=MOST + 1).is_spike(far, far, step)
    assert not past_of(ones, ones, skipped=MOST + 2).is_spike(far, far, step), "one in a hundred steps, and ten"


def test_a_loss_that_hardly_changes_may_rise_a_little():
    ones = np.ones(WINDOW)
    assert not past_of(ones, ones).is_spike(jnp.float32(1.05), jnp.float32(1.0), jnp.int32(70))
    assert past_of(ones, ones).is_spike(jnp.float32(1.07), jnp.float32(1.0), jnp.int32(70))


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    return build(tiny(REWINDS), data=DATA)


def stepped(experiment: Experiment, state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Any]]:
    return jax.jit(train_step, static_argnames="rules")(state, batch, rules=experiment.rules)


@pytest.mark.parametrize("value", [1e3, np.inf, np.nan])
def test_a_skipped_batch_leaves_no_trace_in_the_state(experiment: Experiment, value: float):
    """Everything but the step and the count stays, to the bit; its metrics count nothing."""
    state = experiment.init()
    ones = np.ones(WINDOW)
    state = state.replace(recent=past_of(2 * ones, 2 * ones), step=jnp.int32(WINDOW))
    batch = experiment.batches(0, 1, 1).take(0)
    bad: Batch = {**batch, "inputs": batch["inputs"].at[3].set(value)}
    after, metrics = stepped(experiment, state, bad)
    before = leaf_digests(jax.device_get(state))
    changed = {path for path, own in leaf_digests(jax.device_get(after)).items() if own != before[path]}
    assert {path.strip("./") for path in changed} == {"step", "recent/skipped"}
    assert int(after.step) == WINDOW + 1
    assert (float(metrics["loss"].sum), float(metrics["loss"].count)) == (0, 0)
    assert metrics["skipped"].result() == 1
    kept, metrics = stepped(experiment, after, batch)
    assert (int(kept.recent.kept), metrics["skipped"].result()) == (WINDOW + 1, 0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    train_and_evaluate(tiny(REWINDS), folder, data=DATA, quiet=True)
    return folder


def test_planted_batches_are_named_by_step_and_rows(whole: Path):
    result = result_of(whole)
    assert [batch["step"] for batch in result["skipped"]] == [*PLANTED]
    for batch in result["skipped"]:
        assert batch["rows"] == rows_at(batch["step"], STEPS * SIZE).tolist()
    ended = read_result(whole)
    assert ended
    assert "  skipped 2 batches as spikes, at step 110, 150" in train_report(ended, whole)


def test_without_it_the_same_batches_do_harm(whole: Path, tmp_path: Path):
    harmed = train_and_evaluate(tiny(REWINDS | {"train.on_spike": None}), tmp_path, data=DATA, quiet=True)
    assert not harmed.skipped
    assert harmed.last["validation"]["loss"] > result_of(whole)["last"]["validation"]["loss"] + 0.01


def test_a_run_resumed_between_spikes_equals_one_that_was_not(whole: Path, tmp_path: Path):
    given = {"data": DATA, "quiet": True}
    stopped = train_and_evaluate(tiny(REWINDS), tmp_path, trackers=[Interrupting(100)], **given)
    assert stopped.status == "interrupted"
    resumed = train_and_evaluate(tiny(REWINDS), tmp_path, **given)
    assert outcome(tmp_path) == outcome(whole)
    assert [batch["step"] for batch in resumed.skipped] == [*PLANTED]


@pytest.mark.bits
@pytest.mark.slow
def test_lanes_skip_as_their_runs_alone_do(tmp_path: Path):
    alone = train_and_evaluate(tiny(REWINDS | {"seed": 1}), tmp_path / "alone", data=DATA, quiet=True)
    lanes = train_and_evaluate(tiny(REWINDS | {"train.seeds": 2}), tmp_path / "lanes", data=DATA, quiet=True)
    own = [{"step": batch["step"], "rows": batch["rows"]} for batch in lanes.skipped if batch["lane"] == "seed_1"]
    assert own == alone.skipped
    assert {batch["lane"] for batch in lanes.skipped} == {"seed_0", "seed_1"}
    assert lanes.last["validation"]["seed_1/loss"] == pytest.approx(alone.last["validation"]["loss"], abs=1e-6)


@pytest.mark.slow
def test_large_states_whose_steps_are_guarded_skip_the_same(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("jaxtrain.training.experiment.guards_steps", lambda *_: True)
    guarded = train_and_evaluate(tiny(REWINDS), tmp_path, data=DATA, quiet=True)
    assert guarded.skipped == result_of(whole)["skipped"]
    assert guarded.last["validation"]["loss"] == pytest.approx(result_of(whole)["last"]["validation"]["loss"], abs=1e-5)


def test_a_sound_run_of_the_command_skips_nothing(tmp_path: Path):
    done = run(tmp_path, f"--config={config_file(tmp_path, {'train.on_spike': 'rewind'})}", f"--workdir={tmp_path}/run")
    assert done.returncode == 0, done.stderr
    assert "a spike" not in done.stdout + done.stderr
    assert result_of(tmp_path / "run")["skipped"] == []


def test_a_step_of_ones_own_that_skips_nothing_is_refused(tmp_path: Path):
    def own(state: TrainState, batch: Batch, *, rules: Any, axis_name: Any = ()) -> Any:
        stepped, metrics = train_step(state, batch, rules=rules._replace(skips_spikes=False), axis_name=axis_name)
        return stepped, metrics

    with pytest.raises(ConfigError, match=r"train\.on_spike: got 'rewind' with a step of your own") as error:
        train_and_evaluate(tiny(REWINDS), tmp_path, data=DATA, step=own, quiet=True)
    assert "train_step" in str(error.value)


def test_the_digest_of_a_run_without_it_stays():
    assert digest(tiny()) == digest(tiny({"train.on_spike": None}))
    assert digest(tiny()) != digest(tiny({"train.on_spike": "rewind"}))
    without = tiny()
    del without["train"]["on_spike"]
    assert digest(without) == digest(tiny())
