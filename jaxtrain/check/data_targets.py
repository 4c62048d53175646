"""Questions about the targets: their scale, classes that are missing, the figure to beat, their order."""

import math

import numpy as np

from jaxtrain.check.answers import Answer, fault, not_asked, ok, warning
from jaxtrain.check.context import Context

LARGE = 1e3
"""The size of targets, as the loss gets them, from which squared errors dwarf what initial outputs can express."""

RARE = 0.95
"""The share of the commonest class from which accuracy says nothing; the shipped data sets reach 0.76 (Adult)."""

EXPECTED = 8.0
"""Examples of a class that a split must be expected to have before its absence is told: chance leaves 1 in 3,000."""

SQUASHED = 0.02
"""The distance of the 1st and 99th percentile of targets, in deviations, below which outliers set the scale."""

OUTSIDE = (0.02, 0.2)
"""The shares of boxes that are no area within their picture from which it is a warning, and a fault."""

FEW = 10
"""Examples that a split needs so that its figures say anything: the error of a share of 10 is 0.16."""

ALIKE = 0.5
"""The share of neighbours in a batch with equal labels, beyond chance, from which batches are called sorted.

Shuffled batches of the digits have 0.01.
"""

MOST_CLASSES = 10
"""Classes of boxes that are named."""

CERTAIN = 4.0
"""Standard deviations beyond chance from which labels are called sorted: a rare class may be in none of the batches."""


def targets(context: Context) -> Answer:
    """Are the targets, as the loss gets them, of a size that a network can express?"""
    if context.info.vocabulary is not None or context.info.classes is not None:
        return not_asked("targets are classes")
    if context.info.box_classes is not None:
        return _boxes(context)
    values = np.asarray(context.rows("train")["targets"], np.float64)
    text = f"mean {values.mean():.3g}, deviation {values.std():.3g}, from {values.min():.3g} to {values.max():.3g}"
    if values.std() == 0:
        return fault(text, "there is nothing to learn: all targets are equal", "Check which column is the target")
    if np.abs(values).max() > LARGE and not context.info.standardised and values.std() > 1e-3 * np.abs(values.mean()):
        largest = np.abs(values).max()
        return (fault if largest > 1e2 * LARGE else warning)(
            text,
            "gradients are as large as the targets, so the rates that fit networks are far too high or too low",
            "Standardise the targets: the task `regression` does, also with a loss of your own",
        )
    by_column = values.reshape(len(values), -1)
    spread = by_column.std(axis=0)
    is_picture = len(context.info.target_shape) > 1 or context.info.target_shape == context.info.input_shape
    if (spread == 0).any() and not is_picture:  # the corners of pictures and masks are often the same
        return warning(
            f"{text}; {int((spread == 0).sum()):,} of {len(spread):,} numbers of a target are the same in all examples",
            "there is nothing to learn of these, and they make the loss look small",
            "Check which columns are the targets",
        )
    low, high = np.percentile(by_column, (1, 99), axis=0)
    if ((high - low < SQUASHED * spread) & (high > low)).any():
        return warning(
            f"{text}; 98 % of them lie within {float(((high - low) / spread).min()):.2g} deviations",
            "a few outliers set the scale and the loss, so that all other targets look alike",
            "Correct or leave out these examples, take a logarithm, or a loss such as huber",
        )
    return ok(text)


def _boxes(context: Context) -> Answer:
    """Are boxes areas within their pictures?"""
    boxes = np.asarray(context.rows("train")["targets"], np.float64).reshape(-1, 5)
    labels, y, x, height, width = boxes[boxes[:, 0] >= 0].T
    if not len(y):
        return fault("no picture has a box", "there is nothing to learn", "Check the reader of the boxes")
    rows, columns = context.info.input_shape[:2]
    inside = (y > -1) & (x > -1) & (y + height < rows + 1) & (x + width < columns + 1)
    bad = float((~inside | (height <= 0) | (width <= 0)).mean())
    sides = f"heights {height.min():.3g} to {height.max():.3g}, widths {width.min():.3g} to {width.max():.3g}"
    text = f"{len(y):,} boxes{_of_classes(labels, context.info.class_names)}, {sides} "
    text += f"pixels of {rows} x {columns}; {bad:.1%} are no area within their picture"
    if height.max() <= 1 and width.max() <= 1:
        meaning = "boxes are fractions of the picture, where pixels are expected"
        return fault(text, meaning, "Multiply them by height and width of the picture")
    if bad > OUTSIDE[0]:
        return (fault if bad > OUTSIDE[1] else warning)(
            text,
            "the numbers of boxes are others than (class, y, x, height, width) of the top left corner: x before y, a "
            "second corner for the size, or the centre",
            "Convert the boxes, and look at them (the command data draws them)",
        )
    return ok(text)


def _of_classes(labels: np.ndarray, names: tuple[str, ...]) -> str:
    """Returns how many boxes are of each class that has a name; of many classes the commonest."""
    counts = np.bincount(labels.astype(np.int64), minlength=len(names))
    common = np.argsort(-counts, kind="stable")[: min(len(names), MOST_CLASSES)]
    listed = [f"{counts[label]:,} {names[label]}" for label in common]
    more = [f"{len(names) - MOST_CLASSES:,} more classes"] if len(names) > MOST_CLASSES else []
    return f" ({', '.join(listed + more)})" if names else ""


