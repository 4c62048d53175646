"""Ownership of a run directory, and the trackers that write into it."""

import json

import pytest
from tiny_runs import timeless_rows, tiny

from jaxtrain.config.identity import to_json
from jaxtrain.errors import JaxtrainWarning, StorageError, UsageError
from jaxtrain.lr_range.from_config import _is_of_config
from jaxtrain.reports.saved_runs import read_saved_run
from jaxtrain.storage.ownership import Owner, claim, demand_own, read_owner, saved_config
from jaxtrain.storage.seals import add_seal, read_if_sealed, write_sealed
from jaxtrain.trackers.jsonl import JsonlTracker, read_record, read_rows, rows_until
from jaxtrain.trackers.memory import MemoryTracker
from jaxtrain.trackers.open import open_trackers
from jaxtrain.trackers.progress import plain_lines


def own(workdir, config):
    """Checks that a directory is free for a run, or the run's own."""
    demand_own(workdir, config, read_owner(workdir))


def test_a_directory_belongs_to_the_config_that_claimed_it(tmp_path):
    own(tmp_path, tiny())
    claim(tmp_path, tiny(), "1")
    own(tmp_path, tiny())
    with pytest.raises(UsageError, match=r"model\.dropout = 0\.3, there 0\.1; seed = 4, there 0"):
        own(tmp_path, tiny({"seed": 4, "model.dropout": 0.3}))
    with pytest.raises(UsageError, match=r"checkpoint\.init_from"):
        own(tmp_path, tiny({"checkpoint.init_from": "elsewhere"}))


def test_what_changes_no_number_may_differ_and_is_replaced(tmp_path):
    claim(tmp_path, tiny(), "1")
    other = tiny({"log.every": "1 steps", "checkpoint.keep": 9, "track.tensorboard": False})
    own(tmp_path, other)
    claim(tmp_path, other, "1")
    assert json.loads((tmp_path / "config.json").read_text())["checkpoint"]["keep"] == 9


@pytest.mark.parametrize("content", ['{"seed": 0, ', "[]", "3", '{"seed": "many"}', '{"train": {"hours": 3}}'])
def test_a_config_of_an_earlier_version_that_is_none_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(StorageError, match=r"config\.json: got (text|JSON) that is no|config\.json: got a config that"):
        own(tmp_path, tiny())


def test_checkpoints_whose_config_is_gone_are_nobodys(tmp_path):
    (tmp_path / "checkpoints" / "20").mkdir(parents=True)
    with pytest.raises(StorageError, match=r"config\.json: got nothing"):
        own(tmp_path, tiny())


def test_a_knob_that_came_with_a_later_version_takes_its_default(tmp_path):
    saved = json.loads(to_json(tiny()))
    del saved["lr_range"], saved["train"]["seeds"]
    (tmp_path / "config.json").write_text(json.dumps(saved))
    own(tmp_path, tiny())
    with pytest.raises(UsageError, match=r"train\.seeds = 2, there 1"):
        own(tmp_path, tiny({"train.seeds": 2}))


