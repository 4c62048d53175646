"""Several labels or outputs for each example: read from every format by name, trained, and measured by name."""

import json
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn import metrics as sklearn_metrics
from tiny_runs import result_of, tiny

from jaxtrain import Source
from jaxtrain.data import load
from jaxtrain.errors import DataError
from jaxtrain.training.train import train_and_evaluate
from jaxtrain.training.trained_run import load_run

EACH: Any = None  # a value for each label; scikit-learn accepts this, despite its annotation

RANDOM = np.random.default_rng(0)
COUNT = 200
NUMBERS = RANDOM.normal(size=(COUNT, 3))
NAMES = ("big", "red", "soft")
LABELS = [[name for name, number in zip(NAMES, row, strict=True) if number > 0] for row in NUMBERS]
MARKS = (NUMBERS > 0).astype(int)
TASK = {
    "task.name": "multi_label",
    "task.metrics": ("accuracy", "exact_match", "f1_per_label", "roc_auc_per_label"),
    "loss.name": "binary_cross_entropy",
    "optimizer.learning_rate": 0.01,
}


def objects(labels=LABELS):
    """Returns JSON objects, one for each example."""
    return [{"a": row[0], "b": row[1], "c": row[2], "is": own} for row, own in zip(NUMBERS, labels, strict=True)]


def write_json(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)))


def write_csv(path, separator="|"):
    cells = [separator.join(own) or separator for own in LABELS]
    lines = [f"{a},{b},{c},{cell}" for (a, b, c), cell in zip(NUMBERS, cells, strict=True)]
    path.write_text("\n".join(["a,b,c,is", *lines]))


