"""Shows a run at intervals: pictures of validation examples, generated texts, histograms of parameters and gradients.

The thread that trains predicts a few examples and copies samples of the parameters, at evaluations and saves. What
remains, to describe, to draw and to write, is done on another thread.
"""

import traceback
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import jax
import numpy as np

from jaxtrain.config.durations import steps_of
from jaxtrain.core.averaging import evaluation_weights
from jaxtrain.core.batches import Batches
from jaxtrain.core.pictures import Panels, Shown
from jaxtrain.core.state import TrainState
from jaxtrain.data.fields import read_rows
from jaxtrain.data.order import steps_per_epoch
from jaxtrain.errors import ConfigError, Words
from jaxtrain.parallel.mesh import compile_predict
from jaxtrain.tasks import views_of
from jaxtrain.tasks.show.views import Views
from jaxtrain.trackers.base import Tracker
from jaxtrain.trackers.drawing import draw
from jaxtrain.trackers.picture_files import PictureFiles
from jaxtrain.training.background import Background
from jaxtrain.training.experiment import Experiment
from jaxtrain.training.generation import generate
from jaxtrain.training.histograms import Sampler, Samples, count_numbers
from jaxtrain.training.runners import Runner

BATCH = 64
"""Examples that are predicted at a time; fixed examples are at least as many, though pictures show fewer."""

LEAST_SUMMARY = 256
SUMMARY_SHARE = 0.01
"""Examples of a summary, as a share of those trained on: predicting them takes a third of a percent of the time."""

MOST_BYTES = 2**28
"""Bytes of predictions that a summary may hold."""

EXPECTED = {
    "show": "one that returns descriptions of jaxtrain.core.pictures",
    "summarise": "one that returns {name: description of jaxtrain.core.pictures}",
    "wrongness": "one that returns a number for each example",
}

SHOWING = "pictures of the task"
"""Jobs that call functions of the task, of which an error is said once."""

PROMPTS = 3
PROMPT_TOKENS = 32
DRAWN_TOKENS = 96


