"""Compares the search with hand-written programs and with Optuna, and halving with plain random search.

python benchmarks/search.py [lanes asking wall halving many] [--output=FILE.json] [--quick] [--peer=PYTHON]
"""

import argparse
import itertools
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import timing  # before jax: puts this clone first on the path

from jaxtrain.commands.options import use_a_host_device_per_core

OWN_FLAGS = "XLA_FLAGS" in os.environ  # the user's own, which the started commands keep
use_a_host_device_per_core()  # before JAX starts, like the command

import images  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402
from bare_batch import make_batch  # noqa: E402
from float_data import float_split, host_float_split  # noqa: E402
from jax.sharding import PartitionSpec  # noqa: E402
from peers import is_installed  # noqa: E402

from jaxtrain.config.defaults import Config  # noqa: E402
from jaxtrain.config.identity import to_json  # noqa: E402
from jaxtrain.data.order import eval_batches  # noqa: E402
from jaxtrain.parallel.mesh import AXIS  # noqa: E402
from jaxtrain.search.programs import Programs  # noqa: E402
from jaxtrain.search.samplers import batch_size, make_sampler  # noqa: E402
from jaxtrain.search.space import Space, read_space  # noqa: E402
from jaxtrain.search.study import Ledger, LocalStudy  # noqa: E402
from jaxtrain.search.trials import Outcome, rank  # noqa: E402
from jaxtrain.training.experiment import Experiment  # noqa: E402

TRIALS = 32
HAND_BAR = 1.05
TORCH_AIM = 0.6
ASKING_BAR = 5.0
MANY = 1000
STEPS_BAR = 1 / 3
TIME_BAR = 0.45
POINTS_BAR = 0.1
SEEDS = 10
SPACE = {
    "optimizer": {
        "learning_rate": ("log_uniform", 1e-3, 1.0),
        "momentum": ("uniform", 0.0, 0.99),
        "weight_decay": ("log_uniform", 1e-6, 1e-2),
    }
}
Comparison = tuple[list[timing.Ratio], list[str]]


def main() -> None:
    """Runs the comparisons named on the command line, by default all of them."""
    parts = {"lanes": lanes, "asking": asking, "wall": wall, "halving": halving, "many": many}
    parser = argparse.ArgumentParser(description=timing.first_line(__doc__))
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(parts)} (all)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of the lanes; commands take a third")
    parser.add_argument("--peer", default=sys.executable, help="a Python that has torch and optuna (this one)")
    parser.add_argument("--output", type=Path, help="JSON file to write the results to")
    parser.add_argument("--quick", action="store_true", help="a few trials and steps, as a smoke test")
    options = parser.parse_args()
    bound = {name: partial(part, options) for name, part in parts.items()}
    ratios, notes = timing.run_parts(bound, options.parts)
    timing.report("The search (ours) and the same trials by other programs (theirs)", ratios, notes, options.output)


def study(quick: bool, **search: Any) -> tuple[Experiment, list[str]]:
    """Builds the MLP 784-128-128-10 for one epoch with batch size 128, SGD at a constant rate, one evaluation."""
    overrides = {
        "optimizer": {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 1e-4},
        "schedule": {},
        "train.duration": "4 steps" if quick else "1 epochs",
        "eval.every": "100 %",
        "search.space": SPACE,
        "search.trials": 4 if quick else TRIALS,
        "search.compare_seeds": 0,
        **{f"search.{name}": value for name, value in search.items()},
    }
    return images.experiment("fashion_mnist_mlp", overrides)


# Lanes: a batch of trials by the study and hand-written, both compiled and with the data on the devices


def lanes(options: argparse.Namespace) -> Comparison:
    """Compares a batch, from initial weights to outcomes, with a hand-written program."""
    experiment, notes = study(options.quick)
    space = read_space(experiment.config)
    programs = Programs()
    ours_program = partial(run_batch, space, programs)
    hand = by_hand(space, programs)
    took = timing.seconds_in_turns({"ours": ours_program, "by hand": hand}, 1 if options.quick else options.rounds)
    ours = sorted(np.inf if outcome.value is None else outcome.value for outcome in ours_program())
    theirs = sorted(np.nan_to_num(hand(), nan=np.inf))
    notes.append(f"best of {len(ours)} trials: ours {ours[0]:.4f}, by hand {theirs[0]:.4f} (other initial weights)")
    count = space.config["search"]["trials"]
    name = f"{count} trials of one epoch, shard_map(lax.map) by hand"
    return [timing.ratio(name, "s", took["ours"], took["by hand"], HAND_BAR)], notes


