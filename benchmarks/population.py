"""Compares the population with the same runs in sequence, and times the `lr_range` command.

python benchmarks/population.py [calls cnn memory commands lanes] [--output=FILE.json] [--quick]
"""

import argparse
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import timing  # before jax: puts this clone first on the path

from jaxtrain.commands.options import use_a_host_device_per_core

OWN_FLAGS = "XLA_FLAGS" in os.environ  # the user's own, which the started commands keep
use_a_host_device_per_core()  # before JAX starts, like the commands that run populations

import images  # noqa: E402
import jax  # noqa: E402
import numpy as np  # noqa: E402
import peers  # noqa: E402
from float_data import host_float_split  # noqa: E402
from lane_programs import by_hand, lanes_call, solo_calls, solo_steps, torch_loop  # noqa: E402

from jaxtrain.core.batches import Batches  # noqa: E402
from jaxtrain.parallel.population import Population  # noqa: E402
from jaxtrain.parallel.width import fit_width  # noqa: E402
from jaxtrain.training.experiment import Experiment  # noqa: E402

LANES = 32
STEPS = 100
LOOP_BAR = 0.58
CALLS_BAR = 0.80
HAND_BAR = 1.05
DEAD_BAR = 0.60
SEEDS_BAR = 3.0
FASTAI_BAR = 1.5
CNN_LANES = 16  # also the bar: at most this many times one run
MANY = 1000  # lanes of this MLP on a GPU
MANY_BAR = 20.0  # times the call of one lane
Programs = dict[str, Callable[[], Any]]


def main() -> None:
    """Runs the comparisons named on the command line, by default all of them."""
    parts = {"calls": calls, "cnn": cnn, "memory": memory, "commands": commands, "lanes": many_lanes}
    parser = argparse.ArgumentParser(description=timing.first_line(__doc__))
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(parts)} (all)")
    parser.add_argument("--rounds", type=int, default=9, help="rounds of the calls; commands take a third")
    parser.add_argument("--output", type=Path, help="JSON file to write the results to")
    parser.add_argument("--quick", action="store_true", help="a few lanes and steps, as a smoke test")
    options = parser.parse_args()
    rounds = 1 if options.quick else options.rounds
    bound = {name: partial(part, options.quick, rounds) for name, part in parts.items()}
    ratios, notes = timing.run_parts(bound, options.parts)
    timing.report(
        "Lanes of one program (ours) and the same runs by other programs (theirs)", ratios, notes, options.output
    )


def _experiment(model: str = "mlp") -> tuple[Experiment, list[str]]:
    """Builds the MLP 784-128-128-10 or the CNN with batch size 128 for a run of a million steps."""
    return images.experiment(f"fashion_mnist_{model}", {"train.duration": "1000000 steps"})


# Calls: each program in turn takes the same steps of all lanes


