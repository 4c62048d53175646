"""Compares the calls of the framework with hand-written programs: the MLP with its options, and the CNN.

python benchmarks/step.py [mlp clip dropout ema norm cnn torch_mlp torch_cnn product] [--output=FILE.json] [--quick]
    [--peer=PYTHON]
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import by_hand
import images
import jax
import jax.numpy as jnp
import optax
import peers
import stock
import timing
from float_data import float_split, host_float_split

from jaxtrain.parallel.mesh import compile_train_call
from jaxtrain.training.experiment import Experiment
from jaxtrain.training.feeds import CAPACITY

TOTAL_STEPS = 1_000_000  # length of the schedule; only its beginning is run
ADDED: dict[str, dict[str, Any]] = {
    "mlp": {},
    "clip": {"optimizer.clip_norm": by_hand.CLIP_NORM},
    "dropout": {"model.dropout": by_hand.DROPOUT},
    "ema": {"train.ema": by_hand.EMA},
    "norm": {"model.norm": "batch"},
}
CNN = {"optimizer.name": "adam", "model.dropout": None}
MLP_BAR = 1.05
CNN_BAR = 0.33
CNN_AIM = 0.22  # of the stock layers

PEERS = ("torch_mlp", "torch_cnn", "product")

Programs = dict[str, Callable[[], Any]]


def main() -> None:
    """Runs the comparisons named on the command line, by default all of them."""
    names = [*ADDED, "cnn", *PEERS]
    parser = argparse.ArgumentParser(description=timing.first_line(__doc__))
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)} (all)")
    parser.add_argument("--rounds", type=int, default=31, help="rounds of an MLP; a CNN takes a third")
    parser.add_argument("--peer", default=sys.executable, help="a Python that has torch (this one)")
    parser.add_argument("--output", type=Path, help="JSON file to write the results to")
    parser.add_argument("--quick", action="store_true", help="a few steps, as a smoke test")
    options = parser.parse_args()
    if unknown := set(options.names) - set(names):
        parser.error(f"given {', '.join(sorted(unknown))}; allowed: {', '.join(names)}")
    has_torch = peers.is_installed("torch", options.peer)
    chosen = options.names or [name for name in names if has_torch or name not in PEERS]
    ratios = []
    notes = set() if has_torch else {"PyTorch: not installed"}
    rounds, capacity = (2, 4) if options.quick else (options.rounds, CAPACITY)
    for name in chosen:
        ratio, data = (
            product(options.peer, rounds) if name == "product" else compare(name, rounds, capacity, options.peer)
        )
        print(f"{ratio.name}: {ratio.ratio:.3f}", flush=True)
        ratios.append(ratio)
        notes |= set(data)
    timing.report(
        "Calls of the framework (ours) and hand-written programs (theirs)", ratios, sorted(notes), options.output
    )


def compare(name: str, rounds: int, capacity: int, peer: str) -> tuple[timing.Ratio, list[str]]:
    """Times one comparison in turns; returns its ratio and notes on the data."""
    if name in ADDED:
        overrides = {"optimizer.learning_rate": by_hand.LEARNING_RATE, **ADDED[name]}
        experiment, notes = _experiment("fashion_mnist_mlp", overrides)
        added: dict[str, Any] = {name: True} if ADDED[name] else {}
        programs = _hand_programs(experiment, by_hand.Program(TOTAL_STEPS, **added), capacity)
        return _time(f"MLP, {name}" if ADDED[name] else "MLP", programs, rounds, capacity, MLP_BAR), notes
    model = name.removeprefix("torch_")
    experiment, notes = _experiment(f"fashion_mnist_{model}", CNN if model == "cnn" else {})
    steps = capacity if model == "mlp" else max(1, capacity // 20)
    rounds = rounds if model == "mlp" else -(-rounds // 3)
    if name == "cnn":
        ratio = _time("CNN, stock layers", _stock_programs(experiment, steps, capacity), rounds, steps, CNN_BAR)
        return ratio, [*notes, f"aim of the CNN: {CNN_AIM} of the stock layers"]
    programs = _torch_programs(experiment, model, steps, capacity, peer)
    return _time(f"{model.upper()}, PyTorch", programs, rounds, steps), notes


def product(peer: str, rounds: int) -> tuple[timing.Ratio, list[str]]:
    """Times a float32 matrix product, which measures the BLAS library below each framework on this chip."""
    factor = jax.random.uniform(jax.random.key(0), (peers.SIDE, peers.SIDE))
    multiply = jax.jit(jnp.matmul)
    theirs = peers.in_process(peer, peers.device(), "product")
    programs = {"ours": lambda: multiply(factor, factor).block_until_ready(), "theirs": theirs}
    name = f"product {peers.SIDE}x{peers.SIDE}, PyTorch"
    ratio = _time(name, programs, rounds, 1)
    ours, torch = (2e-6 * peers.SIDE**3 / milliseconds for milliseconds in (ratio.ours, ratio.theirs))
    rates = f"{peers.SIDE}x{peers.SIDE} in float32: {ours:.0f} GFLOP/s in JAX, {torch:.0f} in PyTorch"
    return ratio, [f"{rates}, whose MKL is limited on AMD chips"]


def _experiment(config: str, overrides: dict[str, Any]) -> tuple[Experiment, list[str]]:
    return images.experiment(config, {"train.duration": f"{TOTAL_STEPS} steps", **overrides})


def _time(name: str, programs: Programs, rounds: int, steps: int, bar: float | None = None) -> timing.Ratio:
    took = timing.seconds_in_turns(programs, rounds)
    ours, theirs = ([1e3 * seconds / steps for seconds in took[side]] for side in ("ours", "theirs"))
    return timing.ratio(name, "ms/step", ours, theirs, bar)


def framework_call(experiment: Experiment, steps: int, capacity: int) -> Callable[[], Any]:
    """Returns a call of the framework that continues from the last call and returns its output on the host."""
    call = compile_train_call(experiment.rules, experiment.mesh, experiment.config["parallel"]["backend"])
    state = experiment.init()
    batches = experiment.batches(0, steps, capacity)

    def run() -> Any:
        nonlocal state
        state, output = call(state, batches, steps)
        return jax.device_get(output)

    return run


def _hand_programs(experiment: Experiment, program: by_hand.Program, steps: int) -> Programs:
    data = float_split(experiment, "train")
    rows = experiment.batches(0, steps, steps).rows
    theirs = program.compile(data["inputs"], data["targets"], rows)
    return {"ours": framework_call(experiment, steps, steps), "theirs": theirs}


def _stock_programs(experiment: Experiment, steps: int, capacity: int) -> Programs:
    data = float_split(experiment, "train")
    rate = experiment.config["optimizer"]["learning_rate"]
    adam = optax.adam(optax.cosine_onecycle_schedule(TOTAL_STEPS, rate))
    theirs = stock.compile_steps(adam, data["inputs"], data["targets"], experiment.batches(0, steps, steps).rows)
    return {"ours": framework_call(experiment, steps, capacity), "theirs": theirs}


def _torch_programs(experiment: Experiment, model: str, steps: int, capacity: int, peer: str) -> Programs:
    data = host_float_split(experiment, "train")
    rate = experiment.config["optimizer"]["learning_rate"]
    rows = experiment.batches(0, steps, steps).rows
    arrays = {"images": data["inputs"], "labels": data["targets"], "rows": rows}
    theirs = peers.in_process(peer, peers.device(), model, rate, TOTAL_STEPS, **arrays)
    return {"ours": framework_call(experiment, steps, capacity), "theirs": theirs}


if __name__ == "__main__":
    main()
