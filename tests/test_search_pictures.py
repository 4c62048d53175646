"""The pictures of a search show every trial once, at its value, and say what cannot be shown."""

import dataclasses
import io
import math

import numpy as np
import pytest
from example_findings import CONDITIONAL, all_diverged, findings_of
from matplotlib.axes import Axes
from matplotlib.collections import Collection, LineCollection, PathCollection
from matplotlib.figure import Figure

from jaxtrain.search.report.importance import find_importances
from jaxtrain.search.report.parallel_coordinates import parallel_coordinates
from jaxtrain.search.report.pictures import FIGURES, curves, history, importances
from jaxtrain.search.report.slices import slices
from jaxtrain.search.results import Findings
from jaxtrain.search.space import Dimension, Space

RATE_ONLY = {"optimizer.learning_rate": ("log_uniform", 1e-4, 1.0)}
CASES = {
    "three trials": lambda: findings_of(3),
    "one seed": lambda: findings_of(30, seeds=1, compared=False),
    "one dimension": lambda: findings_of(20, RATE_ONLY),
    "all diverged": all_diverged,
    "none yet": lambda: dataclasses.replace(findings_of(1), outcomes=[]),
}


def groups(figure: Figure) -> dict[str, Collection]:
    """Name -> marks of the groups that stand for trials."""
    found = [artist for axes in figure.axes for artist in axes.collections]
    return {str(artist.get_gid()): artist for artist in found if artist.get_gid()}


def trials(marks: Collection) -> list[int]:
    return [int(str(url).removeprefix("#trial-")) for url in marks.get_urls() or []]


def heights(marks: Collection) -> list[float]:
    return np.asarray(marks.get_offsets())[:, 1].tolist()


def panel(figure: Figure, label: str) -> Axes:
    (found,) = [axes for axes in figure.axes if axes.get_xlabel() == label]
    return found


def words(figure: Figure) -> str:
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    return " ".join([*texts, *(axes.get_title(loc="left") for axes in figure.axes), figure.get_suptitle()])


def with_values(findings: Findings, values: dict[int, float]) -> Findings:
    new = [dataclasses.replace(o, status="done", value=values[o.trial]) for o in findings.outcomes]
    return dataclasses.replace(findings, outcomes=new)


@pytest.mark.one_fast_of(5)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", FIGURES)
def test_every_picture_can_be_drawn_of_whatever_was_found(name, case):
    FIGURES[name](CASES[case]()).savefig(io.BytesIO(), format="svg")


@pytest.mark.parametrize("status", ["done", "stopped", "diverged"])
def test_the_history_has_a_mark_at_the_value_of_each_trial_and_diverged_ones_on_the_edge(status):
    findings = findings_of(64)
    marks, (edge, _) = groups(history(findings))[f"history-{status}"], history(findings).axes[0].get_ylim()
    known = {outcome.trial: outcome for outcome in findings.outcomes if outcome.status == status}
    assert sorted(trials(marks)) == sorted(known)
    assert len(known) > 1
    for trial, height in zip(trials(marks), heights(marks), strict=True):
        assert height == max(known[trial].value or 0.0, edge)


def test_the_best_so_far_ends_at_the_best():
    findings = findings_of(64)
    (line,) = [line for line in history(findings).axes[0].lines if line.get_label() == "best so far"]
    values = np.asarray(line.get_ydata())
    assert (np.diff(values) >= 0).all()
    assert findings.best is not None
    assert values[-1] == findings.best.value


def test_a_loss_that_blew_up_does_not_flatten_the_others():
    findings = with_values(findings_of(20), {n: 0.1 + 0.01 * n for n in range(18)} | {18: 1e9, 19: math.inf})
    findings = dataclasses.replace(findings, higher_is_better=False)
    figure = history(findings)
    low, high = figure.axes[0].get_ylim()
    assert low < 0.1
    assert 0.27 < high < 1.0
    assert heights(groups(figure)["history-done"])[18:] == [high, high]
    assert "2 worse than the edge" in words(figure)


