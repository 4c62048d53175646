"""The routes of a server: the Open Inference Protocol v2, metrics, and a page for a person."""

import json
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jaxtrain.errors import Words, message
from jaxtrain.serve.page import render_page
from jaxtrain.serve.protocol import HEADER_LENGTH
from jaxtrain.serve.refusal import Refusal, bad_request, client_left
from jaxtrain.serve.service import VERSION, Continuation, Service

RETRY_AFTER = "1"
"""Seconds after which a client may send again what an overloaded server refused."""


def make_app(service: Service) -> ASGIApp:
    """Returns the application of a served model."""
    page = render_page(service.model, service.interface, service.name)
    model = "/v2/models/{model}"
    version_of_model = model + "/versions/{version}"
    writes_text = service.model.continuation is not None

    async def live(_: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(_: Request) -> Response:
        service.demand_ready()
        return JSONResponse({"ready": True})

    async def server(_: Request) -> Response:
        extensions = ["binary_tensor_data", *(["generate"] if writes_text else [])]
        return JSONResponse({"name": "jaxtrain", "version": _version(), "extensions": extensions})

    async def describe(request: Request) -> Response:
        _demand_model(request, service)
        return JSONResponse(service.describe())

    async def model_ready(request: Request) -> Response:
        _demand_model(request, service)
        service.demand_ready()
        return JSONResponse({"name": service.name, "ready": True})

    async def infer(request: Request) -> Response:
        _demand_model(request, service)
        return await _infer(request, service)

    async def generate(request: Request) -> Response:
        _demand_model(request, service)
        with service.admission():
            _demand_plain(request, service)
            return JSONResponse(await service.generate(request.stream(), _leaving(request)))

    async def metrics(_: Request) -> Response:
        return PlainTextResponse(service.render_metrics(), media_type="text/plain; version=0.0.4")

    async def show_page(_: Request) -> Response:
        return HTMLResponse(page)

    routes = [
        Route("/", show_page),
        Route("/metrics", metrics),
        Route("/v2", server),
        Route("/v2/health/live", live),
        Route("/v2/health/ready", ready),
    ]
    for prefix in (model, version_of_model):
        routes += [
            Route(prefix, describe),
            Route(f"{prefix}/ready", model_ready),
            Route(f"{prefix}/infer", infer, methods=["POST"]),
        ]
        if writes_text:
            routes += [
                Route(f"{prefix}/generate", generate, methods=["POST"]),
                Route(f"{prefix}/generate_stream", _Streaming(service), methods=["POST"]),
            ]
    handlers = {
        Refusal: _show_refusal,
        HTTPException: _show_http_exception,
        ClientDisconnect: _show_leaving,
    }
    return _Counted(Starlette(routes=routes, exception_handlers=handlers), service)


def _version() -> str:
    try:
        return version("jaxtrain")
    except PackageNotFoundError:  # run from a checkout
        return "unknown"


def _demand_model(request: Request, service: Service) -> None:
    """Raises Refusal for another model than the one that is served, or another version."""
    if request.path_params["model"] != service.name:
        raise Refusal(404, "model", "another name", f"{service.name!r}, the model of this server")
    if request.path_params.get("version", VERSION) != VERSION:
        raise Refusal(404, "version", "another one", f"{VERSION!r}, the version of this model")


async def _infer(request: Request, service: Service) -> Response:
    with service.admission():
        _demand_plain(request, service)
        headers, body = await service.infer(request.stream(), request.headers.get(HEADER_LENGTH), _leaving(request))
    return Response(body, headers=headers)


def _demand_plain(request: Request, service: Service) -> None:
    """Raises Refusal for a body that is compressed, or declared to be larger than the limit."""
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Refusal(415, "content-encoding", "a compressed body", "a plain one")
    length = request.headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()):
        raise bad_request("content-length", "no number", "the bytes of the body")
    if len(length) > 20 or int(length) > service.limits.body_bytes:
        raise service.too_large()


def _leaving(request: Request) -> Callable[[], Coroutine[Any, Any, None]]:
    """Returns a function that waits, once the body was read, until the client closes its connection."""

    async def left() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    return left


def _show_refusal(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    headers = {"retry-after": RETRY_AFTER} if error.status == 503 else {}
    return JSONResponse({"error": str(error)}, error.status, headers)


def _show_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    line = message("path", Words("one that is not served, or by another method"), "a path of the protocol")
    return JSONResponse({"error": line}, error.status_code, error.headers)


def _show_leaving(request: Request, _: Exception) -> Response:
    return _show_refusal(request, client_left())


class _Streaming:
    """The route that sends a continuation while it is made, as events: a line of JSON for each piece of the text.

    The request is in progress until its last event; a client that leaves ends it.
    """

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        request = Request(scope, receive)
        _demand_model(request, self._service)
        with self._service.admission():
            _demand_plain(request, self._service)
            continuation = await self._service.read_generation(request.stream())
            events = self._events(continuation)
            await StreamingResponse(events, media_type="text/event-stream")(scope, receive, send)

    async def _events(self, continuation: Continuation) -> AsyncIterator[str]:
        about = {name: self._service.about[name] for name in ("model_name", "model_version")}
        try:
            async for piece in continuation.pieces:
                yield _event({**about, **continuation.identity, "text_output": piece})
        except Refusal as error:  # the status of the answer was sent with its first piece
            yield _event({"error": str(error)})


def _event(value: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(value)}\n\n"


class _Counted:
    """An application that counts its answers by status, and names the model in each of them."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service
        self._header = (b"model-sha256", service.sha256.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""

        async def send_counted(sent: Message) -> None:
            if sent["type"] == "http.response.start":
                self._service.metrics.count_response(sent["status"])
                sent["headers"] = [*sent["headers"], self._header]
            await send(sent)

        await self._app(scope, receive, send_counted)
