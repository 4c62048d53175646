"""Plants bad batches in runs with `train.on_spike`, and counts which were named and undone; sound runs must skip none.

python benchmarks/spikes.py [--runs=34] [--sound=50] [--steps=300] [--output=FILE.json]

Each run with a fault has one bad batch, at a step of its own. It has recovered if its validation loss lies within the
99 % interval of the sound runs, each of which has a seed and data of its own: mean and 2.58 standard deviations.
"""

import argparse
import importlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import timing

sys.path.insert(0, str(timing.ROOT / "tests"))

from jaxtrain.config.resolve import resolve_config
from jaxtrain.storage.result import Result
from jaxtrain.training.train import train_and_evaluate

planted = importlib.import_module("planted_spikes")

FIRST = 100
"""The first step at which a batch is bad: the recent past is 64 steps, and something must have been learnt."""


def main() -> None:
    """Runs the sound runs, then those with a bad batch, and prints the counts."""
    parser = argparse.ArgumentParser(description=timing.first_line(__doc__))
    parser.add_argument("--runs", type=int, default=34, help="runs of each fault")
    parser.add_argument("--sound", type=int, default=50, help="runs without a fault")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--output", type=Path, help="writes the counts as JSON")
    parser.add_argument("--quick", action="store_true", help="takes one run of each fault and two sound ones")
    options = parser.parse_args()
    runs, sound = (1, 2) if options.quick else (options.runs, options.sound)
    table = measure(runs, sound, options.steps)
    where = timing.environment()
    print("\n".join([*timing.environment_lines(where), json.dumps(table, indent=2)]))
    timing.save({**table, "environment": where}, options.output)


def measure(runs: int, sound: int, steps: int) -> dict[str, Any]:
    """Returns the counts of planted, named, falsely named and recovered batches, by fault."""
    clean = [_train(seed, steps, {}) for seed in range(sound)]
    losses = [_loss(result) for result in clean]
    limit = float(np.mean(losses) + 2.58 * np.std(losses, ddof=1))
    places = np.random.default_rng(0).integers(FIRST, steps - 10, (len(planted.FAULTS), runs))
    faults = {}
    for name, own in zip(planted.FAULTS, places, strict=True):
        results = [_train(seed, steps, {int(step): name}) for seed, step in enumerate(own)]
        named = [[batch["step"] for batch in result.skipped] for result in results]
        faults[name] = {
            "planted": runs,
            "named": sum(int(step) in steps for step, steps in zip(own, named, strict=True)),
            "named falsely": sum(len(set(steps) - {int(step)}) for step, steps in zip(own, named, strict=True)),
            "recovered": sum(_loss(result) <= limit for result in results),
        }
    return {
        "sound runs": sound,
        "sound batches skipped": sum(len(result.skipped) for result in clean),
        "validation loss of sound runs": {"mean": float(np.mean(losses)), "limit": limit},
        "faults": faults,
    }


def _train(seed: int, steps: int, faults: dict[int, str]) -> Result:
    given = {
        "data": {"name": "digits", "batch_size": planted.SIZE},
        "model": {"name": "mlp", "hidden": (32,), "dropout": 0.1},
        "optimizer": {"name": "adamw", "learning_rate": 0.01},
        "parallel": {"mesh": 1},
        "track": {"tensorboard": False, "pictures": None, "histograms": None},
    }
    config = resolve_config(given, planted.overrides(steps) | {"seed": seed}).config
    with tempfile.TemporaryDirectory() as folder:
        return train_and_evaluate(config, folder, data=planted.source(steps, faults, seed), quiet=True)


def _loss(result: Result) -> float:
    return result.last["validation"]["loss"]


if __name__ == "__main__":
    main()
