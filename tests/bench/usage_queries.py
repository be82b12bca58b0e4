"""Questions about the stored usage, asked of the product's own use case and of the raw table.

A process of its own, because an embedded engine allows one data path per process. `prepare` fills
and merges the folder, `roll-up` one with a single hour; each prints one JSON object.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Final

from tests.bench.processes import peak_mib, reset_peak, resident_mib
from tests.bench.rollups import Rollups, build_rollups
from tests.bench.usage_store import (
    DAYS,
    FIRST_DAY,
    NAMESPACE,
    NUMBERED_TYPES,
    RAW_TABLE,
    TEXT_TYPES,
    Usage,
    bytes_by_column,
    bytes_by_table,
    merge,
    store_late,
    store_raw,
    store_usage,
)
from tollgate.core.clock import datetime_from_us
from tollgate.events.dedupe import DAY_US
from tollgate.metering.meter import Aggregation, ManagedBy, Meter
from tollgate.metering.query import QueryBounds, run_query
from tollgate.metering.question import SUBJECT, MeterQuery
from tollgate.metering.rollup_reader import RollupReader
from tollgate.metering.window import WindowSize
from tollgate.platform.clickhouse import DATABASE, ClickHouse
from tollgate.platform.clickhouse_schema import migrate_clickhouse

Answer = Mapping[tuple[object, ...], Decimal]
"""Quantities by window (microseconds since the epoch; none: 0) and groups."""
_BOUNDS: Final = QueryBounds(rows_max=100_000, seconds_max=300)
_START: Final = datetime_from_us(FIRST_DAY * DAY_US)
_END: Final = _START + timedelta(days=DAYS)
_MONTH: Final = (datetime(2026, 7, 1, tzinfo=UTC), datetime(2026, 8, 1, tzinfo=UTC))
ONE_SUBJECT: Final = "customer-00042"
_KOLKATA: Final = "Asia/Kolkata"
_HOUR_US: Final = 3_600_000_000
_REPEATS: Final = 3


def _meter(slug: str, event_type: str, value: str) -> Meter:
    return Meter(
        id=f"bench-{slug}",
        namespace=NAMESPACE,
        slug=slug,
        name=slug,
        description=None,
        metadata={},
        annotations={},
        aggregation=Aggregation.SUM,
        event_type=event_type,
        event_from=None,
        value_property=f"$.{value}",
        group_by={"model": "$.model", "region": "$.region"},
        managed_by=ManagedBy.FILE,
        created_at=_START,
        updated_at=_START,
        deleted_at=None,
    )


TOKENS: Final = _meter("bench_tokens_used", NUMBERED_TYPES[0], "tokens")
STORAGE: Final = _meter("bench_storage_used", TEXT_TYPES[0], "value")
METERS: Final = (
    TOKENS,
    *(
        _meter(f"bench_tokens_{each}", name, "tokens")
        for each, name in enumerate(NUMBERED_TYPES[1:])
    ),
    STORAGE,
    _meter("bench_network_used", TEXT_TYPES[1], "value"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question in both languages.

    Attributes:
        name: of the figure.
        asked: of the product.
        groups: of the raw table, the window first if there is one; SQL of the columns.
        condition: besides type and period; SQL.
        meter: of both.
    """

    name: str
    asked: MeterQuery
    groups: tuple[str, ...] = ()
    condition: str = ""
    meter: Meter = TOKENS


def _dimension(name: str) -> str:
    return f"JSON_VALUE(data, '$.{name}')"


QUESTIONS: Final = (
    Question(name="total, 90 days", asked=MeterQuery(start=_START, end=_END)),
    Question(
        name="total of decimals as text, 90 days",
        asked=MeterQuery(start=_START, end=_END),
        meter=STORAGE,
    ),
    Question(
        name="per day, 90 days",
        asked=MeterQuery(start=_START, end=_END, window=WindowSize.DAY),
        groups=("toStartOfDay(time, 'UTC')",),
    ),
    Question(
        name="per day, 90 days, half-hour zone",
        asked=MeterQuery(start=_START, end=_END, window=WindowSize.DAY, time_zone=_KOLKATA),
        groups=(f"toStartOfDay(time, '{_KOLKATA}')",),
    ),
    Question(
        name="per subject, one month",
        asked=MeterQuery(
            start=_MONTH[0], end=_MONTH[1], window=WindowSize.MONTH, group_by=(SUBJECT,)
        ),
        groups=("toDateTime(toStartOfMonth(time, 'UTC'), 'UTC')", "subject"),
    ),
    Question(
        name="one subject, one month",
        asked=MeterQuery(start=_MONTH[0], end=_MONTH[1], subjects=(ONE_SUBJECT,)),
        condition=f" AND subject = '{ONE_SUBJECT}'",
    ),
    Question(
        name="two dimensions, one month",
        asked=MeterQuery(start=_MONTH[0], end=_MONTH[1], group_by=("model", "region")),
        groups=(_dimension("model"), _dimension("region")),
    ),
)


def answer_of_product(
    clickhouse: ClickHouse, question: Question, reader: RollupReader | None = None
) -> Answer:
    """Ask the use case, as the API does."""
    rows = run_query(clickhouse, question.meter, question.asked, _BOUNDS, reader)
    windowed = question.asked.window is not None
    return {
        (
            int(row.start.timestamp()) if windowed else 0,
            *(
                row.subject if name == SUBJECT else row.dimensions[name]
                for name in question.asked.group_by
            ),
        ): row.value
        for row in rows
    }


