"""The report opens in a real browser without a network, shows every trial everywhere, and runs no injected markup."""

import dataclasses
import html
import re
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browser import Page, chromium
from example_findings import all_diverged, findings_of

from jaxtrain.commands.search import search_report
from jaxtrain.errors import StorageError
from jaxtrain.search.report.headline import sentences
from jaxtrain.search.report.page import write_page, write_pictures
from jaxtrain.search.report.pictures import FIGURES
from jaxtrain.search.results import Comparison, Findings
from jaxtrain.search.run import SearchResult
from jaxtrain.search.space import Dimension, Space

HOSTILE = ("</script><img src=http://192.0.2.1/x onerror=alert(1)>", "\"'><svg onload=alert(2)>", "&lt;b&gt; $\\x$", "")


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("chromium")) as page:
        page.call(
            "Emulation.setDeviceMetricsOverride",
            {"width": 1100, "height": 900, "deviceScaleFactor": 1, "mobile": False},
        )
        yield page


def hostile() -> Findings:
    """Makes findings whose names are HTML markup."""
    findings = findings_of(8)
    key = "data.name<b>"
    outcomes = [dataclasses.replace(o, point={key: HOSTILE[o.trial % 4]}) for o in findings.outcomes]
    space = Space(findings.space.config, (Dimension(key, "choice", choices=HOSTILE),))
    return dataclasses.replace(findings, space=space, outcomes=outcomes)


SEARCHES: dict[str, Callable[[], Findings]] = {
    "conditional": lambda: findings_of(64),
    "three": lambda: findings_of(3, seeds=1, compared=False),
    "diverged": all_diverged,
    "hostile": hostile,
    "none yet": lambda: dataclasses.replace(findings_of(1, compared=False), outcomes=[]),
}


def opened(page: Page, findings: Findings, folder: Path) -> Page:
    """Opens the report; fails on an error or on a request for anything but the file."""
    path = folder / "report.html"
    write_page(findings, path)
    page.open(path)
    assert page.requests == [path.as_uri(), *(["data:,"] * page.requests.count("data:,"))]
    assert page.errors == []
    return page


def marks(page: Page, group: str) -> list[int]:
    """Returns the trials whose marks are in a group, as the browser sees them."""
    script = (
        f"[...document.getElementById({group!r})?.querySelectorAll('[data-trial]') ?? []].map(m => +m.dataset.trial)"
    )
    return page.evaluate(script)


def column(page: Page, name: str) -> list[str]:
    """Returns the cells of a column from top to bottom."""
    return page.evaluate(f"""(() => {{
        const at = [...document.querySelectorAll("th")].findIndex(head => head.innerText.trim() === {name!r});
        return [...document.querySelectorAll("tbody tr")].map(row => (row.cells[at].firstChild?.data ?? "").trim());
    }})()""")


def point_at(page: Page, element: str) -> tuple[float, float]:
    """Scrolls to an element, moves the mouse to its centre, and returns that position."""
    page.evaluate(f"{element}.scrollIntoView({{ block: 'center', inline: 'center' }})")
    x, y = page.evaluate(f"(r => [r.x + r.width / 2, r.y + r.height / 2])({element}.getBoundingClientRect())")
    page.mouse("mouseMoved", x, y)
    return x, y


def click(page: Page, element: str) -> None:
    """Clicks with the mouse in the middle of an element."""
    x, y = point_at(page, element)
    page.mouse("mousePressed", x, y, button="left", clickCount=1)
    page.mouse("mouseReleased", x, y, button="left", clickCount=1)


def text(findings: Findings, tmp_path: Path) -> str:
    """Returns the report's text above its pictures."""
    write_page(findings, tmp_path / "report.html")
    found = (tmp_path / "report.html").read_text()
    return html.unescape(re.sub("<[^>]*>", "", found[found.index("<main>") : found.index("<figure>")]))


