"""A simulator of ClickHouse: SQLite in memory, with the tables of the product's own migrations.

It reads the SQL that the product sends, a few words of ClickHouse's turned into SQLite's; whatever
it does not know is an error, never an answer. `test_simulators` runs schedules on it and on the
real engine side by side and compares each answer.
"""

import json
import re
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from hashlib import md5
from typing import Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from tollgate.core.clock import Clock, datetime_from_us, us_from_datetime
from tollgate.core.errors import PermanentFault
from tollgate.platform.clickhouse import DATABASE, BadRows
from tollgate.platform.clickhouse_schema import read_migrations, render

Rows = Sequence[Sequence[Any]]


class UnknownStatement(BaseException):
    """SQL that the simulator has no answer to: no code of ours may take it for a failure."""


class Store(Protocol):
    """What keeps rows: the simulator, or the real engine."""

    def query(self, sql: str, parameters: Mapping[str, object]) -> Rows: ...

    def command(self, sql: str, parameters: Mapping[str, object]) -> None: ...

    def insert(self, table: str, columns: Sequence[str], rows: bytes) -> None: ...

    def numbers(self, sql: str, parameters: Mapping[str, object]) -> npt.NDArray[np.uint64]:
        """The one column of a SELECT."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of a table: its type without parameters of storage, and whether it has a default."""

    name: str
    type: str
    default: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table as the migrations make it."""

    name: str
    columns: tuple[Column, ...]
    order: tuple[str, ...]
    partition: str

    def column(self, name: str) -> Column:
        return next(each for each in self.columns if each.name == name)


_TABLE = re.compile(
    r"CREATE TABLE (?:IF NOT EXISTS )?\w+\.(\w+)\s+\((.*?)\n\)\s*ENGINE = ([\w()]+)(.*)", re.DOTALL
)
_COLUMN = re.compile(
    r"(\w+) ([A-Z]\w*(?:\((?:[^()]|\([^()]*\))*\))?)(?: DEFAULT (.+?))?(?: CODEC\(.*)?"
)
_ADDED = re.compile(r"ALTER TABLE \w+\.(\w+)\s+ADD COLUMN (?:IF NOT EXISTS )?(.*)")
_ORDER = re.compile(r"ORDER BY \(?([\w,\s]+)\)?")
_PARTITION = re.compile(r"PARTITION BY (\w+)\(\w+\)")


def _column(text: str) -> Column:
    found = _COLUMN.fullmatch(re.sub(r"\s+(AFTER|FIRST)\b.*", "", text.strip().rstrip(",")))
    assert found is not None, f"the simulator can't read the column {text!r}"
    return Column(name=found[1], type=found[2], default=found[3] or "")


@cache
def tables() -> Mapping[str, Table]:
    """All tables, from the migrations."""
    found: dict[str, Table] = {}
    for statement in (s for m in read_migrations() for s in render(m.template)):
        if made := _TABLE.match(statement):
            lines = [line.strip() for line in made[2].splitlines()]
            kept = [line for line in lines if line and not line.startswith(("INDEX", "--"))]
            ordered, cut = _ORDER.search(made[4]), _PARTITION.search(made[4])
            assert ordered is not None, statement
            found[made[1]] = Table(
                name=made[1],
                columns=tuple(map(_column, kept)),
                order=tuple(re.findall(r"\w+", ordered[1])) if "Replacing" in made[3] else (),
                partition=cut[1] if cut else "",
            )
        elif added := _ADDED.match(statement):
            old = found[added[1]]
            found[old.name] = Table(
                name=old.name,
                columns=(*old.columns, _column(added[2])),
                order=old.order,
                partition=old.partition,
            )
    return found


_PLACEHOLDER = re.compile(r"\{(\w+):((?:[^{}])+)\}")
_FINAL = re.compile(rf"{DATABASE}\.(\w+) FINAL")
_SUM = re.compile(r"\bsum\((\w+)\)")
_NUMBER = "toUInt64(bitShiftRight(reinterpretAsUInt128(key_hash), 64))"
_DROP = f"ALTER TABLE {DATABASE}.event_keys DROP PARTITION {{partition:String}}"


@cache
def _translated(sql: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """SQLite's SQL, and the names and types of what is bound."""
    bound = tuple((m[1], m[2]) for m in _PLACEHOLDER.finditer(sql))

    def place(match: re.Match[str]) -> str:
        if match[2].startswith("Array("):
            return f"(SELECT value FROM json_each(:{match[1]}))"
        return f":{match[1]}"

    text = _PLACEHOLDER.sub(place, sql)
    text = _FINAL.sub(rf"{DATABASE}.\1_final", text)
    text = text.replace("system.parts", "parts").replace("count()", "count(*)")
    text = text.replace(" AND table = ", ' AND "table" = ')
    # The sum of nothing is 0 there, and NULL here.
    text = _SUM.sub(r"ifnull(sum(\1), 0)", text)
    text = text.replace(_NUMBER, "key_number")
    return text, bound


def _bound(kind: str, value: object) -> object:
    if kind.startswith("Array("):
        assert isinstance(value, list)
        return json.dumps(value)
    if kind.startswith("DateTime64"):
        moment = datetime.fromisoformat(str(value))
        return us_from_datetime(moment.replace(tzinfo=moment.tzinfo or UTC))
    return value


class _CountIf:
    """An aggregate that SQLite does not have."""

    def __init__(self) -> None:
        self.value = 0

    def step(self, value: int | None) -> None:
        self.value += bool(value)

    def finalize(self) -> int:
        return self.value


