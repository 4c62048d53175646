"""Fine-tuning: which weights of another run are loaded, which are excluded, and which are rejected."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file
from tiny_runs import tiny

from jaxtrain.core.averaging import evaluation_weights
from jaxtrain.core.state import TrainState
from jaxtrain.core.steps import train_step
from jaxtrain.core.trees import named_leaves
from jaxtrain.errors import ConfigError, JaxtrainWarning
from jaxtrain.storage.checkpoints import Checkpoints
from jaxtrain.storage.safetensors_files import read_arrays, write_arrays
from jaxtrain.training.experiment import build
from jaxtrain.training.runners import make_runner
from jaxtrain.training.train import start, train_and_evaluate
from jaxtrain.training.trained_run import load_run

DENSE = ("params/Dense_0/bias", "params/Dense_0/kernel", "params/Dense_1/bias", "params/Dense_1/kernel")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run with averaged parameters, at so high a rate that its best step is not its last."""
    directory = tmp_path_factory.mktemp("runs") / "source"
    high = {"optimizer.name": "sgd", "optimizer.learning_rate": 0.5, "schedule.optimizer.learning_rate": "constant"}
    result = train_and_evaluate(tiny(high), directory, quiet=True)
    assert result.best is not None
    assert result.best["step"] < result.step
    return directory


def fresh(directory: Path, **given: object) -> TrainState:
    """Returns the initial state of a run with these overrides (`__` for a dot)."""
    overrides = {name.replace("__", "."): value for name, value in given.items()}
    experiment = build(tiny(overrides))
    checkpoints = Checkpoints(directory / "checkpoints", keep=1, say=print)
    state, _, resumed = start(experiment, make_runner(experiment, train_step), checkpoints)
    assert resumed is None
    return state


def weights(tree: object) -> dict[str, np.ndarray]:
    return {path: np.asarray(leaf) for path, leaf in named_leaves(tree)}


def test_the_best_averaged_weights_are_taken_and_nothing_else(source, tmp_path):
    state = fresh(tmp_path, checkpoint__init_from=str(source))
    untouched = fresh(tmp_path)
    saved = Checkpoints(source / "checkpoints", keep=1, say=print)
    newest = saved.newest_memory()
    assert newest is not None
    leaves, _ = saved.restore_leaves(newest["best"]["step"])
    for path, leaf in weights({"params": state.params}).items():
        np.testing.assert_array_equal(leaf, leaves[path.replace("params/", "ema/0/")])
    jax.tree.map(np.testing.assert_array_equal, state.ema[0], state.params)
    for name in ("step", "opt_state", "key", "hparams"):
        jax.tree.map(np.testing.assert_array_equal, getattr(state, name), getattr(untouched, name))


def test_the_average_of_a_schedule_free_run_is_taken_where_it_has_moved_parameters(tmp_path):
    free = {"optimizer.name": "schedule_free_sgd", "optimizer.learning_rate": 0.5, "train.ema": None}
    free |= {"schedule": None, "optimizer.frozen": "Dense_1/bias", "optimizer.clip_norm": 1.0}
    train_and_evaluate(tiny(free), tmp_path / "source", quiet=True)
    trained = load_run(tmp_path / "source")
    state = fresh(tmp_path / "new", checkpoint__init_from=str(tmp_path / "source"))
    expected, _ = evaluation_weights(trained.state)
    for (path, taken), (_, average) in zip(named_leaves(state.params), named_leaves(expected), strict=True):
        np.testing.assert_allclose(taken, average, rtol=1e-6, err_msg=path)
    kernel = trained.state.params["Dense_0"]["kernel"]
    assert (np.asarray(state.params["Dense_0"]["kernel"]) != np.asarray(kernel)).any()


def test_without_an_average_the_parameters_are_taken(tmp_path):
    plain = tiny({"train.ema": None})
    result = train_and_evaluate(plain, tmp_path / "source", quiet=True)
    assert result.best is not None
    leaves, _ = Checkpoints(tmp_path / "source" / "checkpoints", keep=1, say=print).restore_leaves(result.best["step"])
    state = fresh(tmp_path / "new", checkpoint__init_from=str(tmp_path / "source"))
    for path, leaf in weights({"params": state.params}).items():
        np.testing.assert_array_equal(leaf, leaves[path])


