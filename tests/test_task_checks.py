"""A user's own functions are checked before training: one loss for each example, and masked rows that count nothing."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtrain.config.resolve import resolve_config
from jaxtrain.core.metric import Mean
from jaxtrain.core.state import Task
from jaxtrain.data.info import describe
from jaxtrain.errors import ConfigError
from jaxtrain.lr_range.from_config import lr_range_test
from jaxtrain.parallel.compilation import count_compilations
from jaxtrain.search.run import run_search
from jaxtrain.tasks import make_task
from jaxtrain.tasks.linen import linen_task
from jaxtrain.training import task_checks
from jaxtrain.training.experiment import build
from jaxtrain.training.plan import plan
from jaxtrain.training.train import train_and_evaluate

HERE = "test_task_checks"
DIGITS = {"data": {"name": "digits", "batch_size": 16}, "model": {"name": "mlp", "hidden": (8,)}}

entropies = optax.softmax_cross_entropy_with_integer_labels


def right(predictions, targets):
    return entropies(predictions, targets)


def mean(predictions, targets):
    return entropies(predictions, targets).mean()


def column(predictions, targets):
    return entropies(predictions, targets)[:, None]


def row(predictions, targets):
    return entropies(predictions, targets)[None]


def square(predictions, targets):
    return column(predictions, targets) * row(predictions, targets)


def per_class(predictions, targets):
    return -nn.log_softmax(predictions).mean(axis=0)


def first_four(predictions, targets):
    return entropies(predictions, targets)[:4]  # right for a batch of four alone


def nothing(predictions, targets):
    return None


def several(predictions, targets):
    return entropies(predictions, targets), 0.0


def mean_repeated(predictions, targets):
    return jnp.full(len(targets), mean(predictions, targets))


def relative(predictions, targets):
    losses = entropies(predictions, targets)
    return losses / jax.lax.stop_gradient(losses.max())


def hits(predictions, targets, mask):
    return Mean.of((predictions.argmax(axis=-1) == targets).astype(jnp.float32), mask, higher_is_better=True)


def hits_of_all(predictions, targets, mask):
    return hits(predictions, targets, jnp.ones_like(mask))


def summed(predictions, targets):
    """A loss of an example that counts those before it in the batch."""
    return jnp.cumsum(entropies(predictions, targets))


def whole_numbers(predictions, targets):
    return jnp.ones(len(targets), jnp.int32)


def hits_alone(predictions, targets):
    return predictions.argmax(axis=-1) == targets


def complex_numbers(predictions, targets):
    return entropies(predictions, targets).astype(jnp.complex64)


def right_ones(predictions, targets, mask):
    return (predictions.argmax(axis=-1) == targets).astype(jnp.float32)


def share(predictions, targets, mask):
    return (right_ones(predictions, targets, mask) * mask).sum() / mask.sum()


def share_of_a_batch(predictions, targets, mask):
    return Mean(share(predictions, targets, mask), jnp.ones(()))


def largest(predictions, targets, mask):
    return Mean(jnp.max(jnp.where(mask[:, None] > 0, predictions, -jnp.inf)), jnp.ones(()))


def counts_of_each(predictions, targets, mask):
    return Mean(right_ones(predictions, targets, mask) * mask, mask)


def without_count(total, count):
    return total[0] / total[1]


def in_its_sum(predictions, targets, mask):
    right = (right_ones(predictions, targets, mask) * mask).sum()
    return Mean(jnp.stack([right, mask.sum()]), jnp.ones(()), finish=without_count)


class Fixed(nn.Module):
    """A model with three outputs, whatever is asked for."""

    outputs: int

    @nn.compact
    def __call__(self, inputs, train=False):
        return nn.Dense(3)(inputs.reshape(len(inputs), -1))


class Twice(nn.Module):
    """A model that returns a tuple."""

    outputs: int

    @nn.compact
    def __call__(self, inputs, train=False):
        outputs = nn.Dense(self.outputs)(inputs.reshape(len(inputs), -1))
        return outputs, outputs


class Net(nn.Module):
    """A small model, with batch norm or dropout where asked for."""

    outputs: int
    norm: bool = False
    drop: bool = False

    @nn.compact
    def __call__(self, inputs, train=False):
        hidden = nn.relu(nn.Dense(8)(inputs.reshape(len(inputs), -1)))
        hidden = nn.BatchNorm(use_running_average=not train)(hidden) if self.norm else hidden
        hidden = nn.Dropout(0.5, deterministic=not train)(hidden) if self.drop else hidden
        return nn.Dense(self.outputs)(hidden)


def bare(summarize, **options):
    """Returns a task member of three bare functions; `summarize(losses, mask, train)` makes its metric "loss"."""

    def member(model, loss, info) -> Task:
        net = Net(info.classes, **options)

        def init(key, batch, values):
            variables = dict(net.init(key, batch["inputs"]))
            return variables.pop("params"), variables

        def loss_and_metrics(params, model_state, batch, key, values, train):
            variables = {"params": params, **model_state}
            mutable = list(model_state) if train else []
            outputs, updates = net.apply(
                variables, batch["inputs"], train=train, mutable=mutable, rngs={"dropout": key}
            )
            losses = entropies(outputs, batch["targets"])
            metric = summarize(losses, batch.get("mask", jnp.ones(len(losses))), train)
            return metric.sum / metric.count, ({**model_state, **updates}, {"loss": metric})

        return Task(init, loss_and_metrics, lambda params, state, inputs, values: inputs)

    return member


def with_noise(model, loss, info) -> Task:
    task = masked(model, loss, info)

    def noisy(params, model_state, batch, key, values, train):
        inputs = batch["inputs"].astype(jnp.float32)
        inputs += jax.random.normal(key, inputs.shape)
        return task.loss(params, model_state, {**batch, "inputs": inputs}, key, values, train)

    return task._replace(loss=noisy)


masked = bare(lambda losses, mask, train: Mean.of(losses, mask))
with_norm = bare(lambda losses, mask, train: Mean.of(losses, mask), norm=True)
with_dropout = bare(lambda losses, mask, train: Mean.of(losses, mask), drop=True)
batch_mean = bare(lambda losses, mask, train: Mean(losses.mean(), jnp.ones(())))
all_counted = bare(lambda losses, mask, train: Mean.of(losses, jnp.ones_like(mask)))
count_of_all = bare(lambda losses, mask, train: Mean(Mean.of(losses, mask).sum, jnp.float32(len(losses))))
all_counted_in_training = bare(lambda losses, mask, train: Mean.of(losses, jnp.ones_like(mask) if train else mask))
norm_without_mask = bare(lambda losses, mask, train: Mean.of(losses, jnp.ones_like(mask)), norm=True)
vector = bare(lambda losses, mask, train: Mean(losses, jnp.ones(())))


def returning(result, init=lambda params: (params, {})):
    """Returns a task member whose loss returns `result(loss, model_state, metrics of the batch, params)`."""

    def member(model, loss, info) -> Task:
        net = Net(info.classes)

        def loss_and_metrics(params, model_state, batch, key, values, train):
            losses = entropies(jnp.asarray(net.apply({"params": params}, batch["inputs"])), batch["targets"])
            metric = Mean.of(losses, batch.get("mask", jnp.ones(len(losses))))
            return result(metric.sum / metric.count, model_state, {"loss": metric}, params)

        return Task(
            lambda key, batch, values: init(net.init(key, batch["inputs"])["params"]),
            loss_and_metrics,
            lambda params, state, inputs, values: inputs,
        )

    return member


RETURNED = {
    "a loss alone": (lambda loss, state, metrics, params: loss, "whose loss returns something else"),
    "metrics without a state": (lambda loss, state, metrics, params: (loss, metrics), "whose loss returns something"),
    "three things": (lambda loss, state, metrics, params: (loss, state, metrics), "whose loss returns something else"),
    "no metric": (lambda loss, state, metrics, params: (loss, (state, {})), r"whose metrics are \[\]"),
    "a name that is no text": (
        lambda loss, state, metrics, params: (loss, (state, metrics | {3: metrics["loss"]})),
        r"whose metrics are \['loss', 3\]",
    ),
    "a number as metric": (
        lambda loss, state, metrics, params: (loss, (state, {"loss": loss})),
        r"whose metric 'loss' is an array of shape \(\)",
    ),
    "a whole number": (
        lambda loss, state, metrics, params: (loss.astype(int), (state, metrics)),
        "whose loss is an array of shape \\(\\) of int",
    ),
    "another state": (
        lambda loss, state, metrics, params: (loss, ({"count": loss}, metrics)),
        "whose loss returns another model state",
    ),
    "no state": (
        lambda loss, state, metrics, params: (loss, (None, metrics)),
        "whose loss returns another model state",
    ),
}
globals().update({name.replace(" ", "_"): returning(result) for name, (result, _) in RETURNED.items()})
with_norm_of_parameters = returning(
    lambda loss, state, metrics, params: (
        loss,
        (state, metrics | {"l2": Mean(optax.tree.norm(params), jnp.ones(()))}),
    )
)
without_pair = returning(
    lambda loss, state, metrics, params: (loss, (state, metrics)), lambda params: {**params, "more": jnp.ones(2)}
)


def own(name):
    return f"{HERE}:{name}"


def built(**sections):
    return build(resolve_config({**DIGITS, **sections}).config)


WRONG = ["mean", "column", "row", "square", "per_class", "first_four", "nothing", "several"]


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("task", ["classification", {"name": "classification", "class_balance": 0.9}])
def test_a_loss_that_is_not_one_number_an_example_is_refused_by_name_before_anything_is_compiled(name, task):
    with count_compilations() as compiled, pytest.raises(ConfigError) as refusal:
        built(loss=own(name), task=task)
    assert refusal.value.key == "loss.name"
    assert str(refusal.value).startswith(f"loss.name: got '{own(name)}', which returns a")
    assert "expected one loss for each example, shape (" in str(refusal.value)
    assert compiled.count == 0


@pytest.mark.parametrize("start", [train_and_evaluate, lr_range_test, run_search, lambda config, workdir: plan(config)])
def test_every_command_that_trains_takes_the_same_road(start, tmp_path):
    search = {"space": {"optimizer": {"learning_rate": ("log_uniform", 1e-3, 1e-1)}}}
    config = resolve_config({**DIGITS, "loss": own("mean"), "search": search}).config
    with pytest.raises(ConfigError, match=f"loss.name: got '{own('mean')}', which returns an array of shape \\(\\)"):
        start(config, tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize("name", ["mean", "column"])
def test_a_task_made_of_a_module_refuses_such_a_loss_wherever_it_is_traced(name):
    task = linen_task(lambda values: Net(3), lambda values, predictions, targets: globals()[name](predictions, targets))
    batch = {"inputs": jnp.zeros((4, 2)), "targets": jnp.zeros(4, jnp.int32)}
    params, state = jax.eval_shape(task.init, jax.random.key(0), batch, {})
    with pytest.raises(ConfigError, match="expected one loss for each example"):
        jax.eval_shape(lambda *given: task.loss(*given, True), params, state, batch, jax.random.key(0), {})


INPUTS = np.zeros((8, 4, 4, 1), np.float32)
FITTED = {
    "classification": (np.arange(8) % 4, 4, "cross_entropy"),
    "binary_classification": (np.arange(8) % 2, 2, "binary_cross_entropy"),
    "label_distribution": (np.full((8, 4), 0.25, np.float32), None, "kl_divergence"),
    "regression": (np.arange(16.0).reshape(8, 2).astype(np.float32), None, "mse"),
    "segmentation": (np.arange(128).reshape(8, 4, 4) % 2, 2, "dice"),
}


@pytest.mark.parametrize("name", FITTED)
@pytest.mark.parametrize("model", ["Fixed", "Twice"])
def test_outputs_that_do_not_fit_the_targets_are_refused_with_the_name_of_the_model(name, model):
    targets, classes, loss = FITTED[name]
    config = resolve_config({"task": name, "model": own(model), "loss": loss}).config
    task = make_task(config, describe(INPUTS, targets, None, classes))
    batch = {"inputs": jnp.asarray(INPUTS), "targets": jnp.asarray(targets)}
    params, state = jax.eval_shape(task.init, jax.random.key(0), batch, {})
    named = f"'{own(model)}', which"
    for function, arguments in (
        (lambda *given: task.loss(*given, True), (params, state, batch, jax.random.key(0), {})),
        (task.predict, (params, state, batch["inputs"], {})),
    ):
        with pytest.raises(ConfigError, match=rf"model\.name: got {named} returns .*to fit the targets"):
            jax.eval_shape(function, *arguments)


def test_a_model_with_too_few_outputs_is_refused_before_training():
    with pytest.raises(ConfigError, match=r"returns an array of shape \(4, 3\); expected outputs of shape \(4, 10\)"):
        built(model=own("Fixed"))


@pytest.mark.parametrize("name", ["batch_mean", "all_counted", "count_of_all", "norm_without_mask"])
def test_a_bare_task_whose_evaluation_counts_masked_rows_is_refused(name):
    with pytest.raises(ConfigError, match=rf"task\.name: got '{own(name)}', whose metric 'loss' in evaluation has sum"):
        built(task=own(name))


def test_a_bare_task_that_counts_masked_rows_in_training_alone_is_refused():
    with pytest.raises(
        ConfigError, match=r"whose metric 'loss' in training has sum .* count 5 .* count 8 with 3 masked"
    ):
        built(task=own("all_counted_in_training"))


def test_a_bare_task_whose_loss_is_no_number_is_refused():
    with pytest.raises(
        ConfigError, match=rf"task\.name: got '{own('vector')}', whose loss is an array of shape \(4,\)"
    ):
        built(task=own("vector"))


@pytest.mark.parametrize("name", ["masked", "with_norm", "with_dropout"])
def test_a_bare_task_that_leaves_masked_rows_out_is_accepted_also_with_batch_norm_or_dropout_in_training(name):
    built(task=own(name))


def test_a_bare_task_that_draws_noise_for_each_row_of_an_evaluation_is_accepted():
    built(task=own("with_noise"))


@pytest.mark.parametrize("name", RETURNED)
def test_a_bare_task_that_returns_something_else_is_refused_by_its_name(name):
    member = own(name.replace(" ", "_"))
    with pytest.raises(ConfigError, match=rf"task\.name: got '{member}', {RETURNED[name][1]}"):
        built(task=member)


def test_a_bare_task_whose_init_makes_no_pair_is_refused():
    with pytest.raises(ConfigError, match=r"task\.name: got a task whose init returns a dict"):
        built(task=own("without_pair"))


@pytest.mark.parametrize("name", ["whole_numbers", "hits_alone", "complex_numbers"])
def test_a_loss_without_a_gradient_by_its_type_is_refused(name):
    with pytest.raises(ConfigError, match=rf"loss\.name: got '{own(name)}', which returns numbers of the type"):
        built(loss=own(name))


METRICS_REFUSED = {
    "right_ones": r"is an array of shape \(4,\)",
    "share": r"is an array of shape \(\)",
    "nothing_at_all": "is a NoneType",
    "counts_of_each": r"has a count of shape \(4,\)",
    "share_of_a_batch": "counts 1 for 5 examples, but 1 and 1 for 2 and 3 of them",
    "largest": "counts 1 for 5 examples",
}


def nothing_at_all(predictions, targets, mask):
    return None


@pytest.mark.parametrize("name", METRICS_REFUSED)
def test_a_metric_that_does_not_add_up_over_batches_is_refused_by_its_name(name):
    said = rf"task\.metrics: got '{own(name)}', whose metric '{own(name)}' {METRICS_REFUSED[name]}"
    with pytest.raises(ConfigError, match=said):
        built(task={"name": "classification", "metrics": ("accuracy", own(name))})


def test_a_metric_that_needs_no_count_is_accepted_and_so_is_one_of_the_parameters():
    built(task={"name": "classification", "metrics": (own("in_its_sum"),)})
    built(task=own("with_norm_of_parameters"))


@pytest.mark.parametrize("name", ["mean_repeated", "relative", "summed"])
def test_a_loss_of_an_example_that_depends_on_others_is_refused(name):
    with pytest.raises(ConfigError, match=rf"loss\.name: got '{own(name)}', whose metric 'loss' in evaluation"):
        built(loss=own(name))


def test_a_metric_that_ignores_the_mask_is_refused_and_one_that_does_not_is_accepted():
    built(loss=own("right"), task={"name": "classification", "metrics": ("accuracy", own("hits"))})
    with pytest.raises(ConfigError, match=rf"task\.metrics: got '{own('hits_of_all')}', whose metric"):
        built(task={"name": "classification", "metrics": (own("hits"), own("hits_of_all"))})


def test_a_task_that_was_found_right_is_not_checked_again_and_members_of_the_tables_cost_nothing(monkeypatch):
    built(loss=own("right"), optimizer={"name": "adamw", "learning_rate": 0.1})
    with monkeypatch.context() as patched:
        for name in ("_call_loss", "_measure"):
            patched.setattr(task_checks, name, lambda *_: pytest.fail("traced again"))
        built(loss=own("right"), optimizer={"name": "adamw", "learning_rate": 0.2})
        built(loss="focal")
