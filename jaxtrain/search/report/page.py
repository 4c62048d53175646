"""Writes the report of a search: one HTML page that opens without a network, and its pictures as files."""

import string
from pathlib import Path

from jaxtrain.files import read_text, write_bytes, write_text
from jaxtrain.reports.page import compose_page, inline_svg, paragraphs
from jaxtrain.search.report.headline import sentences, title
from jaxtrain.search.report.marks import LINK
from jaxtrain.search.report.pictures import FIGURES
from jaxtrain.search.report.trial_table import table
from jaxtrain.search.results import Findings
from jaxtrain.trackers.figures import render


def write_page(findings: Findings, path: Path) -> None:
    """Writes the report as one self-contained HTML file; raises StorageError when it cannot be written."""
    figures = (inline_svg(name, draw(findings), LINK) for name, draw in FIGURES.items())
    body = string.Template(_read_file("page.html")).substitute(
        headline=paragraphs(sentences(findings)),
        table=table(findings),
        figures="\n".join(f"<figure>{figure}</figure>" for figure in figures),
    )
    heading = f"{findings.name}: {title(findings)}"
    write_text(path, compose_page(heading, body, _read_file("page.css"), _read_file("page.js")))


def write_pictures(findings: Findings, folder: Path) -> None:
    """Writes the pictures of the report as PNG files; raises StorageError when one cannot be written."""
    for name, draw in FIGURES.items():
        write_bytes(folder / f"{name}.png", render(draw(findings)).png)


def _read_file(name: str) -> str:
    return read_text(Path(__file__).with_name(name))
