"""A program that drives jaxtrain by its documents alone (docs/json.md): from a CSV file to a tested best config.

Usage: python tests/csv_to_best_config.py FILE.csv TARGET_COLUMN
"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def search_table(folder: Path, table: str, target: str, run: Run) -> tuple[str, float]:
    """Returns the path of the best config that a search found for a table in a folder, and its test accuracy.

    `run(folder, *arguments)` runs a command of jaxtrain in the folder.
    """
    ask = _Asking(folder, run)
    config: dict[str, Any] = {
        "data": {"name": "csv", "path": ".", "file": table, "target": target, "batch_size": 32},
        "train": {"duration": "20 epochs"},
        "model": {"name": "mlp", "hidden": [16]},
        "lr_range": {"rates": 12, "seeds": 1},
    }
    data = ask("data", config)
    config["train"]["duration"] = f"{max(40, round(5 * data['steps_per_epoch']))} steps"
    config["eval"] = {"metric": "accuracy" if data["info"]["classes"] else "r2"}
    tested = ask("lr_range", config)
    config["search"] = {"trials": 4, "compare_seeds": 0, "space": _around(tested["suggestions"])}
    best = ask("search", config)["best_config"]
    result = ask("train", best)
    return best, result["test"][config["eval"]["metric"]]


def _around(suggestions: dict[str, float]) -> dict[str, Any]:
    """Returns a search space of a third to three times each suggested float."""
    space: dict[str, Any] = {}
    for key, value in suggestions.items():
        section, _, knob = key.partition(".")
        space.setdefault(section, {})[knob] = ["log_uniform", value / 3, value * 3]
    return space


class _Asking:
    """Asks a verb for its document."""

    def __init__(self, folder: Path, run: Run) -> None:
        self._folder = folder
        self._run = run

    def __call__(self, verb: str, config: dict[str, Any] | str) -> dict[str, Any]:
        if isinstance(config, dict):
            path = f"{verb}.json"
            (self._folder / path).write_text(json.dumps(config))
        else:
            path = config
        done = self._run(self._folder, verb, f"--config={path}", f"--workdir=by-{verb}", "--json")
        document = json.loads(done.stdout)
        if "error" in document:
            raise SystemExit(f"{document['error']['key']}: {document['error']['hint']}")
        return document


def _run(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    words = [sys.executable, "-m", "jaxtrain.main", *arguments]
    return subprocess.run(words, cwd=folder, stdout=subprocess.PIPE, text=True)


if __name__ == "__main__":
    file = Path(sys.argv[1]).resolve()
    best_config, measured = search_table(file.parent, file.name, sys.argv[2], _run)
    print(f"{best_config}: {measured:.4g} on test")