class Gallery:
    """Shows a run by pictures, texts and histograms; an error in showing is said once and the run continues.

    Pictures show fixed examples of the validation split, drawn by `data.seed`, or of the training split without one;
    of several seeds or folds those of the first that has not diverged.
    """

    def __init__(
        self,
        experiment: Experiment,
        runner: Runner,
        tracker: Tracker,
        files: PictureFiles,
        say: Callable[[str], None],
    ) -> None:
        """Reads no data and starts no thread before the first picture is due."""
        self._experiment = experiment
        self._runner = runner
        self._tracker = tracker
        self._files = files
        self._work = Background(say)
        self._track = experiment.config["track"]
        self._sampler = Sampler()

    def begin(self, state: TrainState, step: int) -> None:
        """Begins a session at a step: counts initial parameters, and shows what a kill kept from being shown."""
        if self._is_due("histograms", step):
            self._work.guard("track.histograms", lambda: self._count(state, step, None))
        elif self._track["histograms"] is not None:
            self._work.guard("track.histograms", lambda: self._sampler.begin(self._runner.one(state).params))
        if self._is_due("pictures", step) and step:
            self._work.guard("track.pictures", lambda: self._show(state, step))

    def visit(self, state: TrainState, step: int, gradients: np.ndarray | None) -> None:
        """Shows the state of a step at which the run pauses, and the gradients that led there, where that is due."""
        if self._is_due("pictures", step):
            self._work.guard("track.pictures", lambda: self._show(state, step))
        if self._is_due("histograms", step):
            self._work.guard("track.histograms", lambda: self._count(state, step, gradients))

    def finish(self, state: TrainState, step: int) -> None:
        """Shows the result of a run: what summarises its split, and the worst and best of it."""
        if self._track["pictures"] is not None:
            self._work.guard("track.pictures", lambda: self._summarise(state, step))

    def later(self, name: str, job: Callable[[], None]) -> None:
        """Does a job on the thread that draws."""
        self._work.put(name, job)

    def close(self) -> None:
        """Waits for what is not drawn yet, for a bounded time."""
        self._work.close()

    def _is_due(self, what: str, step: int) -> bool:
        """Tells whether a pause is the first one at or after a multiple of the interval, or the last of the run."""
        text = self._track[what]
        lengths = self._experiment.lengths
        if text is None or not lengths.pauses_at(step):
            return False
        section = self._experiment.config["data"]
        epoch = steps_per_epoch(self._experiment.dataset.epoch_examples, section["batch_size"])
        every = steps_of(text, steps_per_epoch=epoch, total=lengths.total)
        before = max((step - 1) // interval * interval for interval in (lengths.eval, lengths.checkpoint))
        return step == lengths.total or step // every > before // every

    # ---- examples

    @cached_property
    def _split(self) -> str:
        return "validation" if "validation" in self._experiment.dataset.sizes else "train"

    @cached_property
    def _places(self) -> np.ndarray:
        """The places of all examples of the split, in an order drawn by `data.seed`: the first are the fixed ones."""
        rng = np.random.default_rng((self._experiment.config["data"]["seed"], 1))
        return rng.permutation(self._experiment.dataset.sizes[self._split])

    @cached_property
    def _views(self) -> Views:
        experiment = self._experiment
        return views_of(experiment.config, experiment.dataset.info, experiment.hparams)

    @cached_property
    def _batch(self) -> int:
        """The number of examples that are predicted at a time, a multiple of the devices."""
        devices = self._experiment.mesh.size
        size = min(BATCH, self._experiment.config["data"]["eval_batch_size"], len(self._places))
        return -(-size // devices) * devices

    def _predict(self, state: TrainState, places: np.ndarray, most_bytes: int | None = None) -> np.ndarray:
        """Predicts examples of the split, in the units of the targets; fewer where `most_bytes` are reached."""
        experiment = self._experiment
        program = compile_predict(experiment.rules, experiment.mesh)
        found: list[np.ndarray] = []
        for begin in range(0, len(places), self._batch):
            own = places[begin : begin + self._batch]
            mask = (np.arange(self._batch) < len(own)).astype(np.float32)[None]
            padded = np.resize(own, self._batch)
            inputs = experiment.dataset.read(self._split, padded)["inputs"]
            rows = np.arange(self._batch, dtype=np.int32)[None]
            found += list(program(state, Batches({"inputs": inputs}, rows, mask)))
            if most_bytes is not None and sum(piece.nbytes for piece in found) >= most_bytes:
                break
        predictions = np.concatenate(found)
        info = experiment.dataset.info
        return info.restore_targets(predictions) if info.standardised else predictions

    def _raw(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Reads raw inputs and targets."""
        part = self._experiment.dataset.parts[self._split]
        rows = part.source_rows(places)
        return read_rows(part.split.inputs, rows), read_rows(part.split.targets, rows)

    @cached_property
    def _fixed(self) -> tuple[np.ndarray, np.ndarray]:
        return self._raw(self._places[: self._fixed_count])

    @property
    def _fixed_count(self) -> int:
        return min(len(self._places), max(self._batch, self._track["examples"]))

    def _show(self, state: TrainState, step: int) -> None:
        if self._views.show is not None:
            predictions = self._predict(self._runner.one(state), self._places[: self._fixed_count])
            inputs, targets = self._fixed
            title = f"Fixed examples of the {self._split} split at step {step:,}"
            self._work.put(
                SHOWING,
                lambda: self._hand_out(step, "examples/fixed", self._call_show(inputs, targets, predictions), title),
            )
        is_new = not self._files.has(step, "text", "generated text")
        if self._experiment.dataset.info.vocabulary is not None and is_new:
            one = self._runner.one(state)
            values = self._experiment.rules.schedule(one.step, one.hparams)
            # Copies: the next call takes the arrays of the state, while these are still read.
            weights = jax.tree.map(np.array, jax.device_get((*evaluation_weights(one), values)))
            self._work.put("generated text", lambda: self._generate(weights, step))

    def _call_show(self, *arguments: np.ndarray) -> Shown:
        return _call("show", self._views.show, *arguments)

    def _hand_out(self, step: int, group: str, shown: Shown, title: str = "") -> None:
        """Draws descriptions and hands them to the trackers, except those that are kept already."""
        named = shown if isinstance(shown, Mapping) else {"": shown}
        for name, description in named.items():
            full = f"{group}/{name}" if name else group
            if isinstance(description, str):
                if not self._files.has(step, "text", full):
                    self._tracker.text(full, description, step)
            elif not self._files.has(step, "image", full):
                self._tracker.image(step, full, draw(self._cut(description, title)))

    def _cut(self, description: Any, title: str) -> Any:
        """Returns examples as many as pictures show, under the title of what they are."""
        if not isinstance(description, Panels):
            return description
        return description._replace(title=title, panels=description.panels[: self._track["examples"]])

    # ---- the result

    def _summarise(self, state: TrainState, step: int) -> None:
        views = self._views
        if views.summarise is None and views.wrongness is None:
            return
        trained = self._experiment.lengths.total * self._experiment.config["data"]["batch_size"]
        most = max(LEAST_SUMMARY, self._fixed_count, int(SUMMARY_SHARE * trained))
        places = self._places[:most]
        predictions = self._predict(self._runner.one(state), places, MOST_BYTES)
        places = places[: len(predictions)]
        _, targets = self._raw(places)
        which = f"{len(places):,} examples of the {self._split} split at step {step:,}"
        if views.summarise is not None:
            summarise = views.summarise
            self._work.put(
                SHOWING + " at the end",
                lambda: self._hand_out(step, "summary", _call("summarise", summarise, targets, predictions)),
            )
        if views.wrongness is not None and views.show is not None:
            self._work.put(SHOWING, lambda: self._rank(step, places, targets, predictions, which))

    def _rank(self, step: int, places: np.ndarray, targets: np.ndarray, predictions: np.ndarray, which: str) -> None:
        """Shows the examples whose predictions are the most and the least wrong."""
        wrongness = np.asarray(_call("wrongness", self._views.wrongness, targets, predictions))
        order = np.argsort(-wrongness, kind="stable")
        count = self._track["examples"]
        for name, chosen in (("worst", order[:count]), ("best", order[::-1][:count])):
            inputs, _ = self._raw(places[chosen])
            shown = self._call_show(inputs, targets[chosen], predictions[chosen])
            if isinstance(shown, Panels):
                title = f"The {len(chosen)} {name} of {which}"
                self._hand_out(step, f"examples/{name}", shown, title)

    # ---- texts

    def _generate(self, weights: tuple[Any, Any, Any], step: int) -> None:
        """Continues the beginnings of fixed examples."""
        experiment = self._experiment
        vocabulary = experiment.dataset.info.vocabulary
        assert vocabulary is not None
        prompts = self._fixed[0][:PROMPTS, :PROMPT_TOKENS]
        context = experiment.dataset.info.input_shape[0]
        drawn = generate(experiment.rules.task, weights, prompts, DRAWN_TOKENS, context=context)
        pairs = zip(map(vocabulary.decode, prompts), map(vocabulary.decode, drawn), strict=True)
        self._hand_out(step, "generated text", "\n\n---\n\n".join(_as_markdown(*pair) for pair in pairs))

    # ---- histograms

    def _count(self, state: TrainState, step: int, gradients: np.ndarray | None) -> None:
        samples = self._sampler.sample(self._runner.one(state).params, gradients)
        self._work.put("track.histograms", lambda: self._count_samples(step, samples))

    def _count_samples(self, step: int, samples: Mapping[str, Samples]) -> None:
        for group, by_path in samples.items():
            for path, sample in by_path.items():
                name = f"{group}/{path}"
                counted = None if self._files.has(step, "histogram", name) else count_numbers(sample)
                if counted is not None:
                    self._tracker.histogram(step, name, counted)


def _call(name: str, function: Callable[..., Any] | None, *arguments: np.ndarray) -> Any:
    """Calls a function of the task; raises ConfigError, which names its line, where it raises."""
    assert function is not None
    try:
        return function(*arguments)
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        raised = f"{type(error).__name__}: {error}".rstrip(": ")
        got = Words(f"a function {name} that raises {raised} (line {frame.lineno} of {frame.filename})")
        raise ConfigError("task.name", got, EXPECTED[name]) from error


def _as_markdown(prompt: str, drawn: str) -> str:
    """Returns a prompt and its continuation as a block of code, in which nothing is markup."""
    text = f"{prompt}│{drawn}"
    lines = "".join(char if char.isprintable() or char == "\n" else "�" for char in text).split("\n")
    return "\n".join(f"    {line}" for line in lines)
