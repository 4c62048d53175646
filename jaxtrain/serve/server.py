"""A server process: its socket, its signals, and the order in which it starts and ends."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator

import uvicorn

from jaxtrain.errors import UsageError, Words
from jaxtrain.export.loading import ExportedModel
from jaxtrain.serve.app import make_app
from jaxtrain.serve.service import Limits, Service

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)

MOST_CONNECTIONS = 512
"""Connections beyond which more are refused: each takes a file descriptor, of which a process often has 1,024."""

KEEP_ALIVE_SECONDS = 75
"""Seconds after which a connection is closed on which nothing comes."""


def serve(
    model: ExportedModel,
    host: str,
    port: int,
    limits: Limits,
    say: Callable[[str], None],
    when_ready: Callable[[str, str], None] = lambda name, address: None,
) -> None:
    """Serves an exported model until SIGTERM or SIGINT, then answers what it admitted and returns.

    `say` gets a line when the server is ready and when it ends; a second signal ends the process at once. `when_ready`
    gets the name of the model and the address. Raises UsageError for an address that cannot be used, StorageError for a
    program that fails its check.
    """
    with contextlib.closing(_open_socket(host, port)) as listening:
        asyncio.run(_serve(model, listening, limits, say, when_ready))


def _open_socket(host: str, port: int) -> socket.socket:
    """Returns a socket that is bound to an address; a port of 0 is any free one."""
    try:
        # asyncio sends small answers at once (TCP_NODELAY) only on sockets that are said to speak TCP.
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        family, kind, protocol, _, address = found[0]
        opened = socket.socket(family, kind, protocol)
        with contextlib.ExitStack() as failed:
            failed.enter_context(opened)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.bind(address)
            opened.listen()  # else the port would count as free until the server listens
            failed.pop_all()
    except (OSError, OverflowError) as error:
        got = Words(f"{host}:{port}, which cannot be opened ({error})")
        raise UsageError("address", got, "an address of this machine and a free port", "Give another port") from error
    return opened


async def _serve(
    model: ExportedModel,
    listening: socket.socket,
    limits: Limits,
    say: Callable[[str], None],
    when_ready: Callable[[str, str], None],
) -> None:
    """Compiles and checks while it listens, serves until a signal, then drains."""
    service = Service(model, limits)
    server = _Server(_configure(service))
    stopped = _stop_by_signals(say)
    listens = asyncio.create_task(server.serve([listening]))
    try:
        ready = service.device.start()
        await _first_of(ready, stopped)
        if ready.done():
            ready.result()
            service.state = "ready"
            say(f"ready: {service.name} at {_url(listening)}")
            when_ready(service.name, _url(listening))
            await stopped
        await service.drain()
    finally:
        await asyncio.to_thread(service.device.stop)  # a compilation may take minutes, in which signals are heard
        server.should_exit = True
        await listens


def _configure(service: Service) -> uvicorn.Config:
    return uvicorn.Config(
        make_app(service),
        lifespan="off",
        log_level="error",  # a line for each request that is no HTTP would fill a disk
        access_log=False,
        server_header=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=1,
    )


class _Server(uvicorn.Server):
    """A server that leaves signals to `_stop_by_signals`: uvicorn's would end the process by the signal, not by 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Captures none."""
        yield


def _stop_by_signals(say: Callable[[str], None]) -> asyncio.Future[None]:
    """Returns a future that is done at the first signal; a second one ends the process at once."""
    loop = asyncio.get_running_loop()
    stopped: asyncio.Future[None] = loop.create_future()

    def stop(number: int) -> None:
        if stopped.done():
            os._exit(128 + number)
        stopped.set_result(None)
        say(f"{signal.Signals(number).name}: answers what it has taken, then ends; a second signal ends it at once")

    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, stop, number)
    return stopped


async def _first_of(*futures: asyncio.Future[None]) -> None:
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)


def _url(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
