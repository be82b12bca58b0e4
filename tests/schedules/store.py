"""A simulator of ClickHouse: SQLite in memory, with the tables of the product's own migrations.

It reads the SQL that the product sends, a few words of ClickHouse's turned into SQLite's (`sql`);
whatever it does not know ends the run and is never answered. Schedules that run on it and on the
real engine side by side compare each answer.
"""

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from hashlib import md5
from typing import Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from tests.schedules.schema import Column, Table, schema
from tests.schedules.sql import (
    AGGREGATES,
    FUNCTIONS,
    bound_value,
    to_signed,
    to_unsigned,
    translated,
)
from tollgate.core.clock import Clock, us_from_datetime
from tollgate.events.identity import key_prefix
from tollgate.events.rebuild import partition_of_day
from tollgate.platform.clickhouse import DATABASE, BadRows

Rows = Sequence[Sequence[Any]]
Row = dict[str, Any]
_DAY_US = 86_400_000_000
_DROP = f"ALTER TABLE {DATABASE}.event_keys DROP PARTITION {{partition:String}}"
# What is as large as 64 bits without a sign, which SQLite has no room for.
_UNSIGNED = ("key", "digest")


class UnknownStatement(BaseException):
    """SQL that the simulator has no answer to: no code of ours may take it for a failure."""


class Store(Protocol):
    """What keeps rows: the simulator, or the real engine."""

    def query(
        self,
        sql: str,
        parameters: Mapping[str, object],
        settings: Mapping[str, object] | None = None,
    ) -> Rows: ...

    def command(self, sql: str, parameters: Mapping[str, object]) -> None: ...

    def insert(self, table: str, columns: Sequence[str], rows: bytes) -> None: ...

    def numbers(self, sql: str, parameters: Mapping[str, object]) -> npt.NDArray[np.uint64]:
        """The one column of a SELECT."""
        ...


