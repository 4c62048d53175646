"""The command `report`: writes a run as a page that opens offline, and its charts as PNG."""

from typing import Any

from jaxtrain.commands.options import Options
from jaxtrain.reports.run_page import RunReport, write_report
from jaxtrain.reports.run_words import title_of


def run(options: Options) -> int:
    """Reports the run in `--workdir`; returns 0, however the run ended."""
    assert options.workdir is not None
    report = write_report(options.workdir)
    options.show(report_lines(report))
    options.document.show(report_document(report))
    return 0


def report_document(report: RunReport) -> dict[str, Any]:
    """Returns what `report` tells programs."""
    charts = list(map(str, report.charts))
    return {"page": str(report.page), "charts": charts, "title": title_of(report.run), "damage": report.run.damage}


def report_lines(report: RunReport) -> list[str]:
    """Formats the output of `report`."""
    folder = report.charts[0].parent if report.charts else None
    charts = [f"wrote {folder}/: {len(report.charts)} charts as PNG"] if folder else []
    return [title_of(report.run), *report.run.damage, f"wrote {report.page}: opens offline in a browser", *charts]
