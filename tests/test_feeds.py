"""Feeds: batches from the devices, the host or a stream give the same numbers to the bit, and start at any step."""

import gc
import json
import threading
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from tiny_runs import Interrupting, outcome, run, tiny

from jaxtrain.data import info
from jaxtrain.data.buffers import ALIGNMENT, Buffers
from jaxtrain.data.loading import load_dataset
from jaxtrain.data.readers.embedded import digits
from jaxtrain.data.settings import Settings
from jaxtrain.data.source import Source, Split, as_source
from jaxtrain.data.streaming import Stream
from jaxtrain.errors import ConfigError, DataError, JaxtrainWarning
from jaxtrain.lr_range.from_config import lr_range_test
from jaxtrain.search.run import run_search
from jaxtrain.training import feeds
from jaxtrain.training.experiment import build
from jaxtrain.training.feeds import DeviceFeed, HostFeed
from jaxtrain.training.train import train_and_evaluate


class Decoded:
    """A field whose examples exist only once they are read; counts the reads, and may fail at a row."""

    def __init__(self, values: np.ndarray, broken: tuple[int, ...] = ()) -> None:
        self.values = values
        self.broken = broken
        self.reads = 0

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def dtype(self) -> np.dtype:
        return self.values.dtype

    def __len__(self) -> int:
        return len(self.values)

    def read(self, rows: np.ndarray) -> np.ndarray:
        self.reads += len(rows)
        if broken := set(self.broken) & set(rows.tolist()):
            raise DataError(f"image {min(broken)}", "nothing", "an image")
        return self.values[rows]

    def fingerprint(self) -> bytes:
        return b"decoded"

    def version(self) -> bytes:
        return b"decoded"


