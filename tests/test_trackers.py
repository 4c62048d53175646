import itertools
import json
import math
import os
import signal
import struct
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboardX.proto import event_pb2
from tensorboardX.record_writer import masked_crc32c
from tiny_runs import PATIENCE, timeless_rows

from jaxtrain.errors import StorageError
from jaxtrain.storage.seals import without_seal
from jaxtrain.trackers.composite import CompositeTracker
from jaxtrain.trackers.console import ConsoleTracker
from jaxtrain.trackers.event_files import TensorBoardTracker
from jaxtrain.trackers.jsonl import JsonlTracker, read_record, read_rows, rows_until
from jaxtrain.trackers.memory import MemoryTracker


def read_events(directory: Path) -> list:
    """Reads every event of every event file, checking the framing, as TensorBoard does."""
    events = []
    for path in sorted(directory.glob("*tfevents*")):
        content = path.read_bytes()
        offset = 0
        while offset < len(content):
            (length,) = struct.unpack_from("<Q", content, offset)
            assert struct.unpack_from("<I", content, offset + 8)[0] == masked_crc32c(content[offset : offset + 8])
            data = content[offset + 12 : offset + 12 + length]
            assert struct.unpack_from("<I", content, offset + 12 + length)[0] == masked_crc32c(data)
            events.append(event_pb2.Event.FromString(data))  # pyright: ignore[reportAttributeAccessIssue]
            offset += 16 + length
    return events


def read_scalars(directory: Path) -> dict[tuple[int, str], float]:
    """Returns (step, tag) -> value, and fails where a (step, tag) has more than one."""
    points = [
        ((event.step, value.tag), value.simple_value)
        for event in read_events(directory)
        for value in event.summary.value
        if value.HasField("simple_value")
    ]
    assert len(points) == len(dict(points))
    return dict(points)


def run_python(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)


def resumed(path: Path, step: int) -> JsonlTracker:
    """Opens a file as a run does that goes on after a step."""
    return JsonlTracker(path, rows_until(read_record(path, sealed=False), step))


def never(line: str) -> None:
    pytest.fail(f"nothing should be said, but was: {line}")


# ---- metrics.jsonl


def test_a_row_is_in_the_file_with_its_time_as_soon_as_it_is_written(tmp_path):
    before = time.time()
    tracker = JsonlTracker(tmp_path / "metrics.jsonl")
    tracker.write(10, "train", {"loss": 0.5, "count": 3})
    tracker.write(10, "validation", {"loss": 0.25})
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    tracker.close()
    rows = [without_seal(json.loads(line)) for line in lines]
    assert all(before - 0.001 <= row.pop("time") <= time.time() + 0.001 for row in rows)
    assert rows == [
        {"step": 10, "split": "train", "loss": 0.5, "count": 3},
        {"step": 10, "split": "validation", "loss": 0.25},
    ]


def test_numbers_that_are_not_finite_become_null(tmp_path):
    tracker = JsonlTracker(tmp_path / "metrics.jsonl")
    tracker.write(1, "train", {"a": math.nan, "b": math.inf, "c": -math.inf, "d": 1.5})
    tracker.close()
    assert timeless_rows(tmp_path) == [{"step": 1, "split": "train", "a": None, "b": None, "c": None, "d": 1.5}]


def test_numpy_scalars_keep_their_value(tmp_path):
    values: dict[str, Any] = {"a": np.float32(0.1), "b": np.int64(2**40 + 1)}
    tracker = JsonlTracker(tmp_path / "metrics.jsonl")
    tracker.write(1, "train", values)
    tracker.close()
    row = read_rows(tmp_path / "metrics.jsonl")[0]
    assert row["a"] == float(np.float32(0.1))
    assert row["b"] == 2**40 + 1
    assert isinstance(row["b"], int)


