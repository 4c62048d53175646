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
        """Returns {"inputs": normalised float32 (n, ...), "targets": int32 or float32 (n, ...)}; converts once."""
        if name not in self._converted:
            split, rows = self.parts[name]
            targets = split.targets if rows is None else split.targets[rows]
            dtype = np.int32 if is_integer(targets) else np.float32
            inputs = self.info.normalise(split.inputs, rows)
            self._converted[name] = {"inputs": inputs, "targets": targets.astype(dtype, copy=False)}
        return self._converted[name]

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


def load_dataset(source: Source, *, seed: int, validation_fraction: float, test_fraction: float) -> Dataset:
    """Checks a source and returns its dataset; missing validation and test splits are cut from train, by `seed`.

    A fraction is relative to the source's train split, and applies only if the source has no such split.
    Raises DataError for invalid data, ConfigError for a fraction that leaves a split empty.
    """
    if seed < 0:
        raise ConfigError("data.seed", seed, "an integer from 0 upwards")
    source = check_source(source)
    # The test split is cut first, so that it does not depend on the validation fraction.
    fractions = {"test": test_fraction, "validation": validation_fraction}
    wanted = {name: fraction for name, fraction in fractions.items() if name not in source.splits}
    train = source.splits["train"]
    parts = {name: Part(train, rows) for name, rows in _cut(len(train.inputs), wanted, seed).items()}
    parts |= {name: Part(split) for name, split in source.splits.items() if name not in parts}
    info = describe(train.inputs, train.targets, parts["train"].rows, source.classes)
    return Dataset(info, {name: parts[name] for name in ("train", "validation", "test") if name in parts})


def _cut(examples: int, fractions: dict[str, float], seed: int) -> dict[str, np.ndarray]:
    """Returns {split: ascending row numbers}, with the remaining rows in "train"; empty if all fractions are 0."""
    for name, fraction in fractions.items():
        if not 0 <= fraction < 1:
            raise ConfigError(f"data.{name}_fraction", fraction, "0 (no such split) up to, not including, 1")
    counts = {name: round(examples * fraction) for name, fraction in fractions.items() if fraction > 0}
    empty = [name for name, count in counts.items() if count == 0]
    if sum(counts.values()) >= examples:
        empty = sorted(counts, reverse=True)  # name validation first: its split has the lower priority
    if empty:
        allowed = f"what leaves at least one of {examples} examples in every split, train included"
        raise ConfigError(f"data.{empty[0]}_fraction", fractions[empty[0]], allowed)
    if not counts:
        return {}
    # The spawn key makes the splits independent of the order of the batches, which has the same seed.
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(0,))))
    pieces = np.split(generator.permutation(examples), np.cumsum(list(counts.values())))
    return {name: np.sort(rows) for name, rows in zip([*counts, "train"], pieces, strict=True)}
