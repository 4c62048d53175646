"""plots/: pictures, and the record of what a run shows, from which mirrors are rebuilt."""

import json
from pathlib import Path

import numpy as np
import pytest
from test_trackers import never, read_events
from tiny_runs import PATIENCE

from jaxtrain.trackers import event_files
from jaxtrain.trackers.base import Histogram
from jaxtrain.trackers.composite import CompositeTracker
from jaxtrain.trackers.event_files import SHOWN_BYTES, TensorBoardTracker
from jaxtrain.trackers.figures import Picture
from jaxtrain.trackers.memory import MemoryTracker
from jaxtrain.trackers.picture_files import PictureFiles, read_exhibits, read_picture

COUNTED = Histogram(-1.0, 1.0, (3, 0, 5), 2.0, 4.0)


def picture(step: int) -> Picture:
    return Picture(b"\x89PNG of step %d" % step, 4, 3)


def shown(directory: Path) -> list[tuple[int, str, bytes | float | str]]:
    """Returns (step, tag, content) of every picture, histogram, text of a step and number of performance."""
    found = []
    for event in read_events(directory):
        for value in event.summary.value:
            if value.HasField("image"):
                found.append((event.step, value.tag, value.image.encoded_image_string))
            elif value.HasField("histo"):
                found.append((event.step, value.tag, sum(value.histo.bucket)))
            elif value.metadata.plugin_data.plugin_name == "text" and event.step:
                found.append((event.step, value.tag, value.tensor.string_val[0]))
            elif value.tag.startswith("performance/"):
                found.append((event.step, value.tag, value.simple_value))
    return sorted(found)


def take_steps(directory: Path, steps: range, resumed: int | None) -> None:
    """Shows something of everything at these steps, as a session that resumed at a step does."""
    files = PictureFiles(directory, resumed)
    mirror = TensorBoardTracker(directory, [], never, files.exhibits(), total=9)
    both = CompositeTracker([MemoryTracker(), files, mirror], never)
    for step in steps:
        both.image(step, "examples/first", picture(step))
        both.histogram(step, "parameters/Dense_0", COUNTED)
        both.text("generated", f"text of step {step}", step)
        both.performance(step, {"examples_per_second": float(step)})
    both.close()


def test_a_resume_drops_what_came_after_its_checkpoint_and_rebuilds_the_rest_once(tmp_path):
    take_steps(tmp_path / "whole", range(1, 7), None)
    take_steps(tmp_path / "cut", range(1, 6), None)
    take_steps(tmp_path / "cut", range(4, 7), 3)
    found = shown(tmp_path / "cut")
    assert found == shown(tmp_path / "whole")
    assert len(found) == 4 * 6
    assert {(exhibit["step"], exhibit["kind"]) for exhibit in read_exhibits(tmp_path / "cut")} == {
        (step, kind) for step in range(1, 7) for kind in ("image", "histogram", "text", "performance")
    }


def test_pictures_after_the_checkpoint_are_removed_with_their_lines(tmp_path):
    take_steps(tmp_path, range(1, 6), None)
    PictureFiles(tmp_path, 2).close()
    assert sorted(path.name for path in (tmp_path / "plots/examples/first").iterdir()) == ["1.png", "2.png"]
    PictureFiles(tmp_path).close()
    assert not list((tmp_path / "plots").rglob("*.png"))
    assert read_exhibits(tmp_path) == []


def test_what_is_rebuilt_keeps_its_time(tmp_path):
    take_steps(tmp_path, range(1, 3), None)
    times = {exhibit["time"] for exhibit in read_exhibits(tmp_path)}
    take_steps(tmp_path, range(3, 3), 2)
    assert {event.wall_time for event in read_events(tmp_path) if event.step} <= times


def test_a_step_and_name_are_kept_once(tmp_path):
    files = PictureFiles(tmp_path)
    for content in (picture(1), picture(2)):
        files.image(5, "a", content)
    assert (files.has(5, "image", "a"), files.has(5, "image", "b")) == (True, False)
    (exhibit,) = read_exhibits(tmp_path)
    assert read_picture(tmp_path, exhibit) == picture(1)
    files.close()