@pytest.mark.needs("browser")
def test_the_browser_sees_errors_requests_and_what_the_policy_forbids(page, tmp_path):
    path = tmp_path / "bad.html"
    path.write_text("""
        <meta http-equiv="Content-Security-Policy" content="script-src 'unsafe-inline'">
        <script>console.error("said"); setTimeout(() => nothing.at_all)</script>
        <script src="http://192.0.2.1/forbidden.js"></script> <img src="http://192.0.2.1/asked.png">
    """)
    page.open(path)
    page.evaluate("new Promise(resolve => setTimeout(resolve))")
    assert "http://192.0.2.1/asked.png" in page.requests
    told = "\n".join(page.errors)
    assert all(
        part in told for part in ("said", "nothing is not defined", "forbidden.js", "ERR_PROXY_CONNECTION_FAILED")
    )


@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.needs("browser")
def test_every_trial_is_in_the_table_and_in_each_picture(page, tmp_path, name):
    findings = SEARCHES[name]()
    opened(page, findings, tmp_path)
    assert column(page, "trial") == [f"{outcome.trial}" for outcome in findings.order]
    by_status = {s: [o.trial for o in findings.outcomes if o.status == s] for s in ("done", "stopped", "diverged")}
    for status, numbers in by_status.items():
        assert marks(page, f"history-{status}") == numbers
        for dimension in findings.space.dimensions:
            counting = [o.trial for o in findings.outcomes if o.status == status and dimension.key in o.point]
            assert marks(page, f"slice-{dimension.key}-{status}") == counting
    assert sorted(marks(page, "parallel")) == sorted(outcome.trial for outcome in findings.outcomes)
    curves = [outcome.trial for outcome in findings.order if outcome.status != "diverged"][:10]
    assert {trial for trial in curves if trial in marks(page, f"curve-{trial}")} == set(curves)
    assert page.evaluate("document.querySelectorAll('svg').length") == len(FIGURES)


@pytest.mark.needs("browser")
def test_no_mark_is_drawn_outside_its_picture(page, tmp_path):
    opened(page, SEARCHES["conditional"](), tmp_path)
    outside = """[...document.querySelectorAll("svg [data-trial]")].filter(mark => {
        const [a, b] = [mark.getBoundingClientRect(), mark.closest("svg").getBoundingClientRect()];
        const curve = mark.parentNode.closest("[id^=curve-]");
        return !curve && (a.left < b.left - 4 || a.right > b.right + 4 || a.top < b.top - 4 || a.bottom > b.bottom + 4);
    }).length"""
    assert page.evaluate(outside) == 0


@pytest.mark.needs("browser")
def test_the_table_sorts_by_click_and_by_key_numbers_as_numbers_and_what_is_empty_last(page, tmp_path):
    findings = SEARCHES["conditional"]()
    opened(page, findings, tmp_path)

    def order() -> str:
        return page.evaluate(f"document.querySelectorAll('th')[{at}].getAttribute('aria-sort')")

    names = page.evaluate("[...document.querySelectorAll('th')].map(head => head.textContent)")
    at = names.index("optimizer.momentum")
    click(page, f"document.querySelectorAll('th button')[{at}]")
    known = sorted(o.point["optimizer.momentum"] for o in findings.outcomes if "optimizer.momentum" in o.point)
    empty = [""] * (64 - len(known))
    assert column(page, "optimizer.momentum") == [*(f"{value:.4g}" for value in known), *empty]
    assert order() == "ascending"
    page.evaluate(f"document.querySelectorAll('th button')[{at}].focus()")
    page.press("Enter", "\r")
    assert column(page, "optimizer.momentum") == [*(f"{value:.4g}" for value in reversed(known)), *empty]
    assert order() == "descending"
    page.evaluate(f"document.querySelectorAll('th button')[{names.index('trial')}].click()")
    assert column(page, "trial") == [str(number) for number in range(64)]
    page.evaluate(f"document.querySelectorAll('th button')[{names.index('status')}].click()")
    assert column(page, "status") == sorted(outcome.status for outcome in findings.outcomes)
    assert page.evaluate("document.querySelectorAll('[aria-sort=ascending], [aria-sort=descending]').length") == 1


