"""Sources that need no download: small real data sets that come with scikit-learn, and the source code of Python."""

import gzip
import sysconfig
import zlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from jaxtrain.config.schema import Count
from jaxtrain.data.source import Source, Split
from jaxtrain.data.texts import Text
from jaxtrain.errors import DataError, Words
from jaxtrain.files import list_directory, read_bytes


def digits(path: Path) -> Source:
    """Handwritten digits: 1,797 grey images of 8x8 pixels, 10 classes; embedded.

    Inputs (1797, 8, 8, 1) uint8 in 0..16, targets (1797,) int32.
    """
    table, file = _read("digits.csv.gz", delimiter=",")
    images = table[:, :-1].astype(np.uint8).reshape(-1, 8, 8, 1)
    return Source({"train": Split(images, table[:, -1].astype(np.int32), file)}, classes=10)


def breast_cancer(path: Path) -> Source:
    """Breast tumours: 569 rows of 30 measurements, malignant (0) or benign (1); embedded.

    Inputs (569, 30) float32, targets (569,) int32.
    """
    table, file = _read("breast_cancer.csv", delimiter=",", skiprows=1)
    inputs = table[:, :-1].astype(np.float32)
    targets = table[:, -1].astype(np.int32)
    return Source({"train": Split(inputs, targets, file)}, classes=2)


def diabetes(path: Path) -> Source:
    """Diabetes: 442 patients with 10 measurements, and the progression of the disease after a year; embedded.

    Inputs (442, 10) float32 in their own units, targets (442,) float32.
    """
    inputs, file = _read("diabetes_data_raw.csv.gz")
    targets, targets_file = _read("diabetes_target.csv.gz")
    split = Split(inputs.astype(np.float32), targets.astype(np.float32), file, targets_file)
    return Source({"train": split})


def python_source(path: Path, context: Count = 128, stride: Count | None = None) -> Source:
    """The source code of Python's standard library, as bytes: the modules of one file, in the order of names; embedded.

    Inputs and targets are windows of `context` bytes, as those of `text`. The text is that of the Python that runs, so
    another release gives other data.
    """
    folder = Path(sysconfig.get_path("stdlib"))
    modules = [read_bytes(folder / name) for name in list_directory(folder) if name.endswith(".py")]
    if not modules:
        raise DataError(str(folder), Words("no .py files"), "the standard library of Python")
    content = np.frombuffer(b"".join(modules), np.uint8)
    return Source({"train": Split(Text(content, context, stride=stride), None, str(folder))})


def _read(name: str, delimiter: str | None = None, skiprows: int = 0) -> tuple[np.ndarray, str]:
    """Returns one of scikit-learn's tables as float64, and its file, without the slow import of scikit-learn."""
    spec = find_spec("sklearn")
    if spec is None or not spec.submodule_search_locations:
        got = Words("no installed scikit-learn")
        expected = "the package that holds these data"
        raise DataError(name, got, expected, "Run pip install scikit-learn")
    file = Path(spec.submodule_search_locations[0], "datasets", "data", name)
    content = read_bytes(file)
    try:
        text = (gzip.decompress(content) if name.endswith(".gz") else content).decode()
        rows = text.splitlines()[skiprows:]
        if not rows:
            raise ValueError("it has no rows")
        return np.loadtxt(rows, delimiter=delimiter), str(file)
    except (OSError, EOFError, zlib.error, ValueError) as error:  # the errors of gzip are OSErrors
        got = Words(f"a file that cannot be read ({error})")
        raise DataError(str(file), got, "a table of scikit-learn", "Install scikit-learn again") from error