def test_a_second_row_of_one_step_and_split_is_refused_also_after_a_resume(tmp_path):
    path = tmp_path / "metrics.jsonl"
    tracker = JsonlTracker(path)
    tracker.write(1, "train", {"loss": 1.0})
    with pytest.raises(ValueError, match="step 1"):
        tracker.write(1, "train", {"accuracy": 1.0})
    tracker.close()
    tracker = resumed(path, 1)
    with pytest.raises(ValueError, match="step 1"):
        tracker.write(1, "train", {"loss": 1.0})
    for key in ("step", "split", "time", "seal"):
        with pytest.raises(ValueError, match=key):
            tracker.write(2, "train", {key: 1.0})
    tracker.close()
    assert timeless_rows(tmp_path) == [{"step": 1, "split": "train", "loss": 1.0}]


def test_a_resume_cuts_later_rows_and_keeps_the_rest_to_the_byte(tmp_path):
    path = tmp_path / "metrics.jsonl"
    first = JsonlTracker(path)
    for step in (1, 2, 3):
        first.write(step, "train", {"loss": 1 / step})
    first.close()
    kept = b"".join(path.read_bytes().splitlines(keepends=True)[:2])
    second = resumed(path, 2)
    assert [row["step"] for row in second.rows()] == [1, 2]
    assert path.read_bytes() == kept
    second.write(3, "train", {"loss": 9.0})
    second.close()
    assert timeless_rows(tmp_path)[2] == {"step": 3, "split": "train", "loss": 9.0}
    assert os.listdir(tmp_path) == ["metrics.jsonl"]


def test_a_fresh_start_is_empty_and_a_resume_without_a_file_too(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "split": "train"}\n')
    JsonlTracker(path).close()
    assert path.read_bytes() == b""
    path.unlink()
    tracker = resumed(path, 5)
    assert tracker.rows() == read_rows(path) == []
    tracker.close()


@pytest.mark.parametrize("torn", [b'{"step": 2, "split": "tr', b"\0" * 40, b'{"step": 2', b'{"loss": 1}\n'])
def test_a_torn_last_line_is_cut_off(tmp_path, torn):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1, "split": "train", "loss": 1.0}\n' + torn)
    assert [row["step"] for row in read_rows(path)] == [1]
    tracker = resumed(path, 100)
    tracker.write(2, "train", {"loss": 0.5})
    tracker.close()
    assert [row["step"] for row in read_rows(path)] == [1, 2]


def test_a_whole_last_line_that_lacks_its_line_break_is_kept(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1, "split": "train", "loss": 1.0}')
    tracker = resumed(path, 1)
    tracker.write(2, "train", {"loss": 0.5})
    tracker.close()
    assert [row["step"] for row in read_rows(path)] == [1, 2]


@pytest.mark.parametrize("line", ["rubbish", '{"step": 2, "split": "train", "loss": 0.4, "seal": "0123456789abcdef"}'])
def test_a_damaged_line_before_the_last_is_named_and_left_alone(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1, "split": "train"}}\n{line}\n{{"step": 3, "split": "train"}}\n')
    before = path.read_bytes()
    with pytest.raises(StorageError, match=r"metrics\.jsonl: got (damage in line 2|line 2 changed)"):
        read_rows(path)
    assert path.read_bytes() == before


