"""Runs with augmentations: the same alone, as lanes, resumed, streamed and on four devices; strengths are inputs."""

from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_runs import Interrupting, outcome, tiny

from jaxtrain import Source, build, load_config, load_run
from jaxtrain.config.hparams import hyperparameters
from jaxtrain.config.identity import digest
from jaxtrain.config.resolve import resolve_config
from jaxtrain.core.state import Task
from jaxtrain.errors import ConfigError
from jaxtrain.parallel.compilation import count_compilations
from jaxtrain.search.space import read_space
from jaxtrain.tasks.classification import classification
from jaxtrain.tasks.mixtures import Partner, main_targets, mixed_losses
from jaxtrain.trackers.jsonl import read_rows
from jaxtrain.training.train import train_and_evaluate

AUGMENT = {"augment.pad_and_crop.pixels": 1.0, "augment.flip.probability": 0.3, "augment.mixup": True}


def trained(folder: Path, overrides: dict[str, Any]) -> Path:
    train_and_evaluate(tiny(AUGMENT | overrides), folder, quiet=True)
    return folder


def losses(folder: Path, key: str = "loss") -> list[float]:
    return [row[key] for row in read_rows(folder / "metrics.jsonl") if key in row]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("augmented") / "whole", {})


def test_a_resumed_run_draws_what_an_uninterrupted_one_does(whole: Path, tmp_path: Path):
    train_and_evaluate(tiny(AUGMENT), tmp_path, trackers=[Interrupting(20)], quiet=True)
    assert outcome(trained(tmp_path, {})) == outcome(whole)


def test_batches_from_the_host_are_augmented_alike(whole: Path, tmp_path: Path):
    np.testing.assert_allclose(losses(trained(tmp_path, {"data.feed": "host"})), losses(whole), atol=1e-5)


def test_four_devices_equal_one(whole: Path, tmp_path: Path):
    np.testing.assert_allclose(losses(trained(tmp_path, {"parallel.mesh": 4})), losses(whole), atol=1e-4)


def test_a_lane_equals_its_run_alone(whole: Path, tmp_path: Path):
    lanes = trained(tmp_path, {"train.seeds": 2})
    np.testing.assert_allclose(losses(lanes, "seed_0/loss"), losses(whole), atol=1e-4)
    assert not np.allclose(losses(lanes, "seed_1/loss"), losses(whole), atol=1e-2)


def test_strengths_schedules_and_a_strength_of_zero_share_one_program(whole: Path, tmp_path: Path):
    with count_compilations() as compiled:
        off = {"augment.pad_and_crop.pixels": 0.0, "augment.flip.probability": 0.0, "augment.mixup.alpha": 0.0}
        trained(tmp_path / "off", off)
    assert compiled.count == 0
    train_and_evaluate(tiny(), tmp_path / "plain", quiet=True)
    np.testing.assert_allclose(losses(tmp_path / "off"), losses(tmp_path / "plain"), atol=1e-5)
    assert not np.allclose(losses(tmp_path / "off"), losses(whole), atol=1e-2)


def test_a_seed_of_its_own_draws_other_augmentations_for_the_same_weights(whole: Path, tmp_path: Path):
    other = trained(tmp_path, {"augment.seed": 1})
    assert not np.allclose(losses(other), losses(whole), atol=1e-4)


def test_a_config_without_augmentations_keeps_its_digest():
    assert digest(load_config("configs/digits.py")) == "8a0963b9"
    assert digest(load_config("configs/digits.py", {"augment.seed": 3, "augment.flip": None})) == "8a0963b9"
    assert digest(load_config("configs/digits.py", {"augment.flip": True})) != "8a0963b9"
    assert digest(load_config("configs/digits.py", {"eval.augment": ("flip",)})) != "8a0963b9"


def test_strengths_are_hyperparameters_that_schedules_and_searches_vary():
    schedule = {"schedule.augment.mine.alpha": "linear", "augment.mine": {"name": "mixup", "alpha": 0.4}}
    config = resolve_config({}, AUGMENT | schedule).config
    floats = hyperparameters(config)
    assert (floats["augment.mine.alpha"], floats["augment.flip.probability"]) == (0.4, 0.3)
    assert config["schedule"]["augment"]["mine"]["alpha"]["name"] == "linear"
    space = {"search.space.augment.flip.probability": ("uniform", 0.0, 0.5)}
    (dimension,) = read_space(resolve_config({}, AUGMENT | space).config).dimensions
    assert dimension.key == "augment.flip.probability"
    again = resolve_config(resolve_config({}, AUGMENT | {"augment.flip": False}).config).config
    assert [key for key in again["augment"] if key not in ("order", "seed")] == ["pad_and_crop", "mixup"]


@pytest.mark.parametrize(
    ("overrides", "key", "words"),
    [
        ({"augment.flp": True}, "augment.flp.name", "Did you mean 'flip'?"),
        ({"augment.flip.probablity": 0.5}, "augment.flip.probablity", "Did you mean 'probability'?"),
        ({"augment.flip.probability": 1.5}, "augment.flip.probability", "at most 1"),
        ({"augment.flip": 0.5}, "augment.flip", "a section of keys and values"),
        ({"augment.crop": True}, "augment.crop.height", "Give it a value"),
        ({"augment.order": ("flip", "crop")}, "augment.order", "each of pad_and_crop, flip, mixup once"),
        ({"augment.name": "flip"}, "augment.name", "an identifier"),
        ({"schedule.augment.crop.height": "linear"}, "schedule.augment.crop.height", "not a hyperparameter"),
    ],
)
def test_a_config_that_cannot_be_resolved_is_refused(overrides: dict[str, Any], key: str, words: str):
    with pytest.raises(ConfigError) as refusal:
        resolve_config({}, AUGMENT | overrides)
    assert refusal.value.key == key
    assert words in str(refusal.value)


