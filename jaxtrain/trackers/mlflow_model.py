"""Sends the export of a run to an MLflow server, as the model that the run made."""

import hashlib
import json
import re

from jaxtrain.errors import StorageError, Words
from jaxtrain.files import exists, read_bytes
from jaxtrain.storage.seals import read_sealed
from jaxtrain.trackers.mlflow_ledger import Key
from jaxtrain.trackers.mlflow_rest import Json
from jaxtrain.trackers.mlflow_runs import MlflowRun

EXPORT = "export"
"""The folder of a run that holds its export; one that was written elsewhere is not sent."""

DESCRIPTION = "model.json"

LOADED_BY = "MLmodel"
"""The file by which MLflow loads a model; an export without it is not sent."""

BESIDE = (DESCRIPTION, "README.md")
"""Files of an export that its description does not list."""

EXPORT_TAG = "jaxtrain.export"
"""The tag that holds a checksum of all files, by which the server's model is found again."""


def send_model(run: MlflowRun) -> None:
    """Sends the export of a run that the server lacks, and logs it as a model of the server's run."""
    folder = run.identity.folder / EXPORT
    if not run.takes_files or not exists(folder / DESCRIPTION):
        return
    try:
        description = read_sealed(folder / DESCRIPTION, "what the export wrote")
        digest = hashlib.sha256(json.dumps(description["files"], sort_keys=True).encode()).hexdigest()[:16]
        key: Key = ("model", 0, digest, 0)
        if run.has(key) or LOADED_BY not in description["files"]:
            return
        files = {name: _read(run, name, file["sha256"]) for name, file in description["files"].items()}
    except StorageError:  # another export is taking its place, which is sent afterwards
        return
    files |= {name: read_bytes(folder / name) for name in BESIDE}
    model = _find_or_make(run, description, digest)
    for name, file in files.items():
        run.server.put_artifact(model["info"]["artifact_uri"], name, file)
    run.server.finish_model(model["info"]["model_id"])
    run.server.log_output(run.id, model["info"]["model_id"], description["run"]["members"][0]["step"])
    run.note([key])


def _find_or_make(run: MlflowRun, description: Json, digest: str) -> Json:
    """Returns the server's model of an export: one that an interrupted call began, or a new one."""
    found = run.server.find_model(run.experiment, run.id, EXPORT_TAG, digest)
    name = re.sub(r"[^\w-]+", "-", f"{description['model']}")
    return found or run.server.create_model(run.experiment, run.id, name, {EXPORT_TAG: digest})


def _read(run: MlflowRun, name: str, sha256: str) -> bytes:
    """Returns a file of the export; raises StorageError for one that is not as the description has it."""
    path = run.identity.folder / EXPORT / name
    content = read_bytes(path)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise StorageError(str(path), Words("content that fails its checksum"), "what the export wrote")
    return content
