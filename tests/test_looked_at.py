"""Four kinds of runs on real data, as a person sees them: what pages of TensorBoard and MLflow show in a browser."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Page, chromium, set_width
from mlflow_server import MlflowServer, mlflow_server
from test_mlflow import searched
from test_tensorboard import FIND, tensorboard
from tiny_runs import PATIENCE, ROOT

from jaxtrain import load_config
from jaxtrain.search.run import run_search
from jaxtrain.trackers import mlflow_tracker
from jaxtrain.trackers.event_summaries import metrics_of, tag_of
from jaxtrain.trackers.jsonl import read_rows
from jaxtrain.trackers.picture_files import read_exhibits
from jaxtrain.training.train import train_and_evaluate

pytestmark = [pytest.mark.slow, pytest.mark.needs("data", "peers", "browser")]

RANKED = {"examples/fixed", "examples/best", "examples/worst"}
PICTURES = {
    "fashion_mnist_cnn": {*RANKED, "summary/confusion matrix", "summary/curves"},
    "nuclei_unet": {*RANKED, "summary/confusion matrix", "summary/scores"},
    "california_housing": {"examples/fixed/predictions", "summary/predictions"},
    "shakespeare_gpt": set(),
}
"""Config -> the names of its pictures."""

SMALL: dict[str, dict[str, Any]] = {
    "fashion_mnist_cnn": {"model.features": (4, 4), "model.hidden": (8,)},
    "nuclei_unet": {"model.width": 4, "model.depth": 1, "data.batch_size": 2},
    "california_housing": {"model.hidden": (8,)},
    "shakespeare_gpt": {"model.layers": 1, "model.width": 16, "model.heads": 2, "data.context": 16},
}
EVERY = {
    "train.duration": "6 steps",
    **{f"{name}.every": "3 steps" for name in ("log", "eval", "checkpoint")},
    **{f"track.{name}": "3 steps" for name in ("pictures", "histograms")},
    **{"track.layers": True, "track.examples": 4, "track.mlflow.experiment": "looked at", "parallel.mesh": 1},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as started, pytest.MonkeyPatch.context() as patch:
        patch.setattr(mlflow_tracker, "CLOSE_SECONDS", PATIENCE)
        yield started


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, server: MlflowServer) -> Path:
    """A folder with a short run of each config, small, on its own data, which the server has, too."""
    folder = tmp_path_factory.mktemp("runs") / "runs"
    for name, small in SMALL.items():
        overrides = {**EVERY, **small, "track.mlflow.uri": server.uri}
        train_and_evaluate(load_config(ROOT / "configs" / f"{name}.py", overrides), folder / name, quiet=True)
    return folder


def scalars_of(run: Path) -> set[str]:
    """Returns the tags of the rows of a run."""
    return {tag_of(name, row["split"]) for row in read_rows(run / "metrics.jsonl") for name in metrics_of(row)}


def test_tensorboard_shows_numbers_pictures_histograms_and_texts_of_each(runs: Path, tmp_path: Path):
    with tensorboard(runs) as port, chromium(tmp_path, f"127.0.0.1:{port}") as page:

        def tags(dashboard: str) -> dict[str, set[str]]:
            """Returns run -> the tags that a page lists."""
            page.open("about:blank")
            page.open(f"http://127.0.0.1:{port}/?{dashboard}#{dashboard}")
            listed = f"{FIND}('tf-category-paginated-view').filter(view => view.category.metadata.type === 1)"
            items = f"{listed}.flatMap(view => view.category.items).flatMap(item => item.series || [item])"
            page.wait(f"new Set({items}.map(item => item.run)).size >= {3 if dashboard == 'images' else 4}")
            found: dict[str, set[str]] = {}
            for item in page.evaluate(f"{items}.map(item => [item.run, item.tag])"):
                found.setdefault(item[0], set()).add(item[1])
            return found

        scalars, histograms, images, texts = map(tags, ("scalars", "histograms", "images", "text"))
        for name, pictures in PICTURES.items():
            rows = scalars_of(runs / name)
            performance = {tag for tag in scalars[name] if tag.startswith("performance/")}
            assert scalars[name] - performance == rows
            assert performance >= {f"performance/{kind}" for kind in ("examples_per_second", "compile_seconds")}
            layers = {tag.partition("/")[2] for tag in rows if tag.startswith("norms: gradient by layer/")}
            groups = ("parameters", "changes of parameters", "gradients")
            assert histograms[name] == {f"{group}/{layer}" for group in groups for layer in layers}
            assert images.get(name, set()) == pictures
            assert "config/text_summary" in texts[name]
        assert "generated text/text_summary" in texts["shakespeare_gpt"]
        page.open("about:blank")
        page.open(f"http://127.0.0.1:{port}/?images#images")
        page.wait(f"{FIND}('img').length >= 3 && {FIND}('img').every(image => image.naturalWidth > 300)")


def test_the_page_of_hyperparameters_has_a_row_for_each(runs: Path, tmp_path: Path):
    with tensorboard(runs) as port, chromium(tmp_path, f"127.0.0.1:{port}") as page:
        page.open(f"http://127.0.0.1:{port}/?hparams#hparams")
        shown = f"{FIND}('vaadin-grid-cell-content').map(cell => cell.innerText.trim())"
        page.wait(f"{json.dumps(list(SMALL))}.every(name => {shown}.includes(name))")
        cells = page.evaluate(shown)
    width = min(cells.index(name) for name in SMALL)
    head, *rows = (cells[begin : begin + width] for begin in range(0, len(cells), width))
    by_name = {row[0]: dict(zip(head, row, strict=True)) for row in rows if len(row) == width}
    assert by_name.keys() >= SMALL.keys()
    for name in SMALL:
        config = json.loads((runs / name / "config.json").read_text())
        assert by_name[name]["model.name"] == config["model"]["name"]
        assert float(by_name[name]["data.batch_size"]) == config["data"]["batch_size"]


def visit(page: Page, url: str, shown: str) -> str:
    """Opens a page of MLflow, waits for a text on it, and returns all text."""
    page.open("about:blank")
    page.open(url)
    page.wait(f"document.body.innerText.includes({json.dumps(shown)})")
    return page.evaluate("document.body.innerText")


def test_mlflow_shows_numbers_parameters_pictures_and_files_of_each(runs: Path, server: MlflowServer, tmp_path: Path):
    found = {run["info"]["run_name"]: run["info"] for run in server.runs("looked at")}
    assert found.keys() == SMALL.keys()
    with chromium(tmp_path, server.uri.removeprefix("http://")) as page:
        set_width(page, 1400)
        for name, pictures in PICTURES.items():
            url = f"{server.uri}/#/experiments/{found[name]['experiment_id']}/runs/{found[name]['run_id']}"
            scalars = scalars_of(runs / name)
            text = visit(page, url, f"Model metrics ({len(scalars) + 1})")  # the best value, too
            assert "loss/validation" in text
            speeds = [exhibit["values"] for exhibit in read_exhibits(runs / name) if exhibit["kind"] == "performance"]
            assert f"System metrics ({len({key for values in speeds for key in values})})" in text
            assert "model.name" in text
            if pictures:
                text = visit(page, f"{url}/system-metrics", "examples")
                for group, count in Counter(each.rpartition("/")[0] for each in pictures).items():
                    assert f"{group}\n({count})" in text
                page.wait("[...document.querySelectorAll('img')].some(image => image.naturalWidth > 300)")
            files = visit(page, f"{url}/artifacts", "result.json")
            assert {"config.json", "environment.json"} <= set(files.splitlines())
            assert ("images" in files.splitlines()) == bool(pictures)
            assert ("texts" in files.splitlines()) == (name == "shakespeare_gpt")


def test_mlflow_shows_a_search_with_its_trials_below_it(server: MlflowServer, tmp_path: Path):
    run_search(searched(server.uri), tmp_path / "study", quiet=True)
    experiment = server.runs("search")[0]["info"]["experiment_id"]
    with chromium(tmp_path, server.uri.removeprefix("http://")) as page:
        set_width(page, 1400)
        text = visit(page, f"{server.uri}/#/experiments/{experiment}/runs", "search study")
        assert "trial 0" not in text
        page.evaluate("document.querySelector('[role=row] button[data-component-id*=runnamecellrenderer]').click()")
        page.wait("[0, 1, 2].every(trial => document.body.innerText.includes(`trial ${trial}`))")
