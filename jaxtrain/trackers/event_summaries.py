"""Event messages for TensorBoard: scalars under grouped tags, texts, pictures, histograms, charts.

tensorboardX, whose messages these are, is imported when the first one is made.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jaxtrain.config.section_traits import TRAITS
from jaxtrain.core.metric_names import DIAGNOSTICS, NORMS
from jaxtrain.trackers.base import ROW_KEYS, Histogram, Row
from jaxtrain.trackers.figures import Picture

if TYPE_CHECKING:
    from google.protobuf.message import Message as Event

RGB = 3
RGBA = 4


def version(wall_time: float) -> "Event":
    """Returns the event with which a file begins."""
    return event(wall_time, 0, file_version="brain.Event:2")


def row_event(now: float, row: Row) -> "Event":
    """Returns the scalars of a row of metrics.jsonl, at its own time, or `now` for a row without one."""
    return scalars(row.get("time", now), row["step"], row["split"], metrics_of(row))


def metrics_of(row: Row) -> dict[str, float | None]:
    """Returns the metrics of a row."""
    return {name: value for name, value in row.items() if name not in ROW_KEYS}


def scalars(wall_time: float, step: int, split: str, values: Mapping[str, float | None]) -> "Event":
    """Returns the scalars of a split; infinities are null in metrics.jsonl, and become nan live and rebuilt."""
    points = [{"tag": tag_of(name, split), "simple_value": finite_or_nan(value)} for name, value in values.items()]
    return event(wall_time, step, summary={"value": points})


def tag_of(name: str, split: str) -> str:
    """Returns the tag of a number: pages group tags by what stands before the first slash.

    The splits of a metric form a group, as do norms, the norms of each kind by layer, and hyperparameters.
    """
    if name.startswith(NORMS):
        kind, _, layer = name.removeprefix(NORMS).partition("/")
        return f"norms: {kind} by layer/{layer}" if layer else f"norms/{kind}"
    if name.partition(".")[0] in TRAITS and "." in name:
        return f"hyperparameters/{name}"
    return f"{name}/{split}"


def performance(wall_time: float, step: int, values: Mapping[str, float]) -> "Event":
    """Returns the numbers of performance as scalars of one group."""
    points = [{"tag": f"performance/{name}", "simple_value": finite_or_nan(value)} for name, value in values.items()]
    return event(wall_time, step, summary={"value": points})


def finite_or_nan(value: float | None) -> float:
    """Returns the value, nan in the place of None and infinities."""
    return float(value) if value is not None and math.isfinite(value) else math.nan


def text(wall_time: float, step: int, name: str, content: str) -> "Event":
    """Returns a text, which TensorBoard renders as Markdown."""
    from tensorboardX.summary import text as text_summary

    return event(wall_time, step, summary=text_summary(name, content))


def image(wall_time: float, step: int, name: str, picture: Picture, colorspace: int = RGB) -> "Event":
    """Returns a picture."""
    content = {"width": picture.width, "height": picture.height, "colorspace": colorspace}
    content |= {"encoded_image_string": picture.png}
    return event(wall_time, step, summary={"value": [{"tag": name, "image": content}]})


def histogram(wall_time: float, step: int, name: str, counted: Histogram) -> "Event":
    """Returns a histogram."""
    bins = len(counted.counts)
    width = (counted.high - counted.low) / bins
    content = {
        "min": counted.low,
        "max": counted.high,
        "num": sum(counted.counts),
        "sum": counted.sum,
        "sum_squares": counted.sum_squares,
        "bucket_limit": [*(counted.low + width * i for i in range(1, bins)), counted.high],
        "bucket": counted.counts,
    }
    return event(wall_time, step, summary={"value": [{"tag": name, "histo": content}]})


def session(wall_time: float, point: Mapping[str, Any]) -> tuple["Event", "Event"]:
    """Returns the begin and the end of a run or trial for the page HPARAMS, which reads metrics from scalars.

    Values that are neither numbers nor booleans are written as text. There is no experiment: the page would show the
    columns of one only, whichever it met first; from sessions alone it shows those of all runs in a folder.
    """
    from tensorboardX.summary import hparams

    known = {name: value if isinstance(value, bool | int | float) else str(value) for name, value in point.items()}
    _experiment, begin, end = hparams(known, {})
    return event(wall_time, 0, summary=begin), event(wall_time, 0, summary=end)


class Charts:
    """The charts of the page CUSTOM SCALARS: the splits of each metric together."""

    def __init__(self) -> None:
        """Starts without a metric."""
        self._names: dict[str, None] = {}

    def add(self, wall_time: float, step: int, names: Mapping[str, Any]) -> "Event | None":
        """Returns the charts if a metric of these names is new; the page takes the newest."""
        new = {name: None for name in names if _has_chart(name)}
        if new.keys() <= self._names.keys():
            return None
        self._names |= new
        from tensorboardX.summary import custom_scalars

        charts = {name: ["Multiline", [f"{name}/{split}" for split in SPLITS]] for name in self._names}
        return event(wall_time, step, summary=custom_scalars({"Metrics of all splits": charts}))


SPLITS = ("train", "validation", "test")


def _has_chart(name: str) -> bool:
    is_one = not name.startswith(DIAGNOSTICS) and "/" not in name
    return is_one and tag_of(name, "train") == f"{name}/train"


def event(wall_time: float, step: int, **content: object) -> "Event":
    """Returns an event message with its time and step."""
    from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue] (built at import)

    return Event(wall_time=wall_time, step=step, **content)