@pytest.mark.needs("browser")
def test_pointing_at_a_mark_lights_the_trial_everywhere_and_tells_of_it(page, tmp_path):
    findings = SEARCHES["conditional"]()
    opened(page, findings, tmp_path)
    best = findings.best
    assert best is not None
    point_at(page, f"document.querySelector(\"[id='history-done'] [data-trial='{best.trial}']\")")
    lit = page.evaluate("[...document.querySelectorAll('.lit')].map(element => +element.dataset.trial)")
    assert lit == [best.trial] * (3 + len(best.point) + 2)  # row, history, parallel, slices; a curve's line and points
    told = page.evaluate("document.getElementById('tip').textContent")
    assert not page.evaluate("document.getElementById('tip').hidden")
    for key, value in {"accuracy": f"{best.value:.5g}", "trial": f"{best.trial} best"}.items():
        assert f"{key}: {value}" in told
    assert all(key in told for key in best.point)
    page.mouse("mouseMoved", 2, 2)
    assert page.evaluate("document.querySelectorAll('.lit').length") == 0
    assert page.evaluate("document.getElementById('tip').hidden")
    assert page.errors == []


@pytest.mark.needs("browser")
def test_what_was_given_stays_text(page, tmp_path):
    opened(page, hostile(), tmp_path)
    assert set(column(page, "data.name<b>")) == {value or "''" for value in HOSTILE}
    assert page.evaluate("document.querySelectorAll('img, b, [onerror], [onload]').length") == 0
    assert page.evaluate("document.querySelectorAll('script').length") == 1


@pytest.mark.needs("browser")
def test_a_script_that_slipped_in_would_not_run(page, tmp_path):
    path = tmp_path / "report.html"
    write_page(findings_of(3), path)
    path.write_text(path.read_text().replace("<main>", "<main><script>document.title = 'run'</script>"))
    page.open(path)
    assert page.evaluate("document.title") != "run"
    assert "Content Security Policy" in page.errors[0]


@pytest.mark.needs("browser")
def test_the_best_its_ties_and_the_configs_own_values_are_marked(page, tmp_path):
    findings = SEARCHES["conditional"]()
    opened(page, findings, tmp_path)
    script = "[...document.querySelectorAll('.badge')].map(b => [+b.closest('tr').dataset.trial, b.textContent])"
    found = {(trial, mark) for trial, mark in page.evaluate(script)}
    assert findings.best is not None
    assert findings.ties
    expected = {(findings.best.trial, "best"), (0, "config's own"), *((trial, "tie") for trial in findings.ties)}
    assert found == expected


@pytest.mark.needs("browser")
def test_a_phone_shows_the_page_without_scrolling_sideways(page, tmp_path):
    size = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    page.call("Emulation.setDeviceMetricsOverride", size)
    try:
        opened(page, hostile(), tmp_path)
        assert page.evaluate("document.documentElement.scrollWidth") == 390
    finally:
        page.call("Emulation.setDeviceMetricsOverride", size | {"width": 1100, "height": 900, "mobile": False})


@pytest.mark.needs("browser")
@pytest.mark.parametrize("name", SEARCHES)
def test_a_wide_window_cuts_nothing_and_pictures_come_before_the_table(page, tmp_path, name):
    page.call(
        "Emulation.setDeviceMetricsOverride",
        {"width": 1300, "height": 900, "deviceScaleFactor": 1, "mobile": False},
    )
    opened(page, SEARCHES[name](), tmp_path)
    cut = (
        "[...document.querySelectorAll('figure, .scroll, td')].filter(box => box.scrollWidth > box.clientWidth).length"
    )
    assert page.evaluate(cut) == 0
    order = "[...document.querySelectorAll('figure, table')].map(element => element.tagName)"
    assert page.evaluate(order) == ["FIGURE"] * len(FIGURES) + ["TABLE"]
    assert page.evaluate("document.querySelector('h1').innerText").startswith("digits_search: ")