def test_a_device_in_its_place_is_refused(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.symlink_to("/dev/full")
    with pytest.raises(StorageError, match=r"metrics\.jsonl: got a device") as caught:
        JsonlTracker(path)
    assert caught.value.exit_code == 5


def test_a_file_that_was_removed_in_a_run_is_told_at_the_next_row(tmp_path):
    path = tmp_path / "metrics.jsonl"
    tracker = JsonlTracker(path)
    path.unlink()
    with pytest.raises(StorageError, match=r"metrics\.jsonl: got the error 'No such file"):
        tracker.write(1, "train", {"loss": 1.0})
    tracker.close()


@pytest.mark.parametrize("rows", [(), [{"step": 1, "split": "train"}]], ids=["new", "resumed"])
def test_a_directory_that_cannot_be_written_is_a_storage_error(tmp_path, rows):
    with pytest.raises(StorageError, match=r"missing/metrics\.jsonl"):
        JsonlTracker(tmp_path / "missing" / "metrics.jsonl", rows)
    with pytest.raises(StorageError, match=str(tmp_path)):
        JsonlTracker(tmp_path, rows)


def test_a_line_that_the_disk_takes_half_is_taken_back(tmp_path):
    script = """
        import resource, sys
        from jaxtrain.errors import StorageError
        from jaxtrain.trackers import JsonlTracker
        tracker = JsonlTracker(sys.argv[1])
        resource.setrlimit(resource.RLIMIT_FSIZE, (220, resource.RLIM_INFINITY))
        tracker.write(1, "train", {"loss": 1.0})
        try:
            tracker.write(2, "train", {"long" * 30: 1.0})
        except StorageError:
            tracker.write(2, "train", {"loss": 0.5})
            tracker.close()
            print("taken back")
    """
    result = run_python(script, tmp_path / "metrics.jsonl")
    assert result.stdout == "taken back\n", result.stderr
    assert timeless_rows(tmp_path) == [
        {"step": 1, "split": "train", "loss": 1.0},
        {"step": 2, "split": "train", "loss": 0.5},
    ]


def test_a_disk_that_is_full_at_a_resume_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(f'{{"step": {step}, "split": "train"}}\n' for step in range(20)))
    before = path.read_bytes()
    script = """
        import resource, sys
        from jaxtrain.trackers import JsonlTracker, read_rows
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
        JsonlTracker(sys.argv[1], read_rows(sys.argv[1])[:10])
    """
    result = run_python(script, path)
    assert "StorageError" in result.stderr
    assert str(path) in result.stderr
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["metrics.jsonl"]


# ---- TensorBoard


def test_tensorboard_holds_each_value_under_name_and_split(tmp_path):
    tracker = TensorBoardTracker(tmp_path / "run", [], never)
    tracker.write(5, "train", {"loss": 0.5, "optimizer.learning_rate": 1e-3})
    tracker.write(5, "validation", {"loss": 0.25})
    tracker.close()
    tracker.close()
    assert read_scalars(tmp_path / "run") == {
        (5, "loss/train"): 0.5,
        (5, "hyperparameters/optimizer.learning_rate"): pytest.approx(1e-3),
        (5, "loss/validation"): 0.25,
    }


def test_tensorboard_sees_a_value_while_the_run_goes_on(tmp_path):
    tracker = TensorBoardTracker(tmp_path, [], never)
    tracker.write(5, "train", {"loss": 0.5})
    deadline = time.monotonic() + PATIENCE
    while not read_scalars(tmp_path):
        assert time.monotonic() < deadline
    tracker.close()


def test_tensorboard_shows_texts(tmp_path):
    tracker = TensorBoardTracker(tmp_path, [], never)
    tracker.text("config", '{"seed": 0}')
    tracker.close()
    (value,) = [value for event in read_events(tmp_path) for value in event.summary.value]
    assert value.tag.startswith("config")
    assert value.metadata.plugin_data.plugin_name == "text"
    assert list(value.tensor.string_val) == [b'{"seed": 0}']


def test_tensorboard_shows_the_same_live_and_rebuilt_where_numbers_are_not_finite(tmp_path):
    jsonl = JsonlTracker(tmp_path / "metrics.jsonl")
    both = CompositeTracker([jsonl, TensorBoardTracker(tmp_path / "live", [], never)], never)
    both.write(1, "train", {"loss": math.inf, "accuracy": math.nan})
    both.close()
    TensorBoardTracker(tmp_path / "rebuilt", read_rows(tmp_path / "metrics.jsonl"), never).close()
    live, rebuilt = read_scalars(tmp_path / "live"), read_scalars(tmp_path / "rebuilt")
    assert live.keys() == rebuilt.keys() == {(1, "loss/train"), (1, "accuracy/train")}
    assert all(math.isnan(value) for value in [*live.values(), *rebuilt.values()])


