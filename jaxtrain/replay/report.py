"""The report of a replayed step: its lines for people, and its document for programs."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtrain.replay.layers import Measure
from jaxtrain.replay.origin import Origin, Range
from jaxtrain.replay.recompute import Comparison
from jaxtrain.replay.step import Replay

MOST_LINES = 40
"""Layers or arrays that are printed; the document has all."""

HEADING = (("mean", 12), ("deviation", 12), ("largest", 12), ("zeros", 12), ("not finite", 14))
"""The columns of numbers and their widths."""

RECORDS = {
    "row": "the mean loss up to step {step:,}",
    "checkpoint": "the state of step {step:,} in its checkpoint",
    "evaluation": "the evaluation of step {step:,}",
    "end": "the state of step {step:,}, the last",
}


def replay_document(replay: Replay) -> dict[str, Any]:
    """Returns what `replay` tells programs."""
    look = replay.look
    return {
        "workdir": str(replay.run.workdir),
        "run": replay.run.name,
        "lane": replay.run.lane_name,
        "step": replay.step,
        "restored": replay.restored,
        "exact": replay.is_exact,
        "comparisons": [{**c._asdict(), "equal": c.is_equal} for c in replay.comparisons],
        "unreached": list(replay.unreached),
        "environment": {name: [str(then), str(now)] for name, (then, now) in _changes(replay).items()},
        "diverges": replay.diverges,
        "loss": look.loss,
        "values": dict(look.values),
        "activations": [{"layer": a.layer, "line": a.line, **measured._asdict()} for a, measured in look.activations],
        "gradients": _as_json(look.gradients),
        "updates": _as_json(look.updates),
        "parameters": _as_json(look.parameters),
        "origin": _origin_document(look.origin),
        "hardest": [row._asdict() for row in replay.hardest],
        "files": [str(path) for path in replay.files],
    }


def _as_json(measured: Mapping[str, Measure]) -> dict[str, Any]:
    return {path: own._asdict() for path, own in measured.items()}


def _origin_document(origin: Origin | None) -> dict[str, Any] | None:
    if origin is None:
        return None
    return {
        "operation": origin.operation,
        "direction": origin.direction,
        "layer": origin.layer,
        "file": origin.frame.file if origin.frame else "",
        "line": origin.frame.line if origin.frame else None,
        "function": origin.frame.function if origin.frame else "",
        "operands": [operand._asdict() for operand in origin.operands],
        "result": origin.result._asdict(),
        "rows": list(origin.rows),
    }


def _changes(replay: Replay) -> dict[str, tuple[Any, Any]]:
    return replay.run.changes_of_environment


def replay_lines(replay: Replay) -> Iterator[str]:
    """Yields the lines for people: first how far the replay can be believed."""
    run = replay.run
    whose = f", {run.lane_name}" if run.lane_name else ""
    begun = "the start" if replay.restored is None else f"the checkpoint of step {replay.restored:,}"
    yield f"step {replay.step:,} of {run.name}{whose}, from {begun}"
    yield from _belief(replay)
    look = replay.look
    rates = "".join(f", {n} {v:.4g}" for n, v in look.values.items() if n.endswith("learning_rate"))
    yield f"loss {look.loss:.6g}{rates}"
    if look.origin is not None:
        yield from origin_lines(look.origin)
    elif replay.diverges:
        yield "the run's own program leaves the finite numbers in this step; with single operations it stays finite"
    broken = next((a for a, measured in look.activations if measured.not_finite), None)
    if broken is not None:
        yield f"the first layer that is not finite: {broken.layer or broken.line}"
    yield from _table("activations", [(a.layer or "-", a.line, m) for a, m in look.activations])
    yield from _table("gradients", [(path, "", m) for path, m in look.gradients.items()])
    yield from _table("updates", [(path, "", m) for path, m in look.updates.items()])
    yield from _row_lines(replay)


def _belief(replay: Replay) -> Iterator[str]:
    """Yields what of the run was compared with what was recomputed."""
    yield from (f"  {line}" for line in comparison_lines(replay.comparisons))
    for what in replay.unreached:
        yield f"  not compared: {what}, which takes longer to reach than the time for it"
    if not replay.comparisons:
        yield "  not compared: the run recorded nothing between the state that was restored and this step's end"
    if replay.run.diverged_at == replay.step:
        yield "  the run diverged in this step, and " + ("does so again" if replay.diverges else "does NOT so again")
    if replay.is_exact is False:
        yield "  what is recomputed is NOT the run: what follows is true of the recomputed one"
    if replay.is_exact is False or not replay.comparisons:
        for name, (then, now) in _changes(replay).items():
            yield f"  {name}: {then} in the run, {now} now"


def comparison_lines(comparisons: Sequence[Comparison]) -> Iterator[str]:
    """Says whether what a run recorded is what was recomputed; equal rows are counted."""
    rows = [comparison for comparison in comparisons if comparison.what == "row" and comparison.is_equal]
    if len(rows) > 1:
        yield f"equal to the bit: the mean losses of {len(rows):,} rows, steps {rows[0].step:,} to {rows[-1].step:,}"
    for comparison in comparisons:
        if len(rows) < 2 or comparison not in rows:
            yield comparison_line(comparison)


def comparison_line(comparison: Comparison) -> str:
    """Says whether what the run recorded is what was recomputed."""
    what = RECORDS[comparison.what].format(step=comparison.step)
    if comparison.is_equal:
        shown = f", {comparison.recorded:.6g}" if isinstance(comparison.recorded, float) else ""
        return f"equal to the bit: {what}{shown}"
    where = f", first in {comparison.where}" if comparison.where else ""
    apart = "" if math.isnan(comparison.difference) else f", relatively up to {comparison.difference:.2g}"
    return f"DIFFERENT: {what} ({comparison.recorded} recorded, {comparison.recomputed} recomputed{apart}{where})"


def origin_lines(origin: Origin) -> Iterator[str]:
    """Says where the step left the finite numbers."""
    if not origin.operation:
        yield f"the step gets what is not finite: {_range_text(origin.result)}"
        return
    layer = f", in {origin.layer}" if origin.layer else ""
    yield f"the step leaves the finite numbers in the operation {origin.operation!r} of the {origin.direction}{layer}"
    if origin.frame:
        yield f"  at {origin.frame}"
    for i, operand in enumerate(origin.operands):
        yield f"  operand {i}: {_range_text(operand)}"
    yield f"  result: {_range_text(origin.result)}"
    if origin.rows:
        yield f"  in {len(origin.rows)} rows of the batch"


def _range_text(operand: Range) -> str:
    shape = "x".join(map(str, operand.shape)) or "a number"
    name = f"{operand.name}, " if operand.name else ""
    values = f"{operand.low:.4g} to {operand.high:.4g}" if not math.isnan(operand.low) else "no finite value"
    bad = f", {operand.not_finite:,} not finite" if operand.not_finite else ""
    zeros = f", {operand.zeros:.0%} zeros" if operand.zeros else ""
    return f"{name}{operand.dtype} {shape}: {values}{zeros}{bad}"


def _table(title: str, rows: Sequence[tuple[str, str, Measure]]) -> Iterator[str]:
    if not rows:
        yield f"{title}: none were found"
        return
    shown = rows[:MOST_LINES]
    names = max(len(title), *(len(name) for name, _, _ in shown)) + 2
    lines = max(len(line) for _, line, _ in shown) + 2
    yield f"{title:<{names + lines + 2}}" + "".join(f"{word:>{wide}}" for word, wide in HEADING)
    for name, line, measured in shown:
        numbers = "".join(f"{value:>12.3g}" for value in (measured.mean, measured.deviation, measured.largest))
        yield f"  {name:<{names}}{line:<{lines}}{numbers}{measured.zeros:>12.1%}{_not_finite(measured):>14}"
    if len(rows) > len(shown):
        yield f"  and {len(rows) - len(shown):,} more in result.json"


def _not_finite(measured: Measure) -> str:
    return f"{measured.not_finite:,}" + (f" from {measured.first:,}" if measured.not_finite else "")


def _row_lines(replay: Replay) -> Iterator[str]:
    if not replay.hardest:
        yield "hardest rows: not known, since the loss does not count rows by their mask, or is not finite"
        return
    finite = replay.hardest[0].finite
    yield "hardest rows of the data, and their losses:" if finite else "rows of the data that it makes not finite:"
    shown = (f"{row.row}" + (f" ({row.loss:.4g})" if row.loss is not None else "") for row in replay.hardest)
    yield f"  {', '.join(shown)}"


def wrote_line(folder: Path, files: Sequence[Path]) -> str:
    """Says what was written."""
    return f"wrote {folder}/: {', '.join(path.name for path in files)}"
