"""A trial's event file holds its hyperparameters and metrics as TensorBoard's page of hyperparameters reads them."""

from pathlib import Path
from typing import Any

from tensorboardX.proto import plugin_hparams_pb2
from test_trackers import read_events

from jaxtrain.trackers.event_files import write_hparams

POINT = {
    "optimizer.learning_rate": 0.01,
    "optimizer.name": "sgd",
    "data.batch_size": 64,
    "train.ema": None,
    "model.hidden": (32, 16),
    "model.norm": False,
}


def values(directory: Path) -> dict[str, Any]:
    """Tag -> value of everything in the directory's event files."""
    return {value.tag: value for event in read_events(directory) for value in event.summary.value}


def plugin(value: Any) -> Any:
    assert value.metadata.plugin_data.plugin_name == "hparams"
    content = value.metadata.plugin_data.content
    return plugin_hparams_pb2.HParamsPluginData.FromString(content)  # pyright: ignore[reportAttributeAccessIssue]


def test_hyperparameters_and_metrics_are_in_one_file_of_the_directory_itself(tmp_path):
    write_hparams(tmp_path / "trial", POINT, {"accuracy": 0.75})
    (path,) = (tmp_path / "trial").iterdir()
    assert path.is_file()
    found = values(tmp_path / "trial")
    start = plugin(found["_hparams_/session_start_info"]).session_start_info.hparams
    shown = dict(start)
    assert {name: value.number_value for name, value in shown.items() if value.HasField("number_value")} == {
        "optimizer.learning_rate": 0.01,
        "data.batch_size": 64.0,
    }
    assert {name: value.string_value for name, value in shown.items() if value.HasField("string_value")} == {
        "optimizer.name": "sgd",
        "train.ema": "None",
        "model.hidden": "(32, 16)",
    }
    assert [name for name, value in shown.items() if value.HasField("bool_value")] == ["model.norm"]


def test_the_metric_is_a_scalar_and_no_trial_decides_on_the_columns_of_all(tmp_path):
    write_hparams(tmp_path, POINT, {"accuracy": 0.75})
    found = values(tmp_path)
    assert found.keys() == {"_hparams_/session_start_info", "_hparams_/session_end_info", "accuracy"}
    assert found["accuracy"].simple_value == 0.75


def test_a_trial_written_again_is_there_once_and_other_files_stay(tmp_path):
    (tmp_path / "events.out.tfevents.1.other").write_bytes(b"")
    for value in (0.5, 0.75):
        write_hparams(tmp_path, POINT, {"accuracy": value})
    assert len(list(tmp_path.iterdir())) == 2
    assert values(tmp_path)["accuracy"].simple_value == 0.75