def test_a_pattern_leaves_parameters_at_their_initial_values(source, tmp_path):
    state = fresh(tmp_path, checkpoint__init_from=str(source), checkpoint__init_except="Dense_1/kernel")
    initial, taken = weights({"params": fresh(tmp_path).params}), weights({"params": state.params})
    same = {path for path in DENSE if np.array_equal(initial[path], taken[path])}
    assert same == {"params/Dense_1/kernel"}


def test_weights_that_do_not_fit_are_all_listed_with_both_shapes(source, tmp_path):
    with pytest.raises(ConfigError) as error:
        fresh(tmp_path, checkpoint__init_from=str(source), model__hidden=(8,))
    for part in (DENSE[0], "(16,)", "(8,)", DENSE[1], "(64, 16)", "(64, 8)", DENSE[3], "(16, 10)", "(8, 10)"):
        assert part in str(error.value)
    assert DENSE[2] not in str(error.value), "what fits is not listed"
    assert "\n" not in str(error.value)
    assert "checkpoint.init_except" in str(error.value)
    with pytest.raises(ConfigError, match="params/Dense_2/bias: there nothing"):
        fresh(tmp_path, checkpoint__init_from=str(source), model__hidden=(16, 16), checkpoint__init_except="Dense_1")


def test_what_does_not_fit_can_be_left_out(source, tmp_path):
    given = {"checkpoint__init_from": str(source), "model__hidden": (16, 16), "checkpoint__init_except": "Dense_[12]"}
    taken, trained = weights(fresh(tmp_path, **given).params), weights(fresh(tmp_path, **given).ema[0])
    assert np.array_equal(taken["Dense_0/kernel"], trained["Dense_0/kernel"])
    assert taken["Dense_2/kernel"].shape == (16, 10)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"checkpoint__init_except": "Conv"}, "checkpoint.init_except.*'Conv'.*params/Dense_0/bias"),
        ({"checkpoint__init_except": "("}, r"checkpoint.init_except.*regular expression"),
        ({"checkpoint__init_from": "no/such/run"}, "checkpoint.init_from.*no/such/run.*saved checkpoint"),
    ],
)
def test_patterns_and_runs_that_are_none_are_refused(source, tmp_path, given, named):
    with pytest.raises(ConfigError, match=named):
        fresh(tmp_path, **{"checkpoint__init_from": str(source)} | given)


def test_a_pattern_without_a_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"checkpoint\.init_except.*Dense_1.*checkpoint\.init_from"):
        fresh(tmp_path, checkpoint__init_except="Dense_1")


def test_another_source_is_another_run_and_a_resume_needs_the_source_no_more(source, tmp_path):
    """The weights are read once: later sessions do not need the other run."""
    moved = tmp_path / "source"
    source.rename(moved)
    try:
        given = {"checkpoint.init_from": str(moved)}
        first = train_and_evaluate(tiny(given), tmp_path / "run", quiet=True)
        (tmp_path / "run" / "result.json").unlink()
    finally:
        moved.rename(source)
    assert train_and_evaluate(tiny(given), tmp_path / "run", quiet=True).state_digest == first.state_digest
    with pytest.raises(Exception, match=re.escape("checkpoint.init_from")):
        train_and_evaluate(tiny(), tmp_path / "run", quiet=True)


def test_the_optimizer_starts_from_the_weights_that_are_taken(source, tmp_path):
    """A schedule-free optimizer keeps a copy of the initial parameters: the loaded ones, not the random ones."""
    name = "optax.contrib:schedule_free_sgd"
    state = fresh(tmp_path, checkpoint__init_from=str(source), optimizer__name=name, optimizer__learning_rate=0.1)
    kept = jax.tree.leaves(state.opt_state.z)
    assert [np.array_equal(a, b) for a, b in zip(kept, jax.tree.leaves(state.params), strict=True)] == [True] * 4


def test_weights_of_several_schedule_free_seeds_are_refused_as_those_of_any_other(tmp_path):
    free = {"optimizer.name": "schedule_free_sgd", "train.ema": None, "schedule": None, "train.seeds": 2}
    train_and_evaluate(tiny(free), tmp_path / "source", quiet=True)
    with pytest.raises(ConfigError, match=r"init_from.*there \(2, 16\), here \(16,\)"):
        fresh(tmp_path / "new", checkpoint__init_from=str(tmp_path / "source"))


