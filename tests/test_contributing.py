"""What CONTRIBUTING.md shows: its example is a member as it stands there, and its commands are there."""

import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from tiny_runs import tiny

from jaxtrain.commands.flags import FLAGS
from jaxtrain.main import COMMANDS
from jaxtrain.tasks.losses import LOSSES

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "CONTRIBUTING.md").read_text()


def test_the_loss_of_ten_lines_is_a_member_with_a_knob(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (name, code), *more = re.findall(r"```python file=(\w+)\.py\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    member, knob = re.findall(rf"--config\.loss\.name={name}:(\w+) --config\.loss\.(\w+)=", PAGE)[0]
    config = tiny({"data.name": "diabetes", "task.name": "regression", "loss.name": f"{name}:{member}"})
    assert config["loss"] == {"name": f"{name}:{member}", knob: 1.0}
    loss = LOSSES.member(f"{name}:{member}")(
        jnp.array([[3.0, 1.0], [0.0, 0.0]]), jnp.array([[1.0, 1.0], [0.0, 2.0]]), 2.0
    )
    np.testing.assert_allclose(loss, [np.log(1.5) / 2, np.log(1.5) / 2], rtol=1e-6)
    assert not more


def test_its_commands_are_there():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:`|^)make (\w+)", PAGE, re.MULTILINE)) <= targets
    verbs = re.findall(r"-m jaxtrain\.main (\w+)", PAGE)
    assert verbs
    assert set(verbs) <= COMMANDS.keys()
    options = set(re.findall(r"(?<=[ `])--(\w[\w-]*)", PAGE.replace("--config.", "--config "))) - {"help"}
    assert {f"--{option}" for option in options} <= FLAGS.keys()
