"""The files in the directory of a run, and what each is for."""

from collections.abc import Iterator
from pathlib import Path

from jaxtrain.files import exists, list_directory

PURPOSES = {
    "config.json": "the resolved config",
    "run.json": "the run's id and config, by which it knows its directory",
    "config_difference.json": "what differs from the default config",
    "environment.json": "versions, devices, commit, fingerprint of the data",
    "metrics.jsonl": "one row for each logged or evaluated step",
    "result.json": "how the run ended",
    "report.html": "a page of the run, which opens offline",
    "content_checksums.npz": "a checksum of each file that was read, compared when the run continues",
    "checkpoints": "saved states: the newest and the best",
    "plugins": "traces of JAX's profiler for TensorBoard",
    "plots": "pictures of predictions, and a record of them and of histograms",
    "replay": "steps that were looked at again",
    "debug": "tries of the run by the debug modes",
    "mlflow": "what the MLflow server has of the run",
}


def list_run_files(workdir: Path) -> Iterator[tuple[str, str]]:
    """Yields (name, purpose) of the files that a run's directory holds."""
    for name, purpose in PURPOSES.items():
        if exists(workdir / name):
            yield name, purpose
    if any(name.startswith("events.") for name in list_directory(workdir)):
        yield "events.*", "metrics, pictures and histograms for TensorBoard"
