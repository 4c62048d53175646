"""Writes the report of a run: one HTML page that opens without a network, and its charts as PNG in plots/."""

import base64
import html
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtrain.config.defaults import flatten
from jaxtrain.config.identity import from_default
from jaxtrain.files import demand_writable, make_directory, read_text, write_bytes, write_text
from jaxtrain.reports.chart_lines import Chart, draw_chart
from jaxtrain.reports.figures import format_value
from jaxtrain.reports.find_runs import demand_run
from jaxtrain.reports.page import compose_page, inline_svg, paragraphs
from jaxtrain.reports.run_charts import (
    applied_charts,
    constant_values,
    metric_charts,
    norm_charts,
    performance_charts,
)
from jaxtrain.reports.run_words import number_rows, sentences_of, title_of
from jaxtrain.reports.saved_runs import SavedRun, read_saved_run
from jaxtrain.storage.run_files import list_run_files
from jaxtrain.trackers.figures import Picture, render
from jaxtrain.trackers.picture_files import FOLDER, Exhibit, read_exhibits, read_picture

MOST_PICTURES = 24
MOST_BYTES = 12 * 2**20
"""Pictures of the run that the page holds; others lie in plots/."""

WIDE = 900
"""Pixels from which a picture takes the width of the page; of narrower ones two are side by side."""

LEAST_WIDTH = 560
"""Pixels to which a picture shrinks at most: on a phone it is scrolled instead, so that its letters can be read."""

FIRST = ("confusion", "worst", "best", "fixed")
"""Words in the names of the pictures that come first."""


@dataclass(frozen=True)
class RunReport:
    """A report that was written: the page, the folder of its charts, and the run."""

    page: Path
    charts: list[Path]
    run: SavedRun


def write_report(workdir: str | Path) -> RunReport:
    """Writes report.html into the directory of a run, and each of its charts as PNG into plots/.

    Raises UsageError for a directory that holds no run, and StorageError where the run's config cannot be trusted, or
    a file cannot be written.
    """
    workdir = Path(workdir)
    demand_run(workdir)
    page = workdir / "report.html"
    demand_writable(page, workdir / FOLDER / "metric_loss.png")
    run = read_saved_run(workdir)
    exhibits = read_exhibits(workdir)
    sections = {
        "Curves": [*metric_charts(run), *applied_charts(run)],
        "Norms and performance": [*norm_charts(run), *performance_charts(run, exhibits)],
    }
    charts = [_write_chart(workdir / FOLDER, chart) for own in sections.values() for chart in own]
    body = "\n".join(_body(run, sections, exhibits))
    write_text(page, compose_page(title_of(run), body, read_text(Path(__file__).with_name("run_page.css"))))
    return RunReport(page, charts, run)


def _write_chart(folder: Path, chart: Chart) -> Path:
    name = re.sub(r"[^\w.-]", "_", chart.name)
    path = folder / f"{name}.png"
    make_directory(folder)
    write_bytes(path, render(draw_chart(chart)).png)
    return path


def _body(run: SavedRun, sections: Mapping[str, Sequence[Chart]], exhibits: Sequence[Exhibit]) -> Iterator[str]:
    yield paragraphs(sentences_of(run))
    if rows := number_rows(run):
        yield _section("Results", _note(_of_numbers(run)) + _table(rows))
    for heading, charts in sections.items():
        if charts:
            note = _note(_constants(run)) if heading == "Curves" else ""
            yield _section(heading, f'<div class="charts">{"".join(map(_chart, charts))}</div>{note}')
        if heading == "Curves":
            yield from _exhibit_sections(run, exhibits)
    yield _section("Config: what differs from the default", _config_table(run))
    yield _details("The whole config", _table([["key", "value"], *_flat_rows(run.config)]))
    environment = _flat_rows(run.environment) or [["environment.json", "is missing or damaged"]]
    yield _section("Environment", _table([["", ""], *environment]))
    yield _section("Files", _table([["file", "contents"], *map(list, list_run_files(run.workdir))]))


def _of_numbers(run: SavedRun) -> str:
    if not run.lanes:
        return ""
    return f"Mean over {len(run.lane_numbers)} {run.unit}s and its 95 % interval; without those that diverged."


def _constants(run: SavedRun) -> str:
    told = ", ".join(f"{name} {format_value(value)}" for name, value in constant_values(run).items())
    return f"Constant over the run: {told}." if told else ""


def _chart(chart: Chart) -> str:
    return f"<figure>{inline_svg(chart.name, draw_chart(chart))}</figure>"


