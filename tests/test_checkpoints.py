import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtrain.core.trees import state_digest
from jaxtrain.errors import StorageError, UsageError
from jaxtrain.storage.checkpoint_files import read_manifest, write_manifest
from jaxtrain.storage.checkpoints import Checkpoints


@flax.struct.dataclass
class State:
    step: jax.Array
    params: Any
    opt_state: Any
    key: jax.Array
    ema: Any
    live: jax.Array


def make_state(seed: int, width: int = 8, optimizer: optax.GradientTransformation | None = None) -> State:
    keys = jax.random.split(jax.random.PRNGKey(seed))
    params = {
        "Dense_0": {"kernel": jax.random.normal(keys[0], (4, width)), "bias": jnp.zeros(width, jnp.bfloat16) + seed}
    }
    opt_state = (optimizer or optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))).init(params)
    return State(jnp.int32(seed), params, opt_state, keys[1], None, jnp.array(True))


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def open_checkpoints(tmp_path, said):
    return lambda keep=3: Checkpoints(tmp_path / "checkpoints", keep=keep, say=said.append)


@pytest.fixture
def saved(open_checkpoints, said):
    """Steps 1, 2 and 3, each with another state."""
    checkpoints = open_checkpoints()
    for step in (1, 2, 3):
        checkpoints.save(step, make_state(step), {"best": step})
    checkpoints.wait()
    said.clear()
    return checkpoints


def files_of(place: Path) -> list[Path]:
    return sorted(path for path in place.rglob("*") if path.is_file())


def save_all(checkpoints: Checkpoints, state: Any, steps: Iterable[int]) -> None:
    for step in steps:
        checkpoints.save(step, state, {})


def damage(place: Path) -> None:
    """Flips one bit of every leaf's contents, in whichever file holds them."""
    largest = max(files_of(place / "state"), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)


def test_state_and_memory_come_back_to_the_bit(open_checkpoints, said):
    state = make_state(5)
    checkpoints = open_checkpoints()
    checkpoints.save(5, state, {"best": 0.25, "seen": [1, 2], "none": None})
    checkpoints.wait()
    assert said == ["saved step 5"]
    restored = open_checkpoints().restore(jax.eval_shape(lambda: make_state(5)))
    assert (restored.step, restored.memory) == (5, {"best": 0.25, "seen": [1, 2], "none": None})
    assert state_digest(restored.state) == state_digest(state)
    assert jax.tree.structure(restored.state) == jax.tree.structure(state)
    assert {type(leaf) for leaf in jax.tree.leaves(restored.state)} == {np.ndarray}


def test_leaves_without_elements_come_back(open_checkpoints):
    state = {"a": np.zeros((3, 0), np.float16), "b": np.ones(2)}
    checkpoints = open_checkpoints()
    checkpoints.save(1, state, {})
    assert state_digest(checkpoints.restore(state).state) == state_digest(state)


def test_state_and_memory_are_copied_before_the_caller_goes_on(open_checkpoints):
    """The next call donates JAX's arrays, and the caller may change NumPy's arrays and the memory in place."""
    state, memory = {"jax": jnp.arange(100_000.0), "numpy": np.arange(100_000.0)}, {"best": [1]}
    before = np.arange(100_000.0)
    checkpoints, changed = open_checkpoints(), threading.Event()
    checkpoints._thread.submit(changed.wait)  # the save waits in the background until the changes are made
    checkpoints.save(1, state, memory)
    jax.jit(lambda leaf: leaf * 0 - 1, donate_argnums=0)(state["jax"])
    state["numpy"][:] = -1
    memory["best"].append(2)
    changed.set()
    restored = checkpoints.restore({"jax": before.astype(np.float32), "numpy": before})
    assert np.array_equal(restored.state["jax"], before)
    assert np.array_equal(restored.state["numpy"], before)
    assert restored.memory == {"best": [1]}


def test_nothing_saved_is_none_and_touches_nothing(open_checkpoints, tmp_path):
    checkpoints = open_checkpoints()
    assert checkpoints.restore(make_state(1)) is None
    assert checkpoints.steps() == []
    assert os.listdir(tmp_path) == []