def run_batch(space: Space, programs: Programs) -> list[Outcome]:
    """Trains all trials of a study as one batch; returns their outcomes."""
    numbers = range(space.config["search"]["trials"])
    points = make_sampler(space, higher_is_better=False).ask(numbers)
    trials = [space.trial(number, point) for number, point in zip(numbers, points, strict=True)]
    higher_is_better = space.config["eval"]["metric"] != "loss"
    batch = make_batch(space, programs, trials, [space.config["seed"]], higher_is_better=higher_is_better)
    return [outcome for ended in batch.run(batch.new_work()) for outcome in ended]


def by_hand(space: Space, programs: Programs) -> Callable[[], np.ndarray]:
    """Returns the trials as a hand-written program: plain JAX, a scan over batches mapped over lanes on all devices."""
    experiment = programs.experiment(space.config)
    points = make_sampler(space, higher_is_better=False).ask(range(space.config["search"]["trials"]))
    rates = {key: np.array([point[key] for point in points], np.float32) for key in points[0]}
    train = float_split(experiment, "train")
    held_out = float_split(experiment, "validation")
    rows = experiment.batches(0, experiment.lengths.total, experiment.lengths.total).rows
    size = experiment.config["data"]["eval_batch_size"]
    places, mask = eval_batches(experiment.dataset.sizes["validation"], size)

    def loss(params: Any, inputs: Any, targets: Any) -> Any:
        hidden = inputs.reshape(len(inputs), -1)
        for i, (kernel, bias) in enumerate(params):
            hidden = hidden @ kernel + bias
            hidden = jax.nn.relu(hidden) if i < 2 else hidden
        return optax.softmax_cross_entropy_with_integer_labels(hidden, targets)

    def run(own: Any, train: Any, held_out: Any, rows: Any, places: Any, mask: Any) -> Any:
        keys = jax.random.split(jax.random.key(0), 3)
        widths = (784, 128, 128, 10)
        draw = jax.nn.initializers.lecun_normal()
        params = [
            (draw(key, pair), jnp.zeros(pair[1])) for key, pair in zip(keys, itertools.pairwise(widths), strict=True)
        ]
        optimizer = optax.chain(
            optax.add_decayed_weights(own["optimizer.weight_decay"]),
            optax.sgd(own["optimizer.learning_rate"], own["optimizer.momentum"]),
        )

        def step(carry: Any, row: Any) -> Any:
            params, state = carry
            mean = lambda params: loss(params, train["inputs"][row], train["targets"][row]).mean()  # noqa: E731
            value, slopes = jax.value_and_grad(mean)(params)
            updates, state = optimizer.update(slopes, state, params)
            return (optax.apply_updates(params, updates), state), value

        (params, _), losses = jax.lax.scan(step, (params, optimizer.init(params)), rows)

        def measure(total: Any, batch: Any) -> Any:
            row, counted = batch
            return total + (loss(params, held_out["inputs"][row], held_out["targets"][row]) * counted).sum(), None

        return jax.lax.scan(measure, jnp.zeros(()), (places, mask))[0] / mask.sum(), losses

    lane = PartitionSpec(AXIS)
    whole = PartitionSpec()
    mapped = jax.shard_map(
        lambda own, *shared: jax.lax.map(lambda one: run(one, *shared), own),
        mesh=experiment.mesh,
        in_specs=(lane, *[whole] * 5),
        out_specs=lane,
        check_vma=False,
    )
    program = jax.jit(mapped)
    return lambda: jax.device_get(program(rates, train, held_out, rows, places, mask))[0]


# Asking: the overhead of a trial beside its training