def test_parallel_coordinates_have_a_line_for_each_trial_the_best_on_top_with_gaps_where_nothing_counts():
    findings = findings_of(64)
    figure = parallel_coordinates(findings)
    lines = groups(figure)["parallel"]
    assert isinstance(lines, LineCollection)
    assert trials(lines) == [outcome.trial for outcome in reversed(findings.order)]
    keys = [dimension.key for dimension in findings.space.dimensions]
    assert [t.get_text().replace("\n", "") for t in figure.axes[0].get_xticklabels()] == [*keys, "accuracy"]
    for outcome, path in zip(reversed(findings.order), lines.get_segments(), strict=True):
        assert len(path) == 2 * (len(outcome.point) + 1)  # matplotlib leaves the gaps' points out


def test_a_slice_has_the_trials_at_which_its_dimension_counts_and_its_median():
    findings = findings_of(64)
    figure = slices(findings)
    drawn = {
        key: sorted(
            n for name, marks in groups(figure).items() if name.startswith(f"slice-{key}-") for n in trials(marks)
        )
        for key in CONDITIONAL
    }
    assert drawn == {key: [o.trial for o in findings.outcomes if key in o.point] for key in CONDITIONAL}
    (median,) = [x for x in panel(figure, "optimizer.learning_rate").lines if x.get_label() == "median"]
    at, values = np.asarray(median.get_xdata()), np.asarray(median.get_ydata())
    assert 0.4 < at[values.argmax()] < 0.75  # of the way from 1e-4 to 1: about 0.02


def test_the_numbers_of_a_grid_stand_where_they_are_on_the_axis():
    findings = findings_of(30, {"model.dropout": ("grid", (0.0, 0.1, 0.5))})
    panel = FIGURES["slices"](findings).axes[0]
    marks = [mark for mark in panel.collections if (mark.get_gid() or "").startswith("slice-")]
    drawn = {round(float(x), 6) for mark in marks for x in np.asarray(mark.get_offsets())[:, 0]}
    assert drawn == {0.0, 0.2, 1.0}


@pytest.mark.parametrize("name", ["parallel_coordinates", "curves"])
def test_a_stopped_trial_has_a_broken_line(name):
    findings = findings_of(12)
    kept = [outcome for outcome in findings.outcomes if outcome.status != "diverged"][:6]
    assert {outcome.status for outcome in kept} == {"done", "stopped"}
    axes = FIGURES[name](dataclasses.replace(findings, outcomes=kept)).axes[0]
    if name == "curves":
        dashed = {str(line.get_gid()).removeprefix("curve-") for line in axes.lines if line.is_dashed()}
        assert "stopped" in "".join(text.get_text() for text in axes.figure.legends[0].get_texts())
    else:
        (lines,) = [drawn for drawn in axes.collections if drawn.get_gid() == "parallel"]
        assert isinstance(lines, LineCollection)
        pairs = zip(lines.get_urls(), lines.get_linestyles(), strict=True)  # pyright: ignore[reportAttributeAccessIssue]
        dashed = {str(url).removeprefix("#trial-") for url, (_, dashes) in pairs if dashes}
    assert dashed == {str(outcome.trial) for outcome in kept if outcome.status == "stopped"}


def test_a_logarithmic_range_has_equal_decades_and_a_grid_its_own_values():
    figure = slices(findings_of(20))
    rate, size = panel(figure, "optimizer.learning_rate"), panel(figure, "data.batch_size")
    assert [text.get_text() for text in rate.get_xticklabels()] == ["0.0001", "0.001", "0.01", "0.1", "1"]
    assert np.ptp(np.diff(rate.get_xticks())) < 1e-9
    assert [text.get_text() for text in size.get_xticklabels()] == ["32", "64", "128", "256"]