def test_orbax_is_not_imported_before_it_is_needed(tmp_path):
    code = """
import sys
from pathlib import Path
from jaxtrain.storage.checkpoints import Checkpoints
assert Checkpoints(Path(sys.argv[1]), keep=1, say=print).restore({}) is None
assert not [name for name in sys.modules if name.startswith("orbax")]
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "none")], check=True)


def test_newest_and_protected_steps_stay(open_checkpoints):
    checkpoints = open_checkpoints(keep=2)
    for step in range(1, 7):
        checkpoints.save(step, make_state(step), {}, protect=2 if step > 1 else None)
    checkpoints.wait()
    assert checkpoints.steps() == [2, 5, 6]
    checkpoints.save(7, make_state(7), {})
    checkpoints.wait()
    assert checkpoints.steps() == [6, 7]


def test_same_step_again_is_skipped_or_takes_the_new_memory_or_the_new_state(saved, said):
    place = saved.directory / "3" / "state"
    inode = place.stat().st_ino
    saved.save(3, make_state(3), {"best": 3})
    saved.wait()
    assert said == []
    saved.save(3, make_state(3), {"best": 0})
    restored = saved.restore(make_state(3))
    assert (said, restored.memory, place.stat().st_ino) == (["saved step 3"], {"best": 0}, inode)
    other = dataclasses.replace(make_state(9), step=make_state(3).step)
    saved.save(3, other, {"best": 9})
    restored = saved.restore(make_state(3))
    assert (restored.step, restored.memory) == (3, {"best": 9})
    assert state_digest(restored.state) == state_digest(other)
    assert sorted(os.listdir(saved.directory)) == ["1", "2", "3"]


def test_a_file_that_must_not_be_read_is_an_error_and_no_damage():
    """In a folder that everybody may enter, since a superuser takes the rights of another user."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        checkpoints = Checkpoints(Path(folder, "checkpoints"), keep=2, say=print)
        for step in (1, 2):
            checkpoints.save(step, make_state(step), {})
        checkpoints.wait()
        (checkpoints.directory / "2" / "memory.json").chmod(0)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            with pytest.raises(StorageError, match=r"2/memory\.json: got the error 'Permission denied'"):
                checkpoints.restore(make_state(0))
        finally:
            os.seteuid(user)
        checkpoints.close()


