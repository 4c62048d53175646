"""Compares `serve` with servers that predict each request by itself, behind the same HTTP: requests/s, times, memory.

python benchmarks/serving.py [--rounds=5] [--requests=4000] [--output=FILE.json] [--quick]

Eight clients send requests of 1 to 40 digits in binary. All servers of a round are new processes: the first requests of
one that jits meet the compilations of its 40 sizes, the same number of further requests does not. Onnxruntime is left
out where it, or the model.onnx of the export, is missing.
"""

import argparse
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import timing
from timing import ROOT

CLIENTS = 8
LARGEST = 40
MEMORY_AFTER = (10_000, 100_000)
RPS_BAR = 10.0
P99_BAR = 0.05
ONNX_BAR = 0.5
MEMORY_BAR = 1.05


@dataclass
class Load:
    """Times of a load of requests: milliseconds of each, and seconds of all together."""

    milliseconds: list[float] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.milliseconds) / self.seconds

    def percentile(self, share: float) -> float:
        """Milliseconds within which this share, in percent, of the requests was answered."""
        return float(np.percentile(self.milliseconds, share))


def main() -> None:
    """Trains and exports a small network, then loads the servers in turns."""
    parser = argparse.ArgumentParser(description=timing.first_line(__doc__))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=4000, help="of each load")
    parser.add_argument("--output", type=Path, help="JSON file to write the results to")
    parser.add_argument("--quick", action="store_true", help="one round of a few requests, as a smoke test")
    options = parser.parse_args()
    rounds = 1 if options.quick else options.rounds
    requests = 80 if options.quick else options.requests
    with tempfile.TemporaryDirectory() as folder:
        export = export_digits(Path(folder), "2 epochs" if options.quick else "10 epochs")
        kinds = ["ours", "jit"] + ["onnx"] * ((export / "model.onnx").exists() and find_spec("onnxruntime") is not None)
        loads = load_in_turns(export, kinds, rounds, requests)
        ratios = compare(loads, kinds)
        ratios.append(memory_ratio(export, [count // 200 for count in MEMORY_AFTER] if options.quick else MEMORY_AFTER))
    notes = [
        f"{requests} requests of 1 to {LARGEST} digits by {CLIENTS} clients to new servers (first), and again",
        *(line for kind in kinds for line in describe(kind, loads)),
        *([] if "onnx" in kinds else ["onnxruntime, or model.onnx, is missing: left out"]),
    ]
    timing.report("Servers of an exported network: ours and theirs", ratios, notes, options.output)


def export_digits(folder: Path, duration: str) -> Path:
    """Trains an MLP on the digits and exports it."""
    command = [sys.executable, "-m", "jaxtrain.main"]
    train = [f"--config={ROOT / 'configs' / 'digits.py'}", f"--config.train.duration={duration}"]
    for words in ([*train, f"--workdir={folder / 'run'}"], ["export", f"--workdir={folder / 'run'}"]):
        subprocess.run([*command, *words, "--quiet"], cwd=ROOT, check=True)
    return folder / "run" / "export"


@contextmanager
def server(export: Path, kind: str) -> Iterator[tuple[int, int]]:
    """Starts a server; yields its port and its process."""
    ours = [sys.executable, "-m", "jaxtrain.main", "serve", f"--export={export}", "--port=0"]
    theirs = [sys.executable, str(ROOT / "benchmarks" / "serving_peers.py"), str(export), kind]
    with subprocess.Popen(ours if kind == "ours" else theirs, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        line = next((line for line in process.stdout if line.startswith("ready: ")), "")
        try:
            if not line:
                raise RuntimeError(f"{kind}: the server ended with exit code {process.wait()}")
            yield int(line.rstrip("/\n").rpartition(":")[2]), process.pid
        finally:
            process.terminate()
            process.communicate()


def load_in_turns(export: Path, kinds: Sequence[str], rounds: int, requests: int) -> dict[str, list[Load]]:
    """Returns "KIND first" and "KIND again" -> the load of each round."""
    loads: dict[str, list[Load]] = {f"{kind} {turn}": [] for kind in kinds for turn in ("first", "again")}
    for number in range(rounds):
        for kind in kinds:
            with server(export, kind) as (port, _):
                for turn in ("first", "again"):
                    loads[f"{kind} {turn}"].append(send_load(port, requests, number))
    return loads


def send_load(port: int, requests: int, seed: int) -> Load:
    """Sends requests from all clients at once."""
    bodies = [request_of(size) for size in range(1, LARGEST + 1)]

    def client(number: int) -> list[float]:
        draw = random.Random(1000 * seed + number)
        took = []
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for _ in range(requests // CLIENTS):
                body = draw.choice(bodies)
                begin = time.perf_counter()
                connection.sendall(body)
                receive(connection)
                took.append(1000 * (time.perf_counter() - begin))
        return took

    begin = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        took = [time for times in pool.map(client, range(CLIENTS)) for time in times]
    return Load(took, time.perf_counter() - begin)


def request_of(size: int) -> bytes:
    """Returns the bytes of a request of `size` digits."""
    pixels = np.random.default_rng(size).integers(17, size=(size, 8, 8, 1), dtype=np.uint8).tobytes()
    given = {"name": "inputs", "datatype": "UINT8", "shape": [size, 8, 8, 1]}
    request = {
        "inputs": [{**given, "parameters": {"binary_data_size": len(pixels)}}],
        "parameters": {"binary_data_output": True},
    }
    head = json.dumps(request).encode()
    lines = [
        "POST /v2/models/mlp/infer HTTP/1.1",
        "Host: 127.0.0.1",
        f"Inference-Header-Content-Length: {len(head)}",
        f"Content-Length: {len(head) + len(pixels)}",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + head + pixels


def receive(connection: socket.socket) -> None:
    """Reads an answer to its end; raises for one that is an error."""
    received = connection.recv(2**16)
    while b"\r\n\r\n" not in received:
        received += connection.recv(2**16)
    head, _, body = received.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(received.decode(errors="replace"))
    lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    missing = int(lengths[0]) - len(body)
    while missing:
        missing -= len(connection.recv(missing))


def compare(loads: dict[str, list[Load]], kinds: Sequence[str]) -> list[timing.Ratio]:
    """Returns the ratios of requests a second and of p99, ours to each of the others'."""
    ratios = []
    for kind in kinds[1:]:
        for turn in ("first", "again"):
            ours = loads[f"ours {turn}"]
            theirs = loads[f"{kind} {turn}"]
            is_cold = (kind, turn) == ("jit", "first")
            rate_bar = RPS_BAR if is_cold else (ONNX_BAR if kind == "onnx" else None)
            rates = ([load.rate for load in ours], [load.rate for load in theirs])
            ratios.append(timing.ratio(f"{kind}, {turn}", "requests/s", *rates, rate_bar, at_least=True))
            tails = ([load.percentile(99) for load in ours], [load.percentile(99) for load in theirs])
            ratios.append(timing.ratio(f"{kind}, {turn}, p99", "ms", *tails, P99_BAR if is_cold else None))
    return ratios


def describe(kind: str, loads: dict[str, list[Load]]) -> list[str]:
    """Returns a line of medians over the rounds for each turn of a server."""
    lines = []
    for turn in ("first", "again"):
        rounds = loads[f"{kind} {turn}"]
        rate, middle, tail = (
            float(np.median(values))
            for values in (
                [load.rate for load in rounds],
                [load.percentile(50) for load in rounds],
                [load.percentile(99) for load in rounds],
            )
        )
        lines.append(f"{kind}, {turn}: {rate:.0f} requests/s, p50 {middle:.2f} ms, p99 {tail:.2f} ms")
    return lines


def memory_ratio(export: Path, counts: Sequence[int]) -> timing.Ratio:
    """Returns the memory of our server after many requests, with that after few."""
    few, many = counts
    with server(export, "ours") as (port, process):
        send_load(port, few, 0)
        before = resident_mib(process)
        send_load(port, many - few, 1)
        after = resident_mib(process)
    name = f"memory after {many:,} and {few:,} requests"
    return timing.ratio(name, "MiB", [after], [before], MEMORY_BAR)


def resident_mib(process: int) -> float:
    """Returns the memory that a process holds, on Linux."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    main()
