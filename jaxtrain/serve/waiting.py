"""Requests that wait for the device, and the batches that are made of them."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from jaxtrain.export.padded import PaddedProgram
from jaxtrain.serve.metrics import Metrics

Arrays = Mapping[str, np.ndarray]
"""Name -> (n, ...)."""


@dataclass(eq=False)
class Job:
    """Rows of a request on which a program must be called by `deadline`, a time of `time.monotonic`.

    `answer` gets the outputs. Who no longer waits cancels it, and rows that have not begun are dropped.
    """

    program: PaddedProgram
    arguments: Arrays
    rows: int
    deadline: float
    answer: asyncio.Future[Arrays]
    begun: int = 0
    pieces: list[Arrays] = field(default_factory=list)

    @property
    def is_over(self) -> bool:
        """Tells whether nobody waits for the answer any more."""
        return self.answer.done() or time.monotonic() > self.deadline


class Slice(NamedTuple):
    """Rows of a job that are part of a batch."""

    job: Job
    begin: int
    end: int


class Waiting:
    """The jobs that wait, in their order. Jobs are added by one thread, and batches are taken by another."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self.is_closed = False

    def __len__(self) -> int:
        return len(self._jobs)

    def add(self, job: Job) -> None:
        """Adds a job."""
        with self._changed:
            self._jobs.append(job)
            self._changed.notify()

    def close(self) -> None:
        """Ends the wait for jobs."""
        with self._changed:
            self.is_closed = True
            self._changed.notify()

    def take(self) -> list[Slice]:
        """Waits for a job, and returns what waits for its program, up to its largest batch; nothing once it is closed.

        It waits for no company. Of a job that is larger than a batch, the rest goes behind the others, so that small
        ones do not wait for it.
        """
        with self._changed:
            while not self.is_closed:
                if batch := self._fill():
                    return batch
                self._changed.wait()
            return []

    def _fill(self) -> list[Slice]:
        batch: list[Slice] = []
        room = 0
        while self._jobs and (room or not batch):
            job = self._jobs.popleft()
            if job.is_over:
                self._metrics.dropped_rows += job.rows - job.begun
                continue
            largest = job.program.sizes[-1]
            if not batch:
                room = largest
            elif job.program is not batch[0].job.program:
                self._jobs.appendleft(job)
                break
            count = min(room, job.rows - job.begun)
            batch.append(Slice(job, job.begun, job.begun + count))
            job.begun += count
            room -= count
            if job.begun < job.rows:
                put = self._jobs.append if job.rows > largest else self._jobs.appendleft
                put(job)
        return batch


def join_slices(batch: Sequence[Slice]) -> dict[str, np.ndarray]:
    """Returns the arguments of a batch."""
    names = batch[0].job.arguments
    return {name: np.concatenate([job.arguments[name][begin:end] for job, begin, end in batch]) for name in names}


def share_outputs(batch: Sequence[Slice], outputs: Arrays) -> list[Job]:
    """Gives each job of a batch its rows of the outputs; returns the jobs that now have all of theirs."""
    begin = 0
    finished: list[Job] = []
    for job, first, last in batch:
        end = begin + last - first
        job.pieces.append({name: output[begin:end] for name, output in outputs.items()})
        begin = end
        if last == job.rows:
            finished.append(job)
    return finished


def join_pieces(job: Job) -> Arrays:
    """Returns the answer to a job whose rows have all been predicted."""
    return {name: np.concatenate([piece[name] for piece in job.pieces]) for name in job.pieces[0]}