TORCH_NAMES = ((r"body\.(\d)\.weight", r"Dense_\1/kernel"), (r"body\.(\d)\.bias", r"Dense_\1/bias"))


@pytest.fixture
def archive(source: Path, tmp_path: Path) -> Path:
    """A file with the weights of the run, named and laid out as by PyTorch, in half precision where that is exact."""
    arrays = {}
    for path, leaf in weights(load_run(source).state.params).items():
        layer, kind = path.removeprefix("Dense_").split("/")
        name = f"body.{layer}.{'weight' if kind == 'kernel' else 'bias'}"
        arrays[name] = (leaf.astype(np.float16) * 0 + 0.5 if kind == "bias" else leaf).T
    write_arrays(tmp_path / "weights.safetensors", {**arrays, "head.weight": np.zeros((2, 3))})
    return tmp_path / "weights.safetensors"


def test_a_file_of_another_library_gives_the_weights_by_a_map_of_names(source, archive, tmp_path):
    given = {"checkpoint__init_names": TORCH_NAMES, "checkpoint__init_layout": "torch"}
    with pytest.warns(JaxtrainWarning, match=r"arrays in .* no place for: head\.weight; expected"):
        state = fresh(tmp_path / "new", checkpoint__init_from=str(archive), **given)
    for path, leaf in weights(load_run(source).state.params).items():
        expected = np.full_like(leaf, 0.5) if path.endswith("bias") else leaf
        np.testing.assert_array_equal(weights(state.params)[path], expected)
        assert weights(state.params)[path].dtype == np.float32


def test_a_file_of_safetensors_is_written_as_the_library_reads_it(tmp_path):
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3).T, "b": np.ones(2, np.int8)}
    write_arrays(tmp_path / "x.safetensors", arrays, "by test")
    for read in (load_file(tmp_path / "x.safetensors"), read_arrays(tmp_path / "x.safetensors")):
        assert read.keys() == arrays.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(read[name], array)
    halves = torch_bfloat16()
    (tmp_path / "half.safetensors").write_bytes(halves)
    np.testing.assert_array_equal(read_arrays(tmp_path / "half.safetensors")["w"].astype(np.float32), [1.0, -2.0])


def torch_bfloat16() -> bytes:
    """Returns a file with the bfloat16 numbers 1 and -2, whose bytes are the upper halves of those of float32."""
    header = b'{"w":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}'
    return (
        len(header).to_bytes(8, "little") + header + np.asarray([1.0, -2.0], np.float32).view(np.uint16)[1::2].tobytes()
    )


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({}, r"init_from.*params/Dense_0/bias: there nothing.*params/Dense_1/kernel"),
        (
            {"checkpoint__init_names": TORCH_NAMES},
            r"init_from.*params/Dense_0/kernel: there \(16, 64\), here \(64, 16\)",
        ),
        ({"checkpoint__init_names": ("body", "Dense")}, r"init_names: got 'body'; expected pairs \(regular"),
        ({"checkpoint__init_names": (("(", "x"),)}, r"init_names: .*The expression is none"),
        ({"checkpoint__init_names": ((r"body.*", r"\1"),)}, r"init_names: .*names a group that the expression lacks"),
        ({"checkpoint__init_names": ((r"body.*", "x"),)}, r"init_names: got one path, 'x', for 'body\.\d\.\w+' and"),
    ],
)
@pytest.mark.filterwarnings("ignore::jaxtrain.errors.JaxtrainWarning")
def test_a_map_of_names_that_does_not_fit_is_one_line(archive, tmp_path, given, named):
    with pytest.raises(ConfigError, match=named):
        fresh(tmp_path / "new", checkpoint__init_from=str(archive), **given)


@pytest.mark.parametrize("cut", [0, 4, 40, -1])
def test_a_damaged_file_of_weights_is_one_line(archive, tmp_path, cut):
    archive.write_bytes(archive.read_bytes()[:cut])
    with pytest.raises(ConfigError, match=r"init_from .*: got a file that cannot be read .*; expected a complete file"):
        fresh(tmp_path / "new", checkpoint__init_from=str(archive))


def test_names_without_a_file_are_refused(source, tmp_path):
    with pytest.raises(ConfigError, match=r"init_names.* None where checkpoint\.init_from is no \.safetensors file"):
        fresh(tmp_path, checkpoint__init_from=str(source), checkpoint__init_names=TORCH_NAMES)
