import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jaxtrain.commands.listing import METRIC_TABLES, families, members, source_of
from jaxtrain.commands.reference import reference, split_example
from jaxtrain.commands.summary import config_lines
from jaxtrain.config.defaults import FAMILIES, default_config, family, flatten
from jaxtrain.config.identity import from_default
from jaxtrain.config.registry import knobs_of
from jaxtrain.config.resolve import resolve_config
from jaxtrain.config.schema import MISSING
from jaxtrain.config.sections import NESTED, SECTIONS
from jaxtrain.errors import UsageError

PLURALS = {"task": "tasks", "model": "models", "loss": "losses", "optimizer": "optimizers"}
PLURALS |= {"augment": "augmentations", "schedule": "schedules"}
TABLES = {PLURALS.get(section, section): family(section) for section in FAMILIES} | METRIC_TABLES
MEMBERS = [(table, name) for table, found in TABLES.items() for name in found.members]


def first_line(function: Callable[..., Any]) -> str:
    return (inspect.getdoc(function) or "").splitlines()[0]


def block(lines: list[str], name: str) -> list[str]:
    """Returns the indented lines below a member's name."""
    below = lines[lines.index(name) + 1 :]
    ends = [at for at, line in enumerate(below) if not line.startswith(" ")]
    return below[: ends[0] if ends else None]


def test_list_shows_every_family_member_and_section():
    shown = {line.split(" ", 1)[0]: line.split(" ", 1)[1].split(", ") for line in families() if "  " in line}
    for name, table in TABLES.items():
        assert [member.strip() for member in shown[name]] == list(table.members)
    assert all(section in "\n".join(families()) for section in SECTIONS)


@pytest.mark.parametrize(("table", "name"), MEMBERS)
def test_every_member_shows_its_line_and_its_knobs(table: str, name: str):
    found, lines = TABLES[table], members(table)
    shown = block(lines, name)
    assert shown[0] == f"    {first_line(found.members[name])}"
    # A metric has no knobs: what it may take beside its three arguments, its centre, comes from the task.
    knobs = {} if table in METRIC_TABLES else found.own_knobs(found.members[name])
    for knob in knobs.values():
        (line,) = (line for line in shown if line.startswith(f"    {knob.name} = "))
        assert knob.allowed in line
        assert ("<must be given>" in line) == (knob.default is MISSING)


@pytest.mark.parametrize(("table", "name"), MEMBERS)
def test_every_member_has_a_docstring_of_its_own(table: str, name: str):
    function = TABLES[table].members[name]
    assert function.__doc__, f"{name} of {table} has no docstring: `list {table}` shows its first line"
    assert not function.__doc__.startswith(f"{function.__name__}("), (
        "the docstring is the one that a dataclass makes up"
    )
    assert len(first_line(function)) > 3


@pytest.mark.parametrize("section", FAMILIES)
def test_what_is_common_to_a_family_shows_too(section: str):
    table = family(section)
    if table.common is None:
        assert f"any {section}" not in members(section)
        return
    shown = block(members(section), f"any {section}")
    assert shown[0] == f"    {first_line(table.common)}"
    assert {line.split(" = ")[0].strip() for line in shown[1:]} == set(knobs_of(table.common, table.common_supplied))


@pytest.mark.parametrize("section", [*FAMILIES, "metric"])
def test_singular_and_plural_show_the_same(section: str):
    assert members(section) == members({**PLURALS, "metric": "metrics"}.get(section, section))


@pytest.mark.parametrize("section", SECTIONS)
def test_sections_without_members_show_their_keys(section: str):
    shown = members(section)
    assert shown[:2] == [section, f"    {first_line(SECTIONS[section])}"]
    keys = [line.split(" = ")[0].strip() for line in shown[2:] if " = " in line]
    nested = [key for path, inner in NESTED.items() if path.startswith(f"{section}.") for key in knobs_of(inner)]
    assert keys == [*knobs_of(SECTIONS[section]), *nested]


def test_defaults_and_bounds_are_those_of_the_signature():
    assert "    learning_rate = <must be given>    (float, at least 0)" in members("optimizer")
    assert "    hidden = (128, 128)    (a tuple of int, at least 1, at most 256 of them)" in members("models")
    assert "    every = 10 %    (str, above zero, written '10 epochs', '2000 steps' or '5 %' of the run)" in members(
        "eval"
    )


@pytest.mark.parametrize(
    ("given", "meant"),
    [("optimzers", "optimizers"), ("optimiser", "optimizers"), ("metrik", "metrics"), ("trian", "train"), ("adam", "")],
)
def test_a_typo_shows_what_there_is_and_the_nearest(given: str, meant: str):
    with pytest.raises(UsageError) as found:
        members(given)
    line = str(found.value)
    assert f"got {given!r}" in line
    assert all(name in line for name in [*TABLES, *SECTIONS])
    assert (f"Did you mean '{meant}'?" if meant else "") in line
    assert "\n" not in line


def test_config_lines_star_what_was_changed_and_show_every_knob():
    config = resolve_config(default_config(), {"optimizer.learning_rate": 0.5, "seed": 3}).config
    lines = config_lines(config, from_default(config))
    assert "2 changed" in lines[0]
    text = "\n".join(lines)
    assert "*learning_rate=0.5" in text
    assert text.count("*") == 3  # two, and the one that explains it
    assert "  seed       *3" in lines
    for name in flatten(config):
        assert name.partition(".")[2] in text


FORMULAS = [(table, name) for table, name in MEMBERS if table in ("losses", *METRIC_TABLES, "optimizers", "schedules")]


@pytest.mark.parametrize(("table", "name"), FORMULAS)
def test_list_names_the_source_of_every_formula(table: str, name: str):
    if name == "constant":
        return
    (line,) = (line for line in block(members(table), name) if line.startswith("    source: "))
    assert re.search(r"https://|scikit-learn|optax|\(1[789]\d\d\)", line)
    assert not line.startswith("    source: ("), "a year without its authors"


def test_a_source_is_the_sentence_that_names_it_whole():
    def member() -> None:
        """Does what it does. Ours et al. (2020), https://example.org/1; equals optax's ours.

        m ← g. Nothing else.

        >>> 1
        1
        """

    assert source_of(member) == "Ours et al. (2020), https://example.org/1; equals optax's ours."


def test_the_reference_in_docs_is_that_of_the_code_and_shows_every_member_with_knobs_and_example():
    written = (Path(__file__).parents[1] / "docs" / "reference.md").read_text()
    assert written == reference(), "make docs writes it anew"
    for table, name in MEMBERS:
        function = TABLES[table].members[name]
        (shown,) = (part for part in sections(written, table) if part.startswith(f"`{name}`\n"))
        text, example = split_example(inspect.getdoc(function) or "")
        assert text.splitlines()[-1].replace("<", "&lt;") in shown
        assert example in shown
        for knob in TABLES[table].own_knobs(function) if table not in METRIC_TABLES else ():
            assert f"| `{knob}` |" in shown


def sections(document: str, table: str) -> list[str]:
    """Returns what the reference says of each member of a table."""
    return document.partition(f"## {table.replace('_', ' ').capitalize()}\n")[2].partition("\n## ")[0].split("### ")[1:]
