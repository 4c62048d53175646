"""The debug modes of `train`: what they find, what they say, and that they leave the run's own files alone."""

import hashlib
import re
import tempfile
from pathlib import Path

import faulty_models
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from faulty_models import raise_by
from tiny_runs import config_file, tiny

import jaxtrain
from jaxtrain import Source, Split, debug_run
from jaxtrain.config.identity import digest
from jaxtrain.config.resolve import resolve_config
from jaxtrain.errors import ConfigError, StorageError, UsageError
from jaxtrain.main import main
from jaxtrain.storage.checkpoints import Checkpoints
from jaxtrain.storage.locks import run_lock
from jaxtrain.trackers.jsonl import read_rows
from jaxtrain.training.debugging import overfit
from jaxtrain.training.debugging.overfit import verdict
from jaxtrain.training.debugging.watch import Site, watch
from jaxtrain.training.experiment import build
from jaxtrain.training.train import train_and_evaluate

SPARE = {"track.pictures": None, "track.histograms": None, "track.tensorboard": False, "track.performance": False}
"""Leaves out what the test does not look at."""


def lines_of(config, workdir):
    """Runs a debug mode; returns its result and the lines that it said."""
    lines: list[str] = []
    return debug_run(config, workdir, say=lines.append, quiet=True), "\n".join(lines)


def digests(folder):
    """Returns path -> digest of the content, for all files of a folder but those of debug modes."""
    files = [path for path in folder.rglob("*") if path.is_file() and "debug" not in path.relative_to(folder).parts]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def own(fault):
    """Returns the config of a faulty model that trains for four steps, two at a time."""
    given = {
        "data": {"name": "digits", "batch_size": 32},
        "model": {"name": "faulty_models:Faulty", "fault": fault},
        "train": {"duration": "4 steps"},
        "parallel": {"mesh": 1},
    }
    return resolve_config(given, {**SPARE, "debug.strict": True, "eval.every": "2 steps"}).config


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """Returns the folder of temporary files, which is empty."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Returns the directory of a finished run of the tiny config."""
    folder = tmp_path_factory.mktemp("debug") / "run"
    train_and_evaluate(tiny(SPARE), folder, quiet=True)
    return folder


@pytest.mark.parametrize("mode", [{"smoke": True}, {"overfit": 1}, {"strict": True}], ids=lambda mode: next(iter(mode)))
def test_a_mode_is_no_part_of_the_identity_and_leaves_the_run_as_it_was(mode, finished, monkeypatch):
    monkeypatch.setattr(overfit, "STEPS", 20)
    config = tiny(SPARE | {f"debug.{name}": value for name, value in mode.items()})
    assert digest(config) == digest(tiny())
    before = digests(finished)
    assert {"result.json", "metrics.jsonl", "config.json"} <= before.keys()
    result, _ = lines_of(config, finished)
    assert result.status == "done"
    assert digests(finished) == before


def test_smoke_says_what_passed_and_leaves_nothing_behind(tmp_path, temporary, capsys):
    (folder := tmp_path / "configs").mkdir()
    workdir = tmp_path / "run"
    words = [f"--config={config_file(folder)}", f"--workdir={workdir}"]
    assert main([*words, "--config.debug.smoke=True"]) == 0
    printed = capsys.readouterr().out
    passed = re.findall(r"passed +\d+\.\d\d s  (\D+?)[:\d]", printed)
    assert [what.strip() for what in passed] == [
        "data, model and trackers\npassed",
        "training step",
        "evaluation of validation",
        "checkpoint, pictures and evaluation of test",
        "files",
        "restored step",
    ]
    assert "plots, events.*" in printed
    assert printed.rstrip().splitlines()[-1].endswith(" ".join(words))
    assert not list(temporary.iterdir())
    assert not workdir.exists()


@pytest.mark.parametrize("lanes", [{"train.seeds": 2}, {"data.folds": 2}], ids=["seeds", "folds"])
def test_smoke_of_lanes(lanes, tmp_path):
    result, said = lines_of(tiny(SPARE | lanes | {"debug.smoke": True}), tmp_path / "run")
    assert (result.status, result.step) == ("done", 2)
    assert "equal to the bit" in said


def test_smoke_finds_a_state_that_comes_back_otherwise(tmp_path, temporary, monkeypatch):
    restore = Checkpoints.restore

    def damaged(self, target, *arguments, **options):
        restored = restore(self, target, *arguments, **options)
        if restored is None:
            return None
        key = np.array(restored.state.key)
        key[0] ^= 1  # one bit
        return restored._replace(state=restored.state.replace(key=key))

    monkeypatch.setattr(Checkpoints, "restore", damaged)
    with pytest.raises(StorageError, match=r"checkpoint: got a restored state of step 2 .*; expected \w{12}, that of"):
        lines_of(tiny(SPARE | {"debug.smoke": True}), tmp_path / "run")
    assert not list(temporary.iterdir())


