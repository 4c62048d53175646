"""Cuts splits from the training split of a source: at random, by class, by group, or in an order such as time."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from jaxtrain.errors import ConfigError, DataError, Words, nearest, one_of


class Rule(NamedTuple):
    """The rule by which rows are assigned to splits: at random, unless one of the arrays (n,) is given.

    labels: each split gets its share of every class; groups: all rows of a group lie in one split; order: the test
    split is the last part in this order, and the validation split the part before it.
    """

    labels: np.ndarray | None = None
    groups: np.ndarray | None = None
    order: np.ndarray | None = None


def make_rule(
    stratify: bool,
    group_by: str | None,
    order_by: str | None,
    labels: np.ndarray | None,
    columns: Mapping[str, np.ndarray],
    where: str,
) -> Rule:
    """Makes the rule of the settings; raises ConfigError for two at once, DataError for what the data lack."""
    given = {"data.stratify": stratify, "data.group_by": group_by, "data.order_by": order_by}
    chosen = [key for key, value in given.items() if value]
    if len(chosen) > 1:
        raise ConfigError(chosen[1], given[chosen[1]], f"one of {', '.join(given)} at a time", "Leave the others out")
    if stratify:
        if labels is None:
            got = Words("targets that are no labels")
            raise DataError(where, got, "one label for each example, for data.stratify", "Leave data.stratify out")
        return Rule(labels=labels)
    if group_by:
        return Rule(groups=column(columns, group_by, "data.group_by"))
    return Rule(order=_order(columns, order_by, where)) if order_by else Rule()


def _order(columns: Mapping[str, np.ndarray], name: str, where: str) -> np.ndarray:
    """Returns a column with a value in each row; raises DataError where one lacks, as it would be sorted last."""
    values = column(columns, name, "data.order_by")
    absent = np.flatnonzero(values == "" if values.dtype.kind in "UT" else values != values)
    if len(absent):
        got = Words(f"no value in the column {name!r} of row {absent[0]}, and {len(absent) - 1:,} other rows")
        hint = "Fill them in, leave the rows out, or leave data.order_by out"
        raise DataError(where, got, "a value in each row, for data.order_by", hint)
    return values


def column(columns: Mapping[str, np.ndarray], name: str, key: str) -> np.ndarray:
    """Returns a column of the training split as it was read; raises ConfigError for a name that it lacks."""
    if name not in columns:
        expected = one_of(columns) if columns else "nothing, since this source has no columns"
        raise ConfigError(key, name, expected, nearest(name, columns))
    return np.asarray(columns[name])


def cut(examples: int, fractions: Mapping[str, float], seed: int, rule: Rule = Rule()) -> dict[str, np.ndarray]:  # noqa: B008 (a NamedTuple is immutable)
    """Returns {split: ascending row numbers}, with the remaining rows in "train"; empty if all fractions are 0.

    Raises ConfigError for fractions that leave a split without examples.
    """
    counts = counts_of(examples, fractions)
    if not counts:
        return {}
    # The spawn key makes the splits independent of the order of the batches, which has the same seed.
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(0,))))
    if rule.labels is not None:
        rows = _by_label(rule.labels, fractions, list(counts), generator)
    elif rule.groups is not None:
        rows = _by_group(rule.groups, counts, generator)
    elif rule.order is not None:
        rows = _pieces(np.argsort(rule.order, kind="stable")[::-1], counts)
    else:
        rows = _pieces(generator.permutation(examples), counts)
    empty = [name for name, own in rows.items() if len(own) == 0]
    if empty:
        name = empty[0] if empty[0] in fractions else next(iter(counts))
        expected = "a fraction that leaves at least one example in every split by this rule, train included"
        raise ConfigError(f"data.{name}_fraction", fractions[name], expected)
    return {name: np.sort(own) for name, own in rows.items()}


def cut_folds(rows: np.ndarray, folds: int, seed: int, rule: Rule = Rule()) -> list[np.ndarray]:  # noqa: B008 (a NamedTuple is immutable)
    """Returns `folds` parts of these rows, ascending, whose sizes differ by at most one where the rule lets them.

    Each class is spread over the parts as evenly as its number of rows allows; whole groups, the largest first, go to
    the part that is the smallest so far. Raises ConfigError for more folds than rows, rows of a class, or groups.
    """
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(1,))))
    if rule.order is not None:
        raise ConfigError("data.folds", folds, "None with data.order_by: a fold would train on what comes after")
    if rule.groups is not None:
        return _folds_of_groups(rows, rule.groups[rows], folds, generator)
    _demand_enough(folds, len(rows), f"{len(rows):,}, the number of rows")
    order = generator.permutation(rows)
    if rule.labels is not None:
        labels = rule.labels[order]
        classes, counts = np.unique(labels, return_counts=True)
        rarest = int(np.argmin(counts))
        _demand_enough(folds, counts[rarest], f"{counts[rarest]:,}, the number of rows of the class {classes[rarest]}")
        order = order[np.argsort(labels, kind="stable")]
    return [np.sort(order[part::folds]) for part in range(folds)]


def _folds_of_groups(
    rows: np.ndarray, groups: np.ndarray, folds: int, generator: np.random.Generator
) -> list[np.ndarray]:
    _, numbers, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    _demand_enough(folds, len(sizes), f"{len(sizes):,}, the number of groups")
    shuffled = generator.permutation(len(sizes))
    part_of = np.empty(len(sizes), np.int64)
    filled = np.zeros(folds, np.int64)
    for group in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
        part_of[group] = np.argmin(filled)
        filled[part_of[group]] += sizes[group]
    return [rows[part_of[numbers] == part] for part in range(folds)]


def _demand_enough(folds: int, most: int, what: str) -> None:
    if folds > most:
        raise ConfigError("data.folds", folds, f"at most {what}", "Lower it")


def counts_of(examples: int, fractions: Mapping[str, float]) -> dict[str, int]:
    """Returns {split: number of examples} of the splits with a fraction above 0; raises ConfigError for empty ones."""
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
    return counts


def _pieces(order: np.ndarray, counts: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Returns the leading rows of an order for the splits, and the rest for "train"."""
    pieces = np.split(order, np.cumsum(list(counts.values())))
    return dict(zip([*counts, "train"], pieces, strict=True))


