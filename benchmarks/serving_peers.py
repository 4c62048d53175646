"""Serves an export behind the HTTP of `serve`, but predicts each request by itself: what batches and padding win.

python benchmarks/serving_peers.py EXPORT jit    # jax.jit, which compiles for each new number of examples
python benchmarks/serving_peers.py EXPORT onnx   # onnxruntime, with the model.onnx of the export
"""

import asyncio
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import timing  # noqa: F401 (this clone's jaxtrain goes before an installed one)

from jaxtrain.export.loading import ExportedModel, load_export
from jaxtrain.export.padded import PaddedProgram
from jaxtrain.serve import service
from jaxtrain.serve.metrics import Metrics
from jaxtrain.serve.server import serve
from jaxtrain.serve.service import Limits

Arrays = Mapping[str, np.ndarray]


class OneByOne:
    """In the place of `serve/device.py:Device`: one thread, one call for each request, at its own size."""

    def __init__(self, predict: Callable[[Arrays], Arrays], model: ExportedModel, _: Metrics) -> None:
        self.waiting: list[Any] = []
        self.program = PaddedProgram(model.program, (1,))  # named by who submits, never called
        self.compilations = 0
        self._predict = predict
        self._thread = ThreadPoolExecutor(1)

    def start(self) -> asyncio.Future[None]:
        ready = asyncio.get_running_loop().create_future()
        ready.set_result(None)
        return ready

    def stop(self) -> None:
        self._thread.shutdown()

    def submit(self, program: PaddedProgram, arguments: Arrays, rows: int, deadline: float) -> asyncio.Future[Arrays]:
        return asyncio.get_running_loop().run_in_executor(self._thread, self._predict, arguments)


def onnx_program(model: ExportedModel) -> Callable[[Arrays], Arrays]:
    """Returns the predictions of onnxruntime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(model.folder / "model.onnx"))
    names = [output.name for output in session.get_outputs()]

    def predict(arguments: Arrays) -> Arrays:
        return dict(zip(names, map(np.asarray, session.run(names, dict(arguments))), strict=True))

    return predict


def main() -> None:
    """Serves until SIGTERM."""
    folder, kind = sys.argv[1:]
    model = load_export(folder)
    predict = onnx_program(model) if kind == "onnx" else model.call
    service.Device = partial(OneByOne, predict)  # pyright: ignore[reportAttributeAccessIssue]
    serve(model, "127.0.0.1", 0, Limits(128, 600.0, 2**24), partial(print, flush=True))


if __name__ == "__main__":
    main()
