"""Questions about the inputs: finite, scaled, alike in all splits, and without a feature that gives the target away."""

import jax
import numpy as np

from jaxtrain.check.answers import Answer, fault, not_asked, ok, warning
from jaxtrain.check.context import Context, as_array, jitted
from jaxtrain.tasks.augment import augmentation_of
from jaxtrain.tasks.inputs import normalise_batch

NEAR_CONSTANT = 1e-3
"""The deviation, of features standardised over the whole training split, below which one is called constant."""

SQUASHED = 0.02
"""The distance between the 1st and the 99th percentile of a standardised feature below which outliers squash it.

The smallest one of the embedded data sets and of those of the shipped configs is 2.0.
"""

FAR = 1.0
"""The distance between the means of two splits, in training deviations, of the median feature.

Those of the embedded data sets and of the shipped configs reach 0.15, in a split of 66 examples.
"""

WIDE = 4.0
"""The ratio of the deviations of two splits; in the same data sets it lies between 0.93 and 1.2."""

TELLING = 0.99
"""The share of the spread of the target, or of the labels beyond chance, that one feature foretells by itself.

The most telling single features reach 0.75 (breast cancer), 0.48 (California housing) and 0.38 (diabetes).
"""

BINS = 32

UNLIKE = (0.4, 1.2)
"""The distance between the distributions of a feature in two splits, the largest difference of their cumulated shares,
from which it is told: the first number, and the second over the root of the examples of the smaller split.

It is 0 for equal distributions and 1 for those that do not overlap, whatever the scale.
"""

UNLIKE_TOKENS = 0.5
"""The share of the tokens of one split that differ from those of another, by their frequencies."""

TOKENS_EACH = 20
"""Tokens for each different one that a split needs, so that chance does not set its frequencies apart."""

STAND_IN = (0.01, 5.0)
"""The share of the examples from which an outermost value is told that they repeat, and how far it then lies from all
others, in multiples of their range."""


def inputs(context: Context) -> Answer:
    """Are the inputs, as the model sees them, finite and of mean 0 and deviation 1, or tokens of the vocabulary?"""
    seen = context.seen("train")
    if context.info.tokens is not None:
        used = len(np.unique(seen))
        return ok(f"{seen.size:,} tokens, {used:,} of {context.info.tokens:,} different ones")
    values = np.asarray(seen, np.float64)
    if not np.isfinite(values).all():
        row = int(np.argwhere(~np.isfinite(values))[0][0])
        at = int(context.places("train")[row])
        return fault(
            f"training example {at} holds a number that is not finite",
            "a loss that is not a number from the first batch that holds this example",
            "Fill the value or leave the example out (`data.skip_bad`)",
        )
    by_feature = _numbers(context, values)
    if not by_feature.size:
        return ok("categories alone")
    deviation = by_feature.std(axis=0)
    constant = int((deviation < NEAR_CONSTANT).sum())
    text = (
        f"mean {by_feature.mean():.3g}, deviation {by_feature.std():.3g}, "
        f"from {by_feature.min():.3g} to {by_feature.max():.3g}"
        + (f"; {constant:,} of {len(deviation):,} features nearly constant" if constant else "")
    )
    if constant == len(deviation):
        return fault(text, "every example looks the same to the model", "Check the reader and the columns it takes")
    low, high = np.percentile(by_feature, (1, 99), axis=0)
    squashed = np.flatnonzero((high - low < SQUASHED) & (high > low))
    if len(squashed):
        name = _feature_name(context, int(squashed[0]))
        return warning(
            f"{text}; 98 % of {name} lie within {float((high - low)[squashed[0]]):.2g} deviations",
            "a few outliers set the scale, so that all other values look alike",
            "Take data.quantiles, a logarithm, or clip the outliers",
        )
    return _stand_ins(context, by_feature, text) or _constant_channels(context, deviation, text) or ok(text)