@pytest.mark.needs("browser")
def test_on_a_phone_the_text_of_pictures_is_large_enough_to_read(page, tmp_path):
    page.call(
        "Emulation.setDeviceMetricsOverride", {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    )
    opened(page, SEARCHES["conditional"](), tmp_path)
    heights = "[...document.querySelectorAll('svg text')].map(text => text.getBoundingClientRect().height)"
    assert min(page.evaluate(heights)) >= 9.5


@pytest.mark.needs("browser")
def test_a_thousand_trials_are_written_soon_into_a_small_file(page, tmp_path):
    findings = findings_of(1000)
    begin = time.monotonic()
    write_page(findings, tmp_path / "report.html")
    assert time.monotonic() - begin < 15  # measured: 1.5 s
    assert (tmp_path / "report.html").stat().st_size < 3e6
    page.open(tmp_path / "report.html")
    assert len(column(page, "trial")) == len(marks(page, "parallel")) == 1000


@pytest.mark.parametrize("storage", [None, "sqlite:///study.db"])
def test_the_command_says_whose_trials_the_ledger_holds(storage: str | None, tmp_path: Path):
    found = findings_of(20)
    shared = {**found.space.config, "search": {**found.space.config["search"], "storage": storage}}
    found = dataclasses.replace(found, space=dataclasses.replace(found.space, config=shared))
    (tmp_path / "trials.jsonl").write_text("")
    (line,) = [line for line in search_report(SearchResult("done", found, tmp_path), []) if "trials.jsonl" in line]
    assert ("this worker" in line) == (storage is not None)


@pytest.mark.parametrize(
    ("own", "words"),
    [
        (
            {3: 0.90, 4: 0.91, 5: 0.92},
            "is better than the config's own values (gain +0.05, 95 % interval +0.05 to +0.05)",
        ),
        ({3: 1.0, 4: 1.01, 5: 1.02}, "is worse than the config's own values (gain -0.05"),
        ({3: 0.90, 4: 1.01, 5: 0.95}, "is a tie with the config's own values (gain +0.00667, 95 % interval -0.1"),
        (
            {3: 0.90, 4: None, 5: 0.92},
            "(gain +0.05, 95 % interval +0.05 to +0.05); diverged or undefined: the config's own on 1",
        ),
        (
            {3: None, 4: None, 5: None},
            "cannot be compared with the config's own values; diverged or undefined: the config's own on 3",
        ),
    ],
)
def test_the_headline_says_how_the_best_does_beside_the_configs_own_values(own, words):
    found = Comparison("test", "accuracy", True, 7, {3: 0.95, 4: 0.96, 5: 0.97}, own)
    told = sentences(dataclasses.replace(findings_of(20), comparison=found))[-1]
    assert "On 3 seeds that the search did not use, by accuracy on test, trial 7" in told
    assert words in told


@pytest.mark.slow
def test_the_headline_counts_the_trials_and_names_the_best(tmp_path):
    findings = findings_of(64, compared=False)
    told, best = text(findings, tmp_path), findings.best
    assert best is not None
    assert f"Best: trial {best.trial}, accuracy {best.value:.5g} on validation" in told
    counts = [sum(o.status == status for o in findings.outcomes) for status in ("done", "stopped", "diverged")]
    assert "64 trials in 83.4 s: {} done, {} stopped, {} diverged.".format(*counts) in told
    assert "was not compared with the config's own values" in told
    assert "All trials diverged" in text(all_diverged(), tmp_path)


def test_the_pictures_are_written_as_files(tmp_path):
    write_pictures(findings_of(12), tmp_path)
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(files) == {f"{name}.png" for name in FIGURES}
    for content in files.values():
        assert content.startswith(b"\x89PNG")
        assert struct.unpack(">I", content[16:20])[0] >= 1000


def test_a_folder_that_cannot_be_written_is_said_in_one_line(tmp_path):
    with pytest.raises(StorageError, match=r"history\.png: got the error .*; expected a path that can be written"):
        write_pictures(findings_of(3), tmp_path / "missing")
