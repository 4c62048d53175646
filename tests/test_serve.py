"""A real server of an exported model: its answers are the model's, under load, at its limits and until its end."""

import asyncio
import base64
import errno
import json
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path

import numpy as np
import pytest
import yaml
from browser import await_text, chromium, save_picture, set_width
from hostile_requests import SECRET, hostile_request
from optional_parts import PEERS
from PIL import Image
from served_models import Answer, Server, ask, in_binary, in_json, served
from sklearn.datasets import load_digits
from tiny_runs import PATIENCE, start, tiny

from jaxtrain import ExportedModel, export_run, load_export
from jaxtrain.commands.flags import parse
from jaxtrain.export.loading import sha256_of
from jaxtrain.main import main
from jaxtrain.serve.server import _open_socket
from jaxtrain.storage.safetensors_files import read_arrays, write_arrays
from jaxtrain.storage.seals import without_seal, write_sealed
from jaxtrain.training.train import train_and_evaluate

SHORT = {"train.duration": "20 steps", "eval.every": "20 steps"}
INFER = "/v2/models/mlp/infer"
PICTURES = load_digits(return_X_y=True)[0].astype(np.uint8).reshape(-1, 8, 8, 1)
CLIENTS = 8


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export of a run on digits, which the model takes as bytes."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    train_and_evaluate(tiny(SHORT), folder, quiet=True)
    return export_run(folder)[0]