def _stand_ins(context: Context, by_feature: np.ndarray, text: str) -> Answer | None:
    """Returns a warning where a feature has a value, such as -999, that stands for what is missing."""
    least, far = STAND_IN
    for place in range(min(by_feature.shape[1], 2**10)):
        values, counts = np.unique(by_feature[:, place], return_counts=True)
        if len(values) < 10:
            continue
        for outermost, inner in ((0, values[1:]), (-1, values[:-1])):
            gap = abs(values[outermost] - inner[outermost])
            if counts[outermost] > least * len(by_feature) and gap > far * np.ptp(inner):
                name = _feature_name(context, place) if by_feature.shape[1] > 1 else "the inputs"
                return warning(
                    f"{text}; {counts[outermost] / len(by_feature):.1%} of {name} have one value, far from all others",
                    "a number such as -999 stands for what is missing, and sets the scale of all others",
                    "Leave such cells empty, so that they are filled and marked, or fill them",
                )
    return None


def _constant_channels(context: Context, deviation: np.ndarray, text: str) -> Answer | None:
    """Returns a warning where a channel of pictures says nothing."""
    if len(context.info.input_shape) != 3 or not (deviation < NEAR_CONSTANT).any():
        return None
    channels = np.flatnonzero(deviation < NEAR_CONSTANT)
    return warning(
        f"{text}: channel {', '.join(map(str, channels))}",
        "a channel is the same in all pictures: it was not read, or was overwritten",
        "Look at the pictures (the command data draws them), and at the channels that the reader takes",
    )


def splits_alike(context: Context) -> Answer:
    """Do the other splits have inputs, and targets that are numbers, of the same scale as the training split?"""
    others = [name for name in context.dataset.sizes if name != "train"]
    if not others:
        return not_asked("there is no other split")
    if context.info.tokens is not None:
        return _tokens_alike(context, others)
    reference = _compared(context, "train")
    if not reference.size:
        return not_asked("categories have no scale")
    told = []
    furthest = (0.0, "")
    for name in others:
        values = _compared(context, name)
        spread = np.maximum(reference.std(axis=0), 1e-6)
        moved = float(np.median(np.abs(values.mean(axis=0) - reference.mean(axis=0)) / spread))
        ratio = float(values.std() / max(reference.std(), 1e-12))
        told.append(f"{name}: means {moved:.2g} deviations apart, deviation {ratio:.2g} times as large")
        if moved > FAR or not 1 / WIDE < ratio < WIDE:
            return fault(
                "; ".join(told),
                f"{name} was prepared otherwise than the training split, so its numbers say little about the model",
                "Prepare all splits by the same function, with the statistics of the training split",
            )
        place, apart = _most_unlike(reference, values, len(context.places(name)))
        how = _how_unlike(reference[:, place], values[:, place])
        furthest = max(furthest, (apart, f"{_column_name(context, place)} in {name} is {how}"))
    if furthest[0] > 0:
        return warning(
            f"{'; '.join(told)}; the distribution of {furthest[1]}",
            "columns or channels are in another order there, or were prepared otherwise; or the splits are of other "
            "times or groups, and differ by nature",
            "Prepare all splits by the same function, and compare their distributions (the command data draws them)",
        )
    return ok("; ".join(told))


def _compared(context: Context, split: str) -> np.ndarray:
    """Returns the numbers (n, features) of a split that are compared: those of inputs, and a target that is one."""
    values = _numbers(context, np.asarray(context.seen(split), np.float64))
    targets = np.asarray(context.rows(split)["targets"])
    if targets.dtype.kind != "f" or targets.size != len(values):
        return values
    return np.concatenate([values, targets.reshape(-1, 1)], axis=1)


def _column_name(context: Context, place: int) -> str:
    """Names a column of `_compared`."""
    shape = context.info.input_shape
    if len(shape) != 1:
        return f"channel {place}"
    encoding = context.info.table
    if encoding is None:
        return f"feature {place}" if place < shape[0] else "the target"
    names = [name for name, form in zip(encoding.names, encoding.forms, strict=True) if form == "number"]
    return repr(names[place]) if place < len(names) else "the target"


