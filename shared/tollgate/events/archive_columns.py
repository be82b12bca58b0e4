"""Columns of the archive's files: Arrow arrays from Python's values and back, and Parquet of them.

A file holds one row group, packed with zstd. What all files have says their key-value metadata.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from arro3.core import (
    Array,
    DataType,
    RecordBatch,
    dictionary_dictionary,
    dictionary_indices,
)
from arro3.io import read_parquet, write_ipc_stream, write_parquet

from tollgate import __version__

_PACKED = "zstd(1)"
_BATCH_ROWS = 1 << 25
_DICTIONARY = DataType.dictionary(DataType.int32(), DataType.string())
INSTANT = DataType.timestamp("us", tz="UTC")
_US_DIGITS = 16
_POINT = 10
_POWERS = 10 ** np.arange(_US_DIGITS - 1, -1, -1, dtype=np.int64)
_FIRST_US = 10 ** (_US_DIGITS - 1)
_LAST_US = 10**_US_DIGITS - 1
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column.

    Attributes:
        name: of the column.
        type: of its values.
        distinct: whether values hardly repeat: a dictionary of them would only cost. Numbers are
            kept as differences then.
    """

    name: str
    type: DataType
    distinct: bool = False

    @property
    def is_number(self) -> bool:
        """Whether it is kept as a numpy array, not as a list."""
        return DataType.is_numeric(self.type) or DataType.is_temporal(self.type)


Values = Mapping[str, npt.NDArray[Any] | Sequence[str] | Sequence[bytes]]


def write_columns(
    columns: Sequence[Column], values: Values, facts: Mapping[str, str | int]
) -> bytes:
    """A Parquet file; the same bytes from the same values and the same release of the writer.

    Args:
        columns: in order.
        values: of each column; instants in microseconds since the epoch.
        facts: what the file says of itself.
    """
    arrays = [_array(column, values[column.name]) for column in columns]
    batch = RecordBatch.from_arrays(arrays, names=[column.name for column in columns])
    target = io.BytesIO()
    write_parquet(
        batch,
        target,
        compression=_PACKED,
        column_dictionary_enabled={c.name: False for c in columns if c.distinct},
        column_encoding={
            c.name: "delta_binary_packed" for c in columns if c.distinct and c.is_number
        },
        max_row_group_size=max(1, batch.num_rows),
        write_batch_size=8192,
        # One pair: the writer has no order of several.
        key_value_metadata={"tollgate": msgspec.json.encode(facts).decode()},
        skip_arrow_metadata=True,
        created_by=f"tollgate {__version__}",
    )
    return target.getvalue()


def _array(column: Column, values: object) -> Array:
    if column.is_number:
        numbers = np.asarray(values)
        if DataType.is_temporal(column.type):
            numbers = numbers.astype(np.int64)
        return Array.from_numpy(numbers).cast(column.type)
    found: Array = Array(values, type=column.type)  # type: ignore[call-overload]  # a sequence
    return found


class Rows:
    """Rows of a file, read back."""

    def __init__(self, batch: RecordBatch) -> None:
        self._batch = batch

    def __len__(self) -> int:
        return self._batch.num_rows

    @property
    def names(self) -> list[str]:
        """Of all columns."""
        return self._batch.column_names

    def slice(self, first: int, count: int) -> "Rows":
        """Some of the rows, in the same memory."""
        return Rows(self._batch.slice(first, count))

    def numbers(self, name: str) -> Ints:
        """A column of numbers; instants in microseconds since the epoch."""
        column = self._batch.column(name)
        if DataType.is_temporal(column.type):
            column = column.cast(DataType.int64())
        found: Ints = column.to_numpy()
        return found

    def texts(self, name: str) -> list[str]:
        """A column of texts that hardly repeat."""
        found: list[str] = self._batch.column(name).to_pylist()  # type: ignore[assignment]
        return found

    def binaries(self, name: str) -> list[bytes]:
        """A column of bytes."""
        found: list[bytes] = self._batch.column(name).to_pylist()  # type: ignore[assignment]
        return found

    def distinct_texts(self, name: str) -> tuple[list[str], Ints]:
        """The texts that a column has, and for each row which of them it is."""
        packed = self._batch.column(name).cast(_DICTIONARY)
        values: list[str] = dictionary_dictionary(packed).to_pylist()  # type: ignore[assignment]
        return values, dictionary_indices(packed).to_numpy().astype(np.int64)

    def repeated_texts(self, name: str) -> list[str]:
        """A column of texts that repeat: each is made once, which is five times as fast."""
        values, which = self.distinct_texts(name)
        if len(values) == 1:
            return values * len(which)
        found: list[str] = np.array(values, object)[which].tolist()
        return found

    def arrow_stream(
        self, names: Mapping[str, str], chosen: npt.NDArray[np.bool_] | None = None
    ) -> bytes:
        """The rows in the form that stores read as it is.

        Args:
            names: of the columns to give, and what each is called there.
            chosen: which rows; None: all.
        """
        batch = RecordBatch.from_arrays(
            [self._batch.column(name) for name in names], names=list(names.values())
        )
        if chosen is not None and not chosen.all():
            batch = batch.take(Array.from_numpy(np.flatnonzero(chosen).astype(np.uint32)))
        target = io.BytesIO()
        write_ipc_stream(batch, target, compression=None)
        return target.getvalue()


def read_rows(data: bytes) -> Rows:
    """All rows of a file.

    Raises:
        OSError, ValueError: it is no Parquet file.
    """
    batches = list(read_parquet(data, batch_size=_BATCH_ROWS))
    if len(batches) == 1:
        return Rows(batches[0])
    raise ValueError(f"a file of the archive has {len(batches)} row groups")


def instants_of(texts: Sequence[str]) -> Ints | None:
    """Microseconds of texts such as `1793620800.000123`; None if one is of another form."""
    joined = "".join(texts).encode()
    width = _US_DIGITS + 1
    if len(joined) != width * len(texts):
        return None
    digits = np.frombuffer(joined, np.uint8).reshape(-1, width)
    if not (digits[:, _POINT] == ord(".")).all():
        return None
    digits = np.delete(digits, _POINT, 1)
    if not ((digits >= ord("0")) & (digits <= ord("9"))).all():
        return None
    found: Ints = (digits.astype(np.int64) - ord("0")) @ _POWERS
    return found


def texts_of(instants: Ints) -> list[str] | None:
    """The inverse of `instants_of`; None if an instant has no such text."""
    if len(instants) and (instants.min() < _FIRST_US or instants.max() > _LAST_US):
        return None
    digits = (instants[:, None] // _POWERS) % 10 + ord("0")
    text = np.insert(digits, _POINT, ord("."), axis=1).astype(np.uint8).tobytes().decode()
    width = _US_DIGITS + 1
    return [text[at : at + width] for at in range(0, len(text), width)]
