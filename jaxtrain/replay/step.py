"""Replays a step of a recorded run: recomputes the state before it, and takes the step again, instrumented."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.core.state import TrainState
from jaxtrain.core.steps import StepFunction, train_step
from jaxtrain.core.trees import named_leaves
from jaxtrain.data import Source
from jaxtrain.errors import StorageError, UsageError, Words
from jaxtrain.files import demand_writable, make_directory, remove, write_bytes
from jaxtrain.replay.hardest import HardRow, draw_rows, hardest_rows
from jaxtrain.replay.look import Look, look_at_step
from jaxtrain.replay.recompute import Comparison, Course, begin_course, compare_after
from jaxtrain.replay.recorded import Recorded, open_recorded
from jaxtrain.training.feeds import rows_of


@dataclass(frozen=True)
class Replay:
    """A step of a run, looked at.

    Attributes:
        run: the run.
        step: the number of the step, which is the number of steps before it.
        restored: the step of the checkpoint from which the state was recomputed; None: from the start.
        comparisons: what the run recorded, beside the same recomputed.
        unreached: what was not compared, since it lies too far behind the step.
        diverges: whether the run's own call leaves the finite numbers in this step.
        look: what was seen.
        hardest: rows of the batch.
        folder: where files are written.
        files: what was written there.
    """

    run: Recorded
    step: int
    restored: int | None
    comparisons: Sequence[Comparison]
    unreached: Sequence[str]
    diverges: bool
    look: Look
    hardest: Sequence[HardRow]
    folder: Path
    files: Sequence[Path]

    @property
    def is_exact(self) -> bool | None:
        """Whether all that was compared is equal to the bit; None where nothing was there to compare."""
        return all(comparison.is_equal for comparison in self.comparisons) if self.comparisons else None


def replay_step(
    workdir: str | Path,
    number: int,
    *,
    trial: int | None = None,
    seed: int | None = None,
    fold: int | None = None,
    save: bool = False,
    trust: Sequence[str] = (),
    data: Source | None = None,
    step: StepFunction = train_step,
    say: Callable[[str], None] = print,
) -> Replay:
    """Recomputes the state before a step of a run, compares it with what the run recorded, and looks at the step.

    Files are written to `replay/step-<number>` of the run's directory.

    Args:
        workdir: the directory of a run, or of a search.
        number: the step: 0 is the first.
        trial: of a search, the number of the trial.
        seed: of several seeds, the one to look at; None: the first.
        fold: of several folds, the one to look at; None: the first.
        save: whether to write the state before the step and its batch as `state_and_batch.npz`.
        trust: modules whose functions the config of a run that another user made may name.
        data: data that were given in Python.
        step: the training step, if it is one of the user's own.
        say: prints a line on the progress.

    Raises:
        UsageError: there is no such run, trial, seed, fold or step.
        DataError: the data are not those that the run was trained on.
        StorageError: a file cannot be read or written.
    """
    options = {"trial": trial, "seed": seed, "fold": fold, "trust": trust, "data": data, "step": step, "say": say}
    run = open_recorded(workdir, **options)
    try:
        course = begin_course(run, number, say)
        folder = run.workdir / "replay" / _folder_name(run, trial, number)
        demand_writable(folder / "result.json")
        return _look(run, course, number, folder, save)
    finally:
        run.close()


def _folder_name(run: Recorded, trial: int | None, number: int) -> str:
    words = [f"trial-{trial}"] if trial is not None else []
    words += [run.lane_name.replace(" ", "-")] if run.lane_name else []
    return "-".join([*words, f"step-{number}"])


def _look(run: Recorded, course: Course, number: int, folder: Path, save: bool) -> Replay:
    course.advance(number)
    if course.at < number:
        raise _other_course(run, course.at)
    kept = course.copy_state()
    unreached = compare_after(course, number)
    state = _on_default_device(run.runner.one(kept, run.lane))
    if int(state.step) < number:
        expected = f"at most {int(state.step)}, the step at which {run.lane_name} of {run.name} diverged"
        raise UsageError("--step", number, expected)
    batch = jax.device_get(run.experiment.batches(number, 1).pick(run.lane).take(0))
    examples = rows_of(run.config["data"], run.dataset, number, 1)[0]
    look = look_at_step(run.step, state, batch, run.experiment.rules)
    hardest = hardest_rows(run, look, examples)
    content = {
        "hardest.png": draw_rows(run, state, batch, hardest),
        "state_and_batch.npz": _as_npz(state, {**batch, "examples": examples}) if save else None,
    }
    files = _write(folder, content)
    last = run.runner.one(course.state, run.lane)
    diverges = not bool(last.live) and int(last.step) == number
    return Replay(run, number, course.restored, course.comparisons, unreached, diverges, look, hardest, folder, files)


def _other_course(run: Recorded, at: int) -> StorageError:
    """Returns the error of a run that diverges earlier, when it is recomputed, than it did."""
    got = Words(f"a run that diverges soon after step {at:,} when it is recomputed")
    expected = f"one that goes on, as {run.name} did"
    return StorageError("replay", got, expected, "Take the code, the versions and the device of the run")


def _on_default_device(state: TrainState) -> TrainState:
    """Returns a state on the default device, from wherever it is."""
    return jax.tree.map(jnp.asarray, jax.device_get(state))


def _as_npz(state: TrainState, batch: Mapping[str, Any]) -> bytes:
    """Returns a state and a batch as a file of NumPy, where float32 of the same values stands for bfloat16."""
    arrays = {f"state/{path}": np.asarray(leaf) for path, leaf in named_leaves(state)}
    arrays |= {f"batch/{path}": np.asarray(leaf) for path, leaf in named_leaves(batch)}
    plain = {path: leaf.astype(np.float32) if leaf.dtype.kind == "V" else leaf for path, leaf in arrays.items()}
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **plain)
    return buffer.getvalue()


def _write(folder: Path, content: Mapping[str, bytes | None]) -> list[Path]:
    """Writes the files that have a content, and removes earlier ones of those that have none."""
    make_directory(folder)
    for name, written in content.items():
        if written is None:
            remove(folder / name)
        else:
            write_bytes(folder / name, written)
    return [folder / name for name, written in content.items() if written is not None]
