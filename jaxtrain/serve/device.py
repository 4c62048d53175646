"""The one thread that calls the program of a served model, on batches of the requests that wait."""

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence

from jaxtrain.export.loading import ExportedModel
from jaxtrain.export.padded import PaddedProgram
from jaxtrain.serve.metrics import Metrics
from jaxtrain.serve.refusal import Refusal
from jaxtrain.serve.self_check import check_continuation, check_examples
from jaxtrain.serve.waiting import Arrays, Job, Slice, Waiting, join_pieces, join_slices, share_outputs

SIZES = (1, 4, 16, 64)
"""Sizes of a batch that are compiled."""

CONTINUATION_SIZES = (1, 4)
"""The same for the program that continues texts, some of `SIZES`: it takes long to compile, and wins less by size."""

Settlement = tuple[Job, Arrays | Refusal]


class Device:
    """Compiles and checks the program in a thread, then predicts in it what is submitted."""

    def __init__(self, model: ExportedModel, metrics: Metrics) -> None:
        self.waiting = Waiting(metrics)
        self.program = PaddedProgram(model.program, SIZES)
        self.continuation = model.continuation_in(CONTINUATION_SIZES) if model.continuation else None
        self._model = model
        self._metrics = metrics
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> asyncio.Future[None]:
        """Starts the thread; the future is done when the program has been compiled and checked, or holds why not."""
        self._loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="jaxtrain-device", daemon=True)
        self._thread.start()
        return ready

    def stop(self) -> None:
        """Ends the thread after the batch, or the compilation, that is running."""
        self.waiting.close()
        if self._thread:
            self._thread.join()

    def submit(self, program: PaddedProgram, arguments: Arrays, rows: int, deadline: float) -> asyncio.Future[Arrays]:
        """Returns the future outputs of a program for some rows; who cancels it no longer waits, and they are dropped.

        The program is one of the device.
        """
        answer = asyncio.get_running_loop().create_future()
        self.waiting.add(Job(program, arguments, rows, deadline, answer))
        return answer

    @property
    def compilations(self) -> int:
        """The number of programs that were compiled so far."""
        return self.program.compilations + (self.continuation.compilations if self.continuation else 0)

    def _run(self, ready: asyncio.Future[None]) -> None:
        try:
            check_examples(self._model, self.program, lambda: self.waiting.is_closed)
            if self.continuation:
                check_continuation(self._model, self.program, self.continuation, lambda: self.waiting.is_closed)
        except Exception as error:
            self._call(_fail, ready, error)
            return
        self._call(_succeed, ready)
        while batch := self.waiting.take():
            self._call(_settle, self._predict(batch))

    def _predict(self, batch: Sequence[Slice]) -> list[Settlement]:
        """Predicts a batch, and returns the answers that it completes."""
        begin = time.monotonic()
        rows = sum(last - first for _, first, last in batch)
        try:
            outputs = self._model.in_units(batch[0].job.program(join_slices(batch)))
            answers: list[Settlement] = [(job, join_pieces(job)) for job in share_outputs(batch, outputs)]
        except Exception:  # out of memory, say: these requests fail, and the server lives on
            traceback.print_exc(file=sys.stderr)
            refusal = Refusal(500, "server", "an error of the program", "its outputs", "Send the request again")
            return [(job, refusal) for job, _, _ in batch]
        size = next(size for size in SIZES if rows <= size)
        self._metrics.count_batch(rows, size, time.monotonic() - begin)
        return answers

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        """Calls a function in the thread of the connections."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(function, *arguments)


def _succeed(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def _fail(ready: asyncio.Future[None], error: Exception) -> None:
    if not ready.done():
        ready.set_exception(error)


def _settle(settlements: Sequence[Settlement]) -> None:
    """Answers the jobs; who no longer waits is passed over."""
    for job, outcome in settlements:
        if job.answer.done():
            continue
        if isinstance(outcome, Refusal):
            job.answer.set_exception(outcome)
        else:
            job.answer.set_result(outcome)