def decoded_digits(*broken: int) -> Source:
    split = digits(Path()).splits["train"]
    return Source({"train": Split(Decoded(split.inputs, broken), split.targets)}, classes=10)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes blocks of 7 training batches and of 1 batch of evaluation, so that every split takes several."""
    monkeypatch.setattr(feeds, "BLOCK_BYTES", 7 * 64 * (64 + 4))


def test_device_host_and_stream_give_one_run(tmp_path, small_blocks):
    """The stream decodes with 1, 2 and 4 threads; all rows, the test and the digest are equal."""
    runs = {"device": {}, "host": {}, **{f"stream {n}": {"data.workers": n} for n in (1, 2, 4)}}
    found = {}
    for name, more in runs.items():
        feed = name.split()[0]
        data = decoded_digits() if feed != "host" else None  # the same numbers as files and as arrays
        config = tiny({"data.feed": feed, **more})
        train_and_evaluate(config, tmp_path / name, data=data, quiet=True)
        found[name] = outcome(tmp_path / name)
    assert all(ended == found["device"] for ended in found.values())


@pytest.mark.parametrize("given", [{"train.seeds": 2}, {"parallel.mesh": 4}, {"train.accumulate": 2}])
def test_seeds_devices_and_micro_batches_do_not_see_the_feed(tmp_path, small_blocks, given):
    for feed in ("device", "host"):
        train_and_evaluate(
            tiny({"data.feed": feed, "train.duration": "20 steps", **given}), tmp_path / feed, quiet=True
        )
    assert outcome(tmp_path / "host") == outcome(tmp_path / "device")


def test_a_range_test_and_a_search_do_not_see_the_feed(tmp_path, small_blocks):
    losses = []
    values = []
    for feed in ("device", "stream"):
        data = decoded_digits()
        section = {"lr_range.rates": 5, "lr_range.seeds": 1, "lr_range.steps": "20 steps"}
        losses.append(lr_range_test(tiny({"data.feed": feed, **section}), data=data, quiet=True).losses)
        space = {"optimizer": {"learning_rate": ("log_uniform", 1e-4, 1e-1)}}
        search = {"search.space": space, "search.trials": 3, "search.compare_seeds": 0, "train.duration": "20 steps"}
        done = run_search(tiny({"data.feed": feed, **search}), tmp_path / feed, data=data, quiet=True)
        values.append([trial.value for trial in done.findings.outcomes])
    np.testing.assert_array_equal(*losses)
    assert values[0] == values[1]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("data")]


def test_lanes_on_a_stream_read_each_example_once(small_blocks):
    """Four seeds train on one stream: examples are decoded once for all, and not much ahead."""
    data = decoded_digits()
    experiment = build(tiny({"data.feed": "stream", "train.seeds": 4, "train.duration": "14 steps"}), data=data)
    field: Any = data.splits["train"].inputs
    before = field.reads
    for step in (0, 7):
        experiment.batches(step, 7)
    assert field.reads - before <= 64 * (14 + feeds.AHEAD * 7)


def test_experiments_beside_each_other_share_a_stream():
    first = build(tiny({"data.feed": "stream"}), data=decoded_digits())
    assert build(tiny({"data.feed": "stream", "model.hidden": (8,)}), beside=first).feed is first.feed
    assert build(tiny({"data.feed": "stream", "data.batch_size": 32}), beside=first).feed is not first.feed


def test_the_padding_of_an_evaluation_is_not_decoded():
    data = decoded_digits()
    experiment = build(tiny({"data.feed": "stream", "data.eval_batch_size": 1500}), data=data)
    field: Any = data.splits["train"].inputs
    before = field.reads
    (piece,) = experiment.eval_batches("validation")
    assert field.reads - before == experiment.dataset.sizes["validation"]
    assert piece.size == 1500


def test_an_interrupted_stream_ends_as_one_that_was_not(tmp_path, small_blocks):
    config = tiny({"data.feed": "stream"})
    train_and_evaluate(config, tmp_path / "whole", data=decoded_digits(), quiet=True)
    for trackers in ([Interrupting(20)], []):
        train_and_evaluate(config, tmp_path / "parts", data=decoded_digits(), trackers=trackers, quiet=True)
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")


def test_the_feed_is_the_devices_where_data_fit_and_names_no_other_directory(tmp_path):
    assert isinstance(build(tiny()).feed, DeviceFeed)
    assert isinstance(build(tiny({"data.feed": "stream"}), data=decoded_digits()).feed, HostFeed)
    printed = run(tmp_path, "--help").stdout
    assert "train" in printed
    train_and_evaluate(tiny({"train.duration": "20 steps"}), tmp_path / "run", quiet=True)
    again = train_and_evaluate(tiny({"train.duration": "20 steps", "data.feed": "host"}), tmp_path / "run", quiet=True)
    assert again.status == "done"


def test_an_example_that_cannot_be_decoded_ends_the_run_with_its_name_and_what_was_trained_is_kept(tmp_path):
    data = decoded_digits(1000)
    config = tiny({"data.feed": "stream", "checkpoint.every": "2 steps", "data.validation_fraction": 0.0})
    with pytest.raises(DataError, match="image 1000"):
        train_and_evaluate(config, tmp_path, data=data, quiet=True)


# The stream


def test_a_stream_gives_any_steps_in_order_and_raises_where_it_fails():
    def read(step: int) -> dict[str, np.ndarray]:
        time.sleep(0.002 * (step % 3))  # the threads end out of order
        if step == 40:
            raise DataError("row 40", "nothing", "an example")
        return {"inputs": np.full((2, 1), step)}

    before = threading.active_count()
    stream = Stream(read, workers=4, calls=2)
    out = {"inputs": np.zeros((6, 1), int)}
    for first in (0, 3, 6, 9, 2, 30, 33):  # in order, back, and far ahead
        stream.take(first, 3, out)
        assert out["inputs"][:, 0].tolist() == [first, first, first + 1, first + 1, first + 2, first + 2]
    stream.take(37, 3, out)  # the step that fails is read ahead already
    with pytest.raises(DataError, match="row 40"):
        stream.take(40, 1, out)
    stream.take(41, 3, out)  # goes on behind it
    assert out["inputs"][:, 0].tolist() == [41, 41, 42, 42, 43, 43]
    stream.close()
    assert threading.active_count() == before


def test_a_stream_reads_no_further_ahead_than_calls_are_long():
    """A short run reads little beyond its end, and each thread has a batch to read where a call takes one."""
    read: list[int] = []

    def note(step: int) -> dict[str, np.ndarray]:
        read.append(step)
        return {"inputs": np.zeros((2, 1))}

    stream = Stream(note, workers=3, calls=2)
    out = {"inputs": np.zeros((20, 1))}
    stream.take(0, 1, out)
    stream.close()
    assert len(read) <= 1 + 4
    stream.take(1, 10, out)
    stream.close()
    assert max(read) <= 10 + 20


# The buffers


def test_a_buffer_is_used_again_only_when_no_array_on_a_device_holds_it():
    buffers = Buffers({"inputs": ((4, 1000), np.dtype(np.float32))})
    slow = jax.jit(lambda x: jax.lax.fori_loop(0, 2000, lambda _, y: jax.numpy.sin(y), x).sum())
    slow(np.zeros((4, 1000), np.float32)).block_until_ready()
    sums = []
    for i in range(12):  # dispatched, not awaited
        block = buffers.take()
        assert block["inputs"].ctypes.data % ALIGNMENT == 0
        block["inputs"][:] = i
        sums.append(slow(jax.device_put(block["inputs"])))
        del block
    expected = [float(slow(np.full((4, 1000), i, np.float32))) for i in range(12)]
    assert [float(total) for total in sums] == expected
    made = len(buffers)
    held = [jax.device_put(buffers.take()["inputs"]) for _ in range(made + 2)]
    assert len(buffers) == made + 2
    del held
    gc.collect()  # JAX lets go of them at its next call, or when garbage is collected
    buffers.take()
    assert len(buffers) == made + 2


# Examples that cannot be read


@pytest.mark.parametrize("feed", ["device", "stream"])
def test_bad_examples_are_passed_over_as_if_the_next_one_stood_for_each(tmp_path, feed):
    """The run equals one on data in which the next example of the same split stands at each bad row."""
    split = digits(Path()).splits["train"]
    bad = (3, 4, 1000, 1796)
    data = Source({"train": Split(Decoded(split.inputs, bad), split.targets)}, classes=10)
    config = tiny({"data.feed": feed, "data.skip_bad": 4, "train.duration": "40 steps"})
    train_and_evaluate(config, tmp_path / "bad", data=data, quiet=True)
    listed = json.loads((tmp_path / "bad" / "skipped_examples.json").read_text())
    assert [line.partition(":")[0] for line in listed] == sorted(f"image {row}" for row in bad)
    experiment = build(tiny({"train.duration": "40 steps"}), data=Source({"train": (split.inputs, split.targets)}))
    inputs = split.inputs.copy()
    targets = split.targets.copy()
    for part in experiment.dataset.parts.values():
        own = part.source_rows(np.arange(len(part)))
        for place in reversed(range(len(own))):
            if own[place] in bad:
                following = next(row for row in np.roll(own, -place) if row not in bad)
                inputs[own[place]] = split.inputs[following]
                targets[own[place]] = split.targets[following]
    read = build(config, data=data).dataset
    for name, part in experiment.dataset.parts.items():
        rows = part.source_rows(np.arange(len(part)))
        batch = read.read(name, np.arange(len(part)))
        np.testing.assert_array_equal(batch["inputs"], inputs[rows])
        np.testing.assert_array_equal(batch["targets"], targets[rows])


@pytest.mark.parametrize("feed", ["device", "stream"])
def test_more_bad_examples_than_allowed_end_the_run_with_the_last_one(tmp_path, feed):
    split = digits(Path()).splits["train"]
    data = Source({"train": Split(Decoded(split.inputs, (3, 500, 1000)), split.targets)}, classes=10)
    with pytest.raises(DataError, match=r"image \d+: got .*after 2 others.*raise data.skip_bad, which is 2"):
        train_and_evaluate(tiny({"data.feed": feed, "data.skip_bad": 2}), tmp_path, data=data, quiet=True)


def test_a_run_that_met_a_bad_example_goes_on_once_that_may_be_passed_over(tmp_path, monkeypatch):
    monkeypatch.setattr(info, "DECODED_BYTES", 0)
    monkeypatch.setattr(info, "DECODED_EXAMPLES", 3)  # so that the statistics do not meet it
    given = {"data.feed": "stream", "checkpoint.every": "2 steps", "data.validation_fraction": 0.0}
    with pytest.raises(DataError, match="image 1000"):
        train_and_evaluate(tiny(given), tmp_path / "stopped", data=decoded_digits(1000), quiet=True)
    assert [path for path in (tmp_path / "stopped" / "checkpoints").iterdir() if path.name.isdigit()]
    given |= {"data.skip_bad": 1}
    for name in ("stopped", "whole"):
        train_and_evaluate(tiny(given), tmp_path / name, data=decoded_digits(1000), quiet=True)
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "whole")


@pytest.mark.parametrize("feed", ["device", "stream"])
def test_a_split_of_bad_examples_alone_is_refused(feed):
    split = digits(Path()).splits["train"]
    bad = Split(Decoded(split.inputs[:5], (0, 1, 2, 3, 4)), split.targets[:5])
    for splits in ({"train": bad}, {"train": (split.inputs, split.targets), "test": bad}):
        settings = Settings(feed=feed, skip_bad=9, validation_fraction=0.0, test_fraction=0.0)
        with pytest.raises(DataError, match="no example that can be read"):
            load_dataset(as_source(Source(splits), "memory"), settings).split("test")


# The cache


def test_a_cache_is_written_once_and_gives_the_same_run(tmp_path):
    """The second run decodes only what statistics are taken over; other data get a file of their own."""
    config = tiny({"data.cache": str(tmp_path / "cache"), "train.duration": "20 steps"})
    data = decoded_digits()
    field: Any = data.splits["train"].inputs
    with pytest.warns(JaxtrainWarning, match=r"data.cache: got 0.00 GiB of decoded examples to write to .*cache"):
        train_and_evaluate(config, tmp_path / "first", data=data, quiet=True)
    (file,) = (tmp_path / "cache").iterdir()
    written = file.stat().st_mtime_ns
    field.reads = 0
    train_and_evaluate(config, tmp_path / "second", data=data, quiet=True)
    assert field.reads <= len(field)  # for the statistics, and not for the epochs
    assert file.stat().st_mtime_ns == written
    train_and_evaluate(tiny({"train.duration": "20 steps"}), tmp_path / "none", data=decoded_digits(), quiet=True)
    assert outcome(tmp_path / "first") == outcome(tmp_path / "second") == outcome(tmp_path / "none")
    experiment = build(config, data=data)
    assert not experiment.dataset.is_decoded
    assert experiment.dataset.fingerprint == build(tiny(), data=decoded_digits()).dataset.fingerprint


def test_a_cache_that_fails_leaves_no_file(tmp_path):
    with pytest.raises(DataError, match="image 1000"), pytest.warns(JaxtrainWarning):
        build(tiny({"data.cache": str(tmp_path / "cache")}), data=decoded_digits(1000, 1001, 1002))
    assert list((tmp_path / "cache").iterdir()) == []
    with pytest.raises(ConfigError, match=r"data.cache: got .*; expected None with data.skip_bad"):
        build(tiny({"data.cache": str(tmp_path / "cache"), "data.skip_bad": 3}), data=decoded_digits())
