"""Reads what a run left in its directory: config, result, rows and environment, as far as their seals hold."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtrain.config.completion import complete_config
from jaxtrain.config.defaults import Config
from jaxtrain.config.section_traits import TRAITS
from jaxtrain.config.seeds import lane_count
from jaxtrain.core.metric_names import DIAGNOSTICS, FOLD, SEED
from jaxtrain.errors import ConfigError, StorageError, Words
from jaxtrain.files import exists, full_path, read_json
from jaxtrain.storage.ownership import read_owner
from jaxtrain.storage.result import Result, read_result
from jaxtrain.trackers.base import ROW_KEYS, Row
from jaxtrain.trackers.jsonl import read_record

STATES = ("best", "last", "test")
"""The states of which a run has numbers: the best evaluation, the last one, and the test at the end."""


@dataclass(frozen=True)
class SavedRun:
    """A run as read from its directory.

    config: as JSON holds it, with every knob; result: None while the run has not ended; rows: those of metrics.jsonl
    that are as they were written; environment: of environment.json, empty where there is none; damage: what was found
    changed or missing, a sentence each.
    """

    workdir: Path
    config: Config
    result: Result | None
    rows: list[Row]
    environment: dict[str, Any]
    damage: tuple[str, ...] = ()

    @property
    def place(self) -> Path:
        """The directory, from the root of the file system."""
        return Path(full_path(str(self.workdir)))

    @property
    def metric(self) -> str:
        """The metric by which the run chose its best step."""
        return self.config["eval"]["metric"]

    @property
    def unit(self) -> str:
        """The kind of the lanes of the run: "seed" or "fold"."""
        return "fold" if self.lanes == FOLD else "seed"

    @property
    def lanes(self) -> str:
        """The prefix of the numbers of single seeds or folds; empty for a run of one."""
        if lane_count(self.config) == 1:
            return ""
        return SEED if self.config["train"]["seeds"] > 1 else FOLD

    @property
    def lane_numbers(self) -> range:
        """The numbers of its seeds, or of its folds where it trains several."""
        first = 0 if self.lanes == FOLD else self.config["seed"]
        return range(first, first + lane_count(self.config))

    @property
    def diverged(self) -> set[int]:
        """The seeds or folds that diverged."""
        if self.result is None:
            return set()
        lost = (self.result.seeds or self.result.folds or {}).get("diverged", {})
        return set(self.lane_numbers) if self.result.status == "diverged" else set(map(int, lost))

    @property
    def best_step(self) -> int | None:
        """The step of the best evaluation; None if there was none."""
        return self.result.best["step"] if self.result and self.result.best else None

    @property
    def last_split(self) -> str:
        """The split of the last numbers: "validation", or "train" where nothing was evaluated."""
        return "validation" if self.result and self.result.last.get("validation") else "train"

    def numbers(self, state: str) -> dict[str, Any]:
        """Returns the numbers of one of STATES, by name, those of single seeds among them; empty where there are none.

        Best and last are measured on validation; without an evaluation, the last are those of training.
        """
        if self.result is None:
            return {}
        if state == "test":
            return self.result.test or {}
        if state == "last":
            return self.result.last.get(self.last_split) or {}
        row = (r for r in self.rows if r["split"] == "validation" and r["step"] == self.best_step)
        return next(row, {})

    def values(self, state: str, metric: str) -> dict[int, float | None]:
        """Returns seed or fold -> value of a metric; None where that diverged, or the value is undefined or missing."""
        numbers = self.numbers(state)
        keys = {number: f"{self.lanes}{number}/{metric}" if self.lanes else metric for number in self.lane_numbers}
        lost = self.diverged
        return {number: None if number in lost else _finite(numbers.get(key)) for number, key in keys.items()}


def metric_names(run: SavedRun, state: str) -> list[str]:
    """Returns the metrics that a run has at one of STATES, without diagnostics, single seeds, and applied floats."""
    numbers = run.numbers(state)
    return [n for n in numbers if n not in ROW_KEYS and "." not in n and not n.startswith(DIAGNOSTICS)]


def read_saved_run(workdir: Path) -> SavedRun:
    """Reads a run; raises StorageError where its config cannot be trusted. Other damage is told by the run itself."""
    owner = read_owner(workdir)
    if owner is None:
        raise StorageError(str(workdir), Words("no run.json"), "the config of the run", "Restore it from a copy")
    config = _complete(workdir, owner.saved)
    damage: list[str] = []
    result = None
    try:
        result = read_result(workdir, sealed=owner.seals)
    except StorageError as error:
        damage.append(str(error))
    lines = read_record(workdir / "metrics.jsonl", sealed=owner.seals)
    rows = [line.row for line in lines if line.row is not None and line.trusted]
    if changed := [line.number for line in lines if not line.trusted]:
        damage.append(f"{workdir / 'metrics.jsonl'}: line {changed[0]} is damaged or was changed by others")
    run = SavedRun(workdir, config, result, rows, _environment(workdir), tuple(damage))
    return run if damage or not (lack := _lack(run)) else SavedRun(**{**vars(run), "damage": (lack,)})


def _complete(workdir: Path, saved: Config) -> Config:
    later = saved.keys() - TRAITS.keys()
    if later:
        got = Words(f"a config with the section {min(later)}")
        raise StorageError(str(workdir), got, f"sections that are known: {', '.join(TRAITS)}", "Use a later jaxtrain")
    try:
        return complete_config(saved)
    except ConfigError as error:
        raise StorageError(str(workdir), Words(f"a config that cannot be used ({error})"), "a saved config") from error


def _lack(run: SavedRun) -> str:
    """Tells what the rows lack that the result says; "" if nothing."""
    if run.best_step is None or run.numbers("best"):
        return ""
    return f"{run.workdir / 'metrics.jsonl'}: the row of the best step, {run.best_step}, is missing"


def _environment(workdir: Path) -> dict[str, Any]:
    path = workdir / "environment.json"
    try:
        content = read_json(path) if exists(path) else {}
    except StorageError:
        return {}
    return content if isinstance(content, dict) else {}


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