def test_a_rebuilt_mirror_has_the_times_at_which_the_rows_were_written(tmp_path):
    rows = [{"step": step, "split": "train", "time": 1.6e9 + step, "loss": 1.0} for step in range(3)]
    before = time.time()
    TensorBoardTracker(tmp_path, [*rows, {"step": 9, "split": "train", "loss": 1.0}], never).close()
    times = {event.step: event.wall_time for event in read_events(tmp_path) if event.summary.value}
    assert before <= times.pop(9) <= time.time(), "a row of an earlier version has no time"
    assert times == {0: 1.6e9, 1: 1.6e9 + 1, 2: 1.6e9 + 2}
    assert {tag for _, tag in read_scalars(tmp_path)} == {"loss/train"}


def test_only_our_own_event_files_are_removed(tmp_path):
    foreign = tmp_path / "events.out.tfevents.1700000000.host"
    foreign.write_bytes(b"")
    TensorBoardTracker(tmp_path, [{"step": 1, "split": "train", "loss": 1.0}], never).close()
    TensorBoardTracker(tmp_path, [{"step": 2, "split": "train", "loss": 2.0}], never).close()
    assert foreign.exists()
    assert read_scalars(tmp_path) == {(2, "loss/train"): 2.0}


def test_a_tensorboard_directory_that_cannot_be_written_is_said_once_and_stops_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    said: list[str] = []
    jsonl = JsonlTracker(tmp_path / "metrics.jsonl")
    both = CompositeTracker([jsonl, TensorBoardTracker(tmp_path / "file" / "run", [], said.append)], said.append)
    for step in range(100):
        both.write(step, "train", {"loss": 1.0})
    both.text("config", "{}")
    both.close()
    assert len(said) == 1
    assert str(tmp_path / "file" / "run") in said[0]
    assert len(read_rows(tmp_path / "metrics.jsonl")) == 100


def test_a_disk_that_fills_up_under_tensorboard_is_said_once_and_stops_nothing(tmp_path):
    script = """
        import resource, sys
        from jaxtrain.trackers import TensorBoardTracker
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
        tracker = TensorBoardTracker(sys.argv[1], [], print)
        for step in range(2_000):
            tracker.write(step, "train", {"loss": 1.0})
        tracker.close()
        print("the run goes on to its end")
    """
    result = run_python(script, tmp_path)
    lines = result.stdout.splitlines()
    assert len(lines) == 2, result
    assert "File too large" in lines[0]
    assert (result.returncode, result.stderr) == (0, "")


WRITER = """
    import sys
    from jaxtrain.trackers import CompositeTracker, JsonlTracker, TensorBoardTracker, read_rows
    directory, resume_step, total = sys.argv[1], eval(sys.argv[2]), int(sys.argv[3])
    before = [] if resume_step is None else read_rows(directory + "/metrics.jsonl")
    jsonl = JsonlTracker(directory + "/metrics.jsonl", [row for row in before if row["step"] <= (resume_step or 0)])
    trackers = CompositeTracker([jsonl, TensorBoardTracker(directory, jsonl.rows(), print)], print)
    trackers.text("config", "the config")
    for step in range(0 if resume_step is None else resume_step + 1, total):
        trackers.write(step, "train", {"loss": 1 / (step + 1), "accuracy": step / 7})
        if step % 10 == 0:
            trackers.write(step, "validation", {"loss": 2 / (step + 1)})
        print(step, flush=True)
    trackers.close()
"""


def kill_after(directory: Path, resume_step: int | None, step: int) -> None:
    """Starts an endless writer and kills it with SIGKILL after this step, when its event file has values."""
    earlier = set(directory.glob("*tfevents*"))
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(directory), str(resume_step), "100000000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in itertools.takewhile(lambda line: int(line) < step, process.stdout):
            assert int(line) < step
        deadline = time.monotonic() + PATIENCE
        while not any(path.stat().st_size > 5_000 for path in set(directory.glob("*tfevents*")) - earlier):
            assert time.monotonic() < deadline
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL


