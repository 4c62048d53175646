"""Real server processes of exported models, and a small client that speaks to them as any program would."""

import http.client
import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tiny_runs import PATIENCE, start

READY = "ready: "


class Answer(NamedTuple):
    """An answer of a server."""

    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def outputs(self) -> dict[str, np.ndarray]:
        """The outputs of an inference by name, whether they came in JSON or in binary."""
        length = int(self.headers.get("Inference-Header-Content-Length", len(self.body)))
        rest = self.body[length:]
        found = {}
        for output in json.loads(self.body[:length])["outputs"]:
            dtype = {"FP32": "<f4", "FP64": "<f8", "INT32": "<i4"}[output["datatype"]]
            size = output.get("parameters", {}).get("binary_data_size")
            values = np.array(output["data"], dtype) if size is None else np.frombuffer(rest[:size], dtype)
            rest = rest[size or 0 :]
            found[output["name"]] = values.reshape(output["shape"])
        assert not rest
        return found


class Server:
    """A server process that is ready."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process = process
        self.url = url
        self.port = int(url.rstrip("/").rpartition(":")[2])

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)

    def ask(self, path: str, body: bytes | str | None = None, **headers: str) -> Answer:
        """Sends a request on a connection of its own: GET, or POST where there is a body."""
        with closing(self.connect()) as connection:
            return ask(connection, path, body, **headers)

    def count(self, name: str) -> float:
        """Returns a sample of the metrics, such as 'jaxtrain_examples_total'; 0 where there is none yet."""
        lines = self.ask("/metrics").body.decode().splitlines()
        return next((float(line.removeprefix(name)) for line in lines if line.startswith(f"{name} ")), 0.0)


def ask(connection: http.client.HTTPConnection, path: str, body: bytes | str | None = None, **headers: str) -> Answer:
    """Sends a request on a connection, which stays open; "_" in the name of a header stands for "-"."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request("GET" if body is None else "POST", path, body, named)
    response = connection.getresponse()
    return Answer(response.status, response.headers, response.read())


@contextmanager
def served(folder: Path, export: Path, *options: str) -> Iterator[Server]:
    """Serves an export in a process that is ready, and ends it."""
    folder.mkdir(exist_ok=True)
    process = start(folder, "serve", f"--export={export}", "--port=0", *options)
    assert process.stdout
    try:
        line = next(line for line in process.stdout if line.startswith(READY))
        yield Server(process, line.split()[-1])
    finally:
        process.kill()
        process.communicate()


def in_json(tensors: Mapping[str, Any], **more: Any) -> str:
    """Returns a request in JSON; `tensors` are name -> (datatype, array)."""
    inputs = [
        {"name": name, "datatype": datatype, "shape": list(np.shape(array)), "data": np.asarray(array).tolist()}
        for name, (datatype, array) in tensors.items()
    ]
    return json.dumps({"inputs": inputs, **more})


def in_binary(tensors: Mapping[str, Any], **more: Any) -> tuple[bytes, str]:
    """Returns a request with binary data, and the length of its JSON, which goes into a header."""
    parts = {name: np.ascontiguousarray(array).tobytes() for name, (_, array) in tensors.items()}
    inputs = [
        {
            **{"name": name, "datatype": datatype, "shape": list(np.shape(array))},
            "parameters": {"binary_data_size": len(parts[name])},
        }
        for name, (datatype, array) in tensors.items()
    ]
    head = json.dumps({"inputs": inputs, **more}).encode()
    return head + b"".join(parts.values()), str(len(head))