def test_smoke_takes_data_in_python(tmp_path):
    inputs = np.random.default_rng(0).normal(size=(200, 64)).astype(np.float32)
    data = Source({"train": Split(inputs, np.arange(200) % 3)})
    lines: list[str] = []
    result = debug_run(tiny(SPARE | {"debug.smoke": True}), tmp_path / "run", data=data, say=lines.append)
    assert result.status == "done"
    assert len(lines) == 8


def test_overfit_learns_digits_from_batches_that_stay_the_same(tmp_path):
    config = tiny(SPARE | {"debug.overfit": 2, "optimizer.learning_rate": 0.01})
    workdir = tmp_path / "run"
    result, said = lines_of(config, workdir)
    place = workdir / "debug" / "overfit"
    assert "overfit: learned; the loss went from" in said
    assert [path.name for path in workdir.iterdir()] == ["debug"]
    rows = list(read_rows(place / "metrics.jsonl"))
    assert {row["split"] for row in rows} == {"train", "validation"}
    assert rows[-1]["loss"] == result.last["validation"]["loss"] < 0.1
    again, _ = lines_of(config, workdir)  # an earlier try is replaced
    assert (again.step, again.state_digest) == (result.step, result.state_digest)


def test_overfit_takes_the_first_batches_of_the_run_in_the_same_order_in_all_epochs():
    config = tiny()
    section = config["data"]
    whole = build(config)
    entropies: list[float] = []
    cut = build(config, cut=lambda data: overfit.cut_to_batches(data, section=section, count=2, entropies=entropies))
    labels = [whole.dataset.targets("train")[whole.batches(0, 2, 2).rows[i]] for i in range(2)]
    for step in (0, 2, 6):
        batches = cut.batches(step, 2, 2)
        ours = [cut.dataset.targets("train")[batches.rows[i]] for i in range(2)]
        np.testing.assert_array_equal(ours, labels)
    np.testing.assert_array_equal(cut.dataset.targets("validation"), np.concatenate(labels))
    assert cut.dataset.info == whole.dataset.info
    shares = np.bincount(np.concatenate(labels)) / 128
    assert entropies == [pytest.approx(-(shares * np.log(shares)).sum())]


def test_overfit_says_that_a_model_which_cannot_learn_did_not(tmp_path, monkeypatch):
    monkeypatch.setattr(overfit, "STEPS", 60)
    given = {"data": {"name": "digits"}, "model": {"name": "faulty_models:Blind"}, "parallel": {"mesh": 1}}
    given["train"] = {"seeds": 2}
    result, said = lines_of(resolve_config(given, SPARE | {"debug.overfit": 1}).config, tmp_path / "run")
    assert result.status == "done"
    assert re.findall(r"overfit: (seed_\d: [\w ]+);", said) == ["seed_0: NOT learned", "seed_1: NOT learned"]
    assert "Usual causes: a learning rate" in said


def test_a_verdict_needs_more_than_the_frequencies_of_rare_labels():
    rows = [{"split": "train", "loss": 0.7}, {"split": "validation", "loss": 0.03}]
    assert next(verdict(rows, np.inf, 1)).startswith("overfit: learned")
    assert next(verdict(rows, 0.056, 1)).startswith("overfit: NOT learned")  # labels 99 : 1
    assert "no verdict" in next(verdict(rows, 0.0, 1))


FAULTS = {
    "nan": "not a number in the operation 'log' of the forward pass or the update, in Faulty, at ",
    "index": "an index out of bounds in the operation 'gather' of the forward pass or the update, in Faulty, at ",
    "division": "division by zero in the operation 'div' of the forward pass or the update, in Faulty, at ",
}


def line_of(fault):
    """Returns the line of a fault as editors read it."""
    source = Path(faulty_models.__file__)
    lines = enumerate(source.read_text().splitlines(), 1)
    return f"{source}:{next(i for i, text in lines if text.endswith(f'# {fault}'))} in "


@pytest.mark.parametrize("fault", FAULTS)
def test_strict_names_the_operation_the_layer_and_the_line(fault, tmp_path):
    result, said = lines_of(own(fault), tmp_path / "run")
    assert re.search(r"strict: [\d.e+]+ CPU ms a step, [\d.e+]+ without: [\d.e+]+ times as much", said)
    assert (result.status, result.exit_code, result.step) == ("diverged", 4, 0)
    assert result.reason.startswith(f"strict: step 0: {FAULTS[fault]}{line_of(fault)}")