def test_kills_and_resumes_leave_the_rows_and_events_of_a_run_that_was_never_killed(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    assert run_python(WRITER, whole, None, 400).returncode == 0
    kill_after(killed, None, 150)
    assert max(row["step"] for row in read_rows(killed / "metrics.jsonl")) > 120
    kill_after(killed, 120, 300)
    assert run_python(WRITER, killed, 250, 400).returncode == 0
    assert timeless_rows(killed) == timeless_rows(whole)
    assert read_scalars(killed) == read_scalars(whole)
    assert len(read_scalars(whole)) == 2 * 400 + 40
    texts = [
        value.tag
        for event in read_events(killed)
        for value in event.summary.value
        if value.metadata.plugin_data.plugin_name == "text"
    ]
    assert len(texts) == 1


# ---- console, memory, composite


def test_console_lines_stand_under_each_other():
    lines: list[str] = []
    tracker = ConsoleTracker(lines.append, 5000)
    tracker.write(5, "train", {"loss": 0.31249, "accuracy": 0.91, "f1/0": 0.5, "matrix/0/1": 3.0, "norm_update": 1.0})
    tracker.write(1200, "validation", {"loss": 1e-7, "examples/s": 123456.7})
    tracker.write(1250, "test", {"loss": math.nan, "accuracy": 1})
    assert lines == [
        "step     5/5,000  train       loss 0.3125    accuracy 0.91",
        "step 1,200/5,000  validation  loss 1e-07     examples/s 123,457",
        "step 1,250/5,000  test        loss nan       accuracy 1",
    ]


def test_the_console_leaves_out_what_it_is_told_to():
    lines: list[str] = []
    ConsoleTracker(lines.append, 5, {"optimizer.b1"}).write(5, "train", {"loss": 0.5, "optimizer.b1": 0.9})
    assert lines == ["step 5/5  train       loss 0.5"]


def test_memory_keeps_rows_and_texts():
    memory = MemoryTracker()
    tracker = CompositeTracker([MemoryTracker(), memory], never)
    tracker.write(1, "train", {"loss": 0.5})
    tracker.text("config", "{}")
    tracker.close()
    assert memory.rows == [{"step": 1, "split": "train", "loss": 0.5}]
    assert memory.texts == {"config": "{}"}


class Broken(MemoryTracker):
    def write(self, step, split, values):
        raise RuntimeError("no server")

    def close(self):
        raise RuntimeError("no server")


def test_a_mirror_that_raises_is_reported_once_and_the_others_continue():
    primary = MemoryTracker()
    mirror = MemoryTracker()
    said = []
    tracker = CompositeTracker([primary, Broken(), mirror], said.append)
    for step in (1, 2):
        tracker.write(step, "train", {"loss": 0.5})
    tracker.close()
    assert [row["step"] for row in primary.rows] == [row["step"] for row in mirror.rows] == [1, 2]
    assert len(said) == 1
    assert "no server" in said[0]


def test_the_primary_tracker_is_written_before_its_mirrors_and_its_errors_reach_the_run(tmp_path):
    mirror = MemoryTracker()
    jsonl = JsonlTracker(tmp_path / "metrics.jsonl")
    tracker = CompositeTracker([jsonl, mirror], never)
    tracker.write(1, "train", {"loss": 0.5})
    with pytest.raises(ValueError, match="step 1"):
        tracker.write(1, "train", {"loss": 0.5})
    tracker.close()
    assert len(mirror.rows) == 1


def test_trackers_and_progress_cost_no_import_before_they_are_used():
    script = """
        import sys
        import jaxtrain.trackers.progress, jaxtrain.trackers
        print(sorted({"jax", "numpy", "tensorboardX", "tqdm"} & set(sys.modules)))
    """
    assert run_python(script).stdout == "[]\n"
