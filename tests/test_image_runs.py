"""Each source of image files trains a small run as the files lie, and predicts from the same files."""

import json
import shutil
from typing import Any

import numpy as np
import pytest
from flax import linen as nn
from PIL import Image
from tiny_runs import Interrupting, outcome, tiny

from jaxtrain.data.readers.embedded import digits
from jaxtrain.errors import DataError
from jaxtrain.training.train import train_and_evaluate
from jaxtrain.training.trained_run import load_run

COUNT = 200
DIGITS = digits(None).splits["train"]  # pyright: ignore[reportArgumentType] (it reads no folder)
PIXELS: Any = DIGITS.inputs[:COUNT, ..., 0] * 15
LABELS: Any = DIGITS.targets[:COUNT]


class Pixels(nn.Module):
    """A model for masks: a logit for each pixel from its grey value."""

    outputs: int

    @nn.compact
    def __call__(self, inputs, train=False):
        return nn.Dense(1)(nn.relu(nn.Dense(8)(inputs)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Writes digits as pictures in folders of classes, as a table, and with masks of their ink."""
    root = tmp_path_factory.mktemp("pictures")
    for i, (pixels, label) in enumerate(zip(PIXELS, LABELS, strict=True)):
        for name in (f"classes/{label}", "pairs/images", "pairs/masks"):
            (root / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / f"classes/{label}/{i:03}.png")
        Image.fromarray(pixels).save(root / f"pairs/images/{i:03}.png")
        Image.fromarray(pixels > 100).save(root / f"pairs/masks/{i:03}.png")
    lines = [
        {"file": f"classes/{label}/{i:03}.png", "digit": f"the {label}", "ink": float(PIXELS[i].mean()), "n": i}
        for i, label in enumerate(LABELS)
    ]
    (root / "table.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return root


MEMBERS: dict[str, dict[str, Any]] = {
    "image_folder": {"folder": "classes"},
    "image_masks": {"folder": "pairs"},
    "image_table": {"file": "table.jsonl", "image": "file", "target": "digit"},
    "image_table of numbers": {"file": "table.jsonl", "image": "file", "target": ("ink", "n")},
}
TASKS = {
    "image_masks": {
        "task.name": "segmentation",
        "loss.name": "dice",
        "model": {"name": f"{__name__}:Pixels"},
        "optimizer": {"name": "adamw", "learning_rate": 0.03},
    },
    "image_table of numbers": {"task.name": "regression", "loss.name": "mse"},
}


@pytest.mark.parametrize("name", MEMBERS)
def test_a_source_trains_and_predicts_from_its_files(folder, tmp_path, name):
    section = {f"data.{knob}": value for knob, value in MEMBERS[name].items()}
    given = {"data.name": name.split()[0], "data.path": str(folder), **section, **TASKS.get(name, {})}
    feed = "device" if name.startswith("image_table") else "stream"
    train_and_evaluate(tiny({**given, "data.feed": feed}), tmp_path, quiet=True)
    run = load_run(tmp_path)
    files = [folder / f"pairs/images/{i:03}.png" for i in range(COUNT)]
    predicted = run.predict_files(*files)
    np.testing.assert_array_equal(predicted, run.predict(PIXELS[..., None]))
    if name == "image_masks":
        assert predicted.shape == PIXELS.shape
        assert ((predicted > 0) == (PIXELS > 100)).mean() > 0.8
    elif name == "image_table of numbers":
        ink = PIXELS.mean(axis=(1, 2))
        assert np.abs(predicted[:, 0] - ink).mean() < np.abs(ink - ink.mean()).mean()
    else:
        assert run.info.class_names[3] in ("3", "the 3")
        assert (predicted.argmax(axis=1) == LABELS).mean() > 0.5


def test_a_copied_folder_resumes_and_another_one_is_refused(folder, tmp_path, monkeypatch):
    config = tiny({"data.name": "image_folder", "data.folder": "classes", "data.feed": "stream"})

    def train(data, workdir, *trackers):
        monkeypatch.setenv("JAXTRAIN_DATA", str(data))
        train_and_evaluate(config, tmp_path / workdir, trackers=trackers, quiet=True)

    for name in ("copy", "other"):
        shutil.copytree(folder / "classes", tmp_path / name / "classes", copy_function=shutil.copyfile)
    with (tmp_path / "other/classes/3/003.png").open("ab") as file:
        file.write(b"more")
    train(folder, "whole")
    train(folder, "parts", Interrupting(20))
    with pytest.raises(DataError, match=r"003\.png \(row 60\): got another content than at its first reading"):
        train(tmp_path / "other", "parts")
    train(tmp_path / "copy", "parts")
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")


def test_a_file_that_is_damaged_ends_the_run_in_one_line(folder, tmp_path):
    shutil.copytree(folder / "classes", tmp_path / "classes")
    path = tmp_path / "classes/3/003.png"
    path.write_bytes(path.read_bytes()[:-40])
    for feed in ("device", "stream"):
        config = tiny(
            {"data.name": "image_folder", "data.path": str(tmp_path), "data.folder": "classes", "data.feed": feed}
        )
        with pytest.raises(DataError, match=r"classes/3/003.png \(row \d+\): got a damaged or truncated PNG"):
            train_and_evaluate(config, tmp_path / feed, quiet=True)