@pytest.fixture(scope="module")
def server(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with served(tmp_path_factory.mktemp("server"), digits) as server:
        yield server


@pytest.fixture(scope="module")
def model(digits: Path) -> ExportedModel:
    return load_export(digits)


def tensors(pictures: np.ndarray) -> dict[str, tuple[str, np.ndarray]]:
    return {"inputs": ("UINT8", pictures)}


def assert_answers(answer: Answer, model: ExportedModel, pictures: np.ndarray) -> None:
    assert answer.status == 200, answer.body
    expected = model.predict(pictures)
    for name, output in answer.outputs.items():
        np.testing.assert_allclose(output, expected[name], atol=1e-5)


def test_the_routes_of_the_protocol_describe_a_ready_server_and_its_model(server: Server, model: ExportedModel):
    assert server.ask("/v2/health/live").json == {"live": True}
    assert server.ask("/v2/health/ready").json == {"ready": True}
    assert server.ask("/v2").json["extensions"] == ["binary_tensor_data"]
    assert server.ask("/v2/models/mlp/ready").json == {"name": "mlp", "ready": True}
    described = server.ask("/v2/models/mlp").json
    assert described["inputs"] == [{"name": "inputs", "datatype": "UINT8", "shape": [-1, 8, 8, 1]}]
    assert {output["name"]: output["shape"] for output in described["outputs"]} == {
        "logits": [-1, 10],
        "probabilities": [-1, 10],
        "class": [-1],
    }
    sha256 = model.description["files"]["model.jaxexp"]["sha256"]
    for path, status in (("/v2", 200), ("/nowhere", 404), ("/v2/models/other", 404), (INFER, 405)):
        answer = server.ask(path)
        assert (answer.status, answer.headers["Model-SHA256"]) == (status, sha256)
    assert server.ask("/v2/models/other").json["error"].startswith("model: got another name; expected 'mlp'")
    assert server.count("jaxtrain_programs_compiled") == 4


@pytest.mark.parametrize("count", [1, 3, 64, 150])
def test_answers_are_those_of_the_model_in_json_and_in_binary(server: Server, model: ExportedModel, count: int):
    pictures = PICTURES[:count]
    plain = server.ask(INFER, in_json(tensors(pictures), id="a-1"))
    assert_answers(plain, model, pictures)
    assert (plain.json["id"], plain.json["model_name"]) == ("a-1", "mlp")
    assert plain.json["parameters"]["sha256"] == plain.headers["Model-SHA256"]
    body, length = in_binary(tensors(pictures), parameters={"binary_data_output": True})
    binary = server.ask(INFER, body, Inference_Header_Content_Length=length)
    assert binary.headers["Content-Type"] == "application/octet-stream"
    assert_answers(binary, model, pictures)
    assert plain.outputs.keys() == binary.outputs.keys() == {"logits", "probabilities", "class"}


def test_the_outputs_of_an_answer_are_chosen_each_in_its_form(server: Server, model: ExportedModel):
    chosen = [{"name": "class"}, {"name": "probabilities", "parameters": {"binary_data": True}}]
    answer = server.ask(INFER, in_json(tensors(PICTURES[:2]), outputs=chosen))
    assert [*answer.outputs] == ["class", "probabilities"]
    assert_answers(answer, model, PICTURES[:2])
    flat = json.loads(in_json(tensors(PICTURES[:2])))
    flat["inputs"][0]["data"] = PICTURES[:2].ravel().tolist()
    assert_answers(server.ask(INFER, json.dumps(flat)), model, PICTURES[:2])


def test_each_client_gets_its_own_rows_whatever_shares_the_batch(server: Server, model: ExportedModel):
    expected = model.predict(PICTURES)["logits"]
    before = server.count("jaxtrain_examples_total")

    def client(number: int) -> int:
        draw = random.Random(number)
        rows = 0
        with closing(server.connect()) as connection:
            for _ in range(40):
                size = draw.randint(1, 40)
                begin = draw.randrange(len(PICTURES) - size)
                given = tensors(PICTURES[begin : begin + size])
                body, length = in_binary(given, parameters={"binary_data_output": True})
                answer = ask(connection, INFER, body, Inference_Header_Content_Length=length)
                np.testing.assert_allclose(answer.outputs["logits"], expected[begin : begin + size], atol=1e-5)
                rows += size
        return rows

    with ThreadPoolExecutor(CLIENTS) as pool:
        rows = sum(pool.map(client, range(CLIENTS)))
    assert server.count("jaxtrain_examples_total") - before == rows
    assert server.count("jaxtrain_programs_compiled") == 4, "no request compiles anything"


def test_rows_whose_clients_left_are_dropped(server: Server, model: ExportedModel):
    """More requests than the device is done with at once; their clients leave while some of them wait."""
    body, length = in_binary(tensors(np.tile(PICTURES[:64], (200, 1, 1, 1))))
    head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    request = f"{head}Inference-Header-Content-Length: {length}\r\n\r\n".encode() + body
    with ExitStack() as clients:
        for _ in range(30):
            connection = clients.enter_context(socket.create_connection(("127.0.0.1", server.port), PATIENCE))
            connection.sendall(request)
        await_count(server, "jaxtrain_requests_waiting", 5)
    await_count(server, "jaxtrain_dropped_examples_total", 1)
    await_count(server, 'jaxtrain_responses_total{code="499"}', 1)
    assert_answers(server.ask(INFER, in_json(tensors(PICTURES[:1]))), model, PICTURES[:1])


def await_count(server: Server, name: str, least: float) -> None:
    """Waits until a sample of the metrics is as large as this."""
    end = time.monotonic() + PATIENCE
    while server.count(name) < least:
        assert time.monotonic() < end, name


def test_a_deadline_of_the_client_ends_its_request(server: Server):
    answer = server.ask(INFER, in_json(tensors(PICTURES[:64]), parameters={"timeout": 1}))
    assert (answer.status, answer.json["error"].split(";")[0]) == (504, "server: got no answer in time")


def unfinished(server: Server, body: bytes, held: int) -> socket.socket:
    """Sends a request but for its last bytes, so that the server has admitted it and waits."""
    connection = socket.create_connection(("127.0.0.1", server.port), PATIENCE)
    head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    connection.sendall(head + body[:-held])
    return connection


def receive(connection: socket.socket) -> tuple[int, bytes]:
    """Returns status and body of the answer on a connection."""
    response = HTTPResponse(connection)
    response.begin()
    return response.status, response.read()


def test_limits_of_requests_time_and_bytes(digits: Path, model: ExportedModel, tmp_path: Path):
    """Two requests may be in progress, each for two seconds, with a body of a megabyte."""
    body = in_json(tensors(PICTURES[:2])).encode()
    options = ("--most-requests=2", "--deadline=2", "--most-megabytes=1")
    with served(tmp_path / "server", digits, *options) as server:
        held = [unfinished(server, body, 1) for _ in range(2)]
        await_count(server, "jaxtrain_requests_in_progress", 2)
        refused = server.ask(INFER, body)
        assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
        assert "2 requests in progress" in refused.json["error"]
        for connection in held:
            with connection:
                assert receive(connection)[0] == 504, "a body that does not come ends at the deadline"
        assert server.ask(INFER, b"x" * (2**20 + 1)).status == 413
        with closing(server.connect()) as connection:
            chunks = iter([b"[" * 2**19] * 3)
            connection.request("POST", INFER, chunks, {"Transfer-Encoding": "chunked"}, encode_chunked=True)
            assert connection.getresponse().status == 413, "bytes are counted as they come"
        assert_answers(server.ask(INFER, body), model, PICTURES[:2])


def test_sigterm_lets_what_was_admitted_be_answered_and_ends_with_0(digits: Path, model: ExportedModel, tmp_path: Path):
    body = in_json(tensors(PICTURES[:2])).encode()
    with served(tmp_path / "server", digits) as server:
        held = unfinished(server, body, 1)
        await_count(server, "jaxtrain_requests_in_progress", 1)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.stdout
        assert "SIGTERM" in server.process.stdout.readline()
        assert server.ask("/v2/health/ready").status == 503
        assert server.ask("/v2/health/live").status == 200
        refused = server.ask(INFER, body)
        assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
        assert server.process.poll() is None
        with held:
            held.sendall(body[-1:])
            status, answer = receive(held)
        assert_answers(Answer(status, {}, answer), model, PICTURES[:2])
        assert server.process.wait(PATIENCE) == 0
        assert server.process.stderr
        assert server.process.stderr.read() == ""


def test_a_second_signal_ends_the_server_at_once(digits: Path, tmp_path: Path):
    body = in_json(tensors(PICTURES[:2])).encode()
    with served(tmp_path / "server", digits) as server, unfinished(server, body, 1):
        await_count(server, "jaxtrain_requests_in_progress", 1)
        server.process.send_signal(signal.SIGINT)
        assert server.process.stdout
        assert "SIGINT" in server.process.stdout.readline()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE) == 128 + signal.SIGTERM


