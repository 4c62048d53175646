"""The dataset of a run: checks a source, cuts it into splits, and normalises each split when it is first used."""

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

from jaxtrain.data.checks import check_source, is_integer
from jaxtrain.data.info import DataInfo, describe
from jaxtrain.data.source import Source, Split
from jaxtrain.errors import ConfigError


class Part(NamedTuple):
    """A split of the dataset: the ascending row numbers that it takes from a split of the source; None: all rows."""

    split: Split
    rows: np.ndarray | None = None

    def __len__(self) -> int:
        """Returns the number of examples."""
        return len(self.split.inputs if self.rows is None else self.rows)


@dataclass(frozen=True, eq=False)
class Dataset:
    """The description of the data, and the splits, each converted when it is first used."""

    info: DataInfo
    parts: dict[str, Part] = field(repr=False)
    _converted: dict[str, dict[str, np.ndarray]] = field(default_factory=dict, init=False, repr=False)

    @property
    def sizes(self) -> dict[str, int]:
        """Returns {split: number of examples}."""
        return {name: len(part) for name, part in self.parts.items()}

    def split(self, name: str) -> dict[str, np.ndarray]:
        """Returns {"inputs": normalised float32 (n, ...), "targets": int32 or float32 (n, ...)}; converts once.

        Targets are standardised float32 for a task that takes them so (`info.standardised`).
        """
        if name not in self._converted:
            self._converted[name] = self._convert(*self.parts[name])
        return self._converted[name]

    @property
    def example(self) -> dict[str, np.ndarray]:
        """Returns the first training example as a batch of one, without converting the rest."""
        split, rows = self.parts["train"]
        return self._convert(split, np.arange(1) if rows is None else rows[:1])

    def _convert(self, split: Split, rows: np.ndarray | None) -> dict[str, np.ndarray]:
        return {"inputs": self.info.normalise(split.inputs, rows), "targets": self._convert_targets(split, rows)}

    def _convert_targets(self, split: Split, rows: np.ndarray | None) -> np.ndarray:
        if self.info.standardised:
            return self.info.standardise_targets(split.targets, rows)
        targets = split.targets if rows is None else split.targets[rows]
        return targets.astype(np.int32 if is_integer(targets) else np.float32, copy=False)

    @cached_property
    def fingerprint(self) -> str:
        """Returns the sha256, in hex, of the raw arrays and of the rows of each split; computed on first use."""
        digest = hashlib.sha256()
        seen = set()
        for name, (split, rows) in self.parts.items():
            # Several splits may be cut from the same arrays, which are hashed once.
            raw = [] if id(split) in seen else [split.inputs, split.targets]
            seen.add(id(split))
            digest.update(f"{name}: ".encode())
            for array in [*raw, *([] if rows is None else [rows])]:
                digest.update(f"{array.dtype.str} {array.shape} ".encode())
                digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        return digest.hexdigest()


def load_dataset(
    source: Source, *, seed: int, validation_fraction: float, test_fraction: float, standardised: bool = False
) -> Dataset:
    """Checks a source and returns its dataset; missing validation and test splits are cut from train, by `seed`.

    A fraction is relative to the source's train split, and applies only if the source has no such split.
    `standardised` says that targets, integers too, are numbers for a regression: they are standardised, and are never
    labels. Raises DataError for invalid data, ConfigError for a fraction that leaves a split empty.
    """
    if seed < 0:
        raise ConfigError("data.seed", seed, "an integer, at least 0")
    source = check_source(source, labels=not standardised)
    # The test split is cut first, so that it does not depend on the validation fraction.
    fractions = {"test": test_fraction, "validation": validation_fraction}
    wanted = {name: fraction for name, fraction in fractions.items() if name not in source.splits}
    train = source.splits["train"]
    parts = {name: Part(train, rows) for name, rows in _cut(len(train.inputs), wanted, seed).items()}
    parts |= {name: Part(split) for name, split in source.splits.items() if name not in parts}
    rows = parts["train"].rows
    info = describe(train.inputs, train.targets, rows, source.classes, standardised=standardised)
    return Dataset(info, {name: parts[name] for name in ("train", "validation", "test") if name in parts})


def _cut(examples: int, fractions: dict[str, float], seed: int) -> dict[str, np.ndarray]:
    """Returns {split: ascending row numbers}, with the remaining rows in "train"; empty if all fractions are 0."""
    for name, fraction in fractions.items():
        if not 0 <= fraction < 1:
            raise ConfigError(f"data.{name}_fraction", fraction, "at least 0 (no such split) and below 1")
    counts = {name: round(examples * fraction) for name, fraction in fractions.items() if fraction > 0}
    empty = [name for name, count in counts.items() if count == 0]
    if sum(counts.values()) >= examples:
        empty = sorted(counts, reverse=True)  # name validation first: its split has the lower priority
    if empty:
        expected = f"a fraction that leaves at least one of {examples} examples in every split, train included"
        raise ConfigError(f"data.{empty[0]}_fraction", fractions[empty[0]], expected)
    if not counts:
        return {}
    # The spawn key makes the splits independent of the order of the batches, which has the same seed.
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(0,))))
    pieces = np.split(generator.permutation(examples), np.cumsum(list(counts.values())))
    return {name: np.sort(rows) for name, rows in zip([*counts, "train"], pieces, strict=True)}
