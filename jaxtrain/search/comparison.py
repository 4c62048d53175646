"""Trains the best config and the config's own values on seeds that the search did not use, and compares them."""

import math
from dataclasses import fields

from jaxtrain.files import exists, through_json
from jaxtrain.search.batch import Batch, Work
from jaxtrain.search.results import Comparison
from jaxtrain.search.session import Session
from jaxtrain.search.space import Trial
from jaxtrain.search.trials import Outcome
from jaxtrain.storage.seals import read_if_sealed, write_sealed

OWN = -1
"""Trial number of the config's own values in the comparison."""


def compare(session: Session, best: Outcome) -> Comparison | None:
    """Compares the best config with the config's own values on unused seeds; one worker of a study does it for all.

    Returns None if the config's own values are the best, or while another worker trains the comparison.
    """
    if best.trial == 0:
        session.bar.say("the config's own values are the best, so there is nothing to compare them with")
        return None
    first = session.config["seed"] + session.config["search"]["seeds"]
    seeds = range(first, first + session.config["search"]["compare_seeds"])
    task = f"trial {best.trial} on seeds {seeds[0]} to {seeds[-1]}"
    place = session.folder / "comparison.json"
    stored = session.study.fetch(task)
    if stored is None and exists(place):
        stored = read_if_sealed(place, session.bar.say, [field.name for field in fields(Comparison)])
    if stored is not None and (stored["trial"], [*map(int, stored["best"])]) == (best.trial, [*seeds]):
        return Comparison.from_json(stored)
    if not session.study.claim(task):
        session.bar.say("another worker trains the comparison; run the same command again to see the result here")
        return None
    trials = [session.space.trial(OWN, session.space.own), session.space.trial(best.trial, best.point)]
    session.bar.say(f"comparing with the config's own values: training {task}")
    files = session.work_files(f"comparison-{best.trial}-{seeds[0]}-{seeds[-1]}")
    has_test = "test" in session.programs.experiment(session.config).dataset.sizes
    splits = ("validation", "test") if has_test else ("validation",)
    batch = session.batch(trials, files, seeds=seeds, splits=splits, use_rungs=False)
    work = (files.load(batch) if files else None) or batch.new_work()
    comparison = _train_and_compare(batch, work, trials[1])
    write_sealed(place, comparison.to_json())
    session.study.publish(task, through_json(comparison.to_json()))
    if files:
        files.remove()
    return comparison


def _train_and_compare(batch: Batch, work: Work, best: Trial) -> Comparison:
    """Trains a batch of the best trial and trial OWN to its end, and compares their values on its last split.

    A value is read where the trials' values are read: with the best evaluation, as a run reports its test metrics.
    """
    for _ in batch.run(work):
        pass

    def values(number: int) -> dict[int, float | None]:
        judgement = batch.judgement(number)
        rows = {seed: judgement.reading(work.records[number, seed]) for seed in batch.seeds}
        return {seed: row[-1] if row and math.isfinite(row[-1]) else None for seed, row in rows.items()}

    metric = batch.space.config["eval"]["metric"]
    return Comparison(
        split=batch.splits[-1],
        metric=metric,
        higher_is_better=batch.higher_is_better,
        trial=best.number,
        best=values(best.number),
        own=values(OWN),
    )
