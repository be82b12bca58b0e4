"""ClickHouse's SQL in SQLite's words, as far as the product's loaders and sealers speak it."""

import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

from tollgate.core.clock import datetime_from_us, us_from_datetime
from tollgate.platform.clickhouse import DATABASE

_PLACEHOLDER = re.compile(r"\{(\w+):((?:[^{}])+)\}")
_FINAL = re.compile(rf"{DATABASE}\.(\w+) FINAL")
_SUM = re.compile(r"\bsum\((\w+)\)")
_IF = re.compile(r"\bif\(")
_FIRST_BY = re.compile(r"ORDER BY ([\w, ]+) LIMIT 1 BY ([\w, ]+)$")
_MANY_BY = re.compile(r" LIMIT \d{4,} BY \w+$")
_SIGN = 1 << 63


@cache
def translated(sql: str) -> tuple[str, tuple[tuple[str, str], ...]]:
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
    text = _IF.sub("iif(", text)
    text = _FIRST_BY.sub(r"GROUP BY \2 ORDER BY \1", text)
    text = _MANY_BY.sub("", text)
    if " LIMIT 1 UNION ALL " in text:
        pieces = text.split(" UNION ALL ")
        text = " UNION ALL ".join(f"SELECT * FROM ({piece})" for piece in pieces)
    return text, bound


def bound_value(kind: str, value: object) -> object:
    """A value as SQLite takes it."""
    if kind == "Array(UInt64)":
        assert isinstance(value, list)
        return json.dumps([to_signed(each) for each in value])
    if kind.startswith("Array("):
        assert isinstance(value, list)
        return json.dumps(value)
    if kind.startswith("DateTime64"):
        moment = datetime.fromisoformat(str(value))
        return us_from_datetime(moment.replace(tzinfo=moment.tzinfo or UTC))
    return value


def to_signed(value: int) -> int:
    """64 bits without a sign as SQLite keeps them."""
    return value - 2 * _SIGN if value >= _SIGN else value


def to_unsigned(value: int) -> int:
    """The reverse."""
    return value + 2 * _SIGN if value < 0 else value


class _CountIf:
    def __init__(self) -> None:
        self.value = 0

    def step(self, value: int | None) -> None:
        self.value += bool(value)

    def finalize(self) -> int:
        return self.value


class _Any:
    def __init__(self) -> None:
        self.value: Any = None

    def step(self, value: Any) -> None:
        self.value = value if self.value is None else self.value

    def finalize(self) -> Any:
        return self.value


class _UniqExact:
    def __init__(self) -> None:
        self.values: set[Any] = set()

    def step(self, value: Any, condition: int | None = 1) -> None:
        if condition:
            self.values.add(value)

    def finalize(self) -> int:
        return len(self.values)


def _same(value: Any) -> Any:
    return value


def _hex(value: Any) -> str:
    return value.hex().upper() if isinstance(value, bytes) else str(value).upper()


def _date(microseconds: int) -> str:
    return f"{datetime_from_us(microseconds):%Y-%m-%d}"


FUNCTIONS: Sequence[tuple[str, int, Callable[..., Any]]] = (
    # The greatest of nothing is 0 there.
    ("toUnixTimestamp64Micro", 1, lambda value: value or 0),
    ("fromUnixTimestamp64Micro", 2, lambda value, _zone: value),
    ("toUnixTimestamp", 1, _same),
    ("toInt64", 1, lambda value: value or 0),
    ("toUInt64", 1, _same),
    ("toUInt16", 1, _same),
    ("toString", 1, _same),
    ("toDate", 1, _date),
    ("hex", 1, _hex),
    ("intDiv", 2, lambda left, right: left // right),
    ("bitOr", 2, lambda left, right: left | right),
    ("bitShiftLeft", 2, lambda left, right: left << right),
    ("tuple", 4, lambda *values: repr(values)),
)
AGGREGATES: Sequence[tuple[str, int, Any]] = (
    ("countIf", 1, _CountIf),
    ("any", 1, _Any),
    ("uniqExact", 1, _UniqExact),
    ("uniqExactIf", 2, _UniqExact),
)
