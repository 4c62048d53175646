"""MLflow servers for tests: a real one in the environment of peers, and what it holds; fakes that answer otherwise."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from optional_parts import PEERS

PATIENCE = 300.0
"""Seconds until a server that has not answered fails its test; it starts in ten on a busy machine."""


class MlflowServer:
    """A server with a database and artifacts of its own in a folder; `uri` is its address."""

    def __init__(self, folder: Path, *options: str) -> None:
        """Starts nothing; `start` does."""
        self._folder = folder
        self._options = options or (f"--artifacts-destination={folder}/artifacts",)
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.uri = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Starts the server, and waits until it answers."""
        place = ["--host=127.0.0.1", f"--port={self._port}", "--workers=1"]
        store = f"--backend-store-uri=sqlite:///{self._folder}/runs.sqlite"
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [PEERS.parent / "mlflow", "server", *place, store, *self._options],
                cwd=self._folder,
                env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a group that one kill ends
            )
        deadline = time.monotonic() + PATIENCE
        while not self._answers():
            assert self._process.poll() is None, (self._folder / "server.log").read_text()
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.1)

    def kill(self) -> None:
        """Kills all processes of the server, as a power cut does."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def get(self, endpoint: str, **query: str) -> dict[str, Any]:
        """Returns what the REST interface answers."""
        return self._ask(f"{endpoint}?{urllib.parse.urlencode(query)}", None)

    def runs(self, experiment: str = "jaxtrain") -> list[dict[str, Any]]:
        """Returns the runs of an experiment, the oldest first."""
        found = self.get("experiments/get-by-name", experiment_name=experiment)["experiment"]["experiment_id"]
        query = {"experiment_ids": [found], "order_by": ["attribute.start_time ASC"], "max_results": 1000}
        return self._ask("runs/search", json.dumps(query).encode()).get("runs", [])

    def metrics(self, run: dict[str, Any], names: list[str] | None = None) -> dict[tuple[int, str], float]:
        """Returns (step, name) -> value of the metrics of a run, or of some; fails where one has several values."""
        names = names or [metric["key"] for metric in run["data"].get("metrics", [])]
        found = Counter()
        values = {}
        for name in names:
            query = {"run_id": run["info"]["run_id"], "metric_key": name, "max_results": "25000"}
            for point in self.get("metrics/get-history", **query)["metrics"]:
                values[int(point["step"]), name] = float(point["value"])
                found[int(point["step"]), name] += 1
        assert set(found.values()) <= {1}, [key for key, count in found.items() if count > 1]
        return values

    def artifacts(self, run: dict[str, Any], path: str = "") -> dict[str, int]:
        """Returns path -> bytes of the files of a run."""
        query = {"run_id": run["info"]["run_id"]} | ({"path": path} if path else {})
        files: dict[str, int] = {}
        for file in self.get("artifacts/list", **query).get("files", []):
            files |= self.artifacts(run, file["path"]) if file["is_dir"] else {file["path"]: int(file["file_size"])}
        return files

    def delete(self, run: dict[str, Any]) -> None:
        """Deletes a run."""
        self._ask("runs/delete", json.dumps({"run_id": run["info"]["run_id"]}).encode())

    def _ask(self, endpoint: str, body: bytes | None) -> dict[str, Any]:
        url = f"{self.uri}/api/2.0/mlflow/{endpoint}"
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.loads(answer.read())

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:
            return answer.status == 200
        return False


@contextlib.contextmanager
def mlflow_server(folder: Path, *options: str) -> Iterator[MlflowServer]:
    """Starts a server and ends it; a test that calls this needs "peers"."""
    server = MlflowServer(folder, *options)
    try:
        server.start()
        yield server
    finally:
        server.kill()


def named(pairs: list[dict[str, str]]) -> dict[str, str]:
    """Returns parameters or tags as a mapping."""
    return {pair["key"]: pair["value"] for pair in pairs}


Answer = Callable[[str, bytes], tuple[bytes, float]]
"""(first line of a request, its body) -> the bytes of the answer, and the seconds to wait before they are sent."""


@contextlib.contextmanager
def fake_server(answer: Answer) -> Iterator[tuple[str, list[str]]]:
    """Listens on a port and answers each request as told; yields the address, and the first line and user of each."""
    asked: list[str] = []
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.1)

        def serve() -> None:
            while not ended.is_set():
                with contextlib.suppress(TimeoutError):
                    connection, _ = listening.accept()
                    threading.Thread(target=reply, args=(connection,), daemon=True).start()

        def reply(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError), connection.makefile("rb") as incoming:
                connection.settimeout(PATIENCE)
                first = incoming.readline().decode().strip()
                headers = {}
                while line := incoming.readline().decode().strip():
                    name, _, value = line.partition(":")
                    headers[name.lower()] = value.strip()
                body = incoming.read(int(headers.get("content-length", 0)))
                asked.append(f"{first} {headers.get('authorization', '')}".strip())
                content, seconds = answer(first, body)
                ended.wait(seconds)
                connection.sendall(content)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}", asked
        finally:
            ended.set()
            thread.join()


def http(status: int, content: bytes) -> bytes:
    """Returns an answer of HTTP."""
    return b"HTTP/1.0 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(content), content)


def free_port() -> int:
    """Returns a port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def forward(uri: str, first: str, body: bytes, change: Callable[[bytes], bytes] = bytes) -> bytes:
    """Returns the bytes with which the server at an address answers a request, their content changed."""
    method, path, _ = first.split(" ")
    request = urllib.request.Request(f"{uri}{path}", body or None, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return http(answer.status, change(answer.read()))
    except urllib.error.HTTPError as error:
        return http(error.code, change(error.read()))
