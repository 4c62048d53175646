"""Compares batches that the host sends or decodes with data that are kept on the device, and measures memory and start.

python benchmarks/input_pipeline.py [NAME ...] [--rounds=7] [--output=FILE.json] [--quick]
"""

import argparse
import importlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import images
import jax
import numpy as np
import timing
from PIL import Image

from jaxtrain.config.resolve import resolve_config
from jaxtrain.parallel.mesh import compile_train_call
from jaxtrain.training.experiment import build

STEPS = 20
MEMORY_BAR = 1.5 * 2**30
START_BAR = 5.0
DECODING_BAR = 2.0
MEMBERS = {"mlp": ("fashion_mnist_mlp", 0.9), "cnn": ("fashion_mnist_cnn", 0.98)}
FILES = 100_000
BIG_BYTES = 10 * 2**30


def main() -> None:
    """Runs the chosen parts, by default all."""
    parser = argparse.ArgumentParser(description=timing.first_line(__doc__))
    parser.add_argument("names", nargs="*", help="mlp, cnn, jpeg, memory, start")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path, help="JSON file to write the results to")
    parser.add_argument("--quick", action="store_true", help="a few steps and files, as a smoke test")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(CHILDREN[options.child[0]](Path(options.child[1]))))
        return
    rounds = 1 if options.quick else options.rounds
    parts: dict[str, timing.Part] = {name: partial(feeds, name, rounds, options.quick) for name in MEMBERS}
    parts |= {"jpeg": partial(jpeg, rounds, options.quick), "memory": partial(memory, options.quick)}
    parts |= {"start": partial(start, options.quick)}
    ratios, notes = timing.run_parts(parts, options.names)
    title = "Batches that the host gathers or decodes (ours) and data on the device or another loader (theirs)"
    timing.report(title, ratios, sorted(set(notes)), options.output)


def feeds(name: str, rounds: int, quick: bool) -> tuple[list[timing.Ratio], list[str]]:
    """Compares calls of 20 steps on batches from the host with the same calls on data that the device keeps."""
    config, bar = MEMBERS[name]
    calls = 1 if quick else max(1, {"mlp": 50, "cnn": 2}[name])
    experiment, notes = images.experiment(config, {})
    programs = {side: _calls(experiment.config, feed, calls) for side, feed in (("ours", "host"), ("theirs", "device"))}
    took = timing.seconds_in_turns(programs, rounds)
    ours, theirs = ([calls * STEPS / seconds for seconds in took[side]] for side in ("ours", "theirs"))
    return [timing.ratio(f"{name}, 20 steps a call", "steps/s", ours, theirs, bar, at_least=True)], notes


def _calls(config: dict[str, Any], feed: str, calls: int) -> Callable[[], Any]:
    """Returns a function that dispatches calls of 20 steps as a run does: the next one before the last is read."""
    experiment = build({**config, "data": {**config["data"], "feed": feed}})
    call = compile_train_call(experiment.rules, experiment.mesh, "mesh")
    state = experiment.init()
    at = 0

    def run() -> None:
        nonlocal state, at
        pending = None
        for _ in range(calls):
            state, output = call(state, experiment.batches(at, STEPS), STEPS)
            at += STEPS
            jax.device_get(pending)
            pending = output
        jax.device_get(pending)

    return run


