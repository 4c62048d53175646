"""Compares the values of a trial (`search.value`) by the runs of the rate that each chooses on noisy tasks.

A study trains 24 random rates with one seed, and each value chooses one of them. All rates are trained again with six
seeds that the study did not use; the regret of a choice is how far its mean loss, at the best or at the last evaluation
of a run, is above that of the rate that is best by this measure.

python benchmarks/search_value.py [--studies=8] [--output=FILE.json] [--quick]
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timing  # before jax: puts this clone first on the path

from jaxtrain.commands.options import use_a_host_device_per_core

use_a_host_device_per_core()  # before JAX starts, like the command

import numpy as np  # noqa: E402
from bare_batch import make_batch  # noqa: E402
from noisy_tasks import TASKS  # noqa: E402

from jaxtrain.config.resolve import resolve_config  # noqa: E402
from jaxtrain.config.trial_value import last_evaluations  # noqa: E402
from jaxtrain.search.programs import Programs  # noqa: E402
from jaxtrain.search.samplers import make_sampler  # noqa: E402
from jaxtrain.search.space import read_space  # noqa: E402
from jaxtrain.search.trials import Judgement, Record  # noqa: E402

VALUES = ("best", "last", "mean of last 3", "mean of last 5")
READINGS = ("best", "last")
UNUSED = range(1000, 1006)
Records = Mapping[tuple[int, int], Record]


def main() -> None:
    """Compares the values on every task, in a quick run on one."""
    parser = argparse.ArgumentParser(description=timing.first_line(__doc__))
    parser.add_argument("--studies", type=int, default=8, help="studies of each task")
    parser.add_argument("--output", type=Path, help="JSON file to write the results to")
    parser.add_argument("--quick", action="store_true", help="a few rates and steps, as a smoke test")
    options = parser.parse_args()
    where = timing.environment()
    rows = [["task", "value", *(f"{name} regret by the {read}" for read in READINGS for name in ("median", "mean"))]]
    found: dict[str, Any] = {}
    for name in list(TASKS)[: 1 if options.quick else None]:
        regrets = [_study(name, seed, options.quick) for seed in range(1 if options.quick else options.studies)]
        found[name] = {value: [regret[value] for regret in regrets] for value in VALUES}
        for value in VALUES:
            cells = [[regret[value][read] for regret in regrets] for read in READINGS]
            figures = [f"{figure(cell):.4f}" for cell in cells for figure in (np.median, np.mean)]
            rows.append([name, value, *figures])
    print("\n".join([timing.first_line(__doc__), *timing.environment_lines(where), "", *timing.table(rows)]))
    timing.save({"regrets": found, "environment": where}, options.output)


def _study(name: str, seed: int, quick: bool) -> dict[str, dict[str, float]]:
    """Returns value of a trial -> reading of a run -> regret of the rate that the value chooses, as a share."""
    given, (low, high) = TASKS[name]
    more = {
        "seed": seed,
        "data.batch_size": 32,
        "data.validation_fraction": 0.25,
        "model.hidden": (64,),
        "train.duration": "20 steps" if quick else "400 steps",
        "eval.every": "5 %",
        "search.trials": 4 if quick else 24,
        "search.space.optimizer.learning_rate": ("log_uniform", low, high),
    }
    space = read_space(resolve_config(given, more).config)
    numbers = range(1, space.config["search"]["trials"] + 1)
    programs = Programs()
    records = {}
    for seeds in ([seed], UNUSED):
        points = make_sampler(space, False).ask(numbers)
        trials = [space.trial(number, point) for number, point in zip(numbers, points, strict=True)]
        batch = make_batch(space, programs, trials, list(seeds))
        work = batch.new_work()
        for _ in batch.run(work):
            pass
        records |= work.records
    again = {read: {n: _mean(records, n, UNUSED, read) for n in numbers} for read in READINGS}
    chosen = {value: min(numbers, key=lambda n, value=value: _mean(records, n, [seed], value)) for value in VALUES}
    return {
        value: {read: again[read][number] / min(again[read].values()) - 1.0 for read in READINGS}
        for value, number in chosen.items()
    }


def _mean(records: Records, number: int, seeds: Sequence[int], value: str) -> float:
    """Returns the value of a rate over seeds; infinite if one diverged."""
    judgement = Judgement(higher_is_better=False, patience=None, last=last_evaluations(value))
    mean = judgement.value([records[number, seed] for seed in seeds])
    return np.inf if mean is None else mean


if __name__ == "__main__":
    main()
