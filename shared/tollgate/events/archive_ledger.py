"""Use case: copy the ledger's rows, with the times they were written, beside the archived records.

The records say what was sent; only the ledger says when it counted, which is what `asOf` asks for.
It is also what a replay is compared with. Rows are taken once loading has passed a file of records.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
from arro3.core import DataType

from tollgate import __version__
from tollgate.core.clock import Clock, datetime_from_us
from tollgate.core.errors import PermanentFault
from tollgate.events.archive_chain import (
    LEDGER,
    RECORDS,
    Chain,
    Entry,
    get_file,
    partition_folder,
    put_file,
)
from tollgate.events.archive_columns import INSTANT, Column, Rows, read_rows, write_columns
from tollgate.events.ledger import read_frontier
from tollgate.platform.clickhouse import DATABASE, ClickHouse
from tollgate.platform.objects import Objects

FORM = "tollgate.ledger.1"
_ROWS_MAX = 200_000
_DAY_US = 86_400_000_000
_SECOND_US = 1_000_000
_TYPES = {
    "UInt8": DataType.uint8(),
    "UInt16": DataType.uint16(),
    "UInt32": DataType.uint32(),
    "UInt64": DataType.uint64(),
    "String": DataType.string(),
    "LowCardinality(String)": DataType.string(),
    "DateTime('UTC')": INSTANT,
    "DateTime64(6, 'UTC')": INSTANT,
}
_EXPRESSIONS = {
    "DateTime('UTC')": "toInt64(toUnixTimestamp({name})) * 1000000",
    "DateTime64(6, 'UTC')": "toUnixTimestamp64Micro({name})",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Selection:
    """Which columns the ledger has, and how each is asked for."""

    columns: tuple[Column, ...]
    expressions: str

    def number_of(self, name: str) -> int:
        return [column.name for column in self.columns].index(name)


class LedgerArchiver:
    """Archives the ledger of one partition, step by step. Used by one thread."""

    def __init__(
        self, objects: Objects, clickhouse: ClickHouse, place: tuple[int, int], clock: Clock
    ) -> None:
        self._objects = objects
        self._clickhouse = clickhouse
        self._generation, self._partition = place
        self._clock = clock
        self._chain = Chain(objects, LEDGER, *place)
        self._known = False

    @property
    def frontier(self) -> int:
        """The last offset whose ledger is archived, as far as is known."""
        return self._chain.frontier

    def step(self, archived: int) -> Entry | None:
        """Archives the rows of some more records, if there are any to archive.

        Args:
            archived: last offset whose record is archived.

        Returns:
            what the manifest says of them; None if there is nothing to do yet.

        Raises:
            Transient: object storage or ClickHouse is away.
        """
        if not self._known:
            self._chain.look()
            self._known = True
        after = self._chain.frontier
        if archived <= after:
            return None
        loaded = read_frontier(self._clickhouse, self._generation, self._partition)
        records = Chain(self._objects, RECORDS, self._generation, self._partition)
        ends = [end for end in records.ends_after(after) if end <= loaded]
        return self._archive(after + 1, ends[-1]) if ends else None

    def _archive(self, begin: int, last: int) -> Entry:
        selection = _selection(self._clickhouse)
        rows = self._rows(selection, begin, last)
        if rows:
            offset = selection.number_of("log_offset")
            appended = selection.number_of("appended_at")
            day = rows[0][appended] // _DAY_US
            kept = [row for row in rows[:_ROWS_MAX] if row[appended] // _DAY_US == day]
            if len(kept) < len(rows):
                # A record's rows stay together.
                following = rows[len(kept)][offset]
                kept = [row for row in kept if row[offset] < following] or kept
                last = int(kept[-1][offset])
            rows = kept
        entry = self._entry(selection, rows, begin, last)
        stands = self._chain.append(entry)
        self._known = stands.last == entry.last
        return stands

    def _rows(self, selection: _Selection, begin: int, last: int) -> Sequence[Sequence[Any]]:
        """The ledger's rows in order; of what was written twice the first time, if still there."""
        return self._clickhouse.query(
            f"SELECT {selection.expressions} FROM {DATABASE}.ledger"
            " WHERE log_generation = {generation:UInt32} AND log_partition = {partition:UInt16}"
            " AND log_offset >= {begin:UInt64} AND log_offset <= {last:UInt64}"
            " ORDER BY log_offset, namespace, received_hour, ledger.stored_at"
            f" LIMIT 1 BY log_offset, namespace, received_hour LIMIT {_ROWS_MAX + 1}",
            {
                "generation": self._generation,
                "partition": self._partition,
                "begin": begin,
                "last": last,
            },
        )

    def _entry(
        self, selection: _Selection, rows: Sequence[Sequence[Any]], begin: int, last: int
    ) -> Entry:
        bare = Entry(
            kind=LEDGER,
            generation=self._generation,
            partition=self._partition,
            begin=begin,
            last=last,
            made_us=self._clock.now_us(),
            version=__version__,
        )
        if not rows:
            return bare
        values: dict[str, Any] = {}
        for column, of_one in zip(selection.columns, zip(*rows, strict=True), strict=True):
            values[column.name] = np.array(of_one) if column.is_number else of_one
        data = write_columns(selection.columns, values, {"form": FORM})
        counts: Counter[str] = Counter()
        for namespace, accepted in zip(
            values["namespace"], values["accepted"].tolist(), strict=True
        ):
            counts[namespace] += accepted
        appended, received = values["appended_at"], values["received_hour"]
        offsets = values["log_offset"]
        day = datetime_from_us(int(appended[0])).date()
        name = (
            f"{LEDGER}/{partition_folder(self._generation, self._partition)}/day={day}"
            f"/{offsets[0]}-{offsets[-1]}.parquet"
        )
        fields = {
            "file": put_file(self._objects, name, data),
            "size": len(data),
            "sha256": sha256(data).hexdigest(),
            "rows": len(rows),
            "records": len(np.unique(offsets)),
            "appended": (int(appended.min()), int(appended.max())),
            "received": (int(received.min()), int(received.max())),
            "namespaces": dict(sorted(counts.items())),
        }
        return Entry(**{name: getattr(bare, name) for name in bare.__struct_fields__} | fields)


