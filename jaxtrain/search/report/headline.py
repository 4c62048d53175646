"""Sentences that summarise a search."""

import math

from jaxtrain.config.trial_value import in_words
from jaxtrain.reports.figures import format_value
from jaxtrain.search.report.edges import next_ranges
from jaxtrain.search.results import Comparison, Findings
from jaxtrain.training.intervals import Interval


def title(findings: Findings) -> str:
    """Returns the title: the best trial and its value."""
    best = findings.best
    if best is None:
        undefined = f"No trial has a value: {findings.metric} was undefined"
        nothing = undefined if findings.status == "undefined" else "All trials diverged"
        return nothing if findings.outcomes else "No trial has ended"
    stopped = ", stopped early" if best.status == "stopped" else ""
    return f"Best: trial {best.trial}, {findings.metric} {best.value:.5g} on validation{stopped}"


def sentences(findings: Findings) -> list[str]:
    """Returns sentences: how the trials ended, the best point, ties, and the comparison on unused seeds."""
    count = len(findings.outcomes)
    counts = ", ".join(f"{count} {status}" for status, count in findings.counts.items())
    direction = "higher" if findings.higher_is_better else "lower"
    better = f"A {direction} {findings.metric} is better"
    value = f"trials are compared by {in_words(findings.space.config['search']['value'])}"
    lines = [f"{count} trials in {findings.seconds:.1f} s: {counts}. {better}; {value}."]
    if findings.best:
        point = ", ".join(f"{key} = {format_value(value)}" for key, value in findings.best.point.items())
        lines.append(f"Trial {findings.best.trial}: {point}.")
        lines += next_ranges(findings.space, findings.best)
    if edited := [str(outcome.trial) for outcome in findings.outcomes if outcome.edited]:
        lines.append(f"Changed by others and accepted as they stood: trials {', '.join(edited)}.")
    if findings.ties:
        lines.append(f"Ties, not significantly different from the best: {len(findings.ties)}, marked in the table.")
    return [*lines, _comparison_sentence(findings.comparison)]


def _comparison_sentence(comparison: Comparison | None) -> str:
    if comparison is None:
        return "The best was not compared with the config's own values on unused seeds."
    seeds = f"On {len(comparison.best)} seeds that the search did not use"
    metric = f"by {comparison.metric} on {comparison.split}"
    relation = "is a tie with" if comparison.verdict == "a tie" else f"is {comparison.verdict} than"
    if math.isnan(comparison.gain.mean):
        relation = "cannot be compared with"
    result = f"trial {comparison.trial} {relation} the config's own values"
    return f"{seeds}, {metric}, {result}{_gain(comparison.gain)}{_lost_seeds(comparison)}."


def _gain(gain: Interval) -> str:
    """Returns the gain with its interval, in brackets; positive is better."""
    if math.isnan(gain.mean):
        return ""
    if math.isnan(gain.low):
        return f" (gain {gain.mean:+.3g}; an interval needs more seeds)"
    return f" (gain {gain.mean:+.3g}, 95 % interval {gain.low:+.3g} to {gain.high:+.3g})"


def _lost_seeds(comparison: Comparison) -> str:
    """Returns how many seeds have no value on each side; the gain leaves them out."""
    sides = {f"trial {comparison.trial}": comparison.best, "the config's own": comparison.own}
    counts = {side: list(values.values()).count(None) for side, values in sides.items()}
    lost = [f"{side} on {count}" for side, count in counts.items() if count]
    return f"; diverged or undefined: {', '.join(lost)}" if lost else ""
