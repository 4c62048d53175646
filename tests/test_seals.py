"""Directories that were touched by others: what cannot be trusted is said, and the run comes to the same numbers."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import Interrupting, outcome, result_of, tiny

from jaxtrain.storage.checkpoint_files import read_manifest, write_manifest
from jaxtrain.storage.seals import SEAL, add_seal, is_sealed
from jaxtrain.trackers.jsonl import read_rows
from jaxtrain.training.train import train_and_evaluate

Edit = Callable[[Path], None]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run of 60 steps that was left alone."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    train_and_evaluate(tiny(), workdir, quiet=True)
    return workdir


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> Path:
    """The same run, stopped at step 40."""
    workdir = tmp_path_factory.mktemp("stopped") / "run"
    assert train_and_evaluate(tiny(), workdir, trackers=[Interrupting(40)], quiet=True).step == 40
    return workdir


@pytest.fixture
def copy(tmp_path, stopped) -> Path:
    """A copy of the stopped run to touch: a copied directory resumes as its original does."""
    return shutil.copytree(stopped, tmp_path / "run")


def resumed(workdir: Path, capfd: pytest.CaptureFixture[str], **options: Any) -> str:
    """Resumes the run to its end; returns what was said."""
    capfd.readouterr()
    assert train_and_evaluate(tiny(), workdir, **options).status == "done"
    return capfd.readouterr().err


def lines_of(workdir: Path) -> list[str]:
    return (workdir / "metrics.jsonl").read_text().splitlines(keepends=True)


def edit_lines(edit: Callable[[list[str]], list[str]]) -> Edit:
    def write(workdir: Path) -> None:
        (workdir / "metrics.jsonl").write_text("".join(edit(lines_of(workdir))))

    return write


def without_its_seal(line: str) -> str:
    row = json.loads(line)
    del row[SEAL]
    return json.dumps(row) + "\n"


ROWS: dict[str, tuple[Edit, int]] = {
    "deleted": (lambda workdir: (workdir / "metrics.jsonl").unlink(), 0),
    "emptied": (edit_lines(lambda lines: []), 0),
    "halved": (edit_lines(lambda lines: lines[: len(lines) // 2]), 20),
    "the last line lost": (edit_lines(lambda lines: lines[:-1]), 20),
    "a middle line lost": (edit_lines(lambda lines: [*lines[:1], *lines[2:]]), 0),
    "a line doubled": (edit_lines(lambda lines: [*lines[:2], *lines[1:]]), 20),
    "two lines swapped": (edit_lines(lambda lines: [lines[1], lines[0], *lines[2:]]), 0),
    "a digit added": (edit_lines(lambda lines: [*lines[:2], lines[2].replace("2.", "12."), *lines[3:]]), 20),
    "a seal removed": (edit_lines(lambda lines: [*lines[:3], without_its_seal(lines[3])]), 20),
    "rubbish": (edit_lines(lambda lines: [*lines[:2], "rubbish\n", *lines[3:]]), 20),
}


@pytest.mark.one_fast_of(3)
@pytest.mark.parametrize(("edit", "back_to"), ROWS.values(), ids=ROWS)
def test_rows_that_are_not_as_written_send_the_run_back_to_where_they_are(copy, whole, edit, back_to, capfd):
    assert len(lines_of(copy)) == 4
    edit(copy)
    said = resumed(copy, capfd)
    assert f"using step {back_to}, {40 - back_to} steps are trained again" in said
    assert "--accept-edited" in said
    assert outcome(copy) == outcome(whole)
    assert all(is_sealed(json.loads(line)) for line in lines_of(copy))


def test_rows_edited_on_purpose_are_accepted_and_the_result_says_so(copy, whole, capfd):
    edit_lines(lambda lines: [lines[0].replace('"loss"', '"my_loss"'), *lines[1:]])(copy)
    said = resumed(copy, capfd, accept_edited=True)
    assert "resuming at step 40" in said
    result = result_of(copy)
    assert result["edited"] == ["metrics.jsonl"]
    assert result["state_digest"] == result_of(whole)["state_digest"]
    assert "my_loss" in read_rows(copy / "metrics.jsonl")[0]
    assert train_and_evaluate(tiny(), copy, quiet=True).edited == ["metrics.jsonl"], "it is said from now on"


def test_a_run_sent_back_to_step_0_and_stopped_there_goes_on(copy, whole, capfd):
    (copy / "metrics.jsonl").unlink()
    assert train_and_evaluate(tiny(), copy, trackers=[Interrupting(20)], quiet=True).step == 20
    assert "resuming at step 20" in resumed(copy, capfd)
    assert outcome(copy) == outcome(whole)


def moved(name: str, to: str) -> Edit:
    return lambda workdir: (workdir / "checkpoints" / name).rename(workdir / "checkpoints" / to) and None


def copied(name: str, to: str) -> Edit:
    def edit(workdir: Path) -> None:
        place = workdir / "checkpoints"
        shutil.rmtree(place / to, ignore_errors=True)
        shutil.copytree(place / name, place / to)

    return edit


def swapped(workdir: Path) -> None:
    moved("20", "between")(workdir)
    moved("40", "20")(workdir)
    moved("between", "40")(workdir)


def old_memory(workdir: Path) -> None:
    shutil.copy(workdir / "checkpoints" / "20" / "memory.json", workdir / "checkpoints" / "40")


STEPS: dict[str, tuple[Edit, int]] = {
    "renamed": (moved("40", "47"), 20),
    "copied ahead": (copied("20", "55"), 40),
    "copied over": (copied("20", "40"), 20),
    "old memory beside new arrays": (old_memory, 20),
}


@pytest.mark.parametrize(("edit", "used"), STEPS.values(), ids=STEPS)
def test_a_step_that_is_not_what_it_says_is_set_aside_with_one_line(copy, whole, edit, used, capfd):
    edit(copy)
    said = resumed(copy, capfd)
    assert f"using step {used}" in said
    assert f"resuming at step {used}" in said
    assert outcome(copy) == outcome(whole)


def test_where_every_step_is_another_nothing_is_trained(copy, capfd):
    swapped(copy)
    with pytest.raises(
        Exception, match=r"damaged checkpoints alone \(step 40: it was saved as step 20, step 20: it was"
    ):
        train_and_evaluate(tiny(), copy)


def test_a_step_of_another_run_is_not_taken_for_ones_own(copy, whole, tmp_path, capfd):
    other = tmp_path / "other"
    train_and_evaluate(tiny(), other, quiet=True)
    shutil.copytree(other / "checkpoints" / "60", copy / "checkpoints" / "60")
    assert "step 60 is damaged (it belongs to another run)" in resumed(copy, capfd)
    assert outcome(copy) == outcome(whole)


RESULTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a number": lambda content: content | {"step": 39},
    "a wrong field": lambda content: {"steps": 40},
    "an end that was none": lambda content: content | {"status": "done"},
    "no object": lambda content: [content],
}


@pytest.mark.parametrize("change", RESULTS.values(), ids=RESULTS)
def test_a_result_that_was_changed_is_said_and_written_again(copy, whole, change, capfd):
    path = copy / "result.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    assert f"{path}: got content that fails its checksum" in resumed(copy, capfd)
    assert outcome(copy) == outcome(whole)


def test_a_result_edited_on_purpose_is_accepted_and_says_so(copy, capfd):
    path = copy / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"status": "done", "reason": "long enough"}))
    result = train_and_evaluate(tiny(), copy, accept_edited=True, quiet=True)
    assert (result.step, result.reason, result.edited) == (40, "long enough", ["result.json"])
    assert train_and_evaluate(tiny(), copy, quiet=True) == result


def test_a_directory_of_an_earlier_version_is_taken_with_one_line(copy, whole, capfd):
    (copy / "run.json").unlink()
    edit_lines(lambda lines: [without_its_seal(line) for line in lines])(copy)
    for step in ("20", "40"):
        path = copy / "checkpoints" / step / "memory.json"
        manifest = read_manifest(path.parent)
        memory = {name: value for name, value in manifest.memory.items() if name not in ("rows", "edited")}
        write_manifest(path.parent, manifest._replace(memory=memory, step=None, run=None))
    result = json.loads((copy / "result.json").read_text())
    (copy / "result.json").write_text(
        json.dumps({name: result[name] for name in result if name not in (SEAL, "edited")})
    )
    said = resumed(copy, capfd)
    assert said.count("a directory of an earlier version") == 1
    assert "resuming at step 40" in said
    assert outcome(copy) == outcome(whole)


def test_a_renamed_step_of_an_earlier_version_is_told_by_its_state(copy, whole, capfd):
    place = copy / "checkpoints" / "40"
    write_manifest(place, read_manifest(place)._replace(step=None, run=None))
    moved("40", "47")(copy)
    assert "step 47 is damaged (its state is that of step 40)" in resumed(copy, capfd)
    assert outcome(copy) == outcome(whole)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_no_random_edit_of_rows_or_result_changes_what_the_run_comes_to(copy, whole, seed, capfd):
    dice = random.Random(seed)
    for name in ("metrics.jsonl", "result.json"):
        content = bytearray((copy / name).read_bytes())
        for _ in range(dice.randint(0, 2)):
            at = dice.randrange(len(content))
            kind = dice.choice(("flip", "cut", "insert", "erase"))
            if kind == "flip":
                content[at] ^= 1 << dice.randrange(8)
            elif kind == "cut":
                del content[at:]
                break
            elif kind == "insert":
                content[at:at] = bytes(dice.choices(b'0123456789.,"{}\n', k=3))
            else:
                del content[at : at + dice.randint(1, 80)]
        (copy / name).write_bytes(bytes(content))
    resumed(copy, capfd)
    assert outcome(copy) == outcome(whole)


def test_a_seal_changes_with_any_key_and_not_with_their_order():
    content = {"step": 3, "split": "train", "loss": 0.1}
    sealed = add_seal(content)
    assert is_sealed(dict(reversed(sealed.items())))
    for changed in (content | {"loss": 0.1000001}, content | {"more": None}, {"step": 3, "split": "train"}):
        assert not is_sealed(changed | {SEAL: sealed[SEAL]})
