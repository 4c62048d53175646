"""How tasks are looked at: what their pictures say, against other libraries and by hand."""

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, confusion_matrix, log_loss, roc_auc_score, roc_curve
from tiny_runs import tiny

from jaxtrain.core.pictures import Chart, Charts, Matrix, Panels
from jaxtrain.data.info import DataInfo
from jaxtrain.tasks import views_of
from jaxtrain.tasks.show.classes import views_of_classes
from jaxtrain.tasks.show.detections import views_of_boxes
from jaxtrain.tasks.show.labels import views_of_labels
from jaxtrain.tasks.show.masks import views_of_masks
from jaxtrain.tasks.show.numbers import views_of_numbers
from jaxtrain.tasks.show.scores import calibration_chart, measure_scores
from jaxtrain.tasks.show.views import softmax

RNG = np.random.default_rng(0)
NAMES = ("cat", "dog", "owl")


def info(**more: Any) -> DataInfo:
    shapes: dict[str, Any] = {"input_shape": (4, 4, 1), "target_shape": (), "classes": None}
    statistics: dict[str, Any] = dict.fromkeys(("target_mean", "target_std", "input_mean", "input_std"), ())
    return DataInfo(**{**shapes, **statistics, **more})


def test_scores_are_those_of_scikit_learn_also_with_ties():
    positive = RNG.random(500) < 0.3
    scores = np.round(positive + RNG.normal(size=500), 1)
    own = measure_scores(positive, scores)
    assert own is not None
    assert own.average_precision == pytest.approx(average_precision_score(positive, scores))
    assert own.area == pytest.approx(roc_auc_score(positive, scores))
    false, true, _ = roc_curve(positive, scores, drop_intermediate=False)
    assert np.allclose(own.false_positive_rate, false)
    assert np.allclose(own.recall, true)
    assert measure_scores(np.ones(5, bool), np.arange(5.0)) is None


def test_classes_are_told_right_from_wrong_with_their_names_and_probabilities():
    views: Any = views_of_classes(info(classes=3, class_names=NAMES))
    logits = np.log(np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]]))
    shown = views.show(np.zeros((2, 4, 4, 1)), np.array([0, 1]), logits)
    assert isinstance(shown, Panels)
    assert [panel.right for panel in shown.panels] == [True, False]
    assert shown.panels[1].lines == ("true: dog", "says: owl (0.60)")
    assert shown.panels[0].image is not None
    rows = views.show(np.zeros((2, 7)), np.array([0, 1]), logits)
    assert [panel.image for panel in rows.panels] == [None, None], "a row of a table is no picture"


def test_the_confusion_matrix_and_the_order_of_examples_are_those_of_scikit_learn():
    views: Any = views_of_classes(info(classes=3, class_names=NAMES))
    labels = RNG.integers(0, 3, 200)
    logits = RNG.normal(size=(200, 3)) + 2 * np.eye(3)[labels]
    pictures = views.summarise(labels, logits)
    matrix = pictures["confusion matrix"]
    assert isinstance(matrix, Matrix)
    assert np.array_equal(matrix.values, confusion_matrix(labels, logits.argmax(axis=1)))
    assert matrix.row_names == NAMES
    assert views.wrongness(labels, logits).mean() == pytest.approx(log_loss(labels, softmax(logits)))
    curves = pictures["curves"]
    assert isinstance(curves, Charts)
    hardest = min(range(3), key=lambda i: average_precision_score(labels == i, softmax(logits)[:, i]))
    assert curves.charts[0].curves[0].name.startswith(NAMES[hardest]), "the hardest class comes first"


def test_two_classes_by_one_logit_are_looked_at_as_classes():
    views: Any = views_of_classes(info(classes=2))
    logits = np.array([3.0, -3.0, 0.5])
    shown = views.show(np.zeros((3, 2)), np.array([1, 0, 0]), logits)
    assert [panel.right for panel in shown.panels] == [True, True, False]
    assert shown.panels[2].lines == ("true: 0", "says: 1 (0.62)")
    charts = views.summarise(np.array([1, 0, 0]), logits)["curves"].charts
    assert len(charts[0].curves) == 1, "precision and recall are those of the class 1"


def test_calibration_compares_confidence_with_the_share_that_is_right():
    confidence = np.array([0.91, 0.93, 0.55, 0.56])
    chart = calibration_chart(confidence, np.array([True, True, True, False]))
    line = chart.curves[0]
    assert np.allclose(line.x, [0.555, 0.92])
    assert np.allclose(line.y, [0.5, 1.0])
    assert line.name == f"calibration error {0.5 * 0.055 + 0.5 * 0.08:.3f}"


