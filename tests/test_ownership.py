"""Ownership of a run directory, and the trackers that write into it."""

import json

import pytest
from tiny_runs import timeless_rows, tiny

from jaxtrain.config.identity import from_default
from jaxtrain.errors import StorageError, UsageError
from jaxtrain.storage.ownership import claim, demand_own
from jaxtrain.trackers.jsonl import read_rows
from jaxtrain.trackers.memory import MemoryTracker
from jaxtrain.trackers.open import open_trackers
from jaxtrain.trackers.progress import plain_lines


def test_a_directory_belongs_to_the_config_that_claimed_it(tmp_path):
    demand_own(tmp_path, tiny())
    claim(tmp_path, tiny())
    demand_own(tmp_path, tiny())
    with pytest.raises(UsageError, match=r"model\.dropout = 0\.3, there 0\.1; seed = 4, there 0"):
        demand_own(tmp_path, tiny({"seed": 4, "model.dropout": 0.3}))
    with pytest.raises(UsageError, match=r"checkpoint\.init_from"):
        demand_own(tmp_path, tiny({"checkpoint.init_from": "elsewhere"}))


def test_what_changes_no_number_may_differ_and_is_replaced(tmp_path):
    claim(tmp_path, tiny())
    other = tiny({"log.every": "1 steps", "checkpoint.keep": 9, "track.tensorboard": False})
    demand_own(tmp_path, other)
    claim(tmp_path, other)
    assert json.loads((tmp_path / "config.json").read_text())["checkpoint"]["keep"] == 9


@pytest.mark.parametrize("content", ['{"seed": 0, ', "[]", "3"])
def test_a_config_that_is_none_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(StorageError, match=r"config\.json: got (text|JSON) that is no"):
        demand_own(tmp_path, tiny())


def test_checkpoints_whose_config_is_gone_are_nobodys(tmp_path):
    (tmp_path / "checkpoints" / "20").mkdir(parents=True)
    with pytest.raises(StorageError, match=r"config\.json: got nothing"):
        demand_own(tmp_path, tiny())


def test_a_knob_that_came_with_a_later_version_takes_its_default(tmp_path):
    claim(tmp_path, tiny())
    saved = json.loads((tmp_path / "config.json").read_text())
    del saved["lr_range"], saved["train"]["seeds"]
    (tmp_path / "config.json").write_text(json.dumps(saved))
    demand_own(tmp_path, tiny())
    with pytest.raises(UsageError, match=r"train\.seeds = 2, there 1"):
        demand_own(tmp_path, tiny({"train.seeds": 2}))


def test_the_difference_from_the_default_is_saved_beside_the_config(tmp_path):
    claim(tmp_path, tiny({"optimizer.learning_rate": 0.5}))
    found = json.loads((tmp_path / "config_difference.json").read_text())
    assert found == from_default(tiny({"optimizer.learning_rate": 0.5}))
    assert found["optimizer.learning_rate"] == {"value": 0.5, "default": 0.001}
    assert "optimizer.b1" not in found


@pytest.mark.parametrize("tensorboard", [True, False])
def test_the_trackers_are_those_that_the_config_names_and_the_callers_own(tmp_path, tensorboard, capfd):
    config, own = tiny({"track.tensorboard": tensorboard}), MemoryTracker()
    with open_trackers(config, tmp_path, None, [own], plain_lines(quiet=False), total=60) as tracker:
        tracker.write(20, "train", {"loss": 1.5})
    assert timeless_rows(tmp_path) == own.rows == [{"step": 20, "split": "train", "loss": 1.5}]
    assert bool(list(tmp_path.glob("events.*"))) == tensorboard
    assert "step 20/60" in capfd.readouterr().err
    assert json.loads(own.texts["config"].strip("`json\n"))["train"]["duration"] == "60 steps"


def test_trackers_opened_at_a_step_go_on_after_it(tmp_path):
    for resumed, steps in ((None, (20, 40)), (20, (40, 60))):
        with open_trackers(tiny(), tmp_path, resumed, [], plain_lines(quiet=True), total=60) as tracker:
            for step in steps:
                tracker.write(step, "train", {"loss": step / (resumed or 1)})
    assert [(row["step"], row["loss"]) for row in read_rows(tmp_path / "metrics.jsonl")] == [(20, 20), (40, 2), (60, 3)]
