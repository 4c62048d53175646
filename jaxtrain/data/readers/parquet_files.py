"""A source of Parquet files: tables, or images in a column."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from jaxtrain.config.schema import Name
from jaxtrain.data.readers.columns import MISSING, ColumnTypes
from jaxtrain.data.readers.parquet_columns import as_array, is_image, opened
from jaxtrain.data.readers.records import Records, Roles, inputs_alone, read_source
from jaxtrain.data.source import SPLITS, Source, missing as missing_files
from jaxtrain.data.tables import Kind, Places, Table
from jaxtrain.errors import DataError, Words, nearest
from jaxtrain.files import is_directory, list_directory