def answer_of_raw(clickhouse: ClickHouse, question: Question) -> Answer:
    """Ask the table that is ordered as OpenMeter's, reading values as it does: from the JSON."""
    asked = question.asked
    assert asked.start is not None
    assert asked.end is not None
    groups = question.groups if asked.window else ("toDateTime(0, 'UTC')", *question.groups)
    names = [f"g{number}" for number in range(len(groups))]
    columns = ", ".join(f"{sql} AS {name}" for sql, name in zip(groups, names, strict=True))
    # OpenMeter reads doubles; decimals take as long, and can be compared with the product's.
    value = f"toDecimal128OrNull(JSON_VALUE(data, '{question.meter.value_property}'), 9)"
    rows = clickhouse.query(
        f"SELECT {columns}, sum({value}) AS value"
        f" FROM {RAW_TABLE} WHERE namespace = {{namespace:String}} AND type = {{type:String}}"
        f" AND time >= {{start:DateTime('UTC')}} AND time < {{end:DateTime('UTC')}}"
        f"{question.condition} GROUP BY {', '.join(names)}",
        {
            "namespace": NAMESPACE,
            "type": question.meter.event_type,
            "start": asked.start,
            "end": asked.end,
        },
    )
    return {(int(row[0].timestamp()), *row[1:-1]): Decimal(row[-1]) for row in rows}


def measure(clickhouse: ClickHouse) -> dict[str, tuple[float, float]]:
    """Return median milliseconds of product and raw table for each question, taken in turn.

    Raises:
        RuntimeError: Their answers differ.
    """
    found = {}
    with closing(Rollups(clickhouse)) as rollups:
        reader = rollups.reader()
        for question in QUESTIONS:
            found[question.name] = _measure(clickhouse, question, reader)
    return found


def _measure(
    clickhouse: ClickHouse, question: Question, reader: RollupReader
) -> tuple[float, float]:
    answers = (
        answer_of_product(clickhouse, question, reader),
        answer_of_raw(clickhouse, question),
    )
    if not answers[0] or answers[0] != answers[1]:
        raise RuntimeError(f"{question.name}: the answers differ, or there is none")
    own, raw = [], []
    for _ in range(_REPEATS):
        own.append(_milliseconds(partial(ask, clickhouse, question, reader)))
        raw.append(_milliseconds(partial(answer_of_raw, clickhouse, question)))
    return statistics.median(own), statistics.median(raw)


def ask(clickhouse: ClickHouse, question: Question, reader: RollupReader | None = None) -> None:
    """Ask the use case for its rows, and leave them."""
    run_query(clickhouse, question.meter, question.asked, _BOUNDS, reader)


def _milliseconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1000


def prepare(clickhouse: ClickHouse, events: int, *, with_raw: bool) -> dict[str, object]:
    """Store events and the raw table, merge them, build rollups; return bytes and seconds."""
    seconds = {}
    started = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal started
        seconds[name], started = time.perf_counter() - started, time.perf_counter()

    store_usage(clickhouse, Usage(events=events))
    lap("events")
    if with_raw:
        store_raw(clickhouse)
        merge(clickhouse, RAW_TABLE)
        lap("raw table")
    for table in ("events", "event_keys", "ledger"):
        merge(clickhouse, f"{DATABASE}.{table}")
    lap("merges")
    build_rollups(clickhouse, METERS)
    lap("rollups")
    return {
        "seconds": seconds,
        "tables": bytes_by_table(clickhouse),
        "columns": {name: bytes_by_column(clickhouse, name) for name in ("events", "event_keys")},
    }


def roll_up(clickhouse: ClickHouse, events: int) -> dict[str, float]:
    """Store one hour and roll it up, then an event that comes late; return seconds and memory."""
    usage = Usage(events=events, length_us=_HOUR_US, late_us=_HOUR_US)
    store_usage(clickhouse, usage)
    merge(clickhouse, f"{DATABASE}.events")
    read = _milliseconds(lambda: _read_hour(clickhouse))
    before = resident_mib()
    reset_peak()
    hour = _milliseconds(lambda: build_rollups(clickhouse, METERS))
    peak = peak_mib()
    store_late(clickhouse, usage)
    with closing(Rollups(clickhouse)) as rollups:
        late = _milliseconds(lambda: rollups.add(METERS))
    return {
        "read_seconds": read / 1000,
        "before_mib": before,
        "hour_seconds": hour / 1000,
        "peak_mib": peak,
        "late_milliseconds": late,
    }


def _read_hour(clickhouse: ClickHouse) -> None:
    """Read the values of the meters once, each added up by subject: no rollup can do less."""
    for meter in METERS:
        ask(clickhouse, Question(name="", asked=MeterQuery(group_by=(SUBJECT,)), meter=meter))


def main() -> None:
    """Do one of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=("prepare", "measure", "roll-up"))
    parser.add_argument("--folder", type=Path, required=True, help="of the engine")
    parser.add_argument("--events", type=int, default=0)
    parser.add_argument("--without-raw", action="store_true")
    arguments = parser.parse_args()
    with ClickHouse(path=arguments.folder) as clickhouse:
        migrate_clickhouse(clickhouse)
        match arguments.task:
            case "prepare":
                found: object = prepare(
                    clickhouse, arguments.events, with_raw=not arguments.without_raw
                )
            case "measure":
                found = measure(clickhouse)
            case _:
                found = roll_up(clickhouse, arguments.events)
        print(json.dumps(found))


if __name__ == "__main__":
    main()