def split_sizes(context: Context) -> Answer:
    """Do the splits that judge hold enough examples to tell runs apart?"""
    if context.info.vocabulary is not None:
        return not_asked("examples of a text are windows of it")
    sizes = {name: size for name, size in context.dataset.sizes.items() if name != "train"}
    if not sizes:
        return not_asked("there is no other split")
    text = ", ".join(f"{name}: {size:,} examples" for name, size in sizes.items())
    if min(sizes.values()) < FEW:
        return warning(
            text,
            "a figure of so few examples is mostly chance, and the best of several evaluations is the luckiest",
            "Cut larger splits (`data.validation_fraction`), or use folds (`data.folds`)",
        )
    return ok(text)


def classes(context: Context) -> Answer:
    """Does each class occur in the training split, and in the splits that judge it?"""
    labels = context.labels
    if labels is None or context.info.classes is None:
        return not_asked("targets are no single label")
    counts = np.asarray(context.info.class_counts)
    missing = np.flatnonzero(counts == 0)
    text = f"{context.info.classes} classes, {counts.min():,} to {counts.max():,} training examples each"
    if (counts > 0).sum() < 2:
        return fault(text, "there is nothing to learn: all labels are equal", "Check which column is the target")
    if len(missing):
        return fault(
            f"{text}; none of {_names(context, missing)}",
            "the model has an output that it can never learn to use",
            "Number the classes without gaps, or cut the splits so that each class is in the training split "
            "(`data.stratify=True`)",
        )
    for name, size in context.dataset.sizes.items():
        if name == "train":
            continue
        found = np.unique(np.asarray(context.dataset.targets(name)).ravel())
        expected = counts / counts.sum() * size
        absent = np.setdiff1d(np.flatnonzero(expected >= EXPECTED), found)
        if len(absent):
            return warning(
                f"{text}; {name} has none of {_names(context, absent)}",
                f"{name} was not cut at random, and judges other classes than those that are learned",
                "Cut it at random (`data.stratify=True`), or mix the examples before they are cut",
            )
    return ok(text)


def balance(context: Context) -> Answer:
    """Which figure does a model reach that always says the commonest, and can the chosen metric tell it apart?"""
    labels = context.labels
    metric = context.config["eval"]["metric"]
    if labels is None:
        return _figure_of_numbers(context)
    counts = np.asarray(context.info.class_counts, np.float64)
    share = float(counts.max() / counts.sum())
    text = f"always saying the commonest is right in {share:.1%}: the figure to beat"
    if share >= RARE and metric == "accuracy":
        return fault(
            f"{text}; runs are judged by accuracy",
            "a model that learned nothing looks excellent, and one that finds the rare class may look worse",
            "Judge by another metric, such as average_precision, roc_auc or f1 (`eval.metric`), and try "
            "`task.class_balance`",
        )
    return ok(text)


def _figure_of_numbers(context: Context) -> Answer:
    """Tells the loss of always saying the commonest token, or the mean."""
    values = np.asarray(context.rows("train")["targets"])
    if context.info.box_classes is not None:
        return not_asked("targets are boxes")
    if values.dtype.kind in "iub":
        shares = np.bincount(values.ravel().astype(np.int64) - int(values.min())) / values.size
        entropy = -float((shares[shares > 0] * np.log(shares[shares > 0])).sum())
        return ok(
            f"always saying the commonest is right in {shares.max():.1%}, by the frequencies alone the loss is "
            f"{entropy:.3f} nats: the figures to beat"
        )
    variance = float(np.asarray(values, np.float64).var(axis=0).mean())
    return ok(f"always saying the mean has a squared error of {variance:.4g}: the figure to beat")


def order(context: Context) -> Answer:
    """Are the labels of a batch mixed, also where those of the files are sorted?"""
    labels = context.labels
    if labels is None:
        return not_asked("targets are no single label")
    if context.config["data"]["batch_size"] < 4:
        return not_asked("batches of fewer than four examples")
    experiment = context.experiment
    count = min(4, experiment.capacity)
    batches = experiment.batches(0, count)
    found = [np.asarray(batches.take(i)["targets"]).ravel() for i in range(count)]
    alike = float(np.mean([(batch[1:] == batch[:-1]).mean() for batch in found]))
    shares = np.asarray(context.info.class_counts, np.float64)
    chance = float(np.square(shares / shares.sum()).sum())
    excess = 0.0 if chance == 1 else (alike - chance) / (1 - chance)
    doubt = CERTAIN * math.sqrt(chance * (1 - chance) / sum(len(batch) - 1 for batch in found))
    text = f"neighbours in a batch share their label in {alike:.0%}, by chance {chance:.0%}"
    if excess > ALIKE and alike - chance > doubt:
        return fault(text, "batches hold one class after the other, and the model forgets each", "Shuffle the examples")
    return ok(text)


def _names(context: Context, labels: np.ndarray) -> str:
    names = context.info.class_names
    shown = [names[label] if names else str(label) for label in labels[:5]]
    return f"class {', '.join(shown)}" + (f" and {len(labels) - 5} more" if len(labels) > 5 else "")
