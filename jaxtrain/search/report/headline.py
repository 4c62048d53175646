"""What came of a search, in sentences."""

import math

from jaxtrain.search.report.scales import shown
from jaxtrain.search.results import Comparison, Findings
from jaxtrain.training.intervals import Interval


def title(findings: Findings) -> str:
    """Names the best trial and its value."""
    best = findings.best
    if best is None:
        return "All trials diverged" if findings.outcomes else "No trial has ended"
    stopped = ", stopped early" if best.status == "stopped" else ""
    return f"Best: trial {best.trial}, {findings.metric} {best.value:.5g} on validation{stopped}"


def sentences(findings: Findings) -> list[str]:
    """Says how the trials ended, what the best one is, and how it does on seeds that the search did not use."""
    statuses = [outcome.status for outcome in findings.outcomes]
    counts = ", ".join(f"{statuses.count(status)} {status}" for status in ("done", "stopped", "diverged"))
    direction = "higher" if findings.higher_is_better else "lower"
    found = [
        f"{len(statuses)} trials in {findings.seconds:.1f} s: {counts}. A {direction} {findings.metric} is better."
    ]
    if findings.best:
        point = ", ".join(f"{key} = {shown(value)}" for key, value in findings.best.point.items())
        found.append(f"Trial {findings.best.trial}: {point}.")
    if findings.ties:
        found.append(f"Ties, which cannot be told from the best: {len(findings.ties)}, marked in the table.")
    return [*found, _compared(findings.comparison)]


def _compared(found: Comparison | None) -> str:
    if found is None:
        return "The best was not compared with the config's own values on unused seeds."
    where = f"On {len(found.best)} seeds that the search did not use, by {found.metric} on {found.split}"
    relation = "is a tie with" if found.verdict == "a tie" else f"is {found.verdict} than"
    if math.isnan(found.gain.mean):
        relation = "cannot be compared with"
    return f"{where}, trial {found.trial} {relation} the config's own values{_gain(found.gain)}{_lost(found)}."


def _gain(gain: Interval) -> str:
    """Says a gain, of which positive is better, with its interval."""
    if math.isnan(gain.mean):
        return ""
    if math.isnan(gain.low):
        return f" (gain {gain.mean:+.3g}; an interval needs more seeds)"
    return f" (gain {gain.mean:+.3g}, 95 % interval {gain.low:+.3g} to {gain.high:+.3g})"


def _lost(found: Comparison) -> str:
    """Says how many seeds diverged: the gain leaves them out."""
    sides = {f"trial {found.trial}": found.best, "the config's own": found.own}
    counts = {side: list(values.values()).count(None) for side, values in sides.items()}
    lost = [f"{side} on {count}" for side, count in counts.items() if count]
    return f"; diverged: {', '.join(lost)}" if lost else ""
