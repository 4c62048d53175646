"""Counts and times of a server, in the text form of Prometheus."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the histogram of times."""


@dataclass
class Histogram:
    """Counts of values up to each bound; those above the last are in `count` alone."""

    bounds: tuple[float, ...]
    count: int = 0
    sum: float = 0.0
    at_most: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Starts all counts at 0."""
        self.at_most = [0] * len(self.bounds)

    def add(self, value: float) -> None:
        """Counts a value."""
        self.count += 1
        self.sum += value
        for place, bound in enumerate(self.bounds):
            self.at_most[place] += value <= bound

    def lines(self, name: str) -> Iterable[str]:
        """Yields the lines of its samples."""
        for bound, count in zip(self.bounds, self.at_most, strict=True):
            yield f'{name}_bucket{{le="{bound:g}"}} {count}'
        yield f'{name}_bucket{{le="+Inf"}} {self.count}'
        yield f"{name}_sum {self.sum:g}"
        yield f"{name}_count {self.count}"


class Metrics:
    """Counts of a server. The device thread counts batches, the thread of the connections all else."""

    def __init__(self, sizes: Iterable[int]) -> None:
        self.responses: dict[int, int] = {}
        self.rows = 0
        self.dropped_rows = 0
        self.batches = dict.fromkeys(sizes, 0)
        self.batch_seconds = 0.0
        self.seconds = Histogram(SECONDS)

    def count_response(self, status: int) -> None:
        """Counts an answer by its HTTP status."""
        self.responses[status] = self.responses.get(status, 0) + 1

    def count_batch(self, rows: int, size: int, seconds: float) -> None:
        """Counts a batch of some rows, padded to a size."""
        self.rows += rows
        self.batches[size] += 1
        self.batch_seconds += seconds

    def render(self, gauges: Mapping[str, tuple[str, float]], model: Mapping[str, str]) -> str:
        """Returns the page for Prometheus; `gauges` are name -> (help, value), `model` labels of the model."""
        labels = ",".join(f'{name}="{_escape(value)}"' for name, value in model.items())
        responses = [f'{{code="{status}"}} {count}' for status, count in sorted(self.responses.items())]
        batches = [f'{{size="{size}"}} {count}' for size, count in self.batches.items()]
        counters = [
            ("responses_total", "Answers by HTTP status", responses),
            ("examples_total", "Examples that were predicted", [f" {self.rows}"]),
            ("dropped_examples_total", "Examples whose client had left or waited too long", [f" {self.dropped_rows}"]),
            ("batches_total", "Batches by the size that they were padded to", batches),
            ("batch_seconds_total", "Seconds spent in the program", [f" {self.batch_seconds:g}"]),
        ]
        lines = [*_family("model_info", "gauge", "The model that is served", [f"{{{labels}}} 1"])]
        for name, (meaning, value) in gauges.items():
            lines += _family(name, "gauge", meaning, [f" {value:g}"])
        for name, meaning, samples in counters:
            lines += _family(name, "counter", meaning, samples)
        name = "jaxtrain_inference_seconds"
        lines += [f"# HELP {name} Seconds from the begin of an inference to its answer", f"# TYPE {name} histogram"]
        return "\n".join([*lines, *self.seconds.lines(name)]) + "\n"


def _family(name: str, kind: str, meaning: str, samples: Iterable[str]) -> list[str]:
    full = f"jaxtrain_{name}"
    return [f"# HELP {full} {meaning}", f"# TYPE {full} {kind}", *(f"{full}{sample}" for sample in samples)]


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
