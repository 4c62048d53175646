"""The dataset that a run trains on: checked, cut into splits, normalised when it is asked for."""

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

from jaxtrain.data.checks import checked, is_integer
from jaxtrain.data.info import DataInfo, describe
from jaxtrain.data.source import Source, Split
from jaxtrain.errors import ConfigError


class Part(NamedTuple):
    """The rows of a source's split that make up a split of the dataset, ascending; None: all of them."""

    split: Split
    rows: np.ndarray | None = None

    def __len__(self) -> int:
        """Returns the number of examples."""
        return len(self.split.inputs if self.rows is None else self.rows)


@dataclass(frozen=True, eq=False)
class Dataset:
    """What the data say, and the splits, which are converted when first asked for."""

    info: DataInfo
    parts: dict[str, Part] = field(repr=False)
    _converted: dict[str, dict[str, np.ndarray]] = field(default_factory=dict, init=False, repr=False)

    @property
    def sizes(self) -> dict[str, int]:
        """Returns split -> number of examples."""
        return {name: len(part) for name, part in self.parts.items()}

    def split(self, name: str) -> dict[str, np.ndarray]:
        """Returns {"inputs": float32 (n, ...), normalised, "targets": int32 or float32 (n, ...)}; converts once."""
        if name not in self._converted:
            self._converted[name] = self._convert(*self.parts[name])
        return self._converted[name]

    @property
    def example(self) -> dict[str, np.ndarray]:
        """Returns the first training example as a batch of one, without converting the rest."""
        split, rows = self.parts["train"]
        return self._convert(split, np.arange(1) if rows is None else rows[:1])

    def _convert(self, split: Split, rows: np.ndarray | None) -> dict[str, np.ndarray]:
        targets = split.targets if rows is None else split.targets[rows]
        dtype = np.int32 if is_integer(targets) else np.float32
        return {"inputs": self.info.normalise(split.inputs, rows), "targets": targets.astype(dtype, copy=False)}

    @cached_property
    def fingerprint(self) -> str:
        """Returns the sha256, in hex, of the raw arrays and of how they were cut; worked out when first asked for."""
        digest, seen = hashlib.sha256(), set()
        for name, (split, rows) in self.parts.items():
            raw = [] if id(split) in seen else [split.inputs, split.targets]  # once for all that is cut from one split
            seen.add(id(split))
            digest.update(f"{name}: ".encode())
            for array in [*raw, *([] if rows is None else [rows])]:
                digest.update(f"{array.dtype.str} {array.shape} ".encode())
                digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        return digest.hexdigest()


def load_dataset(source: Source, *, seed: int, validation_fraction: float, test_fraction: float) -> Dataset:
    """Returns the checked dataset; validation and test are the source's own, else cut from train by `seed`.

    A fraction is one of all examples in the source's train split, and counts only where the source has no such split.
    Raises DataError for data that cannot be trained on, ConfigError for a fraction that leaves a split empty.
    """
    if seed < 0:
        raise ConfigError("data.seed", seed, "an integer from 0 upwards")
    source = checked(source)
    fractions = {"test": test_fraction, "validation": validation_fraction}  # test first: fixed while the other moves
    wanted = {name: fraction for name, fraction in fractions.items() if name not in source.splits}
    train = source.splits["train"]
    parts = {name: Part(train, rows) for name, rows in _cut(len(train.inputs), wanted, seed).items()}
    parts |= {name: Part(split) for name, split in source.splits.items() if name not in parts}
    info = describe(train.inputs, train.targets, parts["train"].rows, source.classes)
    return Dataset(info, {name: parts[name] for name in ("train", "validation", "test") if name in parts})


def _cut(examples: int, fractions: dict[str, float], seed: int) -> dict[str, np.ndarray]:
    """Returns split -> ascending row numbers, with "train" what is left; empty where nothing is to be cut."""
    for name, fraction in fractions.items():
        if not 0 <= fraction < 1:
            raise ConfigError(f"data.{name}_fraction", fraction, "0 (no such split) up to, not including, 1")
    counts = {name: round(examples * fraction) for name, fraction in fractions.items() if fraction > 0}
    empty = [name for name, count in counts.items() if count == 0]
    if sum(counts.values()) >= examples:
        empty = sorted(counts, reverse=True)  # the validation part first: its fraction is the one with a default
    if empty:
        allowed = f"what leaves at least one of {examples} examples in every split, train included"
        raise ConfigError(f"data.{empty[0]}_fraction", fractions[empty[0]], allowed)
    if not counts:
        return {}
    # The spawn key keeps the cut apart from the order of the batches, which is drawn from the same seed.
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(0,))))
    pieces = np.split(generator.permutation(examples), np.cumsum(list(counts.values())))
    return {name: np.sort(rows) for name, rows in zip([*counts, "train"], pieces, strict=True)}
