"""What usage rose by since a position of the log: for those who keep sums of it in memory.

A sum that was read at a vector, and what came between that vector and a later one, make the sum at
the later one. Corrections can't be added: whose usage they changed is said, to be read anew.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from tollgate.core.clock import datetime_from_us, us_from_datetime
from tollgate.metering.meter import Meter
from tollgate.metering.ownership import bind_texts
from tollgate.metering.plan import Tiling
from tollgate.metering.query import FINAL_SETTINGS
from tollgate.metering.question import SUBJECT, MeterQuery
from tollgate.metering.rollup import Rollups
from tollgate.metering.statement import FromRollups, Statement, Tail, at_sql
from tollgate.metering.window import Windows, WindowSize, zone
from tollgate.platform.clickhouse import DATABASE, READS_LITTLE, UNCOMPILED, ClickHouse
from tollgate.platform.filters import Filter, Parameters

ROWS_MAX = 200_000
"""Of one reading: more than that are not added up one by one."""


@dataclass(frozen=True, slots=True)
class Delta:
    """What a subject's usage rose by within a minute.

    Attributes:
        subject: whose.
        minute_us: start of the minute in which it happened, microseconds since the epoch.
        quantity: a sum of values, or a number of events.
    """

    subject: str
    minute_us: int
    quantity: Decimal


def read_deltas(
    clickhouse: ClickHouse,
    meter: Meter,
    filters: Mapping[str, Filter],
    tail: Tail,
    *,
    corrected: bool,
) -> list[Delta] | None:
    """What came in a stretch of the log, of a meter that sums up or counts; None: too much.

    Args:
        clickhouse: the store.
        meter: the meter.
        filters: which usage, by dimension.
        tail: the stretch.
        corrected: what `has_corrections` says of the meter's events.

    Raises:
        Transient: ClickHouse is away.
    """
    asked = MeterQuery(group_by=(SUBJECT,), filters=filters, window=WindowSize.MINUTE)
    statement = Statement(meter, asked)
    statement.vector = tail.until
    statement.corrected = corrected
    windows = Windows(size=WindowSize.MINUTE, zone=zone("UTC"))
    none = Rollups(
        definition=0,
        vector=tail.vector,
        ready=True,
        first_minute=None,
        last_minute=None,
        segments=(),
    )
    source = FromRollups(
        rollups=none,
        tiling=Tiling(tiles=(), edges=()),
        vector=tail.vector,
        tail=tail,
        pending=False,
    )
    rows = clickhouse.query(
        statement.select(windows, ROWS_MAX + 1, source),
        statement.parameters,
        FINAL_SETTINGS | UNCOMPILED | {"optimize_move_to_prewhere_if_final": 1},
    )
    if len(rows) > ROWS_MAX:
        return None
    return [Delta(row[1], int(row[0]), Decimal(row[2])) for row in rows]


def first_touched(clickhouse: ClickHouse, meter: Meter, tail: Tail) -> dict[str, datetime]:
    """Subjects of a meter that have events in a stretch of the log, with the earliest time.

    Raises:
        Transient: ClickHouse is away.
    """
    statement = Statement(meter, MeterQuery())
    statement.vector, statement.corrected = tail.until, False
    rows = clickhouse.query(
        f"SELECT subject, toUnixTimestamp64Micro(min(time)) FROM {DATABASE}.events"
        f" WHERE {statement.conditions()} AND {tail.sql()} GROUP BY subject LIMIT {ROWS_MAX}",
        statement.parameters,
        UNCOMPILED,
    )
    return {row[0]: datetime_from_us(int(row[1])) for row in rows}


def later_usage(
    clickhouse: ClickHouse,
    namespace: str,
    event_type: str,
    subjects: Collection[str],
    at: datetime,
) -> dict[str, datetime]:
    """Those of some subjects that have events dated at an instant or later, with the latest time.

    Raises:
        Transient: ClickHouse is away.
    """
    bound = Parameters()
    rows = clickhouse.query(
        f"SELECT subject, toUnixTimestamp64Micro(max(time)) FROM {DATABASE}.events"
        f" WHERE namespace = {bound.bind(namespace)} AND type = {bound.bind(event_type)}"
        f" AND subject IN {bind_texts(bound, sorted(subjects))}"
        f" AND time >= {at_sql(us_from_datetime(at))} GROUP BY subject",
        bound.values,
        UNCOMPILED,
    )
    return {row[0]: datetime_from_us(int(row[1])) for row in rows}


def later_touched(
    clickhouse: ClickHouse, tail: Tail, at: datetime
) -> dict[tuple[str, str, str], datetime] | None:
    """The same of a stretch of the log, by namespace, event type and subject; None: too many.

    Raises:
        Transient: ClickHouse is away.
    """
    rows = clickhouse.query(
        "SELECT toString(namespace), toString(type), subject, toUnixTimestamp64Micro(max(time))"
        f" FROM {DATABASE}.events WHERE time >= {at_sql(us_from_datetime(at))} AND {tail.sql()}"
        f" GROUP BY namespace, type, subject LIMIT {ROWS_MAX + 1}",
        settings=UNCOMPILED,
    )
    if len(rows) > ROWS_MAX:
        return None
    return {(row[0], row[1], row[2]): datetime_from_us(int(row[3])) for row in rows}


def corrected_subjects(clickhouse: ClickHouse, tail: Tail) -> set[tuple[str, str, str]]:
    """Namespaces, event types and subjects whose usage corrections of a stretch have changed.

    Raises:
        Transient: ClickHouse is away.
    """
    beyond = f"appended_at >= {at_sql(tail.appended_us)}"
    rows = clickhouse.query(
        "SELECT DISTINCT toString(namespace), toString(superseded_type), superseded_subject"
        f" FROM {DATABASE}.event_corrections WHERE superseded_generation > 0 AND {beyond}"
        f" LIMIT {ROWS_MAX}",
        settings=READS_LITTLE,
    )
    found = {(row[0], row[1], row[2]) for row in rows}
    amended = clickhouse.query(
        "SELECT DISTINCT toString(namespace), toString(type), subject"
        f" FROM {DATABASE}.events WHERE amendment = 1 AND {tail.sql()} LIMIT {ROWS_MAX}",
        settings=UNCOMPILED,
    )
    return found | {(row[0], row[1], row[2]) for row in amended}
