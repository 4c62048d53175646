"""Compares random search of 32 full runs with what a third of them buys by halving, on seeds that neither used.

python benchmarks/search_halving.py [--studies=3] [--output=FILE.json] [--quick]
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import search_learning  # before jax: makes a device per core
import timing
from bare_batch import make_batch
from jax import clear_caches

from jaxtrain.config.resolve import resolve_config
from jaxtrain.search.budget import buy
from jaxtrain.search.programs import Programs
from jaxtrain.search.samplers import batch_size, make_sampler
from jaxtrain.search.space import Space, Trial, read_space
from jaxtrain.search.trials import Outcome, compare_by_seed, rank

TASKS = search_learning.TASKS[:5]
FULL = 32
UNUSED = range(100, 112)
BAR = 12


@dataclass(frozen=True)
class Study:
    """A study: steps of the halved search as a part of the full one's, and how far it is behind on unused seeds.

    trials: those that a third of the runs bought; behind, low, high: the mean of the loss of its best minus that of the
    full search's best, relative to the latter, with its paired 95 % interval.
    """

    task: str
    seed: int
    trials: int
    steps: float
    behind: float
    low: float
    high: float

    @property
    def not_worse(self) -> bool:
        """Whether the interval does not lie on the worse side of zero."""
        return not self.low > 0


def main() -> None:
    """Runs the studies of every task; prints each and how many are not worse."""
    parser = argparse.ArgumentParser(description=timing.first_line(__doc__))
    parser.add_argument("--studies", type=int, default=3, help="studies of a task, each with a seed of its own (3)")
    parser.add_argument("--first", type=int, default=0, help="seed of the first study of a task (0)")
    parser.add_argument("--output", type=Path, help="JSON file to write the results to")
    parser.add_argument("--quick", action="store_true", help="one task, one study, a few trials and steps")
    options = parser.parse_args()
    where = timing.environment()
    title = f"A third of {FULL} full runs by halving, and all of them, by the best trial on {len(UNUSED)} unused seeds"
    print("\n".join([title, *timing.environment_lines(where)]), flush=True)
    made = []
    for task in TASKS[: 1 if options.quick else None]:
        for seed in range(options.first, options.first + (1 if options.quick else options.studies)):
            made.append(study(task, seed, options.quick))
            print(_line(made[-1]), flush=True)
        clear_caches()
    held = sum(one.not_worse for one in made)
    print(f"not worse (paired, 95 %) in {held} of {len(made)} studies (at least {BAR} of 15)")
    studies = [asdict(one) | {"not worse": one.not_worse} for one in made]
    timing.save({"title": title, "studies": studies, "environment": where}, options.output)


def study(task: str, seed: int, quick: bool) -> Study:
    """Searches in both ways, and trains the best trial of each on unused seeds."""
    full = 9 if quick else FULL
    given = search_learning.study_config(task, seed, quick)
    programs = Programs()

    def space_of(**search: object) -> Space:
        more = {"eval.every": "10 %"} | {f"search.{name}": value for name, value in search.items()}
        return read_space(resolve_config(given, more).config)

    budget = space_of(budget=f"{full / 3:.4f} full runs").config
    bought = buy(budget, programs.experiment(budget), full / 3)
    spaces = [
        space_of(trials=full),
        space_of(trials=bought.trials, halving=bought.halving, first_rung=bought.first_rung),
    ]
    searched = [_search(space, programs) for space in spaces]
    steps = [sum(outcome.step for outcome in outcomes) for outcomes in searched]
    best = [rank(outcomes, higher_is_better=False)[0] for outcomes in searched]
    trials = [spaces[0].trial(number, outcome.point) for number, outcome in enumerate(best)]
    theirs, ours = sorted(_train(spaces[0], programs, trials, UNUSED), key=lambda outcome: outcome.trial)
    assert theirs.value is not None
    behind = compare_by_seed(ours, theirs)
    shares = (number / theirs.value for number in (behind.mean, behind.low, behind.high))
    return Study(task, seed, bought.trials, steps[1] / steps[0], *shares)


def _search(space: Space, programs: Programs) -> list[Outcome]:
    """Trains the trials of a study batch by batch, as the command does; returns their outcomes."""
    section = space.config["search"]
    sampler = make_sampler(space, higher_is_better=False)
    outcomes: list[Outcome] = []
    while len(outcomes) < section["trials"]:
        numbers = range(len(outcomes), min(len(outcomes) + batch_size(section), section["trials"]))
        trials = [space.trial(n, point) for n, point in zip(numbers, sampler.ask(numbers), strict=True)]
        outcomes += _train(space, programs, trials, [space.config["seed"]])
    return outcomes


def _train(space: Space, programs: Programs, trials: Sequence[Trial], seeds: Sequence[int]) -> list[Outcome]:
    batch = make_batch(space, programs, trials, seeds)
    return [outcome for ended in batch.run(batch.new_work()) for outcome in ended]


def _line(one: Study) -> str:
    verdict = "not worse" if one.not_worse else "WORSE"
    return (
        f"{one.task} {one.seed}: {one.trials} trials, {one.steps:.3f} of the steps; behind by {one.behind:+.2%}, "
        f"95 % {one.low:+.2%} to {one.high:+.2%}: {verdict}"
    )


if __name__ == "__main__":
    main()
