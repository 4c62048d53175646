"""A served model: whether it is ready, what it admits, and how a body becomes an answer."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

from jaxtrain.export.loading import PROGRAM, ExportedModel
from jaxtrain.serve.device import SIZES, Device
from jaxtrain.serve.generation import continue_text, read_generation
from jaxtrain.serve.interface import interface_of
from jaxtrain.serve.metrics import Metrics
from jaxtrain.serve.protocol import read_request, write_response
from jaxtrain.serve.refusal import Refusal, client_left, overloaded, too_late

State = Literal["starting", "ready", "draining"]


@dataclass(frozen=True)
class Limits:
    """Limits of a server: requests at a time, seconds from the begin of a request to its answer, bytes of a body."""

    requests: int
    seconds: float
    body_bytes: int


class Service:
    """A model with its device thread, limits and counts."""

    def __init__(self, model: ExportedModel, limits: Limits) -> None:
        self.model = model
        self.limits = limits
        self.name = str(model.description["model"])
        self.sha256 = str(model.description["files"][PROGRAM]["sha256"])
        self.interface = interface_of(model)
        self.metrics = Metrics(SIZES)
        self.device = Device(model, self.metrics)
        self.state: State = "starting"
        self.admitted = 0
        self._is_idle = asyncio.Event()
        self._is_idle.set()

    def demand_ready(self) -> None:
        """Raises Refusal while the server is starting or ending."""
        if self.state != "ready":
            raise overloaded(f"a server that is {self.state}")

    @contextlib.contextmanager
    def admission(self) -> Iterator[None]:
        """Admits a request for a block; raises Refusal if as many as the limit are in progress."""
        self.demand_ready()
        if self.admitted >= self.limits.requests:
            raise overloaded(f"{self.admitted} requests in progress")
        self.admitted += 1
        self._is_idle.clear()
        try:
            yield
        finally:
            self.admitted -= 1
            if not self.admitted:
                self._is_idle.set()

    async def drain(self) -> None:
        """Admits nothing more, and waits until all that was admitted is answered."""
        self.state = "draining"
        await self._is_idle.wait()

    async def infer(
        self, chunks: AsyncIterator[bytes], header_length: str | None, left: Callable[[], Coroutine[Any, Any, None]]
    ) -> tuple[dict[str, str], bytes]:
        """Returns headers and body of the answer to a request; raises Refusal for one that gets none.

        `left` waits until the client has left, which ends the request.
        """
        begin = time.monotonic()
        try:
            async with asyncio.timeout(self.limits.seconds) as timeout:
                body = await self._read_body(chunks)
                request = read_request(body, header_length, self.interface)
                arguments = self.interface.arguments(request.tensors)
                seconds = min(request.seconds or self.limits.seconds, self.limits.seconds)
                timeout.reschedule(asyncio.get_running_loop().time() + seconds - (time.monotonic() - begin))
                outputs = await _unless(
                    self.device.submit(self.device.program, arguments, request.rows, begin + seconds), left()
                )
        except TimeoutError as error:
            raise too_late() from error
        answer = write_response(outputs, request, self.interface, self.about)
        self.metrics.seconds.add(time.monotonic() - begin)
        return answer

    async def generate(
        self, chunks: AsyncIterator[bytes], left: Callable[[], Coroutine[Any, Any, None]]
    ) -> dict[str, Any]:
        """Returns the answer to a request for a continuation; raises Refusal as `infer` does."""
        continuation = await self.read_generation(chunks)
        text = asyncio.ensure_future(_join(continuation.pieces))
        return {**self.about, **continuation.identity, "text_output": await _unless(text, left())}

    async def read_generation(self, chunks: AsyncIterator[bytes]) -> "Continuation":
        """Returns the continuation that a request asks for, which begins when its pieces are read."""
        begin = time.monotonic()
        vocabulary = self.model.info.vocabulary
        assert vocabulary is not None
        try:
            async with asyncio.timeout(self.limits.seconds):
                request = read_generation(await self._read_body(chunks), vocabulary)
        except TimeoutError as error:
            raise too_late() from error
        context = self.model.info.input_shape[0]
        pieces = continue_text(self.device, vocabulary, context, request, begin + self.limits.seconds)
        return Continuation(pieces, {} if request.id is None else {"id": request.id})

    @property
    def about(self) -> dict[str, Any]:
        """The fields of each answer that say which model gave it."""
        return {"model_name": self.name, "model_version": VERSION, "parameters": {"sha256": self.sha256}}

    def describe(self) -> dict[str, Any]:
        """Returns the metadata of the model, as the protocol has them."""
        return {
            "name": self.name,
            "versions": [VERSION],
            "platform": "jax_stablehlo",
            "inputs": [spec.describe() for spec in self.interface.inputs.values()],
            "outputs": [spec.describe() for spec in self.interface.outputs.values()],
        }

    def render_metrics(self) -> str:
        """Returns the counts in the text form of Prometheus."""
        gauges = {
            "ready": ("1 if the server is ready", float(self.state == "ready")),
            "requests_in_progress": ("Inferences that were admitted", float(self.admitted)),
            "requests_waiting": ("Inferences that wait for the device", float(len(self.device.waiting))),
            "programs_compiled": ("Programs that were compiled", float(self.device.compilations)),
        }
        return self.metrics.render(gauges, {"name": self.name, "sha256": self.sha256})

    async def _read_body(self, chunks: AsyncIterator[bytes]) -> bytes:
        """Reads a body, whose bytes are counted as they come: what a header says of them may be wrong."""
        parts: list[bytes] = []
        count = 0
        async for chunk in chunks:
            count += len(chunk)
            if count > self.limits.body_bytes:
                raise self.too_large()
            parts.append(chunk)
        return b"".join(parts)

    def too_large(self) -> Refusal:
        """Returns the refusal of a body above the limit."""
        expected = f"at most {self.limits.body_bytes} bytes"
        return Refusal(413, "body", "a larger one", expected, "Send several requests, or data in binary")


class Continuation(NamedTuple):
    """The pieces of a text as they are made, and the fields of its answer that repeat the request's id."""

    pieces: AsyncIterator[str]
    identity: Mapping[str, str]


VERSION = "1"
"""The version of the model for clients that ask for one: a server has one model alone."""

Answer = TypeVar("Answer")


async def _join(pieces: AsyncIterator[str]) -> str:
    return "".join([piece async for piece in pieces])


async def _unless(answer: asyncio.Future[Answer], left: Coroutine[Any, Any, None]) -> Answer:
    """Waits for an answer, and cancels it if the client leaves or the time is over."""
    leaving = asyncio.ensure_future(left)
    try:
        await asyncio.wait({answer, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise client_left()
        return answer.result()
    finally:
        answer.cancel()
        leaving.cancel()
