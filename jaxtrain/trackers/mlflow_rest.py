"""A client of an MLflow server: its REST interface over HTTP, without MLflow's package."""

import base64
import http.client
import json
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxtrain.config.defaults import Config
from jaxtrain.errors import ConfigError, Words

Json = dict[str, Any]

ANSWER_SECONDS = 30.0
"""Seconds that a request may take; a server whose database is busy answers late."""

CHECK_SECONDS = 3.0
"""Seconds that a run waits for the server before it trains."""

MOST_BYTES = 32 * 2**20
"""Most bytes of an answer that are read: that of a server which is none may have no end."""

MOST_METRICS = 1000
MOST_PARAMS = 100
MOST_TAGS = 100
LONGEST_PARAM = 6000
LONGEST_TAG = 8000
LONGEST_KEY = 250
"""Limits of the server: what is longer it refuses, or cuts without a word."""

PROXIED = "mlflow-artifacts:"


class ServerDown(Exception):
    """The server does not answer, or with an error of its own: the same request may succeed later."""


class NoMlflow(ServerDown):
    """Something else than an MLflow server answers, or the answer is damaged."""


class ServerFails(ServerDown):
    """The server fails at a request, by status 500: it may take others."""


class Refused(Exception):
    """The server refuses a request, and would do so again. `code` is its name of the reason."""

    def __init__(self, code: str, reason: str) -> None:
        """Keeps the code."""
        self.code = code
        super().__init__(reason)