def _most_unlike(reference: np.ndarray, values: np.ndarray, examples: int) -> tuple[int, float]:
    """Returns the feature whose distributions are furthest apart, and by how much beyond what is allowed, or 0."""
    allowed = UNLIKE[0] + UNLIKE[1] / np.sqrt(min(examples, len(reference)))
    apart = []
    for place in range(min(reference.shape[1], 2**10)):
        first = np.sort(reference[:, place])
        second = np.sort(values[:, place])
        at = np.unique(np.quantile(np.concatenate([first, second]), np.linspace(0, 1, 201)))
        shares = [np.searchsorted(side, at, side="right") / len(side) for side in (first, second)]
        scaled = _times_as_wide(first, second) is not None
        apart.append(1.0 if scaled else float(np.abs(shares[0] - shares[1]).max()))
    place = int(np.argmax(apart))
    return place, max(0.0, apart[place] - allowed)


def _how_unlike(reference: np.ndarray, values: np.ndarray) -> str:
    """Says how unlike the distributions of a feature are: by how much the scale differs, where it is that."""
    times = _times_as_wide(reference, values)
    return "another" if times is None else f"another, its middle half {times:.2g} times as wide"


def _times_as_wide(reference: np.ndarray, values: np.ndarray) -> float | None:
    """Returns by which factor the middle half of some values is wider, where scales differ; None where they do not."""
    one, other = (float(np.subtract(*np.percentile(side, (75, 25)))) for side in (reference, values))
    return other / one if min(one, other) > 0 and max(one, other) > WIDE * min(one, other) else None


def _tokens_alike(context: Context, others: list[str]) -> Answer:
    """Compares the frequencies of tokens."""
    size = context.info.tokens or 0
    reference = np.bincount(context.seen("train").ravel(), minlength=size)
    told = []
    for name in others:
        counts = np.bincount(context.seen(name).ravel(), minlength=size)
        if min(counts.sum(), reference.sum()) < TOKENS_EACH * ((counts + reference) > 0).sum():
            return not_asked(f"{name} has too few tokens")
        apart = 0.5 * float(np.abs(reference / reference.sum() - counts / counts.sum()).sum())
        told.append(f"{name}: {apart:.0%} of the tokens differ by their frequencies")
        if apart > UNLIKE_TOKENS:
            return warning(
                "; ".join(told),
                f"{name} is a text of another kind, language or case, or was encoded otherwise",
                "Read all splits with the same encoding, and look at their beginnings (the command data shows them)",
            )
    return ok("; ".join(told))


def augmentation(context: Context) -> Answer:
    """Do augmentations leave examples finite, and of the scale that the model sees in evaluations?"""
    augment = augmentation_of(context.config)
    if not augment.members:
        return not_asked("nothing is augmented")
    plain = normalise_batch(context.parts[0], context.info)
    augmented = jitted(augment)(jax.random.key(0), plain, context.values)
    before, after = (as_array(batch["inputs"]) for batch in (plain, augmented))
    ratio = float(after.std()) / max(float(before.std()), 1e-12)
    moved = abs(float(after.mean() - before.mean())) / max(float(before.std()), 1e-12)
    text = f"{', '.join(augment.names)}: deviation {ratio:.2g} times as large, mean moved by {moved:.2g} deviations"
    if not np.isfinite(after).all():
        return fault(text, "an augmentation makes numbers that are not finite", "Correct it, or lower its strength")
    if not 1 / WIDE < ratio < WIDE or moved > FAR:
        return fault(
            text,
            "the model is trained on other inputs than those it is judged on",
            "Lower the strength; inputs have mean 0 and deviation 1 where augmentations get them",
        )
    return ok(text)


