import pytest

from jaxtrain.config.durations import DurationText, seconds_of, steps_of
from jaxtrain.config.registry import knobs_of
from jaxtrain.config.sections import SECTIONS
from jaxtrain.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("10 epochs", 180),
        ("1 epoch", 18),
        ("0.5 epochs", 9),
        ("2000 steps", 2000),
        ("1 step", 1),
        ("1e3 steps", 1000),
        ("5 %", 10),
        ("5%", 10),
        ("  2.5   %  ", 5),
        ("100 %", 200),
    ],
)
def test_every_form_becomes_steps(text: str, steps: int):
    assert DurationText().accepts(text)
    assert steps_of(text, steps_per_epoch=18, total=200) == steps


@pytest.mark.parametrize(
    ("text", "steps_per_epoch", "steps"),
    [
        ("10 epochs", 1797 / 100, 180),  # 179.7 steps are rounded up, so that the last epoch is complete
        ("1 epochs", 17.2, 18),
        ("100 epochs", 1.1, 110),  # not 111, by a rounding error
        ("10 epochs", 0.1, 1),
    ],
)
def test_epochs_of_a_broken_number_of_steps_are_whole(text: str, steps_per_epoch: float, steps: int):
    assert steps_of(text, steps_per_epoch=steps_per_epoch) == steps


@pytest.mark.parametrize("text", ["0.001 epochs", "0.00000001 epochs", "0.1 %", "0.2 steps"])
def test_at_least_one_step(text: str):
    assert steps_of(text, steps_per_epoch=10, total=100) == 1


def test_longer_than_the_run_is_no_error():
    assert steps_of("300 %", steps_per_epoch=10, total=100) == 300
    assert steps_of("50 epochs", steps_per_epoch=10, total=100) == 500


@pytest.mark.parametrize(
    "text",
    [
        *("0 steps", "0 epochs", "0.0 %", "-1 steps", "nan steps", "inf epochs", "1e999 steps"),
        *("5 %s", "10 minutes", "1 hour"),
        *("10", "", "steps", "10 days", "ten epochs", "5 percent", "1,000 steps", "10 epochs 5 steps", "1e-3x epochs"),
    ],
)
def test_other_texts_are_refused_and_the_forms_shown(text: str):
    knob = knobs_of(SECTIONS["eval"])["every"]
    with pytest.raises(ConfigError) as found:
        knob.check("eval.every", text)
    error = found.value
    assert (error.key, error.got) == ("eval.every", text)
    assert all(form in error.expected for form in ("above zero", "'10 epochs'", "'2000 steps'", "'5 %'"))


@pytest.mark.parametrize("value", [10, 10.0, True, ("10 epochs",)])
def test_a_number_without_a_unit_is_refused(value: object):
    with pytest.raises(ConfigError, match=r"train\.duration: got .*; expected .*'10 epochs'"):
        knobs_of(SECTIONS["train"])["duration"].check("train.duration", value)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("90 seconds", 90.0), ("1 second", 1.0), ("10 minutes", 600.0), ("1.5 hours", 5400.0)),
        *(("10 epochs", None), ("2000 steps", None)),
    ],
)
def test_a_whole_run_may_last_a_time(text: str, seconds: float | None):
    knob = knobs_of(SECTIONS["train"])["duration"]
    assert knob.check("train.duration", text) == text
    assert seconds_of(text) == seconds


def test_the_runs_own_duration_is_no_part_of_itself():
    knob = knobs_of(SECTIONS["train"])["duration"]
    with pytest.raises(ConfigError) as found:
        knob.check("train.duration", "50 %")
    assert "%" not in found.value.expected
    assert "'10 minutes'" in found.value.expected