def asking(options: argparse.Namespace) -> Comparison:
    """Times ask, tell and ledger per trial without storage, and 1,000 trials of a tiny model by the command."""
    count, notes = (20, []) if options.quick else (1000, [])
    for sampler in ("random", "sobol", "tpe"):
        if sampler == "tpe" and not is_installed("optuna"):
            notes.append("tpe: not run, Optuna is not installed")
            continue
        experiment, _ = study(options.quick, sampler=sampler, trials=count, batch=100)
        with tempfile.TemporaryDirectory() as folder:
            seconds = _ask_and_tell(read_space(experiment.config), Path(folder), count)
        limit = "" if sampler == "tpe" else f" (at most {ASKING_BAR:.0f})"
        notes.append(f"asking, telling and ledger, {sampler}: {1e3 * seconds / count:.2f} ms a trial{limit}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tiny.json")
        path.write_text(to_json(_tiny(count)))
        began = time.perf_counter()
        command(path, Path(folder), "study")()
        took = time.perf_counter() - began
    return [], [*notes, f"{count:,} trials of a tiny model, report and comparison included: {took:.1f} s (at most 60)"]


def _ask_and_tell(space: Space, folder: Path, trials: int) -> float:
    """Asks for and tells all trials of a study without training them; returns the seconds."""
    ledger = Ledger(folder / "trials.jsonl", print)
    began = time.perf_counter()
    kept = LocalStudy(space, make_sampler(space, False), ledger, trials, batch_size(space.config["search"]))
    while taken := kept.take():
        kept.tell([_outcome(trial.number, trial.point) for trial in taken])
    ledger.close()
    return time.perf_counter() - began


def _outcome(number: int, point: dict[str, Any]) -> Outcome:
    value = sum(float(part) for part in point.values())
    return Outcome(number, "done", value, {0: value}, 100, point, point, [[100, value]], 0.1)


def _tiny(trials: int) -> Config:
    from jaxtrain import load_config

    small = {"model.hidden": (8,), "train.duration": "40 steps", "search.trials": trials, "search.batch": 250}
    path = timing.ROOT / "configs" / "digits_search.py"
    return load_config(path, {**small, "search.seeds": 1, "search.halving": None})


# Wall: time from process start to the best trial


