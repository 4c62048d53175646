"""What TensorBoard itself makes of the files of runs: its reader, its server, and its pages in a browser."""

import json
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from browser import Page, chromium
from optional_parts import PEERS
from tiny_runs import PATIENCE, config_file, run, start, tiny

from jaxtrain.training.train import train_and_evaluate

pytestmark = pytest.mark.needs("peers")

READER = """
import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
files = EventAccumulator(sys.argv[1], size_guidance=dict.fromkeys(("scalars", "images", "histograms", "tensors"), 0))
files.Reload()
kinds = {"scalars": files.Scalars, "images": files.Images, "histograms": files.Histograms, "tensors": files.Tensors}
tags = files.Tags()
steps = {kind: {tag: [event.step for event in read(tag)] for tag in tags[kind]} for kind, read in kinds.items()}
print(json.dumps(steps))
"""

EVERY = {"track.pictures": "20 steps", "track.histograms": "20 steps", "track.layers": True}


def read(directory: Path) -> dict[str, dict[str, list[int]]]:
    """Returns kind -> tag -> steps, as TensorBoard's own reader finds them."""
    done = subprocess.run(
        [PEERS, "-c", READER, directory], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two runs."""
    folder = tmp_path_factory.mktemp("runs")
    for name, rate in (("slow", 1e-3), ("fast", 3e-3)):
        train_and_evaluate(tiny({**EVERY, "optimizer.learning_rate": rate}), folder / name, quiet=True)
    return folder


@contextmanager
def tensorboard(folder: Path, loader: str = "false") -> Iterator[int]:
    """Starts TensorBoard on a folder, and yields its port once it answers.

    `loader` "auto" is its default: a program in Rust reads the same files, if the machine has its wheel.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [PEERS, "-m", "tensorboard.main", "--logdir", folder, "--port", str(port), f"--load_fast={loader}"]
    with (folder.parent / "tensorboard.log").open("wb") as log:
        server = subprocess.Popen([*command, "--host", "127.0.0.1"], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            assert server.poll() is None, (folder.parent / "tensorboard.log").read_text()
            try:
                if json.loads(fetch(port, "data/runs")):
                    break
            except OSError:
                pass
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield port
    finally:
        server.terminate()
        server.wait(PATIENCE)


def fetch(port: int, path: str, body: Any = None) -> bytes:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return answer.read()


def test_its_own_reader_finds_what_a_run_wrote(runs):
    found = read(runs / "slow")
    assert found["images"]["examples/fixed"] == [20, 40, 60]
    assert found["histograms"]["parameters/Dense_0/kernel"] == [0, 20, 40, 60]
    assert found["histograms"]["gradients/Dense_0/kernel"] == [20, 40, 60], "none before the first step"
    assert found["scalars"]["loss/train"] == found["scalars"]["norms/gradient"] == [20, 40, 60]
    assert found["scalars"]["norms: update_to_parameter by layer/Dense_0/kernel"] == [20, 40, 60]
    assert found["scalars"]["hyperparameters/optimizer.learning_rate"] == [20, 40, 60]
    assert found["scalars"]["performance/examples_per_second"][-1] == 60
    assert found["tensors"]["config/text_summary"] == [0]


@pytest.mark.slow
def test_a_run_killed_with_pictures_on_their_way_shows_each_step_and_name_once(tmp_path):
    every = {f"{section}.every": "20 steps" for section in ("eval", "log", "checkpoint")}
    config = config_file(tmp_path, {**every, "train.duration": "600 steps"})
    shown = [f"--config.track.{what}=20 steps" for what in ("pictures", "histograms")]
    options = (f"--config={config}", "--config.track.layers=True", *shown, "--workdir=run")
    for pictures in (3, 9):
        process = start(tmp_path, *options)
        deadline = time.monotonic() + PATIENCE
        while len(list((tmp_path / "run/plots/examples/fixed").glob("*.png"))) < pictures:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
        process.kill()
        process.communicate()
    assert run(tmp_path, *options).returncode == 0
    found = read(tmp_path / "run")
    steps = list(range(20, 601, 20))
    assert found["images"]["examples/fixed"] == found["scalars"]["loss/validation"] == steps
    assert found["histograms"]["parameters/Dense_0/kernel"] == [0, *steps]
    for kind, tags in found.items():
        for tag, own in tags.items():
            if tag != "custom_scalars__config__":
                assert len(own) == len(set(own)), (kind, tag)


def test_the_page_of_hyperparameters_compares_runs(runs):
    with tensorboard(runs) as port:
        path = "experiment/defaultExperimentId/data/plugin/hparams"
        experiment = json.loads(fetch(port, f"{path}/experiment", {"experimentName": ""}))
        first = experiment["hparamInfos"][0]["name"]
        question = {
            "experimentName": "",
            "allowedStatuses": ["STATUS_SUCCESS"],
            "colParams": [{"metric": {"tag": "accuracy/test", "group": ""}}],
            "startIndex": 0,
            "sliceSize": 10,
        }
        groups = json.loads(fetch(port, f"{path}/session_groups", question))["sessionGroups"]
    assert first == "optimizer.learning_rate", "what differs stands first"
    assert sorted(group["hparams"]["optimizer.learning_rate"] for group in groups) == [1e-3, 3e-3]
    assert all(group["metricValues"][0]["value"] > 0 for group in groups)


FIND = """
(tag => {
    const found = [];
    const walk = node => {
        if (node.shadowRoot) walk(node.shadowRoot);
        for (const child of node.children || []) {
            if (child.matches(tag) && child.getClientRects().length) found.push(child);
            walk(child);
        }
    };
    walk(document.body);
    return found;
})
"""


def count(page: Page, tag: str, least: int) -> int:
    """Waits until a page shows so many elements, through the roots of web components, and returns their number."""
    return page.wait(f"(n => n >= {least} ? n : 0)({FIND}({tag!r}).length)")


@pytest.mark.slow
@pytest.mark.needs("browser")
def test_its_pages_show_charts_pictures_histograms_texts_and_runs(runs, tmp_path):
    with tensorboard(runs) as port, chromium(tmp_path, f"127.0.0.1:{port}") as page:

        def visit(name: str) -> None:
            page.open(f"http://127.0.0.1:{port}/?{name}#{name}")

        visit("scalars")
        assert count(page, "tf-scalar-card", 3) >= 3
        headings = page.wait(f"{FIND}('tf-category-paginated-view').map(view => view.category.name)")
        assert {"loss", "norms", "hyperparameters", "performance", "norms: gradient by layer"} <= set(headings)
        visit("custom_scalars")
        assert count(page, "tf-custom-scalar-multi-line-chart-card", 2) == 2, "loss and accuracy, all splits in each"
        visit("images")
        assert count(page, "img", 6) >= 6
        page.wait(f"{FIND}('img').every(image => image.naturalWidth > 300)")
        visit("histograms")
        assert count(page, "vz-histogram-timeseries", 12) >= 12
        visit("text")
        assert count(page, "tf-text-loader", 2) == 2
        assert "optimizer" in page.wait(f"{FIND}('tf-markdown-view').map(view => view.shadowRoot.textContent).join('')")
        visit("hparams")
        cells = f"{FIND}('vaadin-grid-cell-content').map(cell => cell.innerText.trim())"
        page.wait(f"{cells}.includes('slow') && {cells}.includes('fast')")
        assert count(page, "tf-hparams-session-group-values, vaadin-grid", 1) >= 1


@pytest.mark.slow
def test_three_hundred_runs_in_one_folder_are_ready_in_time(runs, tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    (file,) = (runs / "slow").glob("*tfevents*")
    assert file.stat().st_size < 20e6
    for number in range(300):
        (folder / f"run{number}").mkdir()
        os.link(file, folder / f"run{number}" / file.name)
    with tensorboard(folder, loader="auto") as port:
        began = time.monotonic()
        deadline = began + PATIENCE
        while len(json.loads(fetch(port, "data/runs"))) < 300:
            assert time.monotonic() < deadline
            time.sleep(0.2)