def jpeg(rounds: int, quick: bool) -> tuple[list[timing.Ratio], list[str]]:
    """Compares JPEG files that our threads decode with PyTorch's DataLoader with as many workers, if it is there."""
    count = 256 if quick else 20_000
    with tempfile.TemporaryDirectory() as folder:
        _write_pictures(Path(folder, "pictures"), count, "jpg")
        section = {"data.name": "image_folder", "data.folder": "pictures", "data.path": folder, "data.feed": "stream"}
        given = {**section, "model.name": "mlp", "data.workers": 2, "train.duration": "10 epochs"}
        experiment = build(resolve_config({}, given).config)
        steps = max(1, count // 128 // 2)
        at = 0

        def ours() -> None:
            nonlocal at
            for begin in range(at, at + steps, STEPS):
                experiment.batches(begin, min(STEPS, at + steps - begin))
            at += steps

        programs: dict[str, Callable[[], Any]] = {"ours": ours}
        theirs = _torch_loader(Path(folder, "pictures"), steps)
        if theirs is not None:
            programs["theirs"] = theirs
        took = timing.seconds_in_turns(programs, rounds)
        experiment.feed.close()
    speed = {side: [steps * 128 / seconds for seconds in seconds_of] for side, seconds_of in took.items()}
    if "theirs" not in speed:
        return [], [f"jpeg: {np.median(speed['ours']):,.0f} images of 32x32 a second; PyTorch: not installed"]
    named = "JPEG in folders, 2 workers"
    return [timing.ratio(named, "images/s", speed["ours"], speed["theirs"], DECODING_BAR, at_least=True)], []


def _torch_loader(folder: Path, steps: int) -> Callable[[], Any] | None:
    try:
        torch: Any = importlib.import_module("torch")
    except ImportError:
        return None
    files = sorted(folder.rglob("*.jpg"))

    class Pictures(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(files)

        def __getitem__(self, row: int) -> Any:
            return np.asarray(Image.open(files[row]).convert("RGB"))

    loader = torch.utils.data.DataLoader(Pictures(), 128, shuffle=True, num_workers=2, persistent_workers=True)

    def run() -> None:
        for i, _ in enumerate(loader):
            if i + 1 == steps:
                return

    return run


def _write_pictures(folder: Path, count: int, ending: str) -> None:
    """Writes noise of 32x32 in ten folders of classes; a few pictures, over and over, so that it is quick."""
    random = np.random.default_rng(0)
    small = random.integers(0, 255, (50, 8, 8, 3), np.uint8)
    for i in range(10):
        (folder / str(i)).mkdir(parents=True)
    contents = []
    for pixels in small:
        with tempfile.NamedTemporaryFile(suffix=f".{ending}") as file:
            Image.fromarray(pixels).resize((32, 32)).save(file.name)
            contents.append(Path(file.name).read_bytes())
    for i in range(count):
        (folder / str(i % 10) / f"{i}.{ending}").write_bytes(contents[i % len(contents)])


def memory(quick: bool) -> tuple[list[timing.Ratio], list[str]]:
    """Trains on memory-mapped data of 10 GiB; measures the memory of the process that is not the file's."""
    with tempfile.TemporaryDirectory() as folder:
        size = 2**27 if quick else BIG_BYTES
        rows = size // 784
        inputs = np.lib.format.open_memmap(Path(folder, "train_inputs.npy"), "w+", np.uint8, (rows, 784))
        inputs[: rows // 100] = np.random.default_rng(0).integers(0, 255, (rows // 100, 784), np.uint8)
        del inputs
        np.save(Path(folder, "train_targets.npy"), np.arange(rows) % 10)
        peak = _child("memory", folder)["peak"]
    bar = f"{MEMORY_BAR / 2**30:.1f} GiB, {'holds' if peak <= MEMORY_BAR else 'MISSED'}"
    return [], [f"memory: {size / 2**30:.1f} GiB of data, {peak / 2**30:.2f} GiB of RssAnon + RssShmem (bar {bar})"]


def start(quick: bool) -> tuple[list[timing.Ratio], list[str]]:
    """Measures the seconds from the config to the output of the first step on 100,000 files."""
    count = 500 if quick else FILES
    with tempfile.TemporaryDirectory() as folder:
        _write_pictures(Path(folder, "pictures"), count, "png")
        took = _child("start", folder)
    seconds = took["seconds"] - took["compilation"]
    verdict = "holds" if seconds <= START_BAR else "MISSED"
    told = f"start: {seconds:.1f} s to the first step on {count:,} files (bar {START_BAR} s, {verdict})"
    return [], [f"{told}, beside {took['compilation']:.1f} s of compilation"]


def _child(name: str, folder: str) -> dict[str, float]:
    """Runs a part in a process of its own."""
    line = [sys.executable, __file__, "--child", name, folder]
    return json.loads(subprocess.run(line, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def _train_on_memmap(folder: Path) -> dict[str, float]:
    given = {"data.name": "arrays", "data.file": folder.name, "data.path": str(folder.parent), "data.feed": "host"}
    given |= {"data.validation_fraction": 0.001, "data.test_fraction": 0.001, "model.name": "mlp"}
    experiment = build(resolve_config({}, given).config)
    call = compile_train_call(experiment.rules, experiment.mesh, "mesh")
    state = experiment.init()
    peak = 0
    for at in range(0, 200, STEPS):
        state, output = call(state, experiment.batches(at, STEPS), STEPS)
        jax.device_get((output, experiment.evaluate(state, "validation")))
        status = Path("/proc/self/status").read_text().splitlines()
        sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in status if line.startswith("Rss")}
        peak = max(peak, sizes["RssAnon"] + sizes["RssShmem"])
    return {"peak": peak}


def _first_step(folder: Path) -> dict[str, float]:
    from jaxtrain.parallel.compilation import count_compilations

    began = time.perf_counter()
    given = {"data.name": "image_folder", "data.folder": "pictures", "data.path": str(folder), "model.name": "mlp"}
    with count_compilations() as compiled:
        experiment = build(resolve_config({}, given).config)
        call = compile_train_call(experiment.rules, experiment.mesh, "mesh")
        _, output = call(experiment.init(), experiment.batches(0, 1), 1)
        jax.device_get(output)
        return {"seconds": time.perf_counter() - began, "compilation": compiled.seconds}


CHILDREN = {"memory": _train_on_memmap, "start": _first_step}

if __name__ == "__main__":
    main()
