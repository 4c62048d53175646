"""Writes the report of a search: one HTML page that opens without a network, and its pictures as files."""

import base64
import hashlib
import html
import io
import re
import string
from pathlib import Path
from typing import TYPE_CHECKING

from jaxtrain.files import read_text, write_bytes, write_text
from jaxtrain.search.report.headline import sentences, title
from jaxtrain.search.report.marks import LINK
from jaxtrain.search.report.pictures import FIGURES
from jaxtrain.search.report.trial_table import table
from jaxtrain.search.results import Findings
from jaxtrain.trackers.figures import render

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_page(findings: Findings, path: Path) -> None:
    """Writes the report as one self-contained HTML file; raises StorageError when it cannot be written."""
    script = _read_file("page.js")
    page = string.Template(_read_file("page.html")).substitute(
        name=html.escape(findings.name),
        title=html.escape(title(findings)),
        headline="\n".join(f"<p>{html.escape(sentence)}</p>" for sentence in sentences(findings)),
        table=table(findings),
        figures="\n".join(f"<figure>{_svg(name, draw(findings))}</figure>" for name, draw in FIGURES.items()),
        style=_read_file("page.css"),
        script=script,
        # The page's policy allows only this script, so that markup in a name could never run another.
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    write_text(path, page)


def write_pictures(findings: Findings, folder: Path) -> None:
    """Writes the pictures of the report as PNG files; raises StorageError when one cannot be written."""
    for name, draw in FIGURES.items():
        write_bytes(folder / f"{name}.png", render(draw(findings)).png)


def _read_file(name: str) -> str:
    return read_text(Path(__file__).with_name(name))


def _svg(name: str, figure: "Figure") -> str:
    """Renders a figure as inline SVG: text stays text, links become `data-trial`, clashing ids are removed."""
    from matplotlib import rc_context

    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    width = figure.get_figwidth() * 72
    opening = f'<svg role="img" aria-label="{name.replace("_", " ")}" style="--width: {width:.0f}"'
    text = text[text.index("<svg") :].replace("<svg", opening, 1)
    text = re.sub(rf'<a xlink:href="{LINK}(\d+)"[^>]*>', r'<g data-trial="\1">', text).replace("</a>", "</g>")
    text = re.sub(r'<g id="[\w.]+_\d+">', "<g>", text)  # matplotlib's ids, which repeat in every figure
    return re.sub(r"\n\s*", "\n", text)
