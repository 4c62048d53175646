"""The model card of an export, `README.md`."""

from collections.abc import Iterable, Mapping
from typing import Any

from jaxtrain.errors import printable

CARD = """\
# {model}: {task}

Exported by {jaxtrain} on {written}, and checked: a fresh process repeats the predictions of the run{rounded}
to {worst:.1g} of the spread of an output.

## Intended use

{intended_use}

## Inputs and outputs

| | name | shape | type |
|---|---|---|---|
{arrays}

{columns}{classes}{numbers}`n` is any number of examples. Inputs are raw, as files hold them; `model.json` describes
them in full. Where there is an input `..._remainder`, a float64 number `x` enters as `float32(x)` and
`float32(x - float32(x))`.

## Metrics on the test split

{metrics}
{quality}
## Use it

With JAX and the package flatbuffers alone; JAX promises to read `model.jaxexp` until {readable_until}:

```python
import jax
import numpy as np

with open("model.jaxexp", "rb") as file:
    model = jax.export.deserialize(bytearray(file.read()))
inputs = {{{example}}}
print(jax.jit(model.call)(**inputs))
```

With jaxtrain, which verifies the checksums first: `jaxtrain.load_export(folder).predict(inputs)`.
{onnx}{mlflow}
`weights.safetensors` holds the weights by their paths, and `examples.safetensors` inputs with their outputs.

## Origin

Config {config}, {members}.
"""

ONNX = """
In onnxruntime and others that read ONNX, for which a value and its remainder are one float64:

```python
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx")
inputs = {{{example}}}
print(dict(zip([output.name for output in session.get_outputs()], session.run(None, inputs))))
```
"""

MLFLOW = """
With MLflow: `mlflow.pyfunc.load_model(folder).predict(inputs)`, or `mlflow models serve -m FOLDER --env-manager local`.
"""


TO_BE_FILLED_IN = "(To be filled in: what the model is for, and what it must not be used for.)"


def intended_use_of(card: str) -> str:
    """Returns what a person wrote in a card on the intended use; the request to do so where nobody did."""
    _, _, rest = card.partition("\n## Intended use\n")
    return rest.partition("\n## Inputs and outputs\n")[0].strip() or TO_BE_FILLED_IN


def model_card(description: Mapping[str, Any], intended_use: str = TO_BE_FILLED_IN) -> str:
    """Returns the card, in Markdown, of an export with this description."""
    inputs = description["inputs"]
    outputs = description["outputs"]
    rows = [
        f"| {kind} | `{name}` | ({', '.join(map(str, array['shape']))}) | {array['dtype']} |"
        for kind, arrays in (("input", inputs), ("output", outputs))
        for name, array in arrays.items()
    ]
    test = {name: value for name, value in (description["test"] or {}).items() if name != "step"}
    members = [f"seed {m['seed']} at step {m['step']} (state {m['state'][:16]})" for m in description["run"]["members"]]
    return CARD.format(
        intended_use=intended_use,
        model=description["model"],
        task=description["task"],
        jaxtrain=f"jaxtrain {description['versions']['jaxtrain'] or ''}".strip(),
        written=description["written"],
        worst=max(max(outputs.values()) for outputs in description["check"]["worst"].values()),
        arrays="\n".join(rows),
        columns="".join(_columns(name, array.get("columns", ())) for name, array in inputs.items()),
        classes=_classes(description["class_names"]),
        numbers=_offset(outputs),
        metrics="\n".join(f"- {name}: {value}" for name, value in test.items()) or "None was measured.",
        rounded=", with its weights rounded to int8," if description["weights"] == "int8" else "",
        quality=_quality(description),
        readable_until=description["readable_until"],
        example=_example(inputs),
        onnx=ONNX.format(example=_example(description["onnx"]["inputs"])) if "onnx" in description else "",
        mlflow=MLFLOW if "MLmodel" in description["files"] else "",
        config=description["run"]["config"],
        members=", ".join(members),
    )


def _quality(description: Mapping[str, Any]) -> str:
    """Returns a table of what rounded weights cost."""
    if description["weights"] == "float32":
        return ""
    opening = f"\nThe weights are stored in {description['weights']}, and computed with as float32."
    quality = description["quality"]
    if quality is None:
        return f"{opening} What that costs was not measured.\n"
    rows = [f"| {name} | {value} | {quality['export'][name]} |" for name, value in quality["run"].items()]
    table = "\n".join(["| | the run | this export |", "|---|---|---|", *rows])
    return f"{opening} On the {quality['examples']} examples of the {quality['split']} split:\n\n{table}\n"


MOST_CLASSES = 100

MOST_COLUMNS = 100


def _columns(name: str, columns: Iterable[str]) -> str:
    """Says which columns of a table an input holds, in their order."""
    names = [f"`{printable(column)}`" for column in columns]
    if not names:
        return ""
    shown = ", ".join(names[:MOST_COLUMNS]) + (" ..." if len(names) > MOST_COLUMNS else "")
    return f"The columns of the input `{name}`: {shown}.\n\n"


def _classes(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:MOST_CLASSES]) + (" ..." if len(names) > MOST_CLASSES else "")
    return f"Classes, from 0: {shown}.\n\n" if names else ""


def _offset(outputs: Mapping[str, Any]) -> str:
    if "offset" not in outputs.get("numbers", {}):
        return ""
    return "`numbers` leave the program standardised: in float64, times `scale` plus `offset` of `model.json`.\n\n"


def _example(inputs: Mapping[str, Any]) -> str:
    """Returns the code of two examples of zeros, as the items of a dict."""
    return ", ".join(f'"{name}": np.zeros({_shape(array)}, "{array["dtype"]}")' for name, array in inputs.items())


def _shape(array: Mapping[str, Any]) -> tuple[int, ...]:
    """Returns the shape of two examples."""
    return (2, *array["shape"][1:])