class MlflowServer:
    """The server at an address, such as http://127.0.0.1:5000.

    Every method raises ServerDown, NoMlflow or Refused. The variables MLFLOW_TRACKING_TOKEN, or
    MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, name the user, as for MLflow's own client.
    """

    def __init__(self, uri: str, seconds: float | None = None) -> None:
        """Touches no network; `seconds` is the time that each answer may take (None: ANSWER_SECONDS)."""
        self.uri = uri.rstrip("/")
        self._seconds = ANSWER_SECONDS if seconds is None else seconds
        self._authorization = _authorization()

    def experiment(self, name: str) -> Json | None:
        """Returns the experiment of a name; None if there is none."""
        return self._find("experiments/get-by-name", experiment_name=name, part="experiment")

    def make_experiment(self, name: str) -> str:
        """Returns the id of the experiment of a name, which is made if there is none."""
        found = self.experiment(name)
        if found is None:
            try:
                return _part(self._post("experiments/create", name=name), "experiment_id")
            except Refused as error:
                if error.code != "RESOURCE_ALREADY_EXISTS":
                    raise
            found = self.experiment(name) or {}  # another run has just made it
        return _part(found, "experiment_id")

    def find_runs(self, experiment: str, tag: str, value: str) -> Iterator[Json]:
        """Yields the runs of an experiment that have this value of a tag."""
        query = {"experiment_ids": [experiment], "filter": f"tags.`{tag}` = '{value}'", "max_results": 1000}
        token = ""
        while True:
            page = self._post("runs/search", **query, **({"page_token": token} if token else {}))
            yield from page.get("runs", [])
            if not (token := page.get("next_page_token", "")):
                return

    def create_run(self, experiment: str, name: str, started: int, tags: Mapping[str, str]) -> Json:
        """Makes a run that started at a time (Unix milliseconds), and returns it."""
        content = {"experiment_id": experiment, "run_name": name, "start_time": started, "tags": pairs(tags)}
        return _part(self._post("runs/create", **content), "run")

    def run(self, run: str) -> Json | None:
        """Returns a run; None if there is none of this id."""
        return self._find("runs/get", run_id=run, part="run")

    def log(
        self,
        run: str,
        metrics: Sequence[Json] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Logs metrics, parameters and tags, in as many requests as the server's limits ask for."""
        listed = {"metrics": list(metrics), "params": pairs(params or {}), "tags": pairs(tags or {})}
        for kind, most in (("tags", MOST_TAGS), ("params", MOST_PARAMS), ("metrics", MOST_METRICS)):
            for begin in range(0, len(listed[kind]), most):
                self._post("runs/log-batch", run_id=run, **{kind: listed[kind][begin : begin + most]})

    def set_status(self, run: str, status: str, ended: int | None = None) -> None:
        """Sets the status RUNNING, FINISHED, FAILED or KILLED, with the time of the end (Unix milliseconds)."""
        self._post("runs/update", run_id=run, status=status, **({"end_time": ended} if ended else {}))

    def find_model(self, experiment: str, run: str, tag: str, value: str) -> Json | None:
        """Returns the model of a run that has this value of a tag; None if there is none."""
        query = {"experiment_ids": [experiment], "filter": f"tags.`{tag}` = '{value}' AND source_run_id = '{run}'"}
        return next(iter(self._post("logged-models/search", **query).get("models", [])), None)

    def create_model(self, experiment: str, run: str, name: str, tags: Mapping[str, str]) -> Json:
        """Makes a model that a run gives, and returns it; it is pending until `finish_model`."""
        content = {"experiment_id": experiment, "source_run_id": run, "name": name, "tags": pairs(tags)}
        return _part(self._post("logged-models", **content), "model")

    def finish_model(self, model: str) -> None:
        """Says that all files of a model are there."""
        self._send("PATCH", f"logged-models/{model}", {"model_id": model, "status": "LOGGED_MODEL_READY"})

    def log_output(self, run: str, model: str, step: int) -> None:
        """Says once that a run gave a model at a step: the answer to an earlier call may have been lost."""
        said = (self.run(run) or {}).get("outputs", {}).get("model_outputs", [])
        if all(output["model_id"] != model for output in said):
            self._post("runs/outputs", run_id=run, models=[{"model_id": model, "step": step}])

    def put_artifact(self, place: str, path: str, content: bytes) -> None:
        """Stores a file at a path below the artifacts of a run or a model, whose `artifact_uri` starts with PROXIED."""
        below = urllib.parse.urlsplit(place).path.strip("/")
        where = urllib.parse.quote(f"{below}/{path}")
        url = f"{self.uri}/api/2.0/mlflow-artifacts/artifacts/{where}"
        self._request(urllib.request.Request(url, content, {"Content-Type": "application/octet-stream"}, method="PUT"))

    def _find(self, endpoint: str, *, part: str, **query: str) -> Json | None:
        """Gets a part of an answer; None for what the server does not have."""
        try:
            return self._get(endpoint, part=part, **query)
        except Refused as error:
            if error.code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None

    def _get(self, endpoint: str, *, part: str, **query: str) -> Json:
        words = urllib.parse.urlencode(query)
        return _part(self._request(urllib.request.Request(f"{self.uri}/api/2.0/mlflow/{endpoint}?{words}")), part)

    def _post(self, endpoint: str, **content: Any) -> Json:
        return self._send("POST", endpoint, content)

    def _send(self, method: str, endpoint: str, content: Json) -> Json:
        url = f"{self.uri}/api/2.0/mlflow/{endpoint}"
        body = json.dumps(content, allow_nan=False).encode()  # a bare NaN would be stored as 0, at step 0
        return self._request(urllib.request.Request(url, body, {"Content-Type": "application/json"}, method=method))

    def _request(self, request: urllib.request.Request) -> Json:
        """Sends a request; returns the object in its answer."""
        if self._authorization:
            request.add_header("Authorization", self._authorization)
        try:
            status, text = self._answer(request)
        except urllib.error.URLError as error:
            raise ServerDown(_reason(error.reason)) from error
        except (OSError, UnicodeError) as error:  # UnicodeError: a name that no host can have
            raise ServerDown(_reason(error)) from error
        except http.client.HTTPException as error:
            raise NoMlflow(f"what is no HTTP ({type(error).__name__})") from error
        return _content(status, text)

    def _answer(self, request: urllib.request.Request) -> tuple[int, bytes]:
        deadline = time.monotonic() + self._seconds
        try:
            answer = urllib.request.urlopen(request, timeout=self._seconds)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            text = b""
            while part := answer.read1(2**16):
                text += part
                if time.monotonic() > deadline or len(text) > MOST_BYTES:  # one byte a second is no answer either
                    raise TimeoutError
            return answer.status or 0, text


def _content(status: int, text: bytes) -> Json:
    """Returns the object in an answer; raises what the answer means."""
    try:
        content = json.loads(text or b"{}")
    except (ValueError, RecursionError):
        content = None
    if status in (401, 403):
        raise Refused("PERMISSION_DENIED", f"status {status}: it asks for another user or password")
    if status in (408, 429) or status >= 500:
        said = content.get("message", "") if isinstance(content, dict) else ""
        failure = ServerFails if status == 500 else ServerDown
        raise failure(" ".join(filter(None, (f"status {status}", _shortened(str(said))))))
    if not isinstance(content, dict):
        raise NoMlflow(f"status {status} and {len(text):,} bytes that are no JSON object")
    if status < 400:
        return content
    if not isinstance(content.get("error_code"), str):
        raise NoMlflow(f"status {status} without an error_code")
    raise Refused(content["error_code"], _shortened(f"{content['error_code']}: {content.get('message', '')}"))


def check_server(section: Config, seconds: float = CHECK_SECONDS, key: str = "track.mlflow.uri") -> str:
    """Asks the server of a resolved `track.mlflow` whether it can take a run, for at most some seconds.

    Returns "" if so, and the reason where it does not answer now. Raises ConfigError if it never could: what answers is
    no MLflow server, refuses the user, or has deleted the experiment. `key` is that of the address in the error.
    """
    uri = section["uri"]
    name = section["experiment"]
    try:
        found = MlflowServer(uri, seconds).experiment(name)
    except NoMlflow as error:
        got = Words(f"{uri}, where something answers with {error}")
        hint = "Give the address without a path of a page, such as http://127.0.0.1:5000"
        raise ConfigError(key, got, "the address of an MLflow server", hint) from error
    except ServerDown as error:
        return str(error)
    except Refused as error:
        hint = "Name the user by MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or by MLFLOW_TRACKING_TOKEN"
        got = Words(f"{uri}, which refuses ({error})")
        raise ConfigError(key, got, "a server that takes runs of this user", hint) from error
    if found and found.get("lifecycle_stage") == "deleted":
        raise ConfigError("track.mlflow.experiment", name, "one that was not deleted", "Restore it, or give another")
    return ""


def _part(content: Json, name: str) -> Any:
    if name not in content:
        raise NoMlflow(f"JSON without {name!r}")
    return content[name]


def pairs(values: Mapping[str, str]) -> list[Json]:
    """Returns a mapping in the form of the interface."""
    return [{"key": key, "value": value} for key, value in values.items()]


def key_of(name: str) -> str:
    """Returns a name as the server accepts it; a checksum tells names apart that would be written alike."""
    plain = "/".join(part for part in re.sub(r"[^\w\-. :/]", "_", name, flags=re.ASCII).split("/") if part.strip(". "))
    if plain == name and len(name) <= LONGEST_KEY:
        return name
    return f"{plain[: LONGEST_KEY - 9]}-{zlib.crc32(name.encode()):08x}"


def shortened(text: str, most: int) -> str:
    """Cuts a text to what the server keeps, and says so in it."""
    end = f" ... ({len(text):,} characters; config.json has all)"
    return text if len(text) <= most else text[: most - len(end)] + end


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 200 else f"{line[:200]} ..."


def _reason(error: object) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(getattr(error, "strerror", None) or error or type(error).__name__)


def _authorization() -> str:
    """Returns the header that names the user, from the variables of MLflow's own client; "" without them."""
    if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return f"Bearer {token}"
    user = os.environ.get("MLFLOW_TRACKING_USERNAME")
    if not user:
        return ""
    both = f"{user}:{os.environ.get('MLFLOW_TRACKING_PASSWORD', '')}"
    return f"Basic {base64.b64encode(both.encode()).decode()}"
