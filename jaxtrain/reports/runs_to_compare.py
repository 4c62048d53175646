"""Reads the runs that can be compared, and says of each other directory why it is left out."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxtrain.errors import StorageError, UsageError, Words
from jaxtrain.reports.find_runs import find_directories, is_search
from jaxtrain.reports.saved_runs import SavedRun, read_saved_run


@dataclass(frozen=True)
class LeftOut:
    """A directory that is not compared; why: "unfinished", "damaged" or "search"."""

    workdir: Path
    why: str
    reason: str


def read_runs(folders: Iterable[str | Path]) -> tuple[list[SavedRun], list[LeftOut]]:
    """Reads the finished runs in some folders, and names what cannot be compared.

    Raises UsageError for a folder that holds no run, and where no run is left.
    """
    runs: list[SavedRun] = []
    left_out: list[LeftOut] = []
    for workdir in find_directories(folders):
        if is_search(workdir):
            left_out.append(_search(workdir))
            continue
        try:
            run = read_saved_run(workdir)
        except StorageError as error:
            left_out.append(LeftOut(workdir, "damaged", str(error)))
            continue
        if reason := _reason_against(run):
            left_out.append(LeftOut(workdir, *reason))
        else:
            runs.append(run)
    if not runs:
        raise _nothing_left(left_out)
    return runs, left_out


def _search(workdir: Path) -> LeftOut:
    folder = workdir if workdir.name == "search" else workdir / "search"
    return LeftOut(workdir, "search", f"Open {folder}/report.html, or train {folder}/best_config.json")


def _reason_against(run: SavedRun) -> tuple[str, str] | None:
    if run.damage:
        return "damaged", run.damage[0]
    if run.result is None:
        step = max((row["step"] for row in run.rows), default=0)
        return "unfinished", f"no result yet, and rows up to step {step:,}: it is running, or was killed"
    if run.result.status == "interrupted":
        return "unfinished", f"interrupted at step {run.result.step:,}: train it again with the same command"
    return None


def _nothing_left(left_out: Sequence[LeftOut]) -> UsageError:
    first = left_out[0]
    more = f", and {len(left_out) - 1:,} more that are left out" if len(left_out) > 1 else ""
    kind = {
        "search": "a search, whose trials are not runs",
        "unfinished": "an unfinished run",
        "damaged": "a damaged run",
    }[first.why]
    return UsageError(str(first.workdir), Words(f"{kind}{more}"), "a finished run", first.reason)
