"""The order of the batches: every example once per epoch, the batch of any step alone, no example dropped."""

import numpy as np
import pytest

from jaxtrain.data import order
from jaxtrain.data.order import batch_indices, eval_batches, steps_per_epoch
from jaxtrain.errors import ConfigError


@pytest.mark.parametrize(("examples", "batch_size"), [(12, 4), (10, 4), (7, 7), (5, 1)])
def test_each_epoch_covers_every_example_once(examples, batch_size):
    epochs = 6
    steps = epochs * examples // batch_size
    row = batch_indices(0, steps, examples=examples, batch_size=batch_size, seed=3).ravel()
    for epoch in range(len(row) // examples):
        assert sorted(row[epoch * examples : (epoch + 1) * examples]) == list(range(examples))


def test_epochs_and_seeds_differ():
    row = batch_indices(0, 2, examples=50, batch_size=50, seed=0)
    assert not np.array_equal(row[0], row[1])
    assert not np.array_equal(row, batch_indices(0, 2, examples=50, batch_size=50, seed=1))


def test_order_is_that_of_numpy_for_seed_and_epoch():
    expected = np.random.Generator(np.random.PCG64([5, 2])).permutation(9)
    np.testing.assert_array_equal(batch_indices(6, 3, examples=9, batch_size=3, seed=5).ravel(), expected)


def test_any_step_alone_is_the_step_in_a_long_call():
    whole = batch_indices(0, 40, examples=10, batch_size=4, seed=1)
    assert (whole.shape, whole.dtype) == ((40, 4), np.int32)
    for step in (39, 2, 0, 17):  # batch 2 spans two epochs
        np.testing.assert_array_equal(batch_indices(step, 1, examples=10, batch_size=4, seed=1), whole[step : step + 1])
    np.testing.assert_array_equal(batch_indices(7, 20, examples=10, batch_size=4, seed=1), whole[7:27])
    assert batch_indices(5, 0, examples=10, batch_size=4, seed=1).shape == (0, 4)


def test_an_answer_belongs_to_the_caller():
    first = batch_indices(0, 1, examples=10, batch_size=10, seed=1)
    kept = first.copy()
    first[:] = 0
    np.testing.assert_array_equal(batch_indices(0, 1, examples=10, batch_size=10, seed=1), kept)


def test_consecutive_calls_draw_each_order_once():
    order._order.cache_clear()
    for step in range(30):
        batch_indices(step, 1, examples=10, batch_size=3, seed=1)
    assert order._order.cache_info().misses == 9  # 90 positions


@pytest.mark.parametrize("batch_size", [11, 0, -1])
def test_batch_that_does_not_fit_is_refused(batch_size):
    with pytest.raises(ConfigError, match=r"1 to 10") as caught:
        batch_indices(0, 1, examples=10, batch_size=batch_size, seed=0)
    assert (caught.value.key, caught.value.got) == ("data.batch_size", batch_size)


@pytest.mark.parametrize(("examples", "batch_size", "batches"), [(10, 4, 3), (8, 4, 2), (3, 5, 1)])
def test_eval_batches_cover_every_example_once_in_order(examples, batch_size, batches):
    indices, mask = eval_batches(examples, batch_size)
    assert indices.shape == mask.shape == (batches, batch_size)
    assert (indices.dtype, mask.dtype) == (np.int32, np.float32)
    assert indices[mask == 1].tolist() == list(range(examples))
    assert indices[mask == 0].tolist() == [0] * (batches * batch_size - examples)


def test_eval_batch_size_below_one_is_refused():
    with pytest.raises(ConfigError) as caught:
        eval_batches(10, 0)
    assert (caught.value.key, caught.value.got) == ("data.eval_batch_size", 0)


def test_steps_per_epoch_is_no_whole_number_where_batches_do_not_divide():
    assert steps_per_epoch(10, 4) == 2.5
