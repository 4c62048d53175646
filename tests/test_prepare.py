"""The command `prepare` writes data that can only be read in order, and trains on them as on the data themselves."""

import json
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_runs import config_file, outcome, run, tiny

from jaxtrain import Source
from jaxtrain.data import load
from jaxtrain.data.readers.embedded import digits
from jaxtrain.training.train import train_and_evaluate

SPLIT = digits(Path()).splits["train"]
MINE = """
    import os
    import signal
    from pathlib import Path

    import numpy as np

    from jaxtrain.data.readers.embedded import digits

    SPLIT = digits(Path()).splits["train"]
    KILLED = Path("killed")


    def examples(count, dies=False):
        for row in range(count):
            if dies and row == 100 and not KILLED.exists():
                KILLED.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            yield SPLIT.inputs[row], f"digit {SPLIT.targets[row]}"


    def in_order(path, dies: bool = False):
        return {"train": examples(300, dies), "test": examples(40)}


    def unlike(path):
        return {"train": iter([(np.zeros((4, 4, 1)), 0), (np.zeros((4, 5, 1)), 1)])}


    def empty(path):
        return {"train": iter([])}


    def table(path):
        return {"train": ({"height": [1.0, 2.0], "weight": [3.0, 4.0]}, [0, 1])}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(textwrap.dedent(MINE))
    return tmp_path


def prepare(folder: Path, source: str, *more: str, output: str = "written") -> Any:
    config = config_file(folder, {"data.name": source, "train.duration": "20 steps"})
    return run(folder, "prepare", f"--config={config}", f"--output={output}", *more)


def test_a_source_in_order_trains_through_the_two_commands_that_it_is_told(folder):
    config = config_file(folder, {"data.name": "mine:in_order", "train.duration": "20 steps"})
    refused = run(folder, f"--config={config}", "--config.seed=3")
    assert refused.returncode == 3
    told = refused.stderr.rstrip().partition("jaxtrain.main ")[2].split()
    assert told == ["prepare", f"--config={config}", "--config.seed=3", "--output=prepared"]
    done = run(folder, *told)
    assert done.returncode == 0, done.stderr
    assert "writing 64 bytes for each example of train and 64 bytes for each example of test" in done.stderr
    assert "wrote prepared: train 300, test 40 examples" in done.stdout
    words = done.stdout.splitlines()[-1].split("jaxtrain.main ")[1].split()
    trained = run(folder, *words, "--workdir=trained")
    assert trained.returncode == 0, trained.stderr
    rows = range(340)
    pairs = [(SPLIT.inputs[row % 300], f"digit {SPLIT.targets[row % 300]}") for row in rows]
    data = Source({"train": pairs[:300], "test": pairs[300:]})
    given = tiny({"train.duration": "20 steps", "seed": 3})
    train_and_evaluate(given, folder / "in memory", data=data, quiet=True)
    assert outcome(folder / "trained")["state_digest"] == outcome(folder / "in memory")["state_digest"]


def test_a_killed_prepare_leaves_no_folder_and_the_next_one_writes_it_anew(folder):
    assert prepare(folder, "mine:in_order", output="undisturbed").returncode == 0
    killed = prepare(folder, "mine:in_order", "--config.data.dies=True")
    assert killed.returncode == -9
    assert not (folder / "written").exists()
    again = prepare(folder, "mine:in_order", "--config.data.dies=True")
    assert again.returncode == 0, again.stderr
    files = {path.name: path.read_bytes() for path in (folder / "written").iterdir()}
    assert files == {path.name: path.read_bytes() for path in (folder / "undisturbed").iterdir()}
    assert not list(folder.glob(".*"))


def test_class_names_and_columns_of_readable_data_are_kept(folder):
    for label in ("cat", "dog"):
        for number in range(6):
            place = folder / "pictures" / label / f"{number}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((4, 4), number * 20 + len(label), np.uint8)).save(place)
    section = {"data.name": "image_folder", "data.folder": "pictures", "data.path": str(folder)}
    config = config_file(folder, section)
    done = run(folder, "prepare", f"--config={config}", f"--output={folder / 'written'}")
    assert done.returncode == 0, done.stderr
    arrays = {"data.name": "arrays", "data.file": str(folder / "written")}
    written = load(tiny({**arrays, "data.batch_size": 4})["data"])
    direct = load(tiny({**section, "data.batch_size": 4})["data"])
    assert written.info.to_json() == direct.info.to_json()
    assert written.info.class_names == ("cat", "dog")
    for name in direct.sizes:
        for field, values in direct.split(name).items():
            np.testing.assert_array_equal(written.split(name)[field], values)


def test_columns_are_read_beside_the_arrays(folder):
    written = folder / "written"
    written.mkdir()
    inputs = np.arange(40.0).reshape(20, 2)
    np.save(written / "train_inputs.npy", inputs)
    np.save(written / "train_targets.npy", np.arange(20) % 2)
    np.save(written / "column_0.npy", np.array([f"patient {row // 4}" for row in range(20)]))
    description = {"classes": 2, "class_names": ["ill", "well"], "columns": {"patient": "column_0"}}
    (written / "description.json").write_text(json.dumps(description))
    given = {"data.name": "arrays", "data.file": str(written), "data.group_by": "patient", "data.test_fraction": 0.2}
    dataset = load(tiny({**given, "data.validation_fraction": 0.2, "data.batch_size": 4})["data"])
    assert dataset.info.class_names == ("ill", "well")
    assert len({row // 4 for row in dataset.parts["test"].rows.tolist()}) == 1  # pyright: ignore[reportOptionalMemberAccess]


@pytest.mark.parametrize(
    ("source", "code", "expected"),
    [
        ("mine:unlike", 3, "train split, row 1: got inputs of shape (4, 5, 1)"),
        ("mine:empty", 3, "train split: got no examples; expected at least one"),
        ("mine:table", 3, "train split: got a table of columns; expected examples of arrays"),
    ],
)
def test_what_cannot_be_written_is_one_line_and_leaves_nothing(folder, source, code, expected):
    done = prepare(folder, source)
    assert (done.returncode, done.stderr.splitlines()[-1][:7]) == (code, "error: ")
    assert expected in done.stderr.splitlines()[-1]
    assert not (folder / "written").exists()
    assert not list(folder.glob(".*"))


def test_a_folder_with_files_is_not_written_to(folder):
    (folder / "written").mkdir()
    (folder / "written" / "mine.txt").touch()
    done = prepare(folder, "mine:in_order")
    assert done.returncode == 2
    assert "--output: got written, which is there already; expected a folder that is new or empty" in done.stderr
