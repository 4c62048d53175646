"""Saves and restores the progress of a batch: the states of its lanes and their records, as one checkpoint."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxtrain.config.schema import as_python
from jaxtrain.core.frozen import map_lanes, put_shared
from jaxtrain.errors import JaxtrainError
from jaxtrain.files import remove_empty_directory, remove_tree
from jaxtrain.search.batch import Batch, Chunk, Work
from jaxtrain.search.programs import Program
from jaxtrain.search.space import Point
from jaxtrain.search.trials import Outcome, Record
from jaxtrain.storage.checkpoints import Checkpoints
from jaxtrain.storage.joined_leaves import join_leaves, joined_shapes, split_leaves
from jaxtrain.training.shared_frozen import shares_frozen

_EMPTY = {"empty": np.zeros(())}
"""A placeholder leaf in every checkpoint, since the batch may have no states yet."""


class WorkFiles:
    """The checkpoint of one batch, in its own folder, which is removed when the batch has ended."""

    def __init__(self, folder: Path, say: Callable[[str], None], run: str) -> None:
        """Touches no file; `say` prints a line if the saved checkpoint cannot be used; `run` is the id of the study."""
        self._folder = folder
        self._say = say
        self._checkpoints = Checkpoints(folder, keep=1, say=lambda line: None, run=run)
        self._count = max(self._checkpoints.steps(), default=0)

    def points(self) -> dict[int, Point]:
        """Returns the trials of the saved batch, number -> point; empty if nothing is saved."""
        memory = self._checkpoints.newest_memory()
        return {number: as_python(point) for number, point in memory["points"]} if memory else {}

    def save(self, batch: Batch, work: Work) -> None:
        """Saves the work and waits until it is on the disk, so that later files are never ahead of the checkpoint."""
        states = {str(i): chunk.states for i, chunk in enumerate(work.chunks) if chunk.states is not None}
        memory = {
            "points": [[trial.number, trial.point] for trial in batch.trials],
            "rung": work.rung,
            "chunks": [
                {"program": c.program, "lanes": c.lanes, "at": c.at, "begun": str(i) in states}
                for i, c in enumerate(work.chunks)
            ],
            "records": [[*lane, asdict(record)] for lane, record in work.records.items()],
            "ended": [outcome.to_json() for outcome in work.ended],
        }
        self._count += 1
        self._checkpoints.save(self._count, join_leaves(states) | _EMPTY, memory)
        self._checkpoints.wait()

    def load(self, batch: Batch) -> Work | None:
        """Returns the saved work of the batch; None if nothing is saved or, after a message, if it is damaged."""
        memory = self._checkpoints.newest_memory()
        if memory is None:
            return None
        chunks = [Chunk(c["program"], [(n, seed) for n, seed in c["lanes"]], c["at"]) for c in memory["chunks"]]
        begun = [i for i, chunk in enumerate(memory["chunks"]) if chunk["begun"]]
        shapes = {str(i): _shapes(batch.groups[chunks[i].program], chunks[i], batch.seeds) for i in begun}
        try:
            restored = self._checkpoints.restore(joined_shapes(shapes) | _EMPTY)
        except JaxtrainError as error:
            self._say(f"{error}. The batch restarts from step 0")
            return None
        if restored is None or restored.memory != memory:  # an older step replaced a damaged one
            self._say(f"{self._folder}: the newest checkpoint is damaged; the batch restarts from step 0")
            return None
        states = split_leaves(restored.state, shapes)
        for i in begun:
            chunks[i].states = states[str(i)]
        records = {(number, seed): Record(**record) for number, seed, record in memory["records"]}
        ended = [Outcome.from_json(row) for row in memory["ended"]]
        return batch.rechunk(Work(chunks, records, memory["rung"], ended))

    def remove(self) -> None:
        """Removes the folder, and its parent if it is then empty."""
        self._checkpoints.close()
        remove_tree(self._folder)
        remove_empty_directory(self._folder.parent)


def _shapes(program: Program, chunk: Chunk, seeds: Sequence[int]) -> Any:
    """Returns the shapes of a chunk's states, with a leading axis of lanes."""
    state = program.experiment.state_shapes()
    shared = state.frozen if shares_frozen(program.experiment, seeds) else None
    one = put_shared(state, shared)
    return map_lanes(lambda leaf: jax.ShapeDtypeStruct((len(chunk.lanes), *leaf.shape), leaf.dtype), one)
