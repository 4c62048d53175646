"""Loads an exported model, and predicts with it."""

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export

from jaxtrain.data.encoded import warn_of_unknown
from jaxtrain.data.info import DataInfo
from jaxtrain.errors import StorageError, UsageError, Words
from jaxtrain.export.array_inputs import ArrayInputs
from jaxtrain.export.generation import Drawing, arguments_of
from jaxtrain.export.outputs import restores_on_host
from jaxtrain.export.padded import Outputs, PaddedProgram
from jaxtrain.export.table_inputs import TableInputs
from jaxtrain.export.token_inputs import TokenInputs
from jaxtrain.files import exists, read_bytes
from jaxtrain.storage.safetensors_files import read_arrays
from jaxtrain.storage.seals import read_sealed
from jaxtrain.training.generation import Growing, check_generation, draw_all

PROGRAM = "model.jaxexp"
CONTINUATION = "continuation.jaxexp"
WEIGHTS = "weights.safetensors"
MANIFEST = "model.json"
EXAMPLES = "examples.safetensors"
FORMAT = 1
"""Number of the form of an export's directory."""

SIZES = (1, 8, 64, 512)
"""Sizes to which `predict` pads batches: at most four programs are compiled."""

COPY = "Copy the directory again, or export the run again"

Inputs = ArrayInputs | TableInputs | TokenInputs


def inputs_of(info: DataInfo) -> Inputs:
    """Returns the form of the inputs of a model of these data."""
    if info.tokens is not None:
        return TokenInputs(info)
    return TableInputs(info, info.table) if info.table else ArrayInputs(info)


@dataclass(frozen=True)
class ExportedModel:
    """An exported model: its description, as `model.json` holds it, and that of its data."""

    folder: Path
    description: Mapping[str, Any]
    info: DataInfo
    program: export.Exported
    continuation: export.Exported | None

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, or of several labels, in the order of the logits."""
        return tuple(self.description["class_names"])

    def predict(self, inputs: Any, *, allow_nan: bool = False) -> Outputs:
        """Predicts from raw inputs (n, ...), or columns by name, whatever n: returns {name of an output: (n, ...)}.

        Raises DataError for inputs that are not like those of training. Unless `allow_nan`, it also raises for numbers
        that are not finite, and for a number that is missing in a column that misses none in training.
        """
        return self.in_units(self._padded(inputs_of(self.info).arguments(inputs, allow_nan=allow_nan)))

    def generate(
        self, prompt: str, length: int = 200, temperature: float = 1.0, top_k: int | None = None, seed: int = 0
    ) -> str:
        """Returns `length` tokens of text that continue a prompt, as `Run.generate` does.

        Raises UsageError for a model of other data or without a cache, for an empty prompt, and for a number outside of
        its range.
        """
        vocabulary = self.info.vocabulary
        if vocabulary is None:
            raise UsageError("generate", Words("a model that was not trained on a text"), "one that was")
        prompts = vocabulary.encode(prompt)[None]
        check_generation(prompts, length, temperature, top_k)
        warn_of_unknown(prompts[0], vocabulary, "prompt")
        drawing = Drawing(temperature, top_k, seed)
        program = self._continuation

        def draw(growing: Growing, count: int) -> np.ndarray:
            return program(arguments_of(growing, count, drawing))["tokens"]

        return vocabulary.decode(draw_all(draw, Growing(prompts, self.info.input_shape[0]), length)[0])

    def continuation_in(self, sizes: Sequence[int]) -> PaddedProgram:
        """Returns the program that continues texts, in batches of some sizes; raises UsageError where there is none."""
        if self.continuation is None:
            got = Words(f"an export without {CONTINUATION}")
            hint = "Export the run again, of a model with a method decode, such as transformer"
            raise UsageError("generate", got, "one that can continue a text", hint)
        return PaddedProgram(self.continuation, sizes, read_arrays(self.folder / WEIGHTS))

    def call(self, arguments: Mapping[str, np.ndarray]) -> Outputs:
        """Calls the program, which is compiled for each number of examples; numbers are brought to their own units."""
        return self.in_units({name: np.asarray(value) for name, value in self._call(**arguments).items()})

    def in_units(self, outputs: Outputs) -> Outputs:
        """Returns outputs of the program with numbers in their own units, in float64 where it standardised them."""
        if not restores_on_host(self.info):
            return outputs
        return outputs | {"numbers": self.info.restore_targets(outputs["numbers"])}

    def read_examples(self) -> tuple[dict[str, np.ndarray], Outputs]:
        """Reads a few rows, as arguments of the program, and the outputs that the run predicts from them."""
        arrays = read_arrays(self.folder / EXAMPLES)
        inputs, outputs = (
            {name.removeprefix(part): array for name, array in arrays.items() if name.startswith(part)}
            for part in ("inputs/", "outputs/")
        )
        return inputs, outputs

    @functools.cached_property
    def _call(self) -> Callable[..., dict[str, jax.Array]]:
        return jax.jit(self.program.call)

    @functools.cached_property
    def _padded(self) -> PaddedProgram:
        return PaddedProgram(self.program, SIZES)

    @functools.cached_property
    def _continuation(self) -> PaddedProgram:
        return self.continuation_in((1,))


def load_export(folder: str | Path) -> ExportedModel:
    """Loads an exported model; verifies the checksum of each of its files before it loads any.

    Raises StorageError for a directory that holds none, for files that are missing or were changed, and for a program
    that this version of JAX does not read.
    """
    folder = Path(folder)
    if not exists(folder / MANIFEST):
        hint = f"Give {folder / 'export'}" if exists(folder / "export" / MANIFEST) else ""
        raise StorageError(str(folder), Words(f"a directory without {MANIFEST}"), "that of an export", hint)
    description = read_sealed(folder / MANIFEST, "what the export wrote", COPY)
    if description.get("format") != FORMAT:
        got = Words(f"an export of format {description.get('format')}")
        raise StorageError(str(folder / MANIFEST), got, f"format {FORMAT}", "Use the jaxtrain that wrote it")
    contents = {name: _read_verified(folder / name, file["sha256"]) for name, file in description["files"].items()}
    programs = {
        name: _deserialize(folder / name, contents[name], description["versions"]["jax"])
        for name in (PROGRAM, CONTINUATION)
        if name in contents
    }
    info = DataInfo.from_json(description["data"])
    return ExportedModel(folder, description, info, programs[PROGRAM], programs.get(CONTINUATION))


def _deserialize(path: Path, content: bytes, version: str) -> export.Exported:
    try:
        return export.deserialize(bytearray(content))
    except ValueError as error:  # of a version that JAX no longer reads
        got = Words(f"a program that JAX {jax.__version__} does not read ({error})")
        expected = f"one written within six months; JAX {version} wrote it"
        raise StorageError(str(path), got, expected, "Export the run again") from error


def sha256_of(content: bytes) -> str:
    """Returns the sha256 of a file's content, in hex."""
    return hashlib.sha256(content).hexdigest()


def _read_verified(path: Path, expected: str) -> bytes:
    if not exists(path):
        raise StorageError(str(path), Words("no file"), "what the export wrote", COPY)
    content = read_bytes(path)
    if sha256_of(content) != expected:
        raise StorageError(str(path), Words("content that fails its checksum"), "what the export wrote", COPY)
    return content