CHANGES = {
    "a rate": lambda text: text.replace('"learning_rate": 0.001', '"learning_rate": 0.1'),
    "half of it": lambda text: text[: len(text) // 2],
    "another kind": lambda text: "[]",
    "nothing": lambda text: "",
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_config_json_is_told_as_that_and_never_used(tmp_path, change):
    claim(tmp_path, tiny(), "1")
    path = tmp_path / "config.json"
    path.write_text(change(path.read_text()))
    owner = read_owner(tmp_path)
    assert owner is not None
    with pytest.warns(JaxtrainWarning, match=r"config\.json: got .*; expected the config in run\.json, which is used"):
        assert saved_config(tmp_path, owner) == tiny()
    own(tmp_path, tiny())
    with pytest.raises(StorageError, match=r"config\.json: got .*; expected the config that the run saved"):
        own(tmp_path, tiny({"optimizer.learning_rate": 0.1}))


@pytest.mark.parametrize(("old", "new"), [('"seed": 0', '"seed": 1'), ('"format": 1', '"format": 2'), ("{", "[")])
def test_a_changed_run_json_is_refused_unless_the_config_beside_it_is_accepted(tmp_path, old, new):
    claim(tmp_path, tiny(), "1")
    path = tmp_path / "run.json"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(StorageError, match=r"run\.json: got (content that fails|text that is not JSON)"):
        read_owner(tmp_path)
    assert read_owner(tmp_path, accept_edited=True) == Owner(None, json.loads(to_json(tiny())), format=0)


@pytest.mark.parametrize("change", [{"id": None}, {"id": 3}, {"config": None}, {"config": [1]}, {"format": None}])
def test_a_sealed_run_json_of_another_form_is_refused_in_one_line(tmp_path, change):
    content = {"format": 1, "id": "1", "config": tiny(), **change}
    write_sealed(tmp_path / "run.json", content)
    with pytest.raises(StorageError, match=r"run\.json: got "):
        read_owner(tmp_path)
    write_sealed(tmp_path / "run.json", {key: value for key, value in content.items() if key not in change})
    with pytest.raises(StorageError, match=r"run\.json: got "):
        read_owner(tmp_path)


@pytest.mark.parametrize("seed", [None, "0", 1.5])
def test_a_saved_config_without_a_seed_is_refused_where_runs_are_compared(tmp_path, seed):
    saved = json.loads(to_json(tiny())) | {"seed": seed}
    write_sealed(tmp_path / "run.json", {"format": 1, "id": "1", "config": saved})
    with pytest.raises(StorageError, match="a config that cannot be used"):
        read_saved_run(tmp_path)


@pytest.mark.parametrize("value", [[1.0], {"a": 1}, "0.5"])
def test_a_row_whose_value_is_no_number_is_not_trusted(tmp_path, value):
    rows = [{"step": step, "split": "train", "loss": loss} for step, loss in ((1, value), (2, 0.5))]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(add_seal(row)) + "\n" for row in rows))
    assert [line.trusted for line in read_record(tmp_path / "metrics.jsonl", sealed=True)] == [False, True]


def test_what_can_be_made_again_is_not_read_from_another_version(tmp_path):
    write_sealed(tmp_path / "seconds.json", {"seconds": 3.0})
    said: list[str] = []
    assert read_if_sealed(tmp_path / "seconds.json", said.append, ("seconds",)) == {"seconds": 3.0}
    assert read_if_sealed(tmp_path / "seconds.json", said.append, ("seconds", "minutes")) is None
    assert said == [
        f"{tmp_path}/seconds.json: got an object without 'minutes'; expected what this version writes. It is made again"
    ]


@pytest.mark.parametrize("content", ["[]", '{"lr_range": 3}', "{", "{}"])
def test_a_range_test_beside_another_config_is_not_taken(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    assert not _is_of_config(tmp_path, tiny())
    assert not _is_of_config(tmp_path / "missing", tiny())


def test_a_directory_of_a_later_format_is_refused_by_its_number(tmp_path):
    write_sealed(tmp_path / "run.json", {"format": 2, "id": "1", "config": tiny()})
    with pytest.raises(StorageError, match="got a directory of format 2; expected format 1"):
        read_owner(tmp_path)


@pytest.mark.parametrize("tensorboard", [True, False])
def test_the_trackers_are_those_that_the_config_names_and_the_callers_own(tmp_path, tensorboard, capfd):
    config, own = tiny({"track.tensorboard": tensorboard}), MemoryTracker()
    rows = JsonlTracker(tmp_path / "metrics.jsonl")
    with open_trackers(config, tmp_path, rows, [own], plain_lines(quiet=False), total=60) as tracker:
        tracker.write(20, "train", {"loss": 1.5})
    assert timeless_rows(tmp_path) == own.rows == [{"step": 20, "split": "train", "loss": 1.5}]
    assert bool(list(tmp_path.glob("events.*"))) == tensorboard
    assert "step 20/60" in capfd.readouterr().err
    assert json.loads(own.texts["config"].strip("`json\n"))["train"]["duration"] == "60 steps"


def test_trackers_opened_at_a_step_go_on_after_it(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for resumed, steps in ((0, (20, 40)), (20, (40, 60))):
        rows = JsonlTracker(path, rows_until(read_record(path, sealed=True), resumed))
        with open_trackers(tiny(), tmp_path, rows, [], plain_lines(quiet=True), total=60) as tracker:
            for step in steps:
                tracker.write(step, "train", {"loss": step / (resumed or 1)})
    assert [(row["step"], row["loss"]) for row in read_rows(tmp_path / "metrics.jsonl")] == [(20, 20), (40, 2), (60, 3)]
