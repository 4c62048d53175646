"""The pictures of a search, drawn with matplotlib, which is imported on first use.

Each mark links to its trial and belongs to an SVG group named after the picture, such as "history-done".
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxtrain.reports.figures import new_figure, shorten
from jaxtrain.reports.value_axis import value_axis
from jaxtrain.search.report.importance import find_importances
from jaxtrain.search.report.marks import BROKEN, LINK, legend, ramp, ring, scatter, value_side
from jaxtrain.search.report.parallel_coordinates import parallel_coordinates
from jaxtrain.search.report.slices import slices
from jaxtrain.search.results import Findings
from jaxtrain.search.trials import Outcome

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CURVES = 10
"""Number of trials whose curves are drawn."""

TELLS_LITTLE = 0.2
"""R² of the forest below which the picture calls its importances doubtful."""


def history(findings: Findings) -> "Figure":
    """Draws the value of each trial by its number, and the best so far; trials without a value are on the edge."""
    figure = new_figure(4.4)
    axes = figure.subplots()
    outcomes = sorted(findings.outcomes, key=lambda outcome: outcome.trial)
    axis = value_axis((outcome.value for outcome in outcomes), findings.higher_is_better)
    numbers, values = _best_so_far(outcomes, findings)
    if numbers:
        look = {"color": "#e08a1e", "linewidth": 1.6, "zorder": 1}
        axes.step(numbers, axis.clip(values), where="post", label="best so far", gid="history-best", **look)
    scatter(axes, outcomes, [(outcome.trial, axis.height(outcome.value)) for outcome in outcomes], "history")
    if findings.best:
        ring(axes, (findings.best.trial, axis.height(findings.best.value)))
    value_side(axes, axis, findings)
    axes.locator_params("x", integer=True)
    axes.set_xlabel("trial")
    axes.set_title("History" + axis.note(outcome.value for outcome in outcomes), loc="left", fontsize="medium")
    legend(figure, axes)
    return figure


def _best_so_far(outcomes: Sequence[Outcome], findings: Findings) -> tuple[list[int], list[float]]:
    """Returns trial numbers and the best value up to each, among the trials with the best trial's status."""
    status = findings.best.status if findings.best else ""
    chosen = [outcome for outcome in outcomes if outcome.status == status and outcome.value is not None]
    if not chosen:
        return [], []
    best = np.maximum if findings.higher_is_better else np.minimum
    values = best.accumulate([float(outcome.value or 0.0) for outcome in chosen]).tolist()
    return [*(outcome.trial for outcome in chosen), outcomes[-1].trial], [*values, values[-1]]


def importances(findings: Findings) -> "Figure":
    """Draws how much the ranking of trials depends on each hyperparameter, or the reason why that is unknown."""
    importance = find_importances(findings)
    figure = new_figure(1.5 + 0.42 * max(2, len(importance.drops)))
    axes = figure.subplots()
    if importance.lack:
        axes.axis("off")
        axes.text(0.5, 0.5, importance.lack, ha="center", va="center", transform=axes.transAxes)
        axes.set_title("Importances", loc="left", fontsize="medium")
        return figure
    order = sorted(importance.drops, key=lambda key: importance.drops[key])
    drops = np.maximum([importance.drops[key] for key in order], 0.0)  # negative drops are chance
    shares = drops / max(drops.sum(), 1e-9)
    bars = axes.barh([shorten(key, 40) for key in order], shares, height=0.6, color="#2f7fc1")
    axes.bar_label(bars, [f"{share:.0%}" for share in shares], padding=4, fontsize="small")
    axes.set(xlim=(0.0, 1.08), ylim=(-0.6, max(2, len(order)) - 0.4), xticks=[])
    axes.set_xlabel("share of the drop in R² when the values are shuffled")
    explained = max(0.0, importance.explained)
    doubt = ", so the bars are unreliable" if explained < TELLS_LITTLE else ""
    title = f"Importances (a random forest explains {explained:.0%} of the ranking{doubt})"
    axes.set_title(title, loc="left", fontsize="medium")
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    return figure


def curves(findings: Findings) -> "Figure":
    """Draws the learning curves of the best trials, averaged over seeds."""
    chosen = [outcome for outcome in findings.order if outcome.value is not None and outcome.curve][:CURVES]
    points = {outcome.trial: np.array(outcome.curve, float) for outcome in chosen}
    axis = value_axis(np.concatenate([[], *(p[:, 1] for p in points.values())]), findings.higher_is_better)
    figure = new_figure(4.4)
    colours = ramp()
    axes = figure.subplots()
    for place, (trial, curve) in reversed(list(enumerate(points.items()))):
        steps, values = curve.T
        look: dict[str, Any] = {"linewidth": 2.2 if place == 0 else 1.0, "marker": "o", "markersize": 3.0}
        link: dict[str, Any] = {"gid": f"curve-{trial}", "url": f"{LINK}{trial}", "label": f"trial {trial}"}
        if chosen[place].status == "stopped":
            look |= {"linestyle": BROKEN, "markerfacecolor": "none"}
            link["label"] += ", stopped"
        axes.plot(steps, values, color=colours(1.0 - place / CURVES), **look, **link)
    value_side(axes, axis, findings)
    axes.set_xlabel("step")
    title = f"Curves of the best {len(chosen)} trials" if len(chosen) > 1 else "Curve of the best trial"
    axes.set_title(title if chosen else "Curves: no trial has one", loc="left", fontsize="medium")
    legend(figure, axes, reverse=True)
    return figure


FIGURES: dict[str, Callable[[Findings], "Figure"]] = {
    "history": history,
    "parallel_coordinates": parallel_coordinates,
    "slices": slices,
    "importances": importances,
    "curves": curves,
}
"""File name -> function that draws the picture."""