@pytest.mark.parametrize("operation", [["loop", "sqrt"], ["branch", "sqrt"], ["compiled", "log"], ["backward", "div"]])
def test_the_first_wrong_operation_is_found_in_loops_branches_and_gradients(operation):
    fault, name = operation
    sites: list[Site] = []
    gradient = jax.value_and_grad(lambda values: raise_by(fault, values).sum())
    (value, _), code = jax.jit(watch(gradient, sites))(jnp.ones((3, 4)))
    site = sites[int(code) - 1]
    assert site.operation == name
    assert line_of(fault) in str(site)
    np.testing.assert_array_equal(value, raise_by(fault, jnp.ones((3, 4))).sum())


def test_of_forms_for_several_platforms_the_one_that_runs_is_watched():
    sites: list[Site] = []

    def logarithm(values):
        return jax.lax.platform_dependent(values, cpu=lambda v: jnp.log(v - 2.0), default=jnp.sqrt)

    _, code = jax.jit(watch(logarithm, sites))(jnp.ones(3))
    assert [site.operation for site in sites] == ["sub", "log"]
    assert sites[int(code) - 1].operation == "log"


def test_an_operation_of_a_gradient_is_named_as_one():
    sites: list[Site] = []

    def loss(values):
        return (jnp.sin(values) * jnp.arange(3.0)).sum()

    def gradient(values):
        return jax.vjp(loss, values)[1](jnp.float32(jnp.nan))

    _, code = watch(gradient, sites)(jnp.ones(3))
    assert "of the backward pass" in str(sites[int(code) - 1])


def test_what_goes_right_has_no_code():
    def harmless(values, index):
        table = jnp.arange(12.0).reshape(3, 4)
        picked = jnp.take_along_axis(table, index[:, None], axis=1) + table[index - 3]
        updated = table.at[index, index].add(values[0], mode="clip").at[0].set(1.0)
        sliced = jax.lax.dynamic_slice(updated, (index[0] - 2, 0), (1, 4))
        return picked.sum() / values.sum() + jax.vmap(lambda row, i: row[i])(updated, index).sum() + sliced.sum()

    sites: list[Site] = []
    arguments = (jnp.ones(2), jnp.array([3, 3, 3]))
    value, code = watch(harmless, sites)(*arguments)
    assert code == 0
    assert value == harmless(*arguments)
    assert {"an index out of bounds", "division by zero", "not a number"} == {site.wrong for site in sites}
    for outside in (jnp.array([4, 3, 3]), jnp.array([3, 3, -3])):
        assert sites[int(watch(harmless, sites)(jnp.ones(2), outside)[1]) - 1].wrong == "an index out of bounds"


def test_strict_finds_it_in_lanes(tmp_path):
    config = own("index")
    result, _ = lines_of(resolve_config(config, {"train.seeds": 2, "parallel.width": 2}).config, tmp_path / "run")
    assert "an index out of bounds" in result.reason


def test_strict_trains_as_the_run_does(finished, tmp_path):
    """Also with what is shown by default, for which a step has operations of its own."""
    shown = {"debug.strict": True, "track.histograms": "10 %", "track.layers": True}
    _, said = lines_of(tiny(SPARE | shown), tmp_path / "run")
    assert "strict: no operation went wrong in 60 steps" in said
    rows = [list(read_rows(place / "metrics.jsonl")) for place in (finished, tmp_path / "run" / "debug" / "strict")]
    for ours, theirs in zip(*rows, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)


def test_what_cannot_be_is_refused_in_one_line(tmp_path, finished):
    with pytest.raises(ConfigError, match=r"debug: got debug\.smoke and debug\.overfit; expected one mode at a time"):
        debug_run(tiny({"debug.smoke": True, "debug.overfit": 1}), tmp_path)
    with pytest.raises(ConfigError, match=r"debug: got no mode"):
        debug_run(tiny(), tmp_path)
    with pytest.raises(ConfigError, match=r"debug\.overfit: got 99; expected at most 22, the whole batches of 64"):
        debug_run(tiny({"debug.overfit": 99}), tmp_path)
    with pytest.raises(ConfigError, match=r"debug\.smoke: got True; expected False but for the command train"):
        train_and_evaluate(tiny({"debug.smoke": True}), tmp_path, quiet=True)
    with pytest.raises(UsageError, match=r"seed = 1, there 0"):
        debug_run(tiny({"debug.smoke": True, "seed": 1}), finished)
    with run_lock(finished), pytest.raises(UsageError, match=r"a directory in use by process"):
        debug_run(tiny({"debug.smoke": True}), finished)
    assert not list(tmp_path.iterdir())
    assert jaxtrain.debug_run is debug_run