def calls(quick: bool, rounds: int) -> tuple[list[timing.Ratio], list[str]]:
    """Compares 32 lanes with 32 solo runs, with a hand-written program, and with half of the lanes dead."""
    experiment, notes = _experiment()
    lanes, steps = (4, 2) if quick else (LANES, STEPS)
    ours = lanes_call(experiment, lanes, steps)
    programs: Programs = {
        "lanes": ours,
        "loop": solo_steps(experiment, lanes, steps),
        "solo calls": solo_calls(experiment, lanes, steps),
        "by hand": by_hand(experiment, lanes, steps),
        "half dead": lanes_call(experiment, lanes, steps, dead=lanes // 2),
    }
    if peers.torch():
        programs["torch"] = torch_loop(experiment, lanes, steps)
    took = timing.seconds_in_turns(programs, rounds)
    each = {name: [1e3 * seconds / (lanes * steps) for seconds in rounds_of] for name, rounds_of in took.items()}
    against = {"loop": LOOP_BAR, "solo calls": CALLS_BAR, "by hand": HAND_BAR, "torch": None}
    told = {
        "loop": f"{lanes} lanes, a Python loop of jitted steps",
        "solo calls": f"{lanes} lanes, solo runs by compiled calls",
        "by hand": f"{lanes} lanes, shard_map(lax.map) by hand",
        "torch": f"{lanes} lanes, a PyTorch loop",
    }
    unit = "ms/lane-step"
    ratios = [
        timing.ratio(told[name], unit, each["lanes"], each[name], bar) for name, bar in against.items() if name in each
    ]
    ratios.append(timing.ratio("half of the lanes dead, all alive", unit, each["half dead"], each["lanes"], DEAD_BAR))
    notes.append(f"lanes on {len(jax.local_devices())} devices, solo runs on one; {steps} steps a call")
    return ratios, notes + ([] if peers.torch() else ["PyTorch: not installed"])


def cnn(quick: bool, rounds: int) -> tuple[list[timing.Ratio], list[str]]:
    """Compares a call of 16 lanes of the CNN with the same call of one run."""
    experiment, notes = _experiment("cnn")
    lanes, steps = (2, 1) if quick else (CNN_LANES, 4)
    programs = {"lanes": lanes_call(experiment, lanes, steps), "one": solo_calls(experiment, 1, steps)}
    took = timing.seconds_in_turns(programs, rounds)
    name = f"CNN: {lanes} lanes, one run"
    return [timing.ratio(name, "s/call", took["lanes"], took["one"], float(lanes))], notes


# Memory: the plan of the compiler and the measured peak


def memory(quick: bool, rounds: int) -> tuple[list[timing.Ratio], list[str]]:
    """Compares the memory planned by the compiler for a call with the measured peak of the process or device."""
    experiment, _ = _experiment()
    lanes, steps = (4, 2) if quick else (LANES, STEPS)
    population = Population(experiment.rules, experiment.mesh, lanes)
    batches = Batches(experiment.dataset.split("train"), experiment.batches(0, steps, steps).rows)
    planned = population.plan_bytes(experiment.hparams, batches) / 2**20
    lanes_call(experiment, lanes, steps)()  # compiles, so that the next call only allocates
    experiment = _experiment()[0]
    before = _peak_bytes(reset=True)
    if before is None:
        return [], ["memory: this system does not report the peak memory of a process"]
    lanes_call(experiment, lanes, steps)()
    measured = ((_peak_bytes() or before) - before) / 2**20
    devices = 1 if jax.default_backend() != "cpu" else len(jax.local_devices())
    return [], [
        f"memory of {lanes} lanes: planned {planned:,.0f} MiB on each device, {devices * planned:,.0f} MiB on "
        f"{devices}; measured {measured:,.0f} MiB"
    ]


def _peak_bytes(reset: bool = False) -> float | None:
    """Returns the peak bytes of the first device, or on a CPU of this process, since the reset; None if not reported.

    The peak of a process is read from Linux's /proc. With `reset` the count starts again from the current use.
    """
    statistics = jax.local_devices()[0].memory_stats()
    if statistics:
        return statistics["bytes_in_use" if reset else "peak_bytes_in_use"]
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        (kibibytes,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    except (OSError, ValueError):
        return None
    return 1024.0 * int(kibibytes)


# Commands: wall time from process start to exit, with a warm compilation cache

FASTAI = """
import sys
import matplotlib
matplotlib.use("Agg")
import matplotlib.pyplot
import numpy
import torch
from fastai.basics import Adam, DataLoaders, Learner, TensorDataset
from fastai.callback import schedule

arrays = numpy.load(sys.argv[1])
inputs = torch.tensor(arrays["inputs"])
targets = torch.tensor(arrays["targets"], dtype=torch.long)
parts = TensorDataset(inputs, targets), TensorDataset(inputs[:1000], targets[:1000])
dims = (784, 128, 128, 10)
layers = [torch.nn.Flatten()]
for i, width in enumerate(dims[1:]):
    layers += [torch.nn.ReLU()] * (i > 0) + [torch.nn.Linear(dims[i], width)]
learner = Learner(DataLoaders.from_dsets(*parts, bs=128), torch.nn.Sequential(*layers), torch.nn.CrossEntropyLoss())
print(learner.lr_find(num_it=100))
matplotlib.pyplot.savefig(sys.argv[2])
"""


def commands(quick: bool, rounds: int) -> tuple[list[timing.Ratio], list[str]]:
    """Times the range test by `ramp` with 100 rates, for one seed and eight, by `lanes`, and by fastai's finder."""
    config, notes = ("digits", []) if quick else ("fashion_mnist_mlp", images.use_data())
    rounds = -(-rounds // 3)
    with tempfile.TemporaryDirectory() as folder:
        few = ["--config.lr_range.rates=8", "--config.lr_range.seeds=1"] if quick else []
        ramp = ["--config.lr_range.method=ramp", "--config.lr_range.rates=100"]
        programs: Programs = {
            "ramp": _command(config, [*ramp, "--config.lr_range.seeds=1"], Path(folder)),
            "8 seeds": _command(config, [*ramp, "--config.lr_range.seeds=8"], Path(folder)),
            "lanes": _command(config, few, Path(folder)),
        }
        if fastai := importlib.util.find_spec("fastai") is not None and not quick:
            programs["fastai"] = _fastai(Path(folder))
        took = timing.seconds_in_turns(programs, rounds, warm=quick)
    ratios = [
        timing.ratio("range test by ramp: 8 seeds, one", "s", took["8 seeds"], took["ramp"], SEEDS_BAR),
        timing.ratio("range test: lanes, ramp of 100 rates", "s", took["lanes"], took["ramp"]),
    ]
    if fastai:
        ratios.append(timing.ratio("range test by ramp, fastai", "s", took["ramp"], took["fastai"], FASTAI_BAR))
    return ratios, notes + ([] if fastai else ["fastai: not installed"])


def _command(config: str, words: Sequence[str], folder: Path) -> Callable[[], Any]:
    """Returns a function that runs the command as a user types it, in a process of its own."""
    path = timing.ROOT / "configs" / f"{config}.py"
    workdir = folder / f"run{time.perf_counter_ns()}"
    line = [sys.executable, "-m", "jaxtrain.main", "lr_range", f"--config={path}", f"--workdir={workdir}", *words]
    hidden = ("JAX_COMPILATION_CACHE_DIR", *([] if OWN_FLAGS else ["XLA_FLAGS"]))
    variables = {name: value for name, value in os.environ.items() if name not in hidden}
    return _process(line, variables | {"XDG_CACHE_HOME": str(folder / "cache")})


def _fastai(folder: Path) -> Callable[[], Any]:
    """Returns a function that runs fastai's finder as a script, which also draws its picture."""
    data = host_float_split(_experiment()[0], "train")
    np.savez(folder / "data.npz", inputs=data["inputs"], targets=data["targets"])
    line = [sys.executable, "-c", FASTAI, str(folder / "data.npz"), str(folder / "fastai.png")]
    return _process(line, dict(os.environ))


def _process(line: Sequence[str], variables: Mapping[str, str]) -> Callable[[], Any]:
    return partial(subprocess.run, line, cwd=timing.ROOT, env=variables, check=True, stdout=subprocess.DEVNULL)


# Lanes: find the lane count at which throughput saturates


def many_lanes(quick: bool, rounds: int) -> tuple[list[timing.Ratio], list[str]]:
    """Times a call of 1 to 4,096 lanes on a GPU, stepping as many at once as memory allows."""
    if jax.default_backend() == "cpu" and not quick:
        return [], ["1 to 4,096 lanes: not run, no GPU"]
    experiment, _ = _experiment()
    steps, counts = (2, [1, 2]) if quick else (STEPS, [1, 4, 16, 64, 256, MANY, 4096])
    took = {}
    notes = []
    for lanes in counts:
        run, width = _wide_call(experiment, lanes, steps)
        took[lanes] = timing.seconds_in_turns({"ours": run}, rounds)["ours"]
        notes.append(f"{lanes:,} lanes at width {width:,}: {lanes * steps / min(took[lanes]):,.0f} lane-steps/s")
    most = max(counts, key=lambda lanes: lanes / min(took[lanes]))
    notes.append(f"highest throughput: {most:,} lanes")
    if MANY not in took:
        return [], notes
    name = f"{MANY:,} lanes, one lane"
    return [timing.ratio(name, "s/call", took[MANY], took[1], MANY_BAR)], notes


def _wide_call(experiment: Experiment, lanes: int, steps: int) -> tuple[Callable[[], Any], int]:
    batches = experiment.batches(0, steps, steps)
    population = Population(experiment.rules, experiment.mesh, lanes)
    population = fit_width(population, None, experiment.hparams, batches)
    states = population.init(range(lanes), experiment.hparams, experiment.example)

    def run() -> Any:
        nonlocal states
        states, output = population.call(states, batches, steps)
        return population.fetch(output)

    return run, population.effective_width


if __name__ == "__main__":
    main()