def config_of(folder, name, **knobs):
    section = {"name": name, "path": str(folder), "file": "data", "target": "is", **knobs}
    return tiny({**TASK, **{f"data.{knob}": value for knob, value in section.items()}})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Trains on lists in JSON Lines; returns the folder and the run."""
    folder = tmp_path_factory.mktemp("labels")
    write_json(folder / "data", objects())
    train_and_evaluate(config_of(folder, "jsonl"), folder / "run", quiet=True)
    return folder, load_run(folder / "run")


def test_labels_are_learned_and_measured_by_name(trained):
    folder, run = trained
    numbers = result_of(folder / "run")["test"]
    names = [f"{metric}/{name}" for metric in ("f1_per_label", "roc_auc_per_label") for name in NAMES]
    assert set(numbers) == {"step", "loss", "accuracy", "exact_match", *names}
    assert numbers["exact_match"] <= numbers["accuracy"]
    assert run.class_names == NAMES
    logits = run.predict({"a": NUMBERS[:, 0], "b": NUMBERS[:, 1], "c": NUMBERS[:, 2]})
    assert ((logits > 0) == MARKS).mean() > 0.85
    test = load(run.config["data"]).parts["test"].rows
    expected = sklearn_metrics.f1_score(MARKS[test], logits[test] > 0, average=EACH)
    np.testing.assert_allclose([numbers[f"f1_per_label/{name}"] for name in NAMES], expected, rtol=1e-5)


def test_every_format_gives_the_same_labels(trained, tmp_path):
    _, run = trained
    write_csv(tmp_path / "data")
    for knobs in ({"name": "csv", "target_separator": "|"}, {"name": "jsonl"}):
        if knobs["name"] == "jsonl":
            write_json(tmp_path / "data", objects([own[::-1] + own for own in LABELS]))  # order and repeats are nothing
        dataset = load(config_of(tmp_path, **knobs)["data"])
        np.testing.assert_array_equal(dataset.parts["train"].split.targets, MARKS)
        assert dataset.info.target_names == NAMES
        assert dataset.info == run.info
    given = load(run.config["data"], Source({"train": (NUMBERS, LABELS)}))
    np.testing.assert_array_equal(given.parts["train"].split.targets, MARKS)
    assert [] in LABELS


def test_tables_of_images_list_labels(tmp_path):
    for i in range(4):
        Image.fromarray(np.full((5, 5), 40 * i, np.uint8)).save(tmp_path / f"{i}.png")
    lists = [["x", "y"], [], ["y"], ["x"]]
    write_json(tmp_path / "data.jsonl", [{"image": f"{i}.png", "is": own} for i, own in enumerate(lists)])
    lines = [f"{i}.png,{';'.join(own) or ';'}" for i, own in enumerate(lists)]
    (tmp_path / "data.csv").write_text("\n".join(["image,is", *lines]))
    for file, more in (("data.jsonl", {}), ("data.csv", {"target_separator": ";", "delimiter": ","})):
        knobs: dict[str, Any] = {"file": file, "image": "image", "validation_fraction": 0, "test_fraction": 0, **more}
        dataset = load(config_of(tmp_path, "image_table", **knobs)["data"])
        np.testing.assert_array_equal(dataset.parts["train"].split.targets, [[1, 1], [0, 0], [0, 1], [1, 0]])
        assert dataset.info.target_names == ("x", "y")


def test_an_unknown_or_missing_list_is_an_error_with_its_line(tmp_path):
    write_json(tmp_path / "data", objects())
    write_json(tmp_path / "other", [*objects()[:6], {"a": 1, "b": 1, "c": 1, "is": ["red", "bigg"]}])
    config = config_of(tmp_path, "jsonl", validation_file="other")
    with pytest.raises(
        DataError, match=r"other, line 7: got targets\[6\] = 'bigg'.*big, red, soft\. Did you mean 'big'"
    ):
        load(config["data"])
    for value in (None, "red"):
        write_json(tmp_path / "data", [*objects()[:3], {"a": 1, "b": 1, "c": 1, "is": value}])
        with pytest.raises(DataError, match=r"data, line 4: got .*; expected a list of labels.*Write \[\] for none"):
            load(config_of(tmp_path, "jsonl")["data"])
    for value in ("", None, 3.5, ["red"]):
        write_json(tmp_path / "data", [{"a": 1, "b": 1, "c": 1, "is": ["red", value]}])
        with pytest.raises(DataError, match=r"data, line 1: got .* in the list 'is'; expected names of labels"):
            load(config_of(tmp_path, "jsonl")["data"])
    (tmp_path / "data").write_text("a,is\n1,x|y\n2,\n")
    with pytest.raises(DataError, match=r"data, line 3: got no value in the column 'is'.*Write '\|' for none"):
        load(config_of(tmp_path, "csv", target_separator="|")["data"])
    with pytest.raises(DataError, match=r"targets\[1\] = None; expected a list of names"):
        load(config_of(tmp_path, "csv")["data"], Source({"train": (NUMBERS[:3], [["x"], None, []])}))


def test_targets_that_are_no_marks_are_refused(tmp_path):
    for targets in (np.arange(COUNT) % 3, MARKS * 2):
        with pytest.raises(DataError, match="expected lists of labels, or rows of 0 and 1, in 'multi_label'"):
            train_and_evaluate(tiny(TASK), tmp_path, quiet=True, data=Source({"train": (NUMBERS, targets)}))


def test_several_outputs_are_measured_by_name(tmp_path):
    rows = [f"{a},{b},{a + b},{a - 7 * b}" for a, b, _ in NUMBERS]
    (tmp_path / "data").write_text("\n".join(["a,b,sum,difference", *rows]))
    metrics = ("mse", "r2", "r2_per_output", "mae_per_output")
    section = {"name": "csv", "path": str(tmp_path), "file": "data", "target": ("difference", "sum")}
    own = {"task.name": "regression", "task.metrics": metrics, "loss.name": "mse", "optimizer.learning_rate": 0.02}
    config = tiny({**own, **{f"data.{knob}": value for knob, value in section.items()}})
    result = train_and_evaluate(config, tmp_path / "run", quiet=True)
    assert result.test is not None
    run = load_run(tmp_path / "run")
    found = run.predict_files(tmp_path / "data")
    rows_of_test = load(config["data"], standardised=True).parts["test"].rows
    expected = np.stack([NUMBERS[:, 0] - 7 * NUMBERS[:, 1], NUMBERS[:, 0] + NUMBERS[:, 1]], axis=1)
    references = {"r2": sklearn_metrics.r2_score, "mae": sklearn_metrics.mean_absolute_error}
    for name, reference in references.items():
        each = reference(expected[rows_of_test], found[rows_of_test], multioutput="raw_values")
        numbers = [result.test[f"{name}_per_output/{output}"] for output in ("difference", "sum")]
        np.testing.assert_allclose(numbers, each, rtol=1e-4)
    assert result.test["r2"] > 0.8
