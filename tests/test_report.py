"""`report` writes a page of a run that a real browser opens without a network, and each of its charts as PNG."""

import functools
import html
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Page, chromium
from test_language_modelling import CONTENT
from test_language_modelling import GIVEN as LANGUAGE
from tiny_runs import SHOWN, Interrupting, result_of, tiny

from jaxtrain.data import Source
from jaxtrain.errors import UsageError
from jaxtrain.main import main
from jaxtrain.reports.chart_lines import Chart, draw_chart, lines_of
from jaxtrain.reports.run_charts import (
    MOST_LINES,
    applied_charts,
    constant_values,
    metric_charts,
    norm_charts,
    performance_charts,
)
from jaxtrain.reports.run_page import write_report
from jaxtrain.reports.saved_runs import SavedRun, read_saved_run
from jaxtrain.storage.seals import read_sealed, write_sealed
from jaxtrain.trackers.figures import Picture, render
from jaxtrain.trackers.jsonl import read_rows
from jaxtrain.trackers.picture_files import PictureFiles
from jaxtrain.training.train import train_and_evaluate

QUIET = {**SHOWN, "track.tensorboard": False, "eval.metric": "accuracy"}
RANDOM = np.random.default_rng(0)
PICTURES = RANDOM.integers(0, 255, (60, 16, 16, 1)).astype(np.uint8)
MASKS = Source({"train": (PICTURES, (PICTURES[..., 0] > 127).astype(np.uint8))})
UNET = {
    **SHOWN,
    **{"track.tensorboard": False, "task.name": "segmentation", "loss.name": "dice_cross_entropy"},
    **{"model.name": "unet", "model.width": 4, "model.depth": 1, "data.batch_size": 8, "train.ema": None},
}
REGRESSION = {
    **SHOWN,
    "track.tensorboard": False,
    "task.name": "regression",
    "loss.name": "mse",
    "data.name": "diabetes",
}


def make_language(workdir: Path) -> None:
    (workdir.parent / "words.txt").write_text(CONTENT)
    short = {"train.duration": "20 steps", "track.tensorboard": False}
    given = {**LANGUAGE, **SHOWN, **short, "data.path": str(workdir.parent)}
    train_and_evaluate(tiny(given), workdir, quiet=True)


def make_killed(workdir: Path) -> None:
    train_and_evaluate(tiny(QUIET), workdir, quiet=True)
    (workdir / "result.json").unlink()