def _selection(clickhouse: ClickHouse) -> _Selection:
    rows = clickhouse.query(
        "SELECT name, type FROM system.columns WHERE database = {database:String}"
        " AND table = 'ledger' AND default_kind != 'MATERIALIZED' ORDER BY position",
        {"database": DATABASE},
    )
    unknown = sorted(f"{name} {kind}" for name, kind in rows if kind not in _TYPES)
    if unknown or not rows:
        raise PermanentFault(f"the ledger has columns that can't be archived: {unknown}")
    return _Selection(
        columns=tuple(Column(name=name, type=_TYPES[kind]) for name, kind in rows),
        expressions=", ".join(
            _EXPRESSIONS.get(kind, "{name}").format(name=name) for name, kind in rows
        ),
    )


class ArchivedTimes:
    """When the records of a partition were loaded, in the order of the log."""

    def __init__(self, objects: Objects, generation: int, partition: int) -> None:
        """Reads nothing yet."""
        self._objects = objects
        self._entries = Chain(objects, LEDGER, generation, partition).entries()
        self._known: dict[tuple[int, str, int], int] = {}
        self._through = -1
        self._after = -1

    def begin_after(self, offset: int) -> None:
        """What is not asked for any more."""
        self._after = offset

    def through(self, offset: int) -> dict[tuple[int, str, int], int]:
        """Microseconds by offset, namespace and received hour in seconds, as far as archived.

        Args:
            offset: up to which they are needed. Whoever asks takes out what is done with.

        Raises:
            Transient: object storage is away.
            PermanentFault: a file is gone or damaged.
        """
        while self._through < offset and (entry := next(self._entries, None)) is not None:
            self._through = entry.last
            if entry.is_gap or entry.last <= self._after:
                continue
            rows = read_rows(get_file(self._objects, entry))
            keys = zip(
                rows.numbers("log_offset").tolist(),
                rows.texts("namespace"),
                (rows.numbers("received_hour") // _SECOND_US).tolist(),
                strict=True,
            )
            self._known |= zip(keys, rows.numbers("stored_at").tolist(), strict=True)
        return self._known


def ledger_files(objects: Objects, generation: int, partition: int) -> Iterator[tuple[Entry, Rows]]:
    """The archived ledger of a partition, a file at a time; gaps are left out.

    Raises:
        Transient: object storage is away.
        PermanentFault: a file is gone or damaged.
    """
    for entry in Chain(objects, LEDGER, generation, partition).entries():
        if not entry.is_gap:
            yield entry, read_rows(get_file(objects, entry))