def of_two(key: jax.Array, batch: Any) -> Any:
    """Returns the first two examples of a batch, which no augmentation may do."""
    return {name: leaf[:2] for name, leaf in batch.items()}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"data.name": "breast_cancer", "augment.cutmix": True}, r"augment.cutmix: got examples of shape \(30,\)"),
        ({"augment.crop.height": 9}, "augment.crop: got a crop of 9 x 9; expected one within pictures of 8 x 8"),
        ({"augment.crop.height": 4}, r"augment: got pictures of shape \(4, 4, 1\) in training"),
        ({"augment.mine.name": "test_augment_runs:of_two"}, "augment: got inputs of float32, 2 examples for 4"),
        ({"eval.augment": ("flp",)}, "eval.augment: got .*Did you mean 'flip'"),
        ({"data.name": "breast_cancer", "eval.augment": ("flip",)}, r"eval.augment: got \('flip',\) for examples"),
    ],
)
def test_what_does_not_fit_the_data_or_the_model_is_refused_before_training(overrides: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        build(tiny(overrides))


def test_a_crop_trains_a_model_that_takes_any_size(tmp_path: Path):
    given = {"model": "resnet9", "model.widths": (4, 4), "augment.crop.height": 6, "train.duration": "2 steps"}
    assert train_and_evaluate(tiny(given), tmp_path, quiet=True).status == "done"


def test_the_loss_of_a_mixture_is_the_weighted_loss_and_metrics_count_the_larger_share():
    own, others, thirds = jnp.array([1.0, 2.0]), jnp.array([5.0, 7.0]), jnp.array([11.0, 13.0])
    partners = (Partner(others, jnp.array([0.3, 0.6])), Partner(thirds, jnp.array([0.2, 0.1])))
    batch = {"targets": own, "partners": partners}
    expected = [0.5 * 1 + 0.3 * 25 + 0.2 * 121, 0.3 * 4 + 0.6 * 49 + 0.1 * 169]
    np.testing.assert_allclose(mixed_losses(lambda targets: targets**2, batch), expected, rtol=1e-5)
    assert main_targets(batch).tolist() == [1.0, 7.0]


def test_predictions_and_evaluation_average_over_views(tmp_path: Path):
    given = {"train.duration": "20 steps"}
    train_and_evaluate(tiny(given), tmp_path / "plain", quiet=True)
    train_and_evaluate(tiny(given | {"eval.augment": ("flip", "flip_vertical")}), tmp_path / "views", quiet=True)
    plain, views = load_run(tmp_path / "plain"), load_run(tmp_path / "views")
    assert losses(tmp_path / "plain")[-1] != losses(tmp_path / "views")[-1]
    pictures = np.random.default_rng(0).integers(0, 17, (5, 8, 8, 1)).astype(np.uint8)
    seen = [pictures, pictures[:, :, ::-1], pictures[:, ::-1], pictures[:, ::-1, ::-1]]
    expected = np.mean([plain.predict(view) for view in seen], axis=0)
    np.testing.assert_allclose(views.predict(pictures), expected, atol=1e-4)


class Pixels(nn.Module):
    """One logit for each pixel, by a convolution that is not symmetric."""

    outputs: int

    @nn.compact
    def __call__(self, inputs: jax.Array, train: bool = False) -> jax.Array:
        return nn.Conv(self.outputs, (3, 3))(inputs)


SEGMENTATION = {
    "task": "segmentation",
    "loss": "dice_cross_entropy",
    "model.name": "test_augment_runs:Pixels",
    "data.name": "memory",
    "data.batch_size": 8,
    "train.duration": "4 steps",
}


def test_a_segmentation_trains_on_crops_and_averages_masks_that_are_moved_back(tmp_path: Path):
    pictures = np.random.default_rng(0).normal(size=(60, 8, 8, 1)).astype(np.float32)
    data = Source({"train": (pictures, (pictures[..., 0] > 0).astype(np.uint8))})
    for name, more in (("plain", {}), ("views", {"eval.augment": ("quarter_turns",)})):
        config = tiny(SEGMENTATION | {"augment.crop.height": 4, "augment.quarter_turns": True} | more)
        assert train_and_evaluate(config, tmp_path / name, data=data, quiet=True).status == "done"
    plain, views = load_run(tmp_path / "plain"), load_run(tmp_path / "views")
    turned = [plain.predict(np.rot90(pictures, k, axes=(1, 2))) for k in range(4)]
    expected = np.mean([np.rot90(masks, -k, axes=(1, 2)) for k, masks in enumerate(turned)], axis=0)
    np.testing.assert_allclose(views.predict(pictures), expected, atol=1e-5)


def unmixed(model: Any, loss: Any, info: Any) -> Task:
    """Returns a task whose loss knows of no partners."""
    task = classification(model, loss, info)

    def loss_by_own_targets(params: Any, state: Any, batch: Any, *rest: Any) -> Any:
        own = {name: leaf for name, leaf in batch.items() if name != "partners"}
        return task.loss(params, state, own, *rest)

    return task._replace(loss=loss_by_own_targets)


def mixed(model: Any, loss: Any, info: Any) -> Task:
    """Returns a task of the table, as a user's own function."""
    return classification(model, loss, info)


def test_mixtures_need_a_task_that_weights_their_losses():
    with pytest.raises(ConfigError, match="whose loss leaves out the targets of mixed examples"):
        build(tiny({"task.name": "test_augment_runs:unmixed", "augment.mixup": True}))
    build(tiny({"task.name": "test_augment_runs:mixed", "augment.mixup": True}))
    build(tiny({"task.name": "test_augment_runs:unmixed", "augment.flip": True}))
