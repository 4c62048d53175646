"""The best config beside the config's own values, trained in full on seeds that the search did not use."""

from jaxtrain.search.batch import Batch, Work
from jaxtrain.search.results import Comparison
from jaxtrain.search.session import Session
from jaxtrain.search.space import Trial
from jaxtrain.search.trials import Outcome
from jaxtrain.storage.files import read_json, write_json

OWN = -1
"""The number under which the config's own values are trained again."""


def compared(session: Session, best: Outcome) -> Comparison | None:
    """Trains the best config beside the config's own values on further seeds, once for all workers of a study."""
    if best.trial == 0:
        session.bar.say("the config's own values are the best: there is nothing to compare them with")
        return None
    first = session.config["seed"] + session.config["search"]["seeds"]
    seeds = range(first, first + session.config["search"]["compare_seeds"])
    task, place = f"trial {best.trial} on seeds {seeds[0]} to {seeds[-1]}", session.folder / "comparison.json"
    stored = session.study.published(task) or (read_json(place) if place.exists() else None)
    if stored is not None and (stored["trial"], [*map(int, stored["best"])]) == (best.trial, [*seeds]):
        return Comparison.from_json(stored)
    if not session.study.claim(task):
        session.bar.say("another worker trains the comparison; once it has, the same command shows it here, too")
        return None
    trials = [session.space.trial(OWN, session.space.own), session.space.trial(best.trial, best.point)]
    session.bar.say(f"trains {task}, beside the config's own values")
    files = session.work_files(f"comparison-{best.trial}-{seeds[0]}-{seeds[-1]}")
    has_test = "test" in session.programs.experiment(session.config).dataset.sizes
    splits = ("validation", "test") if has_test else ("validation",)
    batch = session.batch(trials, files, seeds=seeds, splits=splits, use_rungs=False)
    work = (files.load(batch) if files else None) or batch.new_work()
    found = _values(batch, work, trials[1])
    write_json(place, found.to_json())
    session.study.publish(task, read_json(place))
    if files:
        files.remove()
    return found


def _values(batch: Batch, work: Work, best: Trial) -> Comparison:
    """Trains a batch of the best trial and of number OWN to its end, and returns their values on its last split.

    A value is that of the evaluation at which the validation split is best, as a run reports its test.
    """
    for _ in batch.run(work):
        pass

    def values(number: int) -> dict[int, float | None]:
        judgement = batch.judgement(number)
        found = {seed: judgement.best(work.records[number, seed]) for seed in batch.seeds}
        return {seed: row[-1] if row else None for seed, row in found.items()}

    metric, split = batch.space.config["eval"]["metric"], batch.splits[-1]
    return Comparison(split, metric, batch.higher_is_better, best.number, values(best.number), values(OWN))