def test_a_picture_that_others_changed_is_left_out_of_a_rebuilt_mirror(tmp_path):
    take_steps(tmp_path, range(1, 3), None)
    (tmp_path / "plots/examples/first/1.png").write_bytes(b"another")
    take_steps(tmp_path, range(3, 3), 2)
    assert [step for step, tag, _ in shown(tmp_path) if tag == "examples/first"] == [2]


@pytest.mark.parametrize("name", ["../../outside", "/etc/outside", "a/../../../outside", "..", "a\x00b", "ä b"])
def test_a_name_never_leads_out_of_the_folder(tmp_path, name):
    run = tmp_path / "one" / "run"
    files = PictureFiles(run)
    files.image(1, name, picture(1))
    files.image(1, "_", picture(2))
    files.close()
    assert len(list(run.glob("plots/**/1.png"))) == len(list(tmp_path.rglob("*.png"))) == 2
    exhibit = {**read_exhibits(run)[0], "file": "../../../elsewhere.png"}
    assert read_picture(run, exhibit) == picture(1)


def test_nothing_shown_leaves_no_folder(tmp_path):
    files = PictureFiles(tmp_path)
    files.write(1, "train", {"loss": 1.0})
    files.text("config", "{}")
    files.close()
    assert list(tmp_path.iterdir()) == []


def test_a_record_that_cannot_be_written_is_said_once_and_the_run_goes_on(tmp_path):
    (tmp_path / "plots").write_text("a file where the folder should be")
    said: list[str] = []
    memory = MemoryTracker()
    both = CompositeTracker([MemoryTracker(), PictureFiles(tmp_path), memory], said.append)
    for step in (1, 2):
        both.image(step, "a", picture(step))
    both.close()
    assert len(said) == 1
    assert "plots" in said[0]
    assert len(memory.images) == 2


def test_an_event_file_stays_below_its_bound_and_keeps_pictures_of_the_whole_run(tmp_path, monkeypatch):
    assert SHOWN_BYTES < 20e6
    monkeypatch.setattr(event_files, "SHOWN_BYTES", 100_000)
    monkeypatch.setattr(event_files, "CLOSE_SECONDS", PATIENCE)
    noise = np.random.default_rng(0).bytes(2_500)
    tracker = TensorBoardTracker(tmp_path, [], never, total=100)
    for step in range(1, 101):
        tracker.image(step, "large", Picture(noise, 1, 1))
    tracker.close()
    (path,) = tmp_path.glob("*tfevents*")
    assert 90_000 < path.stat().st_size < 105_000
    steps = [step for step, *_ in shown(tmp_path)]
    assert (steps[0], steps[-1]) == (1, 100)
    assert max(np.diff(steps)) <= 5


class Old:
    """A tracker of a user's own, written before there were pictures."""

    def __init__(self) -> None:
        self.seen: list[object] = []

    def write(self, step, split, values):
        self.seen.append(step)

    def text(self, name, text):
        self.seen.append(name)

    def close(self):
        pass


def test_a_tracker_of_a_users_own_may_lack_all_that_is_new(tmp_path):
    old = Old()
    both = CompositeTracker([MemoryTracker(), old], never)  # pyright: ignore[reportArgumentType]
    both.text("config", "{}")
    both.text("generated", "abc", 3)
    both.image(3, "a", picture(3))
    both.histogram(3, "b", COUNTED)
    both.performance(3, {})
    both.artifact(tmp_path / "result.json")
    both.write(4, "train", {"loss": 1.0})
    both.close()
    assert old.seen == ["config", 4]


def test_the_record_is_json_lines_that_name_the_pictures(tmp_path):
    take_steps(tmp_path, range(1, 2), None)
    lines = [json.loads(line) for line in (tmp_path / "plots/record.jsonl").read_text().splitlines()]
    (image,) = [line for line in lines if line["kind"] == "image"]
    assert (tmp_path / "plots" / image["file"]).read_bytes() == picture(1).png
    (histogram,) = [line for line in lines if line["kind"] == "histogram"]
    assert histogram["counts"] == [3, 0, 5]