class _Any:
    """The first value of a group."""

    def __init__(self) -> None:
        self.value: Any = None

    def step(self, value: Any) -> None:
        self.value = value if self.value is None else self.value

    def finalize(self) -> Any:
        return self.value


def _hex(value: Any) -> str:
    return value.hex().upper() if isinstance(value, bytes) else str(value).upper()


def _date(microseconds: int) -> str:
    return f"{datetime_from_us(microseconds):%Y-%m-%d}"


_FUNCTIONS: Mapping[str, tuple[int, Callable[..., Any]]] = {
    "toUnixTimestamp64Micro": (1, lambda value: value),
    "fromUnixTimestamp64Micro": (2, lambda value, _zone: value),
    "toInt64": (1, lambda value: value),
    "toString": (1, lambda value: value),
    "toDate": (1, _date),
    "hex": (1, _hex),
}


class SimulatedStore:
    """Tables in memory. Rows that replace each other stay beside each other until `merge`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._db.execute(f"ATTACH ':memory:' AS {DATABASE}")
        for name, (arguments, function) in _FUNCTIONS.items():
            self._db.create_function(name, arguments, function, deterministic=True)
        self._db.create_aggregate("countIf", 1, _CountIf)
        self._db.create_aggregate("any", 1, _Any)
        for table in tables().values():
            columns = [each.name for each in table.columns]
            columns += ["_partition_id", "key_number"] if table.name == "event_keys" else []
            self._db.execute(f"CREATE TABLE {DATABASE}.{table.name} ({', '.join(columns)})")
            last = f" WHERE rowid IN ({self._last(table)})" if table.order else ""
            self._db.execute(
                f"CREATE VIEW {DATABASE}.{table.name}_final AS SELECT * FROM {table.name}{last}"
            )
        self._db.execute(
            "CREATE TEMP VIEW parts AS SELECT DISTINCT 'tollgate' AS database, 'event_keys' AS"
            " \"table\", true AS active, substr(_partition_id, 1, 4) || '-' ||"
            " substr(_partition_id, 5, 2) || '-' || substr(_partition_id, 7) AS partition"
            f" FROM {DATABASE}.event_keys"
        )

    @staticmethod
    def _last(table: Table) -> str:
        return f"SELECT max(rowid) FROM {table.name} GROUP BY {', '.join(table.order)}"

    def query(self, sql: str, parameters: Mapping[str, object]) -> Rows:
        return self._run(sql, parameters)

    def _run(self, sql: str, parameters: Mapping[str, object]) -> Rows:
        text, bound = _translated(sql)
        try:
            return self._db.execute(
                text, {name: _bound(kind, parameters[name]) for name, kind in bound}
            ).fetchall()
        except sqlite3.Error as problem:
            raise UnknownStatement(f"{sql!r}: {problem}") from problem

    def command(self, sql: str, parameters: Mapping[str, object]) -> None:
        if sql != _DROP:
            raise UnknownStatement(repr(sql))
        day = str(parameters["partition"]).replace("-", "")
        self._db.execute(f"DELETE FROM {DATABASE}.event_keys WHERE _partition_id = ?", (day,))

    def insert(self, table: str, columns: Sequence[str], rows: bytes) -> None:
        self.write(table, self.read_rows(table, columns, rows))

    def read_rows(self, table: str, columns: Sequence[str], rows: bytes) -> list[dict[str, Any]]:
        """Rows of an insert, all columns filled.

        Raises:
            BadRows: some row can't be read.
        """
        made = tables().get(table)
        if made is None:
            raise PermanentFault(f"there is no table {table}")
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
            return self._clock.now_us()
        return "" if _is_text(column.type) else 0

    def write(self, table: str, rows: Iterable[dict[str, Any]]) -> None:
        """Appends rows; what the views make of them comes after."""
        rows = list(rows)
        self.write_only(table, rows)
        if table == "events":
            self.write_only("event_keys", self.keys_of(rows))

    def write_only(self, table: str, rows: Sequence[dict[str, Any]]) -> None:
        """Appends rows to one table."""
        if rows:
            names = ", ".join(rows[0])
            places = ", ".join(f":{name}" for name in rows[0])
            sql = f"INSERT INTO {DATABASE}.{table} ({names}) VALUES ({places})"
            self._db.executemany(sql, rows)

    @staticmethod
    def keys_of(events: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """What the view `event_keys_of_events` makes of rows of `events`."""
        taken = [each.name for each in tables()["event_keys"].columns]
        content = ("type", "subject", "datacontenttype", "dataschema", "extensions", "data")
        return [
            {name: row.get(name) for name in taken}
            | {
                "content_hash": md5(
                    "\0".join(row[name] for name in content).encode(), usedforsecurity=False
                ).digest(),
                "_partition_id": _date(row["appended_at"]).replace("-", ""),
                "key_number": str(int(row["key_hash"][16:], 16)),
            }
            for row in events
            if not row["amendment"]
        ]

    def numbers(self, sql: str, parameters: Mapping[str, object]) -> npt.NDArray[np.uint64]:
        return np.array([int(number) for (number,) in self._run(sql, parameters)], np.uint64)

    def merge(self) -> None:
        """Drops rows that others have replaced, as the engine does whenever it likes."""
        for table in tables().values():
            if table.order:
                self._db.execute(
                    f"DELETE FROM {DATABASE}.{table.name} WHERE rowid NOT IN"
                    f" (SELECT max(rowid) FROM {DATABASE}.{table.name}"
                    f" GROUP BY {', '.join(table.order)})"
                )

    def close(self) -> None:
        self._db.close()


def _is_text(kind: str) -> bool:
    return not kind.startswith(("UInt", "Int", "DateTime", "Decimal"))


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
