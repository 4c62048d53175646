"""Times a step with each optimizer and each schedule on the MLP 784-128-128-10.

python benchmarks/families.py [NAME ...] [--rounds=N] [--output=FILE.json] [--quick]
"""

import argparse
from pathlib import Path
from typing import Any

import by_hand
import images
import timing
from float_data import float_split
from step import framework_call

from jaxtrain.config.registry import knobs_of
from jaxtrain.config.schema import MISSING
from jaxtrain.optimizers import OPTIMIZERS
from jaxtrain.optimizers.schedules import SCHEDULES
from jaxtrain.training.experiment import Experiment
from jaxtrain.training.feeds import CAPACITY

RATE = 1e-4  # low enough that no optimizer diverges
STEPS = 1_000_000  # length of the schedule; only its beginning is run
OPTIMIZER_BAR = 1.1
SCHEDULE_BAR = 1.02


def main() -> None:
    """Times the members named on the command line, by default all of them."""
    parts = {f"optimizer:{name}": _optimizer for name in OPTIMIZERS.members}
    parts |= {f"schedule:{name}": _schedule for name in SCHEDULES.members if name != "constant"}
    parser = argparse.ArgumentParser(description=timing.first_line(__doc__))
    parser.add_argument("names", nargs="*", metavar="NAME", help="such as optimizer:lion or schedule:sgdr (all)")
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--output", type=Path, help="JSON file to write the results to")
    parser.add_argument("--quick", action="store_true", help="a few steps, as a smoke test")
    options = parser.parse_args()
    rounds, steps = (2, 4) if options.quick else (options.rounds, CAPACITY)
    chosen: dict[str, timing.Part] = {
        name: (lambda part=part, name=name: part(name.partition(":")[2], rounds, steps)) for name, part in parts.items()
    }
    ratios, notes = timing.run_parts(chosen, options.names)
    title = "Steps with each optimizer (ours) to optax by hand (theirs), with each schedule (ours) to none (theirs)"
    timing.report(title, ratios, sorted(set(notes)), options.output)


def _optimizer(name: str, rounds: int, steps: int) -> tuple[list[timing.Ratio], list[str]]:
    """Compares our call, whose floats are traced, with a hand-written scan of the optax optimizer with constants."""
    experiment, notes = _experiment({"optimizer": {"name": name, "learning_rate": RATE}, "schedule": None})
    data = float_split(experiment, "train")
    rows = experiment.batches(0, steps, steps).rows
    function = OPTIMIZERS.members[name]
    knobs = knobs_of(function).items()
    plain = {name: knob.default for name, knob in knobs if knob.default is not MISSING}
    program = by_hand.Program(STEPS, own=function(**(plain | {"learning_rate": RATE})))
    theirs = program.compile(data["inputs"], data["targets"], rows)
    programs = {"ours": framework_call(experiment, steps, steps), "theirs": theirs}
    return [_time(f"optimizer {name}", programs, rounds, steps, OPTIMIZER_BAR)], notes


def _schedule(name: str, rounds: int, steps: int) -> tuple[list[timing.Ratio], list[str]]:
    """Compares a call with the schedule to the same call without one."""
    programs: dict[str, Any] = {}
    notes: list[str] = []
    for side, schedule in (("ours", name), ("theirs", None)):
        entry = {"optimizer": {"learning_rate": schedule}} if schedule else None
        experiment, notes = _experiment({"optimizer": {"name": "adam", "learning_rate": RATE}, "schedule": entry})
        programs[side] = framework_call(experiment, steps, steps)
    return [_time(f"schedule {name}", programs, rounds, steps, SCHEDULE_BAR)], notes


def _experiment(overrides: dict[str, Any]) -> tuple[Experiment, list[str]]:
    return images.experiment("fashion_mnist_mlp", {"train.duration": f"{STEPS} steps", **overrides})


def _time(name: str, programs: Any, rounds: int, steps: int, bar: float) -> timing.Ratio:
    took = timing.seconds_in_turns(programs, rounds)
    ours, theirs = ([1e3 * seconds / steps for seconds in took[side]] for side in ("ours", "theirs"))
    return timing.ratio(name, "ms/step", ours, theirs, bar)


if __name__ == "__main__":
    main()