@pytest.mark.parametrize("own", [0.0, None])
def test_the_configs_own_value_is_drawn_where_the_axis_cannot_hold_it(own):
    findings = findings_of(20, RATE_ONLY)
    first = dataclasses.replace(findings.outcomes[0], point={"optimizer.learning_rate": own})
    findings = dataclasses.replace(findings, outcomes=[first, *findings.outcomes[1:]])
    figure = slices(findings)
    (axes,) = figure.axes
    mark = groups(figure)[f"slice-optimizer.learning_rate-{first.status}"]
    assert trials(mark)[0] == 0
    assert np.asarray(mark.get_offsets())[0, 0] == axes.get_xticks()[0]
    assert axes.get_xticklabels()[0].get_text() == str(own).removesuffix(".0")
    low, _ = axes.get_xlim()
    assert low < axes.get_xticks()[0] < 0
    assert len(trials(groups(parallel_coordinates(findings))["parallel"])) == 20


def test_names_that_look_like_formulas_are_shown_as_they_are():
    names = (r"$\frac$", "a\nb", "x" * 100)
    findings = findings_of(20, RATE_ONLY)
    outcomes = [dataclasses.replace(o, point={"k": names[o.trial % 3]}) for o in findings.outcomes]
    space = Space(findings.space.config, (Dimension("k", "choice", choices=names),))
    figure = slices(dataclasses.replace(findings, space=space, outcomes=outcomes))
    figure.savefig(io.BytesIO(), format="svg")
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_xticklabels()] == [r"\$\frac\$", "a b", "x" * 15 + "…"]


@pytest.mark.slow
def test_importances_find_what_the_order_depends_on():
    findings = findings_of(64)
    found = find_importances(findings)
    assert max(found.drops, key=lambda key: found.drops[key]) == "optimizer.learning_rate"
    assert found.explained > 0.5
    bars = importances(findings).axes[0]
    assert bars.get_yticklabels()[-1].get_text() == "optimizer.learning_rate"
    assert found == find_importances(findings)


def test_a_knob_is_not_credited_with_the_choice_of_its_optimizer():
    findings = findings_of(200)
    values = {o.trial: 0.9 * (o.point["optimizer.name"] == "sgd") + 1e-4 * (o.trial % 7) for o in findings.outcomes}
    drops = find_importances(with_values(findings, values)).drops
    assert drops["optimizer.name"] > 1.0
    assert max(abs(drops["optimizer.momentum"]), abs(drops["optimizer.weight_decay"])) < 0.05


@pytest.mark.parametrize(
    ("findings", "reason"),
    [
        (findings_of(5), "too few trials: 5 of the 12"),
        (all_diverged(20), "no trial is better than another"),
        (dataclasses.replace(findings_of(1), outcomes=[]), "too few trials: 0"),
    ],
)
def test_importances_say_why_there_are_none(findings, reason):
    assert reason in words(importances(findings))


def test_importances_that_explain_nothing_say_so():
    draw = np.random.default_rng(1)
    findings = with_values(findings_of(40), {number: draw.random() for number in range(40)})
    assert "unreliable" in words(importances(findings))


def test_the_curves_of_the_ten_best_are_drawn_as_they_are():
    findings = findings_of(64)
    lines = curves(findings).axes[0].lines
    assert {line.get_gid() for line in lines} == {f"curve-{outcome.trial}" for outcome in findings.order[:10]}
    assert findings.best is not None
    (best,) = [line for line in lines if line.get_gid() == f"curve-{findings.best.trial}"]
    assert np.asarray(best.get_xydata()).tolist() == findings.best.curve


def test_only_marks_of_trials_are_linked_so_that_they_can_be_counted():
    for figure in (history(findings_of(30)), slices(findings_of(30))):
        linked = [a for axes in figure.axes for a in axes.collections if any(a.get_urls() or [])]
        assert linked
        assert all(isinstance(artist, PathCollection) and artist.get_gid() for artist in linked)