def _by_label(
    labels: np.ndarray, fractions: Mapping[str, float], names: list[str], generator: np.random.Generator
) -> dict[str, np.ndarray]:
    """Cuts every class by itself; the halves that rounding leaves alternate between the classes."""
    parts: dict[str, list[np.ndarray]] = {name: [] for name in [*names, "train"]}
    carried = dict.fromkeys(names, 0.0)
    for label in np.unique(labels):
        own = generator.permutation(np.flatnonzero(labels == label))
        counts = {}
        for name in names:
            wanted = fractions[name] * len(own) + carried[name]
            counts[name] = min(len(own) - sum(counts.values()), max(0, round(wanted)))
            carried[name] = wanted - counts[name]
        for name, rows in _pieces(own, counts).items():
            parts[name].append(rows)
    return {name: np.concatenate(rows) for name, rows in parts.items()}


def _by_group(groups: np.ndarray, counts: Mapping[str, int], generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Gives whole groups, in random order, to each split until it has its number of rows."""
    _, numbers, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = generator.permutation(len(sizes))
    ends = np.cumsum(sizes[order])
    rows = {}
    begin = 0
    wanted = 0
    for name, count in counts.items():
        wanted += count
        end = int(np.argmin(np.abs(ends - wanted))) + 1  # the number of groups that comes nearest
        rows[name] = np.flatnonzero(np.isin(numbers, order[begin:end]))
        begin = max(begin, end)
    rows["train"] = np.flatnonzero(np.isin(numbers, order[begin:]))
    return rows