def wall(options: argparse.Namespace) -> Comparison:
    """Compares the command, with cold and warm cache, with Optuna around single runs and around PyTorch."""
    experiment, notes = study(options.quick)
    trials = str(experiment.config["search"]["trials"])
    rounds = 1 if options.quick else -(-options.rounds // 3)
    programs: dict[str, Callable[[], Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "study.json"
        path.write_text(to_json(experiment.config))
        programs["cold"] = command(path, folder, "cold", cold=True)
        programs["warm"] = command(path, folder, "warm")
        if is_installed("optuna"):
            programs["solo"] = _script(sys.executable, "search_solo.py", path, trials, folder=folder)
        if is_installed("torch", options.peer):
            _save_arrays(experiment, folder / "data.npz")
            for jobs in (1, 2):
                line = (options.peer, "search_peers.py", folder / "data.npz", trials, str(jobs))
                programs[f"torch {jobs}"] = _script(*line, folder=folder)
        took = timing.seconds_in_turns(programs, rounds, warm=options.quick)
    told = {"solo": "Optuna around single runs", "torch 1": "PyTorch, 1 job", "torch 2": "PyTorch, 2 jobs"}
    ratios = [
        timing.ratio(f"{trials} trials, {temper} cache: search, {text}", "s", took[temper], took[name])
        for temper in ("cold", "warm")
        for name, text in told.items()
        if name in took
    ]
    notes.append(f"aim: {TORCH_AIM} of PyTorch with 2 jobs, cold" if "torch 2" in took else "PyTorch: not installed")
    return ratios, notes


def _save_arrays(experiment: Experiment, path: Path) -> None:
    """Writes the data in the form that search_peers.py reads."""
    train, held_out = (host_float_split(experiment, name) for name in ("train", "validation"))
    inputs, validation_inputs = (
        split["inputs"].reshape(len(split["inputs"]), -1).astype(np.float32) for split in (train, held_out)
    )
    np.savez(
        path,
        inputs=inputs,
        targets=train["targets"],
        validation_inputs=validation_inputs,
        validation_targets=held_out["targets"],
    )


def command(path: Path, folder: Path, name: str, *, cold: bool = False) -> Callable[[], None]:
    """Returns a function that runs `search` as a user types it, in a new directory; `cold` empties the cache first."""

    def run() -> None:
        for old in [f"{name}-study", *([f"{name}-cache"] if cold else [])]:
            shutil.rmtree(folder / old, ignore_errors=True)
        line = ["-m", "jaxtrain.main", "search", f"--config={path}", f"--workdir={folder / f'{name}-study'}"]
        _process([sys.executable, *line], folder / f"{name}-cache")

    return run


def _script(python: str, script: str, *arguments: Any, folder: Path) -> Callable[[], None]:
    line = [python, str(Path(__file__).with_name(script)), *map(str, arguments)]
    return partial(_process, line, folder / "script-cache")


def _process(line: Sequence[str], cache: Path) -> None:
    hidden = ("JAX_COMPILATION_CACHE_DIR", *([] if OWN_FLAGS else ["XLA_FLAGS"]))
    variables = {name: value for name, value in os.environ.items() if name not in hidden}
    subprocess.run(
        line, cwd=timing.ROOT, env=variables | {"XDG_CACHE_HOME": str(cache)}, check=True, stdout=subprocess.DEVNULL
    )


# Halving: the same trials with and without early stopping at rungs


def halving(options: argparse.Namespace) -> Comparison:
    """Compares random search of 32 trials of three epochs with and without halving: accuracy, steps, seconds."""
    made: list[dict[str, float]] = []
    times: dict[str, list[float]] = {"halved": [], "whole": []}
    notes: list[str] = []
    programs = Programs()
    for seed in [0, *range(1 if options.quick else SEEDS)]:  # the first round compiles and is not counted
        outcomes_of = {}
        for name, kind in (("halved", "successive"), ("whole", None)):
            experiment, notes = study(options.quick, halving=kind)
            config = {**experiment.config, "seed": seed}
            config["eval"] = {**config["eval"], "every": "10 %", "metric": "accuracy"}
            config["train"] = {**config["train"], "duration": "20 steps" if options.quick else "3 epochs"}
            space = read_space(config)
            began = time.perf_counter()
            outcomes_of[name] = run_batch(space, programs)
            times[name].append(time.perf_counter() - began)
        best = {name: rank(outcomes, True)[0].value or 0.0 for name, outcomes in outcomes_of.items()}
        steps = {name: sum(outcome.step for outcome in outcomes) for name, outcomes in outcomes_of.items()}
        made.append({"points": 100 * (best["whole"] - best["halved"]), "steps": steps["halved"] / steps["whole"]})
    made = made[1:]
    times = {name: seconds[1:] for name, seconds in times.items()}
    points, steps = (statistics.median(row[key] for row in made) for key in ("points", "steps"))
    notes += [
        f"halving, median of {len(made)} seeds: {points:.2f} points of accuracy behind random search (at most "
        f"{POINTS_BAR}), {steps:.3f} of its steps (at most {STEPS_BAR:.3f})",
        "halving, points behind by seed: " + ", ".join(f"{row['points']:.2f}" for row in made),
    ]
    return [
        timing.ratio("halving, random search of the same trials", "s", times["halved"], times["whole"], TIME_BAR)
    ], notes


# Many: a thousand trials on a GPU


def many(options: argparse.Namespace) -> Comparison:
    """Compares 1,000 trials of one epoch as one batch on a GPU with a single trial."""
    if jax.default_backend() == "cpu" and not options.quick:
        return [], ["1,000 trials at once: not run, no GPU"]
    programs: dict[str, Callable[[], Any]] = {}
    for count in (1, 3 if options.quick else MANY):
        experiment, _ = study(options.quick, trials=count)
        programs[str(count)] = partial(run_batch, read_space(experiment.config), Programs())
    took = timing.seconds_in_turns(programs, 1 if options.quick else options.rounds)
    one, most = took.values()
    return [timing.ratio(f"{[*took][-1]} trials of one epoch, one trial", "s", most, one)], []


if __name__ == "__main__":
    main()