def _exhibit_sections(run: SavedRun, exhibits: Sequence[Exhibit]) -> Iterator[str]:
    pictures = list(_pictures(run, _latest(exhibits, "image")))
    if pictures:
        yield _section("Pictures", f'<div class="pictures">{"".join(pictures)}</div>')
    texts = [_text(exhibit) for exhibit in _latest(exhibits, "text")]
    if texts:
        yield _section("Texts", "\n".join(texts))


def _latest(exhibits: Iterable[Exhibit], kind: str) -> list[Exhibit]:
    """Returns the newest of each name, those that tell most first."""
    newest: dict[str, Exhibit] = {}
    for exhibit in exhibits:
        if exhibit["kind"] == kind and exhibit["step"] >= newest.get(exhibit["name"], exhibit)["step"]:
            newest[exhibit["name"]] = exhibit

    def place(exhibit: Exhibit) -> tuple[int, str]:
        name = exhibit["name"]
        return next((number for number, word in enumerate(FIRST) if word in name), len(FIRST)), name

    return sorted(newest.values(), key=place)


def _pictures(run: SavedRun, exhibits: Sequence[Exhibit]) -> Iterator[str]:
    """Yields the newest picture of each name, as far as the page has room; what exceeds it is said."""
    size = 0
    left_out: list[str] = []
    shown = 0
    for exhibit in exhibits:
        picture = read_picture(run.workdir, exhibit)
        if picture is None or shown == MOST_PICTURES or size + len(picture.png) > MOST_BYTES:
            left_out.append(exhibit["name"])
            continue
        shown += 1
        size += len(picture.png)
        yield _picture(exhibit, picture)
    if left_out:
        yield _note(f"Not shown, see {FOLDER}/: {', '.join(left_out)}.")


def _picture(exhibit: Exhibit, picture: Picture) -> str:
    content = base64.b64encode(picture.png).decode()
    name = html.escape(exhibit["name"])
    is_wide = picture.width > WIDE
    least = min(picture.width, 1.4 * LEAST_WIDTH if is_wide else LEAST_WIDTH)
    size = f'width="{picture.width}" height="{picture.height}" style="min-width: {least:.0f}px"'
    image = f'<img src="data:image/png;base64,{content}" alt="{name}" {size}>'
    caption = f"<figcaption>{name}, step {exhibit['step']:,}</figcaption>"
    opening = '<figure class="wide">' if is_wide else "<figure>"
    return f"{opening}{image}{caption}</figure>"


def _text(exhibit: Exhibit) -> str:
    return f"<h3>{html.escape(exhibit['name'])}, step {exhibit['step']:,}</h3><pre>{html.escape(exhibit['text'])}</pre>"


def _config_table(run: SavedRun) -> str:
    changes = from_default(run.config)
    if not changes:
        return "<p>Nothing.</p>"
    present = flatten(run.config)
    rows = [
        [name, _value(own["value"]) if name in present else "-", _value(own["default"])]
        for name, own in changes.items()
    ]
    return _table([["key", "value", "default"], *rows])


def _flat_rows(values: Mapping[str, Any]) -> list[list[str]]:
    return [[name, _value(value)] for name, value in flatten(values).items()]


def _value(value: Any) -> str:
    return ", ".join(map(_value, value)) if isinstance(value, list) and value else format_value(value)


def _section(heading: str, content: str) -> str:
    return f"<section><h2>{html.escape(heading)}</h2>\n{content}</section>"


def _details(heading: str, content: str) -> str:
    return f"<details><summary>{html.escape(heading)}</summary>\n{content}</details>"


def _note(text: str) -> str:
    return f'<p class="note">{html.escape(text)}</p>' if text else ""


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    heads = f"<thead>{_row(head, 'th')}</thead>" if any(head) else ""
    lines = "\n".join(_row(row, "td") for row in body)
    return f'<div class="scroll"><table>{heads}<tbody>{lines}</tbody></table></div>'


def _row(cells: Sequence[str], tag: str) -> str:
    return f"<tr>{''.join(f'<{tag}>{_breakable(cell)}</{tag}>' for cell in cells)}</tr>"


def _breakable(text: str) -> str:
    """Returns a text as HTML that may be broken into lines: names after dots and the like, and what is very long."""
    pieces = re.sub(r"([._/])(?=[^\d.])|(\w{20})(?=\w)", "\\1\\2\0", text)
    return html.escape(pieces).replace("\0", "<wbr>")
