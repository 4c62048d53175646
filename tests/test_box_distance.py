"""Detections are compared as sets, and what rounding decides counts as no difference."""

from collections.abc import Sequence

import numpy as np
import pytest

from jaxtrain.export.box_distance import box_distance

TOLERANCE = 1e-5
FAR, NEAR, NEARER, WORST = (60, 60, 8, 8), (10, 10, 8, 8), (10, 11, 8, 8), (30, 70, 5, 5)
EXPECTED = [(*FAR, 0.9), (*NEAR, 0.5), (*NEARER, 0.0), (*WORST, 0.1)]
"""Boxes (y, x, height, width) with a score: the third is covered by the second with an IoU of 7 / 9."""


def distance(found: Sequence[tuple[float, ...]]) -> float:
    detections, expected = (np.array([rows], np.float32) for rows in (found, EXPECTED))
    return box_distance(detections, expected, 1, TOLERANCE, overlap=0.5)


def test_the_order_of_boxes_is_no_difference():
    assert distance(EXPECTED) == distance(EXPECTED[::-1]) == 0


def test_a_difference_is_relative_to_the_spread_of_sides_and_that_of_scores():
    moved = [(60, 60, 8.13, 8, 0.9), *EXPECTED[1:]]
    assert distance(moved) == pytest.approx(0.13 / 65, rel=1e-3)  # sides lie between 5 and 70
    lower = [(*FAR, 0.8), *EXPECTED[1:]]
    assert distance(lower) == pytest.approx(0.1 / 0.9, rel=1e-3)


ALLOWED = {
    "one that is as good and covers it": [EXPECTED[0], (*NEAR, 0.0), (*NEARER, 0.5 + 1e-7), EXPECTED[3]],
    "one that is as good at the last candidate": [*EXPECTED[:3], (35, 20, 5, 5, 0.1 + 1e-7)],
}
REFUSED = {
    "one that is worse": [EXPECTED[0], (*NEAR, 0.0), (*NEARER, 0.4), EXPECTED[3]],
    "one that does not cover it": [EXPECTED[0], (*NEAR, 0.0), (10, 15, 8, 8, 0.5), EXPECTED[3]],
    "none": [EXPECTED[0], (*NEAR, 0.0), *EXPECTED[2:]],
    "one more": [*EXPECTED[:2], (40, 40, 8, 8, 0.7), EXPECTED[3]],
    "none at all": [(*row[:4], 0.0) for row in EXPECTED],
}


@pytest.mark.parametrize("kind", ALLOWED)
def test_rounding_may_keep_another_box_in_the_place_of_one(kind: str):
    assert distance(ALLOWED[kind]) <= TOLERANCE


@pytest.mark.parametrize("kind", REFUSED)
def test_what_the_rules_do_not_allow_is_a_difference(kind: str):
    assert distance(REFUSED[kind]) > 1000 * TOLERANCE


def test_other_shapes_are_infinitely_far():
    assert box_distance(np.zeros((1, 3, 5)), np.zeros((1, 4, 5)), 1, TOLERANCE, 0.5) == np.inf
