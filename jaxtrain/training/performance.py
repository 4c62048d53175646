"""The speed of a run between one logged step and the next: no metrics, since they belong to a machine."""

from typing import NamedTuple

from jaxtrain.config.seeds import lane_count
from jaxtrain.parallel.peak_flops import peak_flops
from jaxtrain.training.experiment import Experiment
from jaxtrain.training.guard_rule import step_flops


class Reading(NamedTuple):
    """A step, and the seconds in steps and in waits for data until then."""

    step: int
    seconds: float
    waits: float


class Performance:
    """Measures speed, memory and utilisation of the devices."""

    def __init__(self, experiment: Experiment) -> None:
        """Counts nothing yet: the FLOP of a step are counted by `count`, from another thread."""
        self._experiment = experiment
        self._last: Reading | None = None
        self._flops: float | None = None

    def count(self) -> None:
        """Counts the FLOP of a step, from its trace, which takes about as long as a trace before a compilation."""
        experiment = self._experiment
        self._flops = step_flops(experiment.rules, experiment.state_shapes(), experiment.batch_shapes)

    @property
    def at(self) -> int:
        """The step of the last reading, or -1."""
        return -1 if self._last is None else self._last.step

    def read(self, reading: Reading, compile_seconds: float) -> dict[str, float]:
        """Returns the numbers since the last reading; none of speed at the first one, which compiles."""
        last = self._last
        self._last = reading
        numbers = {"compile_seconds": compile_seconds} | self._memory()
        if last is None or reading.seconds <= last.seconds:
            return numbers
        steps = reading.step - last.step
        seconds = reading.seconds - last.seconds
        lanes = lane_count(self._experiment.config)
        examples = steps * lanes * self._experiment.config["data"]["batch_size"]
        numbers |= {
            "examples_per_second": examples / seconds,
            "milliseconds_per_step": 1e3 * seconds / steps,
            "data_wait_share": min(1.0, (reading.waits - last.waits) / seconds),
        }
        return numbers | self._utilisation(steps * lanes / seconds)

    def _utilisation(self, steps_per_second: float) -> dict[str, float]:
        """Returns FLOP a second, once they are counted, and their share of what the devices can do, if known."""
        if self._flops is None:
            return {}
        rate = self._flops * steps_per_second
        mesh = self._experiment.mesh
        precision = self._experiment.config["train"]["precision"]
        peak = peak_flops(mesh.devices.flat[0].device_kind, precision)
        share = {} if peak is None else {"model_flops_utilisation": rate / (peak * mesh.size)}
        return {"flops_per_second": rate, **share}

    def _memory(self) -> dict[str, float]:
        """Returns the bytes in use and the most ever in use on the first device, where it counts them."""
        statistics = self._experiment.mesh.devices.flat[0].memory_stats() or {}
        names = {"device_memory_bytes": "bytes_in_use", "device_memory_peak_bytes": "peak_bytes_in_use"}
        return {name: float(statistics[key]) for name, key in names.items() if key in statistics}
