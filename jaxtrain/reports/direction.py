"""Whether a higher value of a metric is better, as far as finished runs tell."""

from collections.abc import Iterable

from jaxtrain.reports.saved_runs import SavedRun
from jaxtrain.tasks.metrics import LOWER_IS_BETTER, METRICS


def is_higher_better(metric: str, runs: Iterable[SavedRun]) -> bool:
    """Tells whether a higher value of a metric is better.

    The runs that chose their best step by it know it, also of a metric of a user's own. Other metrics that are not in
    our tables count as losses, as `eval.host` takes them.
    """
    choosing = [run for run in runs if run.metric == metric]
    for run in choosing:
        said = run.config["eval"]["higher_is_better"]
        if said is not None:
            return bool(said)
    own = metric.partition("/")[0]
    if own in METRICS.members:
        return own not in LOWER_IS_BETTER
    for run in choosing:
        values = [row[metric] for row in run.rows if row["split"] == "validation" and row.get(metric) is not None]
        best = run.result.best["value"] if run.result and run.result.best else None
        if best is not None and values and min(values) < max(values):
            return best > min(values)
    return False
