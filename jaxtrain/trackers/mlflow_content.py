"""Makes of a run's files what an MLflow server shows: parameters, tags, metrics, names of pictures."""

import getpass
import math
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from jaxtrain.config.defaults import Config, flatten
from jaxtrain.config.identity import from_json, to_json
from jaxtrain.trackers.base import Row
from jaxtrain.trackers.event_summaries import metrics_of, tag_of
from jaxtrain.trackers.mlflow_ledger import Batch, Key
from jaxtrain.trackers.mlflow_rest import LONGEST_PARAM, LONGEST_TAG, MOST_METRICS, Json, key_of, shortened
from jaxtrain.trackers.picture_files import Exhibit

RUN_TAG = "jaxtrain.id"
"""The tag that holds the id of the run, by which the server's run is found again."""

STATUS = {"done": "FINISHED", "diverged": "FAILED", "interrupted": "KILLED"}
"""Status of a result -> that of the server's run."""


def params_of(config: Config) -> dict[str, str]:
    """Returns the parameters of a config: a text for each key, without where it is tracked."""
    kept = from_json(to_json({**config, "track": {}}))
    return {key_of(name): shortened(str(value), LONGEST_PARAM) for name, value in flatten(kept).items()}


def too_long(config: Config) -> list[str]:
    """Returns the names of the parameters that are cut."""
    return [name for name, value in flatten({**config, "track": {}}).items() if len(str(value)) > LONGEST_PARAM]


def tags_of(run: str, workdir: str, environment: Mapping[str, Any], own: Mapping[str, str]) -> dict[str, str]:
    """Returns the tags of a run: its id and directory, commit, versions, host and devices, and the user's own."""
    known = {
        RUN_TAG: run,
        "jaxtrain.directory": workdir,
        "mlflow.user": _user(),
        "mlflow.source.name": "jaxtrain",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": environment.get("git_commit"),
        "git_dirty": environment.get("git_dirty"),
        "host": environment.get("host"),
        "platform": environment.get("platform"),
        "processor": environment.get("processor"),
        "devices": ", ".join(environment.get("devices", [])),
        "python": environment.get("python"),
        **{f"version.{name}": version for name, version in environment.get("packages", {}).items()},
        **own,
    }
    texts = {key_of(name): str(value) for name, value in known.items() if value not in (None, "")}
    return {name: shortened(text, LONGEST_TAG) for name, text in texts.items()}


def batches_of_row(row: Row, now: float) -> Iterator[Batch]:
    """Yields the metrics of a row at its own time, or `now` for one without, as many as one request takes."""
    values = {tag_of(name, row["split"]): value for name, value in metrics_of(row).items()}
    yield from _batches(("row", row["step"], row["split"], 0), values, row.get("time", now))


def batches_of_performance(exhibit: Exhibit) -> Iterator[Batch]:
    """Yields numbers of performance, which the server shows on a page of their own."""
    values = {f"system/{name}": value for name, value in exhibit["values"].items()}
    yield from _batches(("performance", exhibit["step"], "", 0), values, exhibit["time"])


def batches_of_result(result: Mapping[str, Any], now: float) -> Iterator[Batch]:
    """Yields the value of the best evaluation, if there is one."""
    if best := result.get("best"):
        values = {f"best/{best['metric']}": best["value"]}
        yield from _batches(("best", best["step"], best["metric"], 0), values, now)


def in_requests(batches: Iterable[Batch]) -> Iterator[tuple[Batch, ...]]:
    """Yields batches in their order, as many at a time as one request takes."""
    taken: list[Batch] = []
    for batch in batches:
        if taken and sum(len(own.metrics) for own in (*taken, batch)) > MOST_METRICS:
            yield tuple(taken)
            taken = []
        taken.append(batch)
    if taken:
        yield tuple(taken)


def join_batches(batches: Sequence[Batch]) -> Batch:
    """Returns batches as one."""
    return Batch(tuple(key for own in batches for key in own.keys), [point for own in batches for point in own.metrics])


def picture_paths(run: str, exhibit: Exhibit) -> list[str]:
    """Returns the two paths under which the server's pages look for a picture of a step and for its preview."""
    name = re.sub(r"[^\w\-. ~]", "_", exhibit["name"].replace("/", "~"), flags=re.ASCII)
    unique = uuid.uuid5(uuid.NAMESPACE_OID, f"{run} {exhibit['step']} {exhibit['name']}")  # the same when sent again
    start = f"images/{name}+step+{exhibit['step']}+timestamp+{milliseconds(exhibit['time'])}+{unique}"
    return [f"{start}.png", f"{start}+compressed.webp"]


def text_path(exhibit: Exhibit) -> str:
    """Returns the path of a text of a step."""
    return f"texts/{key_of(exhibit['name'])}/{exhibit['step']}.md"


def milliseconds(seconds: float) -> int:
    """Returns a time in milliseconds, as the server counts it."""
    return round(seconds * 1000)


def _batches(key: Key, values: Mapping[str, float | None], time: float) -> Iterator[Batch]:
    metrics = [metric(name, value, time, key[1]) for name, value in values.items()]
    for part, begin in enumerate(range(0, len(metrics), MOST_METRICS)):
        yield Batch(((*key[:3], part),), metrics[begin : begin + MOST_METRICS])


def metric(name: str, value: float | None, time: float, step: int) -> Json:
    """Returns a metric in the server's form; a number that is not finite, null in the run's files, is NaN there."""
    shown = float(value) if value is not None and math.isfinite(value) else "NaN"
    return {"key": key_of(name), "value": shown, "timestamp": milliseconds(time), "step": step}


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # an id without a name, as in some containers
        return ""