def leak(context: Context) -> Answer:
    """Does one feature alone foretell the target?"""
    info = context.info
    values = np.asarray(context.seen("train"), np.float64)
    if info.vocabulary is not None:
        return not_asked("the targets of a text are its own tokens")
    if info.padding is not None:
        return not_asked("a place in texts or sequences is no feature")
    targets = np.asarray(context.rows("train")["targets"], np.float64)
    if targets.ndim > 1 and targets.shape[1:] != (1,):
        return not_asked("targets of several numbers")
    targets = targets.reshape(len(targets))
    features = values.reshape(len(values), -1)
    labels = context.labels
    scores = _foretold(features, targets, labels is not None)
    best = int(np.argmax(scores))
    name = _feature_name(context, best)
    text = f"{name} alone foretells {scores[best]:.0%} of {'the labels beyond chance' if labels is not None else 'it'}"
    if scores[best] >= TELLING:
        return fault(
            text,
            "the target, or something that is only known after it, is among the inputs",
            f"Leave {name} out of the inputs, or make sure that it is known when the model is used",
        )
    return ok(text)


def _foretold(features: np.ndarray, targets: np.ndarray, classes: bool) -> np.ndarray:
    """Returns, of each feature (n, features), the share that its bins foretell of the second half of the examples.

    The bins, of equal numbers of examples, are learned on every other example and judged on the rest. For classes it is
    the accuracy beyond that of the commonest class, for numbers the coefficient of determination.
    """
    chosen = features[:, : 2**13]
    learn = slice(0, None, 2)
    judge = slice(1, None, 2)
    scores = np.zeros(chosen.shape[1])
    if len(targets) < 20:
        return scores
    for place in range(chosen.shape[1]):
        column = chosen[:, place]
        edges = np.unique(np.quantile(column[learn], np.linspace(0, 1, BINS + 1)[1:-1]))
        if classes and len(np.unique(column)) <= 4 * BINS:
            edges = np.unique(column)  # codes: a bin each
        bins = np.searchsorted(edges, column, side="right")
        scores[place] = (_class_score if classes else _number_score)(bins, targets, learn, judge)
    return scores


def _class_score(bins: np.ndarray, labels: np.ndarray, learn: slice, judge: slice) -> float:
    whole = labels.astype(np.int64)
    table = np.zeros((bins.max() + 1, whole.max() + 1))
    np.add.at(table, (bins[learn], whole[learn]), 1)
    commonest = table.sum(axis=0).argmax()
    guess = np.where(table.sum(axis=1) > 0, table.argmax(axis=1), commonest)[bins[judge]]
    chance = float((whole[judge] == commonest).mean())
    return 0.0 if chance == 1 else max(0.0, (float((guess == whole[judge]).mean()) - chance) / (1 - chance))


def _number_score(bins: np.ndarray, targets: np.ndarray, learn: slice, judge: slice) -> float:
    count = np.bincount(bins[learn], minlength=bins.max() + 1)
    sums = np.bincount(bins[learn], targets[learn], minlength=bins.max() + 1)
    mean = targets[learn].mean()
    guess = np.where(count > 0, sums / np.maximum(count, 1), mean)[bins[judge]]
    spread = float(np.square(targets[judge] - mean).sum())
    return 0.0 if spread == 0 else max(0.0, 1 - float(np.square(targets[judge] - guess).sum()) / spread)


def _numbers(context: Context, values: np.ndarray) -> np.ndarray:
    """Returns values (n, features): the columns of a table that are numbers, the channels of a picture."""
    if context.info.sequences is not None:
        return values[context.info.sequences.is_kept(values)][:, :-1]
    if values.ndim > 2:
        return values.reshape(-1, values.shape[-1])
    encoding = context.info.table
    if encoding is None:
        return values
    return values[:, [form == "number" for form in encoding.forms]]


def _feature_name(context: Context, place: int) -> str:
    """Names the feature at a place of a flattened example, in words."""
    info = context.info
    if info.table is not None:
        return repr(info.table.names[place])
    if len(info.input_shape) == 1:
        return f"feature {place}"
    return f"the input at {tuple(int(i) for i in np.unravel_index(place, info.input_shape))}"
