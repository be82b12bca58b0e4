"""Use case: the events of one store into another, so that both say the same.

Rows are copied as they are, `stored_at` included, a day of appending at a time. A row is the same
row wherever it is written, so a day that was cut off is copied again as a whole. Days that are
equal are left out: their digests are compared, which is also the proof at the end.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tollgate.core.errors import Conflict, PermanentFault
from tollgate.platform.clickhouse import DATABASE, ClickHouse, translated

TABLES = ("event_outcomes", "event_corrections", "ledger", "event_keys", "events")
_DAYS = dict.fromkeys(TABLES, "toDate(appended_at)") | {"event_keys": "appended_on"}
_FORMAT = "JSONCompactEachRow"
_BLOCK_BYTES = 16 << 20
_READ_BYTES = 1 << 20
_ERRORS = (OSError, RuntimeError)
Digests = dict[str, tuple[int, int]]
"""By day: how many rows, and the sum of their hashes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A day on which two stores do not hold the same rows."""

    table: str
    day: str
    rows: int
    rows_there: int


def require_room(source: ClickHouse, target: ClickHouse, generation: int) -> None:
    """Makes sure that the target has no record that the source has not.

    Args:
        source: where rows come from.
        target: where they go.
        generation: newest of the source; younger ones in the target are of its own log.

    Raises:
        Conflict: it has.
    """
    known = _ends(source)
    for (number, partition), end in _ends(target).items():
        if number <= generation and end > known.get((number, partition), -1):
            raise Conflict(
                f"the target holds records of generation {number}, partition {partition}, up to"
                f" offset {end}, which are not this folder's: migrate into an empty one"
            )


def _ends(clickhouse: ClickHouse) -> dict[tuple[int, int], int]:
    rows = clickhouse.query(
        "SELECT log_generation, log_partition, toInt64(max(log_offset))"
        f" FROM {DATABASE}.ledger GROUP BY log_generation, log_partition"
    )
    return {(int(row[0]), int(row[1])): int(row[2]) for row in rows}


def differences(source: ClickHouse, target: ClickHouse, generation: int) -> Iterator[Difference]:
    """Days whose rows differ; of the target only those up to a generation count.

    Raises:
        Transient: a store is away.
        PermanentFault: their tables differ.
    """
    for table in TABLES:
        columns = _columns(source, table)
        if columns != _columns(target, table):
            raise PermanentFault(f"the tables {table} of both stores have other columns")
        here = _digests(source, table, columns, generation)
        there = _digests(target, table, columns, generation)
        for day in sorted(here.keys() | there.keys()):
            mine, theirs = here.get(day, (0, 0)), there.get(day, (0, 0))
            if mine != theirs:
                yield Difference(table=table, day=day, rows=mine[0], rows_there=theirs[0])


def copy_day(source: ClickHouse, target: ClickHouse, table: str, day: str) -> None:
    """Copies what was appended on a day; again, it changes nothing.

    Raises:
        Transient: a store is away; some of it may be copied.
    """
    columns = _columns(source, table)
    for block in _blocks(source, table, columns, day):
        target.insert(table, columns, block)


def _blocks(source: ClickHouse, table: str, columns: list[str], day: str) -> Iterator[bytes]:
    """Rows of a day in pieces that end with a row."""
    names = ", ".join(columns)
    sql = (
        f"SELECT {names} FROM {DATABASE}.{table} FINAL"
        f" WHERE toString({_DAYS[table]}) = {{day:String}}"
    )
    try:
        stream: Any = source.client().raw_stream(sql, parameters={"day": day}, fmt=_FORMAT)
    except _ERRORS as problem:
        raise translated(problem) from problem
    rest = b""
    with stream:
        while True:
            try:
                piece = stream.read(_READ_BYTES)
            except _ERRORS as problem:
                raise translated(problem) from problem
            rest += piece
            if not piece:
                break
            if len(rest) >= _BLOCK_BYTES:
                block, mark, rest = rest.rpartition(b"\n")
                yield block + mark
    if rest:
        yield rest


def _columns(clickhouse: ClickHouse, table: str) -> list[str]:
    rows = clickhouse.query(
        "SELECT name FROM system.columns WHERE database = {database:String}"
        " AND table = {table:String} AND default_kind != 'MATERIALIZED' ORDER BY position",
        {"database": DATABASE, "table": table},
    )
    return [str(row[0]) for row in rows]


def _digests(clickhouse: ClickHouse, table: str, columns: list[str], generation: int) -> Digests:
    row = f"cityHash64({', '.join(columns)})"
    rows = clickhouse.query(
        f"SELECT toString({_DAYS[table]}) AS day, count(), sum({row})"
        f" FROM {DATABASE}.{table} FINAL"
        " WHERE log_generation <= {generation:UInt32} GROUP BY day",
        {"generation": generation},
    )
    return {str(row[0]): (int(row[1]), int(row[2])) for row in rows}


def count_events(clickhouse: ClickHouse, generation: int) -> int:
    """Events up to a generation, amendments left out."""
    ((count,),) = clickhouse.query(
        "SELECT count() FROM (SELECT DISTINCT log_generation, log_partition, log_offset, log_index"
        f" FROM {DATABASE}.events WHERE amendment = 0"
        " AND log_generation <= {generation:UInt32})",
        {"generation": generation},
    )
    return int(count)