def test_a_server_whose_output_nobody_reads_serves_and_ends(digits: Path, model: ExportedModel, tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = start(tmp_path, "serve", f"--export={digits}", f"--port={port}")
    try:
        assert process.stdout
        process.stdout.close()
        server = Server(process, f"http://127.0.0.1:{port}/")
        while not is_ready(server):
            assert process.poll() is None
        assert_answers(server.ask(INFER, in_json(tensors(PICTURES[:2]))), model, PICTURES[:2])
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.communicate()


def is_ready(server: Server) -> bool:
    """Tells whether a server is ready, also while it does not listen yet."""
    try:
        return server.ask("/v2/health/ready").status == 200
    except ConnectionError:
        time.sleep(0.01)
        return False


def test_small_answers_are_sent_at_once():
    """Else the system holds the second part of an answer back until the first is confirmed, after 40 ms."""

    async def has_no_delay() -> bool:
        accepted: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            taken = writer.get_extra_info("socket")
            accepted.set_result(taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        listening = _open_socket("127.0.0.1", 0)
        async with await asyncio.start_server(connected, sock=listening):
            _, writer = await asyncio.open_connection(*listening.getsockname())
            writer.close()
            return bool(await accepted)

    assert asyncio.run(has_no_delay())


@pytest.mark.parametrize("count", [1_000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_hostile_requests_are_refused_in_a_line_and_bring_nothing_down(
    server: Server, model: ExportedModel, count: int
):
    """Each is answered, or its connection closed; never is it an error of the server, nor is what was sent repeated."""

    def client(number: int) -> dict[int, int]:
        draw = random.Random(number)
        statuses: dict[int, int] = {}
        connection = server.connect()
        for _ in range(count // CLIENTS):
            status = attack(connection, draw)
            statuses[status] = statuses.get(status, 0) + 1
            if status == 0:
                connection.close()
                connection = server.connect()
        connection.close()
        return statuses

    with ThreadPoolExecutor(CLIENTS) as pool:
        found = [*pool.map(client, range(CLIENTS))]
    totals = {status: sum(one.get(status, 0) for one in found) for status in {s for one in found for s in one}}
    assert totals.keys() <= {0, 200, 400, 404, 405, 413, 415}, totals
    assert totals[400] > count / 2
    assert_answers(server.ask(INFER, in_json(tensors(PICTURES[:3]))), model, PICTURES[:3])
    assert server.process.poll() is None


def attack(connection: HTTPConnection, draw: random.Random) -> int:
    """Sends a hostile request; returns the status of its answer, 0 for a connection that was closed."""
    request = hostile_request(draw)
    connection.request(request.method, request.path, request.body, request.headers)
    try:
        response = connection.getresponse()
        body = response.read()
    except (HTTPException, ConnectionError):
        return 0
    assert SECRET.encode() not in body, (request, body)
    if response.status != 200:
        assert [*json.loads(body)] == ["error"], (request, body)
        assert len(json.loads(body)["error"].splitlines()) == 1
    return response.status


def test_what_is_no_http_ends_its_connection_alone(server: Server, model: ExportedModel):
    lines = [b"\0" * 1000, b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET /" + b"a" * 2**17, b"\x16\x03\x01\x02"]
    repeated = b"POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\nabcde"
    for line in [*lines, repeated]:
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as connection:
            try:
                connection.sendall(line)
                connection.shutdown(socket.SHUT_WR)
                assert b" 500 " not in connection.recv(2**16)
            except OSError as error:  # the server may close the connection before this end does
                if error.errno not in (errno.ENOTCONN, errno.ECONNRESET, errno.EPIPE):
                    raise
    assert_answers(server.ask(INFER, in_json(tensors(PICTURES[:3]))), model, PICTURES[:3])


CLIENT = """
import json, sys
import numpy as np
import tritonclient.http as http

client = http.InferenceServerClient(f"127.0.0.1:{sys.argv[1]}")
pictures = np.load(sys.argv[2])
assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("mlp")
described = client.get_model_metadata("mlp")
given = http.InferInput("inputs", list(pictures.shape), described["inputs"][0]["datatype"])
found = {}
for binary in (True, False):
    given.set_data_from_numpy(pictures, binary_data=binary)
    outputs = [http.InferRequestedOutput(name, binary_data=binary) for name in ("logits", "class")]
    answer = client.infer("mlp", [given], outputs=outputs, request_id="7")
    found[str(binary)] = {name: answer.as_numpy(name).tolist() for name in ("logits", "class")}
everything = client.infer("mlp", [given])
found["all"] = everything.as_numpy("probabilities").tolist()
try:
    client.infer("mlp", [given], outputs=[http.InferRequestedOutput("nothing")])
except Exception as error:
    found["error"] = str(error)
print(json.dumps(found))
"""


@pytest.mark.needs("peers")
def test_a_client_of_the_protocol_gets_the_numbers_of_the_model(server: Server, model: ExportedModel, tmp_path: Path):
    np.save(tmp_path / "pictures.npy", PICTURES[:5])
    command = [str(PEERS), "-c", CLIENT, str(server.port), str(tmp_path / "pictures.npy")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    expected = model.predict(PICTURES[:5])
    for binary in ("True", "False"):
        np.testing.assert_allclose(found[binary]["logits"], expected["logits"], atol=1e-5)
        assert found[binary]["class"] == expected["class"].tolist()
    np.testing.assert_allclose(found["all"], expected["probabilities"], atol=1e-5)
    assert "outputs: got a name that the model does not have" in found["error"]


WIDTHS = {"desk": 1300, "phone": 400}


@pytest.mark.needs("browser")
@pytest.mark.parametrize("device", WIDTHS)
def test_the_page_shows_classes_with_probabilities(server: Server, model: ExportedModel, device: str, tmp_path: Path):
    """A picture that is dropped, numbers that are pasted and an example; nothing is asked of any other address."""
    image = Image.fromarray(np.kron(PICTURES[0, ..., 0] * 15, np.ones((40, 40), np.uint8)))
    image.save(tmp_path / "zero.png")
    encoded = base64.b64encode((tmp_path / "zero.png").read_bytes()).decode()
    with chromium(tmp_path, f"127.0.0.1:{server.port}") as page:
        set_width(page, WIDTHS[device])
        page.open(server.url)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it is as wide as its window"
        page.evaluate("part('examples').querySelector('button').click()")
        first = model.read_examples()[1]["class"][0]
        await_text(page, "#result .chosen", str(first))
        page.evaluate(f"part('values').value = {' '.join(map(str, PICTURES[1].ravel()))!r}; part('predict').click()")
        await_text(page, "#result .chosen", str(model.predict(PICTURES[1:2])["class"][0]))
        page.evaluate(DROP.replace("ENCODED", encoded))
        expected = model.predict(PICTURES[:1])
        await_text(page, "#result .chosen", str(expected["class"][0]))
        await_text(page, "#scaled", "320 × 320 pixels, scaled to the 8 × 8 of the model.")
        assert page.evaluate("document.querySelector('#result th').innerText") == str(expected["class"][0])
        shown = page.evaluate(
            "[...document.querySelectorAll('#result td.number')].map(cell => parseFloat(cell.innerText))"
        )
        found = np.array(shown)[np.argsort(np.argsort(-expected["probabilities"][0]))]
        np.testing.assert_allclose(found, 100 * expected["probabilities"][0], atol=3.0, err_msg="the picture is scaled")
        save_picture(page, tmp_path / f"{device}.png")
        page.evaluate("part('values').value = '1 2 3'; part('numbers').open = true; part('predict').click()")
        await_text(page, "#error", "3 numbers; expected 64")
        hidden = "['white', 'invert'].map((id) => part(id).parentNode.hidden)"
        assert page.evaluate(hidden) == [False, False]
        page.evaluate("model.white = 255; model.inputs[0].shape[2] = 3; start()")
        assert page.evaluate(hidden) == [True, True], "a photograph in colours needs neither"
        assert page.errors == []
        own = ("data:", "blob:", server.url)
        assert [address for address in page.requests if not address.startswith(own)] == []


DROP = """
(async () => {
    const bytes = Uint8Array.from(atob("ENCODED"), (letter) => letter.charCodeAt(0));
    const carried = new DataTransfer();
    carried.items.add(new File([bytes], "zero.png", { type: "image/png" }));
    part("drop").dispatchEvent(new DragEvent("drop", { dataTransfer: carried, bubbles: true, cancelable: true }));
})()
"""


def test_a_model_that_predicts_otherwise_is_never_ready(digits: Path, tmp_path: Path):
    copy = tmp_path / "copy"
    shutil.copytree(digits, copy)
    arrays = read_arrays(copy / "examples.safetensors")
    write_arrays(copy / "examples.safetensors", {**arrays, "outputs/logits": arrays["outputs/logits"] + 0.01})
    description = json.loads((copy / "model.json").read_text())
    content = (copy / "examples.safetensors").read_bytes()
    description["files"]["examples.safetensors"] = {"sha256": sha256_of(content), "bytes": len(content)}
    write_sealed(copy / "model.json", without_seal(description))
    process = start(tmp_path, "serve", f"--export={copy}", "--port=0")
    assert process.stdout
    first = process.stdout.readline()  # nothing, where the process ends before it is ready
    if first:
        process.kill()
    _, printed = process.communicate()
    assert (first, process.returncode) == ("", 5)
    assert "got 'logits' off by" in printed


def test_the_files_for_containers_name_what_is_there(server: Server, digits: Path):
    """They copy files that are there, their command is one of this program, and their probes are served."""
    lines = (digits / "Dockerfile").read_text().splitlines()
    copies = [line.split()[1:] for line in lines if line.startswith("COPY ") and " /model/" in line]
    copied = [name for *names, _ in copies for name in names]
    for *names, folder in copies:
        assert {name.rpartition("/")[0] for name in names} == {folder.removeprefix("/model/").rstrip("/")}
    needed = {"model.json", *json.loads((digits / "model.json").read_text())["files"]}
    assert {*copied} == needed
    assert all((digits / name).is_file() for name in copied)
    python, flag, module, *words = json.loads(
        next(line.removeprefix("CMD ") for line in lines if line.startswith("CMD "))
    )
    assert (python, flag, module) == ("python", "-m", "jaxtrain.main")
    options = parse(words, {})
    assert (options.words, options.export, options.host, options.port) == (["serve"], "/model", "0.0.0.0", 8000)
    deployment, service = yaml.safe_load_all((digits / "kubernetes.yaml").read_text())
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["ports"][0]["containerPort"] == options.port
    probes = {name: container[name]["httpGet"]["path"] for name in ("readinessProbe", "livenessProbe")}
    assert probes == {"readinessProbe": "/v2/health/ready", "livenessProbe": "/v2/health/live"}
    assert all(server.ask(path).status == 200 for path in probes.values())
    annotations = deployment["spec"]["template"]["metadata"]["annotations"]
    assert server.ask(annotations["prometheus.io/path"]).status == 200
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"] == labels


def test_what_cannot_be_served_is_one_line(digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        cases = [
            ([f"--export={digits}", f"--port={taken.getsockname()[1]}"], 2, "which cannot be opened"),
            ([f"--export={digits}", "--host=192.0.2.1"], 2, "which cannot be opened"),
            ([f"--export={digits}", "--port=65536"], 2, "--port: got '65536'; expected a port"),
            ([f"--export={digits}", "--deadline=0"], 2, "--deadline: got '0'; expected an integer, at least 1"),
            ([f"--export={tmp_path}"], 5, "model.json"),
            ([], 2, "--export: got nothing"),
            ([f"--export={digits}", "--workdir=x"], 2, "serve: got a config or a directory of a run"),
        ]
        for words, code, said in cases:
            assert main(["serve", *words]) == code
            printed = capsys.readouterr().err
            assert said in printed
            assert len(printed.splitlines()) == 1


def test_the_packages_that_are_missing_are_named(
    digits: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "jaxtrain.serve.server", raising=False)
    assert main(["serve", f"--export={digits}"]) == 2
    assert "Run pip install 'jaxtrain[serve]': uvicorn is missing" in capsys.readouterr().err