@pytest.mark.parametrize("how", ["flip", "truncate", "delete"])
def test_damage_of_any_file_never_gives_wrong_weights(saved, said, how):
    """Damages each file in turn (an empty one can only be deleted): the step is renamed and the previous one used."""
    pristine = saved.directory.with_name("pristine")
    shutil.copytree(saved.directory, pristine)
    for relative in [path.relative_to(pristine) for path in files_of(pristine / "3")]:
        shutil.rmtree(saved.directory)
        shutil.copytree(pristine, saved.directory)
        path = saved.directory / relative
        content = bytearray(path.read_bytes())
        if how == "delete":
            path.unlink()
        elif how == "truncate":
            path.write_bytes(content[: len(content) // 2])
        elif content:
            content[len(content) // 2] ^= 1
            path.write_bytes(content)
        said.clear()
        restored = saved.restore(jax.eval_shape(lambda: make_state(1)))
        assert restored.step == (2 if how == "delete" or content else 3), relative
        assert restored.memory == {"best": restored.step}
        assert state_digest(restored.state) == state_digest(make_state(restored.step)), relative
        assert len(said) == ("damaged-3" in os.listdir(saved.directory)) == (restored.step == 2)


def test_altered_memory_is_damage(saved):
    path = saved.directory / "3" / "memory.json"
    text = path.read_text()
    assert '{"best": 3}' in text
    path.write_text(text.replace('{"best": 3}', '{"best": 2}'))
    assert saved.restore(make_state(1)).step == 2


def test_leaves_that_are_not_those_that_were_saved_are_damage(saved, said):
    """Files are intact but hold other values, as after a cast or a fault between memory and disk."""
    second, third = saved.directory / "2", saved.directory / "3"
    shutil.rmtree(third / "state")
    shutil.copytree(second / "state", third / "state")
    write_manifest(third, read_manifest(third)._replace(files=read_manifest(second).files))
    assert saved.restore(make_state(1)).step == 2
    assert "fails its checksum" in said[0]


def test_second_damage_of_the_same_step_gets_a_name_of_its_own(saved, said):
    for _ in range(2):
        saved.save(3, make_state(3), {"best": 3})
        saved.wait()
        damage(saved.directory / "3")
        assert saved.restore(make_state(1)).step == 2
    assert saved.steps() == [1, 2]
    assert {"damaged-3", "damaged-3-2"} <= set(os.listdir(saved.directory))
    assert "damaged-3-2" in said[-1]
    assert "using step 2" in said[-1]


def test_nothing_good_left_is_an_error_and_never_a_fresh_start(saved, said):
    for step in (1, 2, 3):
        damage(saved.directory / str(step))
    for _ in range(2):
        with pytest.raises(StorageError, match="damaged checkpoints alone") as failure:
            saved.restore(make_state(1))
        assert failure.value.exit_code == 5
    assert said == []
    for step in (1, 2, 3):
        (saved.directory / str(step)).rename(saved.directory / f"damaged-{step}")
    with pytest.raises(StorageError, match="damaged checkpoints alone"):
        saved.restore(make_state(1))


def test_a_given_step_is_that_step_or_an_error(saved):
    assert state_digest(saved.restore(make_state(1), step=2).state) == state_digest(make_state(2))
    damage(saved.directory / "2")
    with pytest.raises(StorageError, match="step 2"):
        saved.restore(make_state(1), step=2)
    with pytest.raises(StorageError, match="no step 7"):
        saved.restore(make_state(1), step=7)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (lambda: make_state(1, width=16), ["params/Dense_0/bias", "bfloat16[8]", "bfloat16[16]"]),
        (lambda: make_state(1, optimizer=optax.sgd(0.1, momentum=0.9)), ["opt_state/0/trace/Dense_0/bias", "missing"]),
        (lambda: dataclasses.replace(make_state(1), key=np.zeros(2, np.int32)), ["key", "uint32[2]", "int32[2]"]),
    ],
    ids=["width", "optimizer", "dtype"],
)
def test_another_model_or_optimizer_is_not_damage(saved, said, target, words):
    with pytest.raises(UsageError) as refusal:
        saved.restore(target())
    assert refusal.value.exit_code == 2
    assert all(word in str(refusal.value) for word in words)
    assert said == []
    assert saved.steps() == [1, 2, 3]


def test_leaves_come_without_a_target_and_nothing_is_renamed(saved, said):
    damage(saved.directory / "3")
    leaves, memory = saved.restore_leaves()
    assert memory == {"best": 2}
    assert np.array_equal(leaves["params/Dense_0/kernel"], make_state(2).params["Dense_0"]["kernel"])
    assert leaves["params/Dense_0/bias"].dtype == jnp.bfloat16
    assert saved.steps() == [1, 2, 3]
    assert "step 3 is damaged" in said[0]
    with pytest.raises(StorageError, match="got no checkpoint; expected at least one"):
        Checkpoints(saved.directory / "elsewhere", keep=1, say=said.append).restore_leaves()


def test_kill_between_the_renames_of_a_replacement_loses_no_step(open_checkpoints):
    checkpoints = open_checkpoints()
    checkpoints.save(1, make_state(1), {})
    checkpoints.wait()
    (checkpoints.directory / "1").rename(checkpoints.directory / "replaced-1")
    after = open_checkpoints()
    assert after.restore(make_state(1)).step == 1
    after.save(2, make_state(2), {})
    after.wait()
    assert sorted(os.listdir(after.directory)) == ["1", "2"]


SAVE = """
import sys
from pathlib import Path
import numpy as np
from jaxtrain.storage.checkpoints import Checkpoints
checkpoints = Checkpoints(Path(sys.argv[1]), keep=2, say=lambda line: print(line, flush=True))
target = {"w": np.zeros((64, 64), np.float32), "step": np.int32(0)}
restored = checkpoints.restore(target)
step = restored.step if restored else 0
while True:
    step += 1
    checkpoints.save(step, {"w": np.full((64, 64), step, np.float32), "step": np.int32(step)}, {"step": step})
    if step % 3 == 0:
        checkpoints.save(step, {"w": np.full((64, 64), step + 0.5, np.float32), "step": np.int32(step)}, {"step": step})
"""


@pytest.mark.slow
def test_kill_at_any_moment_loses_at_most_the_save_in_flight(open_checkpoints, said):
    checkpoints = open_checkpoints()
    target = {"w": np.zeros((64, 64), np.float32), "step": np.int32(0)}
    random = np.random.default_rng(0)
    for _ in range(4):
        command = [sys.executable, "-c", SAVE, str(checkpoints.directory)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(random.integers(1, 6))]
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(random.uniform(0.0, 0.04))
        process.send_signal(signal.SIGKILL)
        lines += process.communicate()[0].splitlines()
        said_steps = [int(line.removeprefix("saved step ")) for line in lines]
        restored = checkpoints.restore(target)
        assert said == []
        assert restored.step >= max(said_steps)
        assert restored.memory == {"step": restored.step} == {"step": int(restored.state["step"])}
        assert np.all(restored.state["w"] == restored.state["w"][0, 0])
        assert int(restored.state["w"][0, 0]) == restored.step
    checkpoints.save(checkpoints.steps()[-1] + 1, target, {})
    checkpoints.wait()
    assert all(name.isdigit() for name in os.listdir(checkpoints.directory))


FULL = """
import resource, sys
from pathlib import Path
import numpy as np
from jaxtrain.storage.checkpoints import Checkpoints
from jaxtrain.errors import StorageError
checkpoints = Checkpoints(Path(sys.argv[1]), keep=2, say=print)
checkpoints.save(1, {"w": np.zeros(1000)}, {})
checkpoints.wait()
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
checkpoints.save(2, {"w": np.arange(100_000.0)}, {})
try:
    checkpoints.save(3, {"w": np.arange(100_000.0)}, {})
except StorageError as error:
    print(error)
"""


@pytest.mark.one_fast_of(3)
@pytest.mark.parametrize("limit", [0, 300, 100_000])
def test_file_that_cannot_grow_is_one_line_at_the_next_save_and_harms_no_step(open_checkpoints, limit):
    checkpoints = open_checkpoints()
    command = [sys.executable, "-c", FULL, str(checkpoints.directory), str(limit)]
    output = subprocess.run(command, capture_output=True, text=True, check=True)
    first, second = output.stdout.splitlines()
    assert first == "saved step 1"
    assert second.startswith(str(checkpoints.directory / "2"))
    assert "ulimit" in second
    assert output.stderr == ""
    assert os.listdir(checkpoints.directory) == ["1"]
    assert checkpoints.restore({"w": np.zeros(1000)}).step == 1


@pytest.mark.needs("root")
def test_full_disk_is_one_line_and_a_step_that_was_said_is_good(tmp_path, said):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("this machine mounts no tmpfs")
    try:
        checkpoints = Checkpoints(disk / "checkpoints", keep=20, say=said.append)
        state = {"w": np.arange(10_000.0)}
        with pytest.raises(StorageError, match="No space left") as failure:
            save_all(checkpoints, state, range(20))
        assert "\n" not in str(failure.value)
        assert len(said) == len(checkpoints.steps()) >= 2
        assert checkpoints.steps() == list(range(len(said)))
        for step in range(len(said)):
            restored = checkpoints.restore(state, step)
            assert restored is not None
            assert np.array_equal(restored.state["w"], state["w"])
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_directory_that_cannot_be_made_is_said_at_wait(tmp_path):
    (tmp_path / "file").write_text("")
    checkpoints = Checkpoints(tmp_path / "file" / "checkpoints", keep=1, say=print)
    checkpoints.save(1, {"w": np.ones(2)}, {})
    with pytest.raises(StorageError, match="regular file"):
        checkpoints.wait()
    checkpoints.wait()
