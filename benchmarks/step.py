"""The framework's calls against programs written by hand: the MLP with what may be added to it, and the CNN."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import by_hand
import images
import timing

import jax
from jaxtrain.experiment import Experiment
from jaxtrain.loop import CAPACITY
from jaxtrain.parallel import compiled_train_call

TOTAL_STEPS = 1_000_000  # the schedule's; a benchmark takes only its first few thousand
EXTRAS: dict[str, dict[str, Any]] = {
    "": {},
    "clip": {"optimizer.clip_norm": by_hand.CLIP_NORM},
    "dropout": {"model.dropout": by_hand.DROPOUT},
    "ema": {"train.ema": by_hand.EMA},
    "norm": {"model.norm": "batch"},
}


def framework_call(experiment: Experiment, steps: int) -> Callable[[], Any]:
    """Returns a call of the framework from the state of the call before, that reads what it reports."""
    call = compiled_train_call(experiment.rules, experiment.mesh, experiment.config["parallel"]["backend"])
    data, state = experiment.on_devices("train"), experiment.init()
    rows = experiment.indices(0, steps, steps)

    def run() -> Any:
        nonlocal state
        state, output = call(state, data, rows, steps)
        return jax.device_get(output)

    return run


def mlp(extra: str, steps: int, rounds: int) -> tuple[timing.Ratio, list[str]]:
    overrides = {"train.duration": f"{TOTAL_STEPS} steps", "optimizer.learning_rate": by_hand.LEARNING_RATE}
    experiment, notes = images.experiment("fashion_mnist_mlp", overrides | EXTRAS[extra])
    data = experiment.on_devices("train")
    program = by_hand.Program(TOTAL_STEPS, **({extra: True} if extra else {}))
    programs = {
        "ours": framework_call(experiment, steps),
        "theirs": program.compiled(data["inputs"], data["targets"], experiment.indices(0, steps, steps)),
    }
    took = timing.seconds_in_turns(programs, rounds)
    ours, theirs = ([1e3 * s / steps for s in took[side]] for side in ("ours", "theirs"))
    return timing.ratio(f"MLP {'with ' + extra if extra else ''}".strip(), "ms/step", ours, theirs, 1.05), notes


if __name__ == "__main__":
    import sys
    out = []
    for e in (sys.argv[2:] or EXTRAS):
        e = "" if e == "plain" else e
        r, notes = mlp(e, 500, int(sys.argv[1]))
        out.append(r)
    timing.report("step", out, notes, None)
