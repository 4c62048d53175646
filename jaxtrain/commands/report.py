"""The command `report`: writes a run as a page that opens offline, and its charts as PNG."""

from jaxtrain.commands.options import Options
from jaxtrain.reports.run_page import RunReport, write_report
from jaxtrain.reports.run_words import title_of


def run(options: Options) -> int:
    """Reports the run in `--workdir`; returns 0, however the run ended."""
    assert options.workdir is not None
    options.show(report_lines(write_report(options.workdir)))
    return 0


def report_lines(report: RunReport) -> list[str]:
    """Formats the output of `report`."""
    folder = report.charts[0].parent if report.charts else None
    charts = [f"wrote {folder}/: {len(report.charts)} charts as PNG"] if folder else []
    return [title_of(report.run), *report.run.damage, f"wrote {report.page}: opens offline in a browser", *charts]
