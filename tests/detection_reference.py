"""Average precision of detected boxes in plain Python, one detection after the other, and random detections."""

from collections.abc import Sequence
from typing import Any

import numpy as np

Box = Sequence[float]


def overlap(box: Box, other: Box) -> float:
    """Returns the intersection over union of two boxes (y, x, height, width)."""
    height = min(box[0] + box[2], other[0] + other[2]) - max(box[0], other[0])
    width = min(box[1] + box[3], other[1] + other[3]) - max(box[1], other[1])
    if height <= 0 or width <= 0:
        return 0.0
    return height * width / (box[2] * box[3] + other[2] * other[3] - height * width)


def average_precision_by_hand(detections: np.ndarray, boxes: np.ndarray, thresholds: Any) -> float:
    """Returns the mean over thresholds and classes with boxes of the area under the precision envelope."""
    areas = []
    for label in range(detections.shape[2] - 4):
        if (boxes[..., 0] == label).any():
            areas += [area(detections, boxes, label, threshold) for threshold in thresholds]
    return float(np.mean(areas))


def area(detections: np.ndarray, boxes: np.ndarray, label: int, threshold: float) -> float:
    found = [
        (row[4 + label], picture, tuple(map(float, row[:4])))
        for picture, rows in enumerate(detections)
        for row in rows
        if row[4 + label] > 0
    ]
    free = [[tuple(map(float, row[1:])) for row in rows if row[0] == label] for rows in boxes]
    total = sum(map(len, free))
    hits = []
    for _, picture, box in sorted(found, key=lambda item: -item[0]):
        best = max(free[picture], key=lambda true: overlap(box, true), default=None)
        hits.append(best is not None and overlap(box, best) >= threshold)
        if hits[-1]:
            free[picture].remove(best)  # pyright: ignore[reportArgumentType]
    precisions = [sum(hits[: i + 1]) / (i + 1) for i in range(len(hits))]
    return sum(max(precisions[i:]) for i, hit in enumerate(hits) if hit) / total


def random_detections(random: np.random.Generator, examples: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns boxes (examples, 6, 5) of two classes, some absent, and detections (examples, 9, 6) near most of them."""
    places = random.uniform(0, 50, (examples, 6, 2))
    sides = random.uniform(5, 20, (examples, 6, 2))
    boxes = np.concatenate([random.integers(-1, 2, (examples, 6, 1)), places, sides], axis=2)
    near = boxes[:, [0, 1, 2, 3, 0, 1], 1:] + random.normal(0, 1.0, (examples, 6, 4))
    elsewhere = np.concatenate([random.uniform(0, 50, (examples, 3, 2)), random.uniform(5, 20, (examples, 3, 2))], -1)
    scores = 1 / (1 + np.exp(-random.normal(size=(examples, 9, 2))))
    scores *= random.random(scores.shape) < 0.8
    detections = np.concatenate([np.concatenate([near, elsewhere], axis=1), scores], axis=2)
    return boxes.astype(np.float32), detections.astype(np.float32)