def test_labels_are_named_and_right_only_where_all_are():
    views: Any = views_of_labels(info(target_shape=(3,), target_names=NAMES))
    logits = np.array([[2.0, -2.0, 2.0], [2.0, -2.0, -2.0]])
    shown = views.show(np.zeros((2, 4, 4, 3)), np.array([[1, 0, 1], [0, 0, 0]]), logits)
    assert [panel.right for panel in shown.panels] == [True, False]
    assert shown.panels[0].lines == ("true: cat, owl", "says: cat (0.88), owl (0.88)")
    assert shown.panels[1].lines[0] == "true: none"
    wrong = views.wrongness(np.array([[1, 0, 1], [0, 0, 0]]), logits)
    assert wrong[1] > wrong[0]


def test_masks_are_outlined_and_scored_without_void_pixels():
    views: Any = views_of_masks(info(classes=2, target_shape=(4, 4), void=255))
    target = np.zeros((1, 4, 4), int)
    target[0, :2] = 1
    target[0, 0, 0] = 255
    logits = np.where(np.arange(16).reshape(1, 4, 4) % 4 < 2, 1.0, -1.0)
    shown = views.show(np.zeros((1, 4, 4, 1)), target, logits)
    panel = shown.panels[0]
    assert [outline.side for outline in panel.outlines] == ["truth", "prediction"]
    dice = 2 * 3 / (7 + 7)  # of 15 pixels: 7 true, 7 said, 3 both
    assert panel.lines == (f"Dice {dice:.2f}",)
    assert views.wrongness(target, logits) == pytest.approx([1 - dice])
    assert isinstance(views.summarise(target, logits)["scores"], Chart)


def test_masks_of_several_classes_count_pixels():
    views: Any = views_of_masks(info(classes=3, target_shape=(2, 2), class_names=NAMES))
    target = np.array([[[0, 1], [2, 2]]])
    logits = np.eye(3)[np.array([[[0, 1], [2, 0]]])]
    assert views.wrongness(target, logits) == pytest.approx([0.25])
    matrix = views.summarise(target, logits)["confusion matrix"]
    assert np.array_equal(matrix.values, [[100, 0, 0], [0, 100, 0], [50, 0, 50]])


def test_numbers_are_drawn_against_their_targets_with_what_is_left():
    views: Any = views_of_numbers(info(target_shape=(2,), target_names=("price", "age")))
    true = RNG.normal(size=(50, 2)) * [1e5, 1.0]
    said = true + np.array([0.0, 0.5])
    pictures = views.show(np.zeros((50, 3)), true, said)
    assert list(pictures) == ["predictions of price", "predictions of age"]
    scatter, rest = pictures["predictions of age"].charts
    assert (scatter.reference, rest.reference) == ("diagonal", "zero")
    assert np.allclose(rest.curves[0].y, 0.5)
    assert rest.curves[0].name == "root mean square 0.5"
    one: Any = views_of_numbers(info(target_shape=()))
    shown = one.show(np.zeros((2, 4, 4, 1)), np.array([1.0, 2.0]), np.array([1.5, 2.0]))
    assert shown.panels[0].lines == ("true: 1", "says: 1.5"), "pictures of which a number is learned"
    assert one.wrongness(np.array([1.0, 2.0]), np.array([1.5, 2.0])).argmax() == 0


def test_a_number_has_the_name_of_its_column():
    config = tiny({"data.name": "csv", "data.file": "houses.csv", "data.target": "price", "task.name": "regression"})
    views: Any = views_of(config, info(input_shape=(3,), target_mean=(0.0,), target_std=(1.0,)), {})
    (chart, _) = views.summarise(np.arange(3.0), np.arange(3.0))["predictions"].charts
    assert (chart.title, chart.x_label) == ("Predictions of price", "true price, in its unit")


def test_boxes_of_both_sides_are_drawn_and_compared():
    views: Any = views_of_boxes(info(box_classes=1, class_names=("cell",)))
    target = np.array([[[0, 2.0, 3, 4, 5], [-1, 0, 0, 0, 0]]])
    hit = np.array([[[2.0, 3, 4, 5, 0.9], [0, 0, 1, 1, 0.1]]])
    shown = views.show(np.zeros((1, 9, 9, 3)), target, hit)
    (true, found) = shown.panels[0].boxes
    assert (true.side, true.y, true.x, true.height, true.width) == ("truth", 2.0, 3.0, 4.0, 5.0)
    assert (found.side, found.text) == ("prediction", "cell 0.90")
    assert views.wrongness(target, hit) == pytest.approx([0.0])
    assert views.wrongness(target, hit * [1, 1, 1, 1, 0.1]) == pytest.approx([1.0])
