"""Files by which MLflow loads and serves an export: `MLmodel`, requirements, and the code that predicts.

They are written by hand, so that nothing of MLflow is needed: `mlflow.pyfunc.load_model` and `mlflow models serve
--env-manager local` read them.
"""

import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtrain.export import exported_model
from jaxtrain.export.to_onnx.names import REMAINDER
from jaxtrain.files import read_text

MODEL = "MLmodel"

CODE = "code"

PYTHON_ENVIRONMENT = "python_env.yaml"

REQUIREMENTS = "requirements.txt"

NAMES = (MODEL, CODE, PYTHON_ENVIRONMENT, REQUIREMENTS)
"""Files and folders of MLflow in the directory of an export."""

MODEL_TEXT = """\
flavors:
  python_function:
    code: {code}
    env:
      virtualenv: python_env.yaml
    loader_module: {module}
    python_version: {python}
metadata: {metadata}
signature:
  inputs: '{inputs}'
  outputs: '{outputs}'
"""

ENVIRONMENT_TEXT = """\
python: "{python}"
build_dependencies:
- pip
dependencies:
- -r requirements.txt
"""

REQUIREMENTS_TEXT = """\
flatbuffers
jax>={jax}
mlflow
numpy
"""


def mlflow_files(description: Mapping[str, Any]) -> dict[str, bytes]:
    """Returns {path in the export: content} for an export with this description, as in `model.json`."""
    python = platform.python_version()
    module = exported_model.__name__.rpartition(".")[2]
    metadata = {key: description[key] for key in ("task", "model", "class_names")}
    model = MODEL_TEXT.format(
        code=CODE,
        module=module,
        python=python,
        metadata=json.dumps(metadata, ensure_ascii=False),
        inputs=_quoted(_describe_inputs(description["inputs"])),
        outputs=_quoted([_tensor(array, name) for name, array in description["outputs"].items()]),
    )
    texts = {
        MODEL: model,
        PYTHON_ENVIRONMENT: ENVIRONMENT_TEXT.format(python=python),
        REQUIREMENTS: REQUIREMENTS_TEXT.format(jax=description["versions"]["jax"]),
        f"{CODE}/{module}.py": read_text(Path(exported_model.__file__)),
    }
    return {name: text.encode() for name, text in texts.items()}


def _describe_inputs(inputs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the signature of the inputs: columns of a table, or one array without a name.

    Numbers are of "any" type: as "double", MLflow would refuse whole numbers, which data frames hold as integers.
    """
    if not any("columns" in array for array in inputs.values()):
        name, array = next(iter(inputs.items()))
        return [_tensor(array | ({"dtype": "float64"} if name + REMAINDER in inputs else {}))]
    numbers = inputs.get("numbers", {}).get("columns", ())
    categories = inputs.get("codes", {}).get("columns", ())
    kinds = {**dict.fromkeys(numbers, "any"), **dict.fromkeys(categories, "string")}
    return [{"type": kind, "name": name, "required": True} for name, kind in kinds.items()]


def _tensor(array: Mapping[str, Any], name: str = "") -> dict[str, Any]:
    dtype = "float64" if "offset" in array else array["dtype"]
    described = {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": [-1, *array["shape"][1:]]}}
    return described | ({"name": name} if name else {})


def _quoted(signature: list[dict[str, Any]]) -> str:
    """Returns JSON inside single quotes of YAML, where one is written twice."""
    return json.dumps(signature).replace("'", "''")
