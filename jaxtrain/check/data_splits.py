"""Questions about examples that occur more than once: in two splits, or with several targets."""

import hashlib
from collections import defaultdict

import numpy as np

from jaxtrain.check.answers import Answer, fault, not_asked, ok, warning
from jaxtrain.check.context import Context

COPIED = 0.2
"""The share of a split that is also in the training split, beyond that of the training split in itself: a fault."""

SOME_COPIED = 0.02
"""The same for a warning. The data sets of the shipped configs have at most 0.001 (Adult)."""

REPEATED = 0.3
"""The share of training examples that occur more than once from which it is told."""

CONTRADICTED = 0.2
"""The share of training examples whose inputs occur with another target, too: a fault."""

SOME_CONTRADICTED = 0.02
"""The same for a warning; the data sets of the shipped configs have less than 0.001."""

NEAR = 0.02
"""The squared distance, relative to the variance, within which two small versions of pictures are nearly the same.

The nearest pairs of the digits lie at 0.05. Of Fashion-MNIST 5 % lie nearer than 0.02 to another picture, in the
training split as between splits, so only what exceeds the share of the training split in itself counts.
"""

SMALL = 8
"""Height and width of the versions of pictures that are compared."""

MOST_COMPARED = 4_000
"""Training pictures with which others are compared, as nearly equal ones."""

MOST_JUDGED = 1_000
"""Pictures of each split that are compared with them."""


def duplicates(context: Context) -> Answer:
    """Is an example of the training split also in another split?"""
    others = [name for name in context.dataset.sizes if name != "train"]
    if not others:
        return not_asked("there is no other split")
    trained = _hashes(context, "train")
    repeated = _repeated(trained)
    near_each_other = _nearly(context, "train")
    looked_at = len(trained) / context.dataset.sizes["train"]
    told = []
    worst = 0.0
    for name in others:
        found = _hashes(context, name)
        share = min(1.0, float(np.isin(found, trained).mean()) / looked_at)
        near = _nearly(context, name)
        told.append(
            f"{name}: {share:.1%} also in train" + (f", nearly {near:.1%}" if context.dataset.has_pictures else "")
        )
        worst = max(worst, share - repeated, near - near_each_other)
    text = "; ".join(told) + f" (train in itself: {repeated:.1%}"
    text += f", nearly {near_each_other:.1%})" if context.dataset.has_pictures else ")"
    if worst <= SOME_COPIED:
        return _repeats(text, repeated)
    return (fault if worst > COPIED else warning)(
        text,
        "what is judged was learned by heart, so the numbers look better than those on new data",
        "Remove the copies before the data are cut, or cut by groups (`data.group_by`)",
    )


def _repeats(text: str, repeated: float) -> Answer:
    if repeated <= REPEATED:
        return ok(text)
    return warning(
        text,
        "much of the training split is there more than once: it was joined or repeated by mistake, reading failed and "
        "gave blanks, or inputs have few values",
        "Read each example once; to draw some more often take data.sample",
    )


def contradictions(context: Context) -> Answer:
    """Do equal inputs occur with different targets?"""
    targets = np.asarray(context.rows("train")["targets"])
    if context.info.vocabulary is not None:
        return not_asked("the targets of a text are its own tokens")
    if context.info.box_classes is not None:
        return not_asked("targets are boxes")
    by_input: dict[bytes, list[int]] = defaultdict(list)
    for row, digest in enumerate(_hashes(context, "train")):
        by_input[bytes(digest)].append(row)
    groups = [rows for rows in by_input.values() if len(rows) > 1]
    scale = 0.1 * float(targets.std()) if targets.dtype.kind == "f" else 0.5
    wrong = sum(len(rows) for rows in groups if np.ptp(targets[rows].astype(np.float64), axis=0).max() > scale)
    share = wrong / len(targets)
    text = f"{share:.1%} of the training examples occur with another target, too"
    if share <= SOME_CONTRADICTED:
        return ok(text)
    return (fault if share > CONTRADICTED else warning)(
        text,
        "no model can learn both; the inputs lack what the targets depend on, or labels are wrong",
        "Look at these examples, and add the columns that tell them apart",
    )


def _hashes(context: Context, split: str) -> np.ndarray:
    """Returns a digest of the inputs of each example looked at, (n,)."""
    inputs = np.ascontiguousarray(context.rows(split)["inputs"])
    return np.array([hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in inputs], dtype="V8")


def _repeated(digests: np.ndarray) -> float:
    """Returns the share of examples that occur at least twice."""
    _, places, counts = np.unique(digests, return_inverse=True, return_counts=True)
    return float((counts[places] > 1).mean())


def _nearly(context: Context, split: str) -> float:
    """Returns the share of a split's pictures that nearly equal another one of the training split; 0 without any."""
    if not context.dataset.has_pictures:
        return 0.0
    trained = _small(context.seen("train")[:MOST_COMPARED])
    found = _small(context.seen(split)[:MOST_JUDGED])
    variance = float(trained.var(axis=0).sum()) or 1.0
    products = found @ trained.T
    distances = (found**2).sum(axis=1)[:, None] + (trained**2).sum(axis=1)[None] - 2 * products
    if split == "train":  # not to itself
        np.fill_diagonal(distances, np.inf)
    return float((distances.min(axis=1) < NEAR * variance).mean())


def _small(pictures: np.ndarray) -> np.ndarray:
    """Returns pictures (n, height, width, channels) as grey ones of at most SMALL x SMALL, flattened."""
    grey = pictures.mean(axis=-1, dtype=np.float64)
    for axis in (1, 2):
        size = grey.shape[axis]
        edges = np.linspace(0, size, min(size, SMALL) + 1).round().astype(int)
        counts = np.diff(edges).reshape(-1 if axis == 1 else 1, -1 if axis == 2 else 1)
        grey = np.add.reduceat(grey, edges[:-1], axis=axis) / counts
    return grey.reshape(len(grey), -1)