KINDS: Mapping[str, Callable[[Path], object]] = {
    "done": lambda workdir: train_and_evaluate(tiny(QUIET), workdir, quiet=True),
    "killed": make_killed,
    "interrupted": lambda workdir: train_and_evaluate(tiny(QUIET), workdir, quiet=True, trackers=[Interrupting(20)]),
    "diverged": lambda workdir: train_and_evaluate(
        tiny({**QUIET, "optimizer.learning_rate": 1e37}), workdir, quiet=True
    ),
    "seeds": lambda workdir: train_and_evaluate(tiny({**QUIET, "train.seeds": 3}), workdir, quiet=True),
    "folds": lambda workdir: train_and_evaluate(
        tiny({**QUIET, "data.folds": 3, "train.duration": "40 steps"}), workdir, quiet=True
    ),
    "regression": lambda workdir: train_and_evaluate(tiny(REGRESSION), workdir, quiet=True),
    "language": make_language,
    "segmentation": lambda workdir: train_and_evaluate(tiny(UNET), workdir, data=MASKS, quiet=True),
}
DEAR = {"language", "segmentation", "folds", "seeds"}
ALL = [pytest.param(kind, marks=pytest.mark.slow if kind in DEAR else ()) for kind in KINDS]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Returns the directory of a run of a kind, which is trained once."""
    folder = tmp_path_factory.mktemp("reported")

    def make(kind: str) -> Path:
        workdir = folder / kind / kind
        if not workdir.exists():
            workdir.parent.mkdir()
            KINDS[kind](workdir)
        return workdir

    return make


@pytest.fixture
def own(made: Callable[[str], Path], tmp_path: Path) -> Path:
    """A copy of a run that is done, to change."""
    return Path(shutil.copytree(made("done"), tmp_path / "own"))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("chromium")) as page:
        yield page


def set_width(page: Page, width: int) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    page.call("Emulation.setDeviceMetricsOverride", size)


def opened(page: Page, workdir: Path, width: int = 1300) -> Page:
    """Opens the report of a run; fails on an error or on a request for anything but the file."""
    set_width(page, width)
    path = write_report(workdir).page
    page.open(path)
    first, *others = page.requests
    assert first == path.resolve().as_uri()
    assert all(address.startswith("data:") for address in others)
    assert page.errors == []
    return page


@functools.cache
def told_of(workdir: Path) -> str:
    """Returns `text_of` a run that no test changes."""
    return text_of(workdir)


def text_of(workdir: Path) -> str:
    """Writes the page and returns its text, its charts left out."""
    found = write_report(workdir).page.read_text()
    without = re.sub("<svg.*?</svg>|<style>.*?</style>", "", found, flags=re.DOTALL)
    return html.unescape(re.sub("<[^>]*>", "", without.replace("<wbr>", "").replace("</td>", " ")))


def picture(size: tuple[int, int] = (8, 5)) -> Picture:
    """Draws a real PNG."""
    return render(draw_chart(Chart("x", "x", "x", lines_of({"x": ([1, 2], [3.0, 4.0])}))), dpi=40)


@pytest.mark.needs("browser")
@pytest.mark.parametrize("kind", ALL)
def test_every_kind_of_run_has_a_page_without_faults_at_desk_and_phone_width(made, page, kind):
    workdir = made(kind)
    for width in (1300, 400):
        opened(page, workdir, width)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        heights = page.evaluate("[...document.querySelectorAll('svg text')].map(t => t.getBoundingClientRect().height)")
        assert min(heights, default=10) >= 9.5, "letters are too small to read"
        cut = "[...document.querySelectorAll('.charts figure')].filter(f => f.scrollWidth > f.clientWidth + 1).length"
        assert page.evaluate(cut) == 0
    charts = page.evaluate("[...document.querySelectorAll('svg')].map(svg => svg.getAttribute('aria-label'))")
    files = {path.stem.replace("_", " ") for path in (workdir / "plots").glob("*.png")}
    assert {label.replace("_", " ") for label in charts} == files
    assert page.evaluate("document.querySelectorAll('h1').length") == 1
    for path in (workdir / "plots").glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")


TITLES = {
    "done": r"done: accuracy 0\.\d+ on test$",
    "killed": r"killed: not ended, at step 60$",
    "interrupted": r"interrupted: interrupted at step \d+$",
    "diverged": r"diverged: diverged at step \d+$",
    "seeds": r"seeds: accuracy 0\.\d+ on test, mean of 3 seeds$",
    "folds": r"folds: accuracy 0\.\d+ on test, mean of 3 folds$",
    "regression": r"regression: loss [\d.]+ on test$",
    "language": r"language: loss [\d.]+ on test$",
    "segmentation": r"segmentation: loss [\d.]+ on test$",
}


@pytest.mark.parametrize("kind", ALL)
def test_the_title_says_how_the_run_ended_and_the_command_prints_it(made, capsys, kind):
    assert main(["report", f"--workdir={made(kind)}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.match(TITLES[kind], lines[0]), lines[0]
    assert f"wrote {made(kind) / 'report.html'}: opens offline in a browser" in lines
    assert lines[0] in html.unescape((made(kind) / "report.html").read_text())


def test_the_results_are_those_of_the_run(made):
    result = result_of(made("done"))
    text = " ".join(told_of(made("done")).split())
    expected = [result["best"]["value"], result["last"]["validation"]["accuracy"], result["test"]["accuracy"]]
    assert "accuracy " + " ".join(f"{value:.4g}" for value in expected) in text
    assert f"Best evaluation: accuracy {result['best']['value']:.4g} at step {result['best']['step']}." in text
    assert (
        "mlp on digits: classification by cross_entropy, trained by adamw for 60 steps, batches of 64, seed 0." in text
    )


@pytest.mark.slow
def test_several_seeds_are_shown_by_mean_and_interval_and_each_has_a_thin_line(made):
    workdir = made("seeds")
    spread = result_of(workdir)["seeds"]["test"]["accuracy"]
    mean, low, high = (f"{spread[name]:.4g}" for name in ("mean", "low", "high"))
    assert f"{mean} ({low} to {high})" in told_of(workdir)
    (chart,) = [own for own in metric_charts(read_saved_run(workdir)) if own.name == "metric_accuracy"]
    names = [line.name for line in chart.lines if line.thin]
    assert names == [f"{split} {seed}" for split in ("training", "validation") for seed in range(3)]
    assert "validation, mean of 3 seeds" in [line.name for line in chart.lines]


def test_curves_hold_the_rows_and_mark_the_best_step(made):
    workdir = made("done")
    rows = read_rows(workdir / "metrics.jsonl")
    loss, accuracy = metric_charts(read_saved_run(workdir))
    assert (loss.name, accuracy.name) == ("metric_loss", "metric_accuracy")
    for chart, name in ((loss, "loss"), (accuracy, "accuracy")):
        training, validation, test = chart.lines
        for line, split in ((training, "train"), (validation, "validation"), (test, "test")):
            points = [(row["step"], row[name]) for row in rows if row["split"] == split]
            assert list(zip(line.steps, line.values, strict=True)) == points
        assert chart.marks == {"best": result_of(workdir)["best"]["step"]}


def test_a_diverged_run_marks_where(made):
    run = read_saved_run(made("diverged"))
    assert run.result is not None
    charts = list(metric_charts(run))
    assert all(chart.marks["diverged"] == run.result.step for chart in charts)
    assert "not finite" in told_of(made("diverged"))


def test_floats_that_a_schedule_moves_are_drawn_and_constant_ones_are_told(made):
    run = read_saved_run(made("done"))
    assert [chart.name for chart in applied_charts(run)] == ["applied_optimizer.learning_rate"]
    constant = constant_values(run).keys()
    assert {"optimizer.b1", "optimizer.b2", "optimizer.eps", "optimizer.weight_decay"} <= constant
    assert "optimizer.learning_rate" not in constant
    assert "optimizer.b1 0.9, optimizer.b2 0.999, optimizer.eps 1e-8" in told_of(made("done"))


def with_rows(run: SavedRun, rows: list[dict[str, Any]]) -> SavedRun:
    return SavedRun(run.workdir, run.config, run.result, rows, run.environment)


def test_norms_by_layer_have_a_chart_of_a_bounded_number_of_lines(made):
    names = [f"norm_gradient_by_layer/Dense_{number}/kernel" for number in range(MOST_LINES + 3)]
    rows = [{"step": step, "split": "train", "norm_gradient": 1.0, **dict.fromkeys(names, 0.5)} for step in (1, 2)]
    whole, layers = norm_charts(with_rows(read_saved_run(made("done")), rows))
    assert [line.name for line in whole.lines] == ["gradient"]
    assert len(layers.lines) == MOST_LINES
    assert layers.title == f"Gradient by layer, the first {MOST_LINES} of {MOST_LINES + 3}"
    assert len({(line.colour, str(line.dashes)) for line in layers.lines}) == MOST_LINES, "lines are told apart"


def test_performance_is_drawn_in_units_and_from_zero(made):
    shown = [{"step": s, "kind": "performance", "values": {"device_memory_bytes": s * 2.0**20}} for s in (10, 20)]
    memory, progress = performance_charts(read_saved_run(made("done")), shown)
    assert (memory.unit, list(memory.lines[0].values), memory.from_zero) == ("MiB", [10.0, 20.0], True)
    assert progress.x_label == "time since the first row [s]"
    assert draw_chart(memory).axes[0].get_ylim()[0] == 0


def test_the_config_shows_what_differs_from_the_default_first(made):
    text = told_of(made("done"))
    begin, whole = text.index("Config: what differs"), text.index("The whole config")
    changed, complete = text[begin:whole], text[whole : text.index("Environment")]
    assert re.search(r"model\.hidden\s+16\s+128, 128", changed)
    assert "optimizer.b2" not in changed
    assert re.search(r"optimizer\.b2\s+0\.999", complete)
    assert re.search(r"packages\.jax\s+\d", text[text.index("Environment") :])
    assert "one row for each logged or evaluated step" in text[text.index("Files") :]


@pytest.mark.needs("browser")
def test_the_newest_picture_of_each_name_is_shown_what_tells_most_first(own, page):
    files = PictureFiles(own)
    for step in (20, 60):
        files.image(step, "examples/fixed", picture())
    for name in ("summary/calibration", "examples/worst", "summary/confusion matrix"):
        files.image(60, name, picture())
    files.text("generated", "a <b>bold</b> text", 60)
    files.close()
    opened(page, own)
    captions = page.evaluate("[...document.querySelectorAll('.pictures figcaption')].map(c => c.innerText)")
    names = ["summary/confusion matrix", "examples/worst", "examples/fixed", "summary/calibration"]
    assert captions == [f"{name}, step 60" for name in names]
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 50)")
    assert "a <b>bold</b> text" in page.evaluate("document.querySelector('pre').innerText")


def test_a_picture_that_was_changed_is_named_and_not_shown(own):
    files = PictureFiles(own)
    files.image(60, "examples/worst", picture())
    files.image(60, "examples/fixed", picture())
    files.close()
    (own / "plots" / "examples" / "worst" / "60.png").write_bytes(b"another")
    text = text_of(own)
    assert "Not shown, see plots/: examples/worst." in text
    assert "examples/fixed, step 60" in text


@pytest.mark.needs("browser")
def test_names_that_are_markup_stay_text(own, page):
    hostile = "</script><img src=http://192.0.2.1/x onerror=alert(1)>"
    files = PictureFiles(own)
    files.image(60, hostile, picture())
    files.text(hostile, hostile, 60)
    files.close()
    saved = read_sealed(own / "run.json", "a run")
    saved["config"]["data"]["path"] = hostile
    write_sealed(own / "run.json", saved)
    opened(page, own)
    assert page.evaluate("document.querySelectorAll('script, [onerror]').length") == 0
    assert page.evaluate("document.images.length") == 1
    assert hostile in page.evaluate("document.querySelector('.pictures figcaption').innerText")


def test_a_resumed_run_is_not_disturbed_by_its_report(made, tmp_path):
    workdir = Path(shutil.copytree(made("interrupted"), tmp_path / "run"))
    write_report(workdir)
    result = train_and_evaluate(tiny(QUIET), workdir, quiet=True)
    assert result.status == "done"
    assert result.state_digest == result_of(made("done"))["state_digest"]
    assert "on test" in write_report(workdir).page.read_text()


def test_what_was_changed_by_others_is_said_on_the_page(own, capsys):
    path = own / "metrics.jsonl"
    path.write_text(path.read_text().replace('"accuracy": 0', '"accuracy": 9', 1))
    result = own / "result.json"
    result.write_text(result.read_text().replace('"done"', '"diverged"'))
    assert main(["report", f"--workdir={own}"]) == 0
    printed = capsys.readouterr().out
    for told in (printed, text_of(own)):
        assert "metrics.jsonl: line 1 is damaged or was changed by others" in told
        assert "result.json: got content that fails its checksum" in told


@pytest.mark.parametrize(
    ("prepare", "code", "told"),
    [
        (lambda folder: None, 2, "got a directory without a run; expected the directory of a run"),
        (lambda folder: (folder / "search").mkdir(parents=True), 2, "got a search, whose trials are not runs"),
        (lambda folder: (folder / "checkpoints").mkdir(parents=True), 5, "config.json: got nothing"),
    ],
)
def test_what_cannot_be_reported_is_said_in_one_line(tmp_path, capsys, prepare, code, told):
    folder = tmp_path / "folder"
    prepare(folder)
    assert main(["report", f"--workdir={folder}"]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line
    assert not (folder / "report.html").exists()


def test_a_config_that_others_changed_is_not_reported(own, capsys):
    path = own / "run.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    assert main(["report", f"--workdir={own}"]) == 5
    assert "run.json: got content that fails its checksum" in capsys.readouterr().err


def test_without_an_environment_the_page_says_so(own):
    (own / "environment.json").write_text(json.dumps([1]))
    assert "is missing or damaged" in text_of(own)


def test_a_folder_of_another_kind_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="got a directory without a run"):
        write_report(tmp_path)