class SimulatedStore:
    """Tables in memory. Rows that replace each other stay beside each other until `merge`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tables = schema().tables
        unknown = schema().views ^ {name for views in VIEWS.values() for name in views}
        assert not unknown, f"the simulator does not know the views {unknown}"
        self._db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._db.execute(f"ATTACH ':memory:' AS {DATABASE}")
        for name, arguments, function in FUNCTIONS:
            self._db.create_function(name, arguments, function, deterministic=True)
        for name, arguments, kind in AGGREGATES:
            self._db.create_aggregate(name, arguments, kind)
        for table in self._tables.values():
            columns = [each.name for each in table.columns]
            columns += ["_partition_id"] if table.name == "event_keys" else []
            self._db.execute(f"CREATE TABLE {DATABASE}.{table.name} ({', '.join(columns)})")
            last = f" WHERE rowid IN ({_last(table)})" if table.order else ""
            self._db.execute(
                f"CREATE VIEW {DATABASE}.{table.name}_final AS SELECT * FROM {table.name}{last}"
            )
        self._db.execute(
            "CREATE TEMP VIEW parts AS SELECT DISTINCT 'tollgate' AS database, 'event_keys' AS"
            " \"table\", true AS active, substr(_partition_id, 1, 4) || '-' ||"
            " substr(_partition_id, 5, 2) || '-' || substr(_partition_id, 7) AS partition"
            f" FROM {DATABASE}.event_keys"
        )

    def query(
        self,
        sql: str,
        parameters: Mapping[str, object],
        settings: Mapping[str, object] | None = None,
    ) -> Rows:
        del settings
        cursor = self._run(sql, parameters)
        rows = cursor.fetchall()
        wide = [n for n, column in enumerate(cursor.description) if column[0] in _UNSIGNED]
        if not wide:
            return rows
        return [
            tuple(to_unsigned(value) if n in wide else value for n, value in enumerate(row))
            for row in rows
        ]

    def _run(self, sql: str, parameters: Mapping[str, object]) -> sqlite3.Cursor:
        text, bound = translated(sql)
        values = {name: bound_value(kind, parameters[name]) for name, kind in bound}
        try:
            return self._db.execute(text, values)
        except sqlite3.Error as problem:
            raise UnknownStatement(f"{sql!r}: {problem}") from problem

    def command(self, sql: str, parameters: Mapping[str, object]) -> None:
        if sql.startswith(f"INSERT INTO {DATABASE}."):
            self._run(sql, parameters)
            return
        if sql != _DROP:
            raise UnknownStatement(repr(sql))
        day = str(parameters["partition"]).replace("-", "")
        self._db.execute(f"DELETE FROM {DATABASE}.event_keys WHERE _partition_id = ?", (day,))

    def insert(self, table: str, columns: Sequence[str], rows: bytes) -> None:
        read = self._read_rows(table, columns, rows)
        for step in self._steps(table):
            step(read)

    def insert_one(self, table: str, columns: Sequence[str], rows: bytes, number: int) -> None:
        """One step of an insert: into the table, or into what a view of it fills."""
        self._steps(table)[number](self._read_rows(table, columns, rows))

    def _steps(self, table: str) -> list[Callable[[Sequence[Row]], None]]:
        own = [partial(self._write, table)] if self._tables[table].keeps else []
        return [*own, *(partial(self._fill, view) for view in VIEWS.get(table, ()))]

    def _read_rows(self, table: str, columns: Sequence[str], rows: bytes) -> list[Row]:
        """Rows of an insert, all columns filled.

        Raises:
            BadRows: some row can't be read.
        """
        made = self._tables[table]
        given = [made.column(name) for name in columns]
        defaults = {each.name: self._default(each) for each in made.columns}
        found = []
        for line in rows.splitlines():
            values = msgspec.json.decode(line)
            if len(values) != len(given):
                raise BadRows(f"{len(values)} values for {len(given)} columns")
            try:
                read = {c.name: _read(c, value) for c, value in zip(given, values, strict=True)}
            except (TypeError, ValueError) as problem:
                raise BadRows(str(problem)) from problem
            found.append(defaults | read)
        return found

    def _default(self, column: Column) -> Any:
        if column.default.startswith("now64"):
            unit = 10 ** (6 - int(column.default[6]))
            return self._clock.now_us() // unit * unit
        return "" if _is_text(column.type) else 0

    def _write(self, table: str, rows: Sequence[Row]) -> None:
        if rows:
            names = ", ".join(rows[0])
            places = ", ".join(f":{name}" for name in rows[0])
            sql = f"INSERT INTO {DATABASE}.{table} ({names}) VALUES ({places})"
            self._db.executemany(sql, rows)

    def _fill(self, view: str, rows: Iterable[Row]) -> None:
        target, made = _MAKERS[view](rows)
        columns = [each.name for each in self._tables[target].columns]
        more = ["_partition_id"] if target == "event_keys" else []
        self._write(target, [{n: row.get(n) for n in (*columns, *more)} for row in made])

    def numbers(self, sql: str, parameters: Mapping[str, object]) -> npt.NDArray[np.uint64]:
        return np.array([row[0] for row in self.query(sql, parameters)], np.uint64)

    def merge(self) -> None:
        """Drops rows that others have replaced, as the engine does whenever it likes."""
        for table in self._tables.values():
            if table.order:
                self._db.execute(
                    f"DELETE FROM {DATABASE}.{table.name} WHERE rowid NOT IN"
                    f" ({_last(table, f'{DATABASE}.')})"
                )

    def close(self) -> None:
        """Forgets all."""
        self._db.close()


def _last(table: Table, database: str = "") -> str:
    return f"SELECT max(rowid) FROM {database}{table.name} GROUP BY {', '.join(table.order)}"


def _events_of_arrivals(rows: Iterable[Row]) -> tuple[str, list[Row]]:
    return "events", list(rows)


def _event_keys_of_arrivals(rows: Iterable[Row]) -> tuple[str, list[Row]]:
    made = []
    for row in rows:
        if row["amendment"]:
            continue
        day = row["appended_at"] // _DAY_US
        made.append(
            row
            | {
                "key": to_signed(int(row["key_hash"][16:], 16)),
                "digest": to_signed(_digest(row)),
                "appended_on": day,
                "_partition_id": partition_of_day(day),
            }
        )
    return "event_keys", made


def _digest(row: Row) -> int:
    source = row["source"]
    texts = (
        f"{key_prefix(row['namespace'])}{len(source.encode())}:{source}{row['id']}",
        str(row["time"]) if row["time_given"] else "",
        *(row[n] for n in ("type", "subject", "datacontenttype", "dataschema")),
        *(row[n] for n in ("extensions", "data")),
    )
    hashed = md5("\0".join(texts).encode(), usedforsecurity=False).digest()
    return int.from_bytes(hashed[:8], "little")


def _ledger_commits_of_ledger(rows: Iterable[Row]) -> tuple[str, list[Row]]:
    last: dict[tuple[int, int, int], Row] = {}
    for row in rows:
        key = (row["log_generation"], row["log_partition"], row["stored_at"])
        if key not in last or last[key]["log_offset"] < row["log_offset"]:
            last[key] = row
    return "ledger_commits", list(last.values())


_MAKERS: Mapping[str, Callable[[Iterable[Row]], tuple[str, list[Row]]]] = {
    "events_of_arrivals": _events_of_arrivals,
    "event_keys_of_arrivals": _event_keys_of_arrivals,
    "ledger_commits_of_ledger": _ledger_commits_of_ledger,
}
VIEWS: Mapping[str, tuple[str, ...]] = {
    "arrivals": ("events_of_arrivals", "event_keys_of_arrivals"),
    "ledger": ("ledger_commits_of_ledger",),
}


def _is_text(kind: str) -> bool:
    return not kind.startswith(("UInt", "Int", "Date", "Decimal"))


def _read(column: Column, value: Any) -> Any:
    if column.type.startswith("DateTime64"):
        seconds, _, fraction = str(value).partition(".")
        if seconds.lstrip("-").isdigit():
            return int(seconds) * 1_000_000 + int(fraction.ljust(6, "0"))
        return us_from_datetime(datetime.fromisoformat(str(value)).replace(tzinfo=UTC))
    if column.type == "UUID":
        if len(str(value)) != 32:
            raise ValueError(f"{value!r} is no UUID")
        return str(value)
    if not isinstance(value, str if _is_text(column.type) else int):
        raise TypeError(f"{value!r} is no {column.type}")
    return value
