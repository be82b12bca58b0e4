"""Use case: what a meter says over a period, by window, subject and dimensions.

Reads rollups where they can answer, and events where they can't, with the same figures: raw events
with FINAL, so a row written twice counts once. Periods are half-open; windows are reported whole,
values clipped to the period.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import MappingProxyType
from typing import Any

from tollgate.core.clock import datetime_from_us, us_from_datetime
from tollgate.core.decimals import divide
from tollgate.core.errors import Fault, InvalidInput
from tollgate.core.reading import shown
from tollgate.events.facts import after, has_corrections, within
from tollgate.events.position import Token, covers
from tollgate.metering.gaps import filled
from tollgate.metering.meter import Aggregation, Meter
from tollgate.metering.plan import Period, Tiling, tile
from tollgate.metering.question import CUSTOMER, SUBJECT, MeterQuery, QueryRow, RowKey
from tollgate.metering.rollup import MINUTE_US, MONTH_OF_DAY, Rollups, levels_of
from tollgate.metering.rollup_reader import RollupReader
from tollgate.metering.statement import FromRollups, Statement, Tail
from tollgate.metering.stretches import AnyWindows, StretchWindows
from tollgate.metering.window import Windows, zone
from tollgate.platform.clickhouse import DATABASE, READS_LITTLE, UNCOMPILED, ClickHouse

FINAL_SETTINGS: dict[str, object] = {"do_not_merge_across_partitions_select_final": 1}
# Rows that FINAL merges are equal in all that conditions of a meter's query look at.
_EVENT_SETTINGS = FINAL_SETTINGS | {"optimize_move_to_prewhere_if_final": 1}
_CELL_SETTINGS: dict[str, object] = UNCOMPILED | {
    # Their key finds them: to plan more takes longer than to read them.
    "optimize_move_to_prewhere": 0,
    # A million of them are worth two processors.
    "merge_tree_min_rows_for_concurrent_read": 65_536,
    "merge_tree_min_bytes_for_concurrent_read": 1 << 20,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryBounds:
    """What one query may cost: rows in the answer, seconds."""

    rows_max: int
    seconds_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Which rows of an answer are wanted.

    Attributes:
        limit: so many; None: all of them.
        after: those after this one; None: from the first.
    """

    limit: int | None = None
    after: RowKey | None = None


WHOLE = Page()
_NO_DIMENSIONS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What was found, and where.

    Attributes:
        rows: in order of time, then of the groups.
        source: what was taken from rollups; None: nothing.
        is_last: whether no rows come after these.
    """

    rows: tuple[QueryRow, ...]
    source: FromRollups | None
    is_last: bool = True


def run_query(
    clickhouse: ClickHouse,
    meter: Meter,
    asked: MeterQuery,
    bounds: QueryBounds,
    reader: RollupReader | None = None,
) -> tuple[QueryRow, ...]:
    """The rows of `answer_query`."""
    return answer_query(clickhouse, meter, asked, bounds, reader).rows


def answer_query(
    clickhouse: ClickHouse,
    meter: Meter,
    asked: MeterQuery,
    bounds: QueryBounds,
    reader: RollupReader | None = None,
    page: Page = WHOLE,
) -> Answer:
    """The meter's quantities, in order of time, then of the groups.

    Args:
        clickhouse: the store.
        meter: what is asked.
        asked: what of it.
        bounds: what it may cost.
        reader: of rollups; None: only events are read.
        page: which rows.

    Raises:
        InvalidInput: unknown dimensions or zone, an empty period, too many rows.
        Transient: ClickHouse is away.
    """
    _check(meter, asked)
    statement = Statement(meter, asked)
    if asked.customers is not None and not statement.ownership.subjects:
        return _paged(meter, asked, (), None, bounds, page)
    rollups = _usable(reader, meter, asked)
    tail = None
    if rollups is not None and rollups.vector is not None:
        tail = ledger_tail(clickhouse, rollups.vector, asked.as_of)
    windows: AnyWindows | None = statement.stretches()
    if asked.window:
        windows = _windows(clickhouse, statement, rollups, tail)
        if windows is None:
            return _paged(meter, asked, (), None, bounds, page)
    source = _from_rollups(statement, windows, rollups, tail)
    if source is not None:
        statement.vector = source.vector if tail is None else tail.until
    if source is None or source.needs_events:
        statement.corrected = has_corrections(clickhouse, meter.namespace, meter.event_type)
        if source is not None and tail is not None and statement.corrected:
            pending = _is_pending(clickhouse, statement, tail)
            source = replace(source, pending=pending and bool(source.tiling.tiles))
    elif not source.tiling.tiles:
        return _paged(meter, asked, (), source, bounds, page)
    from_cells = source is not None and not source.needs_events
    settings = _CELL_SETTINGS if from_cells else _EVENT_SETTINGS
    # With gaps filled, rows before and after decide on which there are.
    limit, beyond = bounds.rows_max, "true"
    if not asked.fill:
        limit = min(limit, page.limit or limit)
        beyond = statement.beyond(page.after)
    rows = clickhouse.query(
        statement.select(windows, limit + 1, source, beyond),
        statement.parameters,
        settings | {"max_execution_time": bounds.seconds_max},
    )
    return _paged(meter, asked, list(_rows(statement, rows, windows)), source, bounds, page)


def _paged(
    meter: Meter,
    asked: MeterQuery,
    rows: Sequence[QueryRow],
    source: FromRollups | None,
    bounds: QueryBounds,
    page: Page,
) -> Answer:
    """The wanted rows of an answer, gaps filled if that is asked for."""
    if asked.fill:
        _require_few(rows, bounds)
        rows = list(filled(meter.aggregation, asked, rows, bounds.rows_max))
        _require_few(rows, bounds)
        if page.after is not None:
            rows = [row for row in rows if row.key(asked) > page.after]
    if page.limit is None:
        _require_few(rows, bounds)
        return Answer(rows=tuple(rows), source=source)
    is_last = len(rows) <= page.limit
    return Answer(rows=tuple(rows[: page.limit]), source=source, is_last=is_last)


def _require_few(rows: Sequence[QueryRow], bounds: QueryBounds) -> None:
    if len(rows) > bounds.rows_max:
        message = (
            f"the answer has more than {bounds.rows_max} rows; ask for a shorter period, larger "
            "windows, fewer groups, or for pages by `limit`"
        )
        raise InvalidInput((Fault(field="", code="too_many_rows", message=message),))


def _check(meter: Meter, asked: MeterQuery) -> None:
    faults: list[Fault] = []
    known = {*meter.group_by, SUBJECT, CUSTOMER}
    faults += [_unknown("groupBy", n, meter) for n in asked.group_by if n not in known]
    faults += [
        _unknown("filterGroupBy", n, meter) for n in asked.filters if n not in meter.group_by
    ]
    if asked.start and asked.end and asked.start >= asked.end:
        faults.append(Fault(field="to", code="empty_period", message="must be later than `from`"))
    try:
        zone(asked.time_zone)
    except InvalidInput as invalid:
        faults += invalid.faults
    if faults:
        raise InvalidInput(tuple(faults))


def _unknown(where: str, name: str, meter: Meter) -> Fault:
    known = ", ".join(sorted(meter.group_by)) or "none"
    message = f"{shown(name)!r} is no dimension of {meter.slug}; it has: {known}"
    return Fault(field=where, code="unknown_dimension", message=message)


def _usable(reader: RollupReader | None, meter: Meter, asked: MeterQuery) -> Rollups | None:
    """The rollups of a meter, unless they know more than is asked, or it is asked what might be."""
    if reader is None or asked.supposing is not None:
        return None
    rollups = reader.rollups(meter)
    if rollups is None or rollups.vector is None or asked.as_of is None:
        return rollups
    return rollups if covers(asked.as_of, rollups.vector) else None


def ledger_tail(clickhouse: ClickHouse, vector: Token, as_of: Token | None = None) -> Tail | None:
    """What the ledger has beyond a vector, and up to another; None: nothing."""
    known = "" if as_of is None else f" AND {within(as_of)}"
    rows = clickhouse.query(
        "SELECT log_generation, log_partition, toInt64(max(log_offset)),"
        " toUnixTimestamp64Micro(min(appended_at))"
        f" FROM {DATABASE}.ledger WHERE {after(vector)}{known}"
        " GROUP BY log_generation, log_partition",
        settings=READS_LITTLE,
    )
    if not rows:
        return None
    newest = max(int(row[0]) for row in rows)
    ends = dict(vector.offsets) if newest == vector.generation else {}
    ends |= {int(row[1]): int(row[2]) for row in rows if row[0] == newest}
    return Tail(
        vector=vector,
        until=Token(generation=newest, offsets=ends),
        appended_us=min(int(row[3]) for row in rows),
    )


def _windows(
    clickhouse: ClickHouse, statement: Statement, rollups: Rollups | None, tail: Tail | None
) -> Windows | None:
    """The windows asked for, narrowed to where events are; None without events."""
    asked = statement.asked
    assert asked.window is not None
    low, high = statement.low, asked.end
    if low is None or high is None:
        found = _extent(clickhouse, statement, rollups, tail)
        if found is None:
            return None
        low = low or datetime_from_us(found[0])
        high = high or datetime_from_us(found[1] + 1)
    if low >= high:
        return None
    return Windows(size=asked.window, zone=zone(asked.time_zone), low=low, high=high)


def _extent(
    clickhouse: ClickHouse, statement: Statement, rollups: Rollups | None, tail: Tail | None
) -> tuple[int, int] | None:
    """No event of the answer is before the one instant or after the other; None: there are none."""
    where, found = statement.conditions(), []
    if rollups is not None:
        if rollups.first_minute is not None and rollups.last_minute is not None:
            found = [rollups.first_minute * MINUTE_US, (rollups.last_minute + 1) * MINUTE_US - 1]
        if tail is not None:
            where = f"{where} AND {tail.sql()}"
    if rollups is None or tail is not None:
        rows = clickhouse.query(
            "SELECT count(), toUnixTimestamp64Micro(min(time)), toUnixTimestamp64Micro(max(time))"
            f" FROM {DATABASE}.events WHERE {where}",
            statement.parameters,
        )
        if rows and rows[0][0]:
            found += [rows[0][1], rows[0][2]]
    return (min(found), max(found)) if found else None


def _from_rollups(
    statement: Statement,
    windows: AnyWindows | None,
    rollups: Rollups | None,
    tail: Tail | None,
) -> FromRollups | None:
    """What rollups can answer; None: nothing."""
    if rollups is None or rollups.vector is None:
        return None
    tiling = _tiling(statement, windows, rollups)
    if tiling is None:
        return None
    return FromRollups(
        rollups=rollups,
        tiling=tiling,
        vector=rollups.vector,
        tail=tail,
        pending=False,
    )


def _tiling(statement: Statement, windows: AnyWindows | None, rollups: Rollups) -> Tiling | None:
    kept = levels_of(statement.meter)
    if rollups.first_minute is None or rollups.last_minute is None:
        # Nothing counts up to the vector: what is beyond it is all there is.
        return Tiling(tiles=(), edges=())
    asked, cuts = statement.asked, statement.ownership.changes
    if isinstance(windows, StretchWindows):
        cuts, windows = cuts | windows.cuts, None
    period = Period(
        low=us_from_datetime(statement.low) if statement.low else None,
        high=us_from_datetime(asked.end) if asked.end else None,
        first=rollups.first_minute * MINUTE_US,
        last=(rollups.last_minute + 1) * MINUTE_US,
        windows=windows,
        cuts=cuts,
    )
    for level in kept:
        if (
            level.is_month
            or level.by_subject < statement.needs_subject
            or level.by_dimensions < statement.needs_dimensions
        ):
            continue
        month = MONTH_OF_DAY.get(level)
        tiling = tile(period, level, month if month in kept else None)
        if tiling is not None:
            return tiling
    return None


def _is_pending(clickhouse: ClickHouse, statement: Statement, tail: Tail) -> bool:
    """Whether corrections beyond a vector supersede facts up to it."""
    meter = statement.meter
    rows = clickhouse.query(
        f"SELECT 1 FROM {DATABASE}.event_corrections WHERE namespace = {{namespace:String}}"
        f" AND superseded_type = {{type:String}} AND {statement.pending(tail.vector)} LIMIT 1",
        {"namespace": meter.namespace, "type": meter.event_type},
    )
    return bool(rows)


def _rows(
    statement: Statement,
    rows: Sequence[Sequence[Any]],
    windows: AnyWindows | None,
) -> Iterator[QueryRow]:
    """The rows of the answer from the engine's."""
    asked, count = statement.asked, len(statement.groups)
    places = {name: 1 + number for number, name in enumerate(statement.groups)}
    subject, customer = places.pop(SUBJECT, None), places.pop(CUSTOMER, None)
    named = tuple(places.items())
    is_average = statement.meter.aggregation is Aggregation.AVG
    known: dict[int, tuple[datetime, datetime]] = {}
    # An answer may have a hundred thousand rows: what is alike for all of them stands before.
    for row in rows:
        start_us, quantity = row[0], row[1 + count]
        if windows is None:
            start = asked.start or _minute(datetime_from_us(row[2 + count]))
            end = asked.end or _minute(datetime_from_us(row[3 + count])) + timedelta(minutes=1)
        else:
            if start_us not in known:
                known[start_us] = windows.bounds(int(start_us))
            start, end = known[start_us]
        yield QueryRow(
            divide(Decimal(quantity[0]), int(quantity[1])) if is_average else Decimal(quantity),
            start,
            end,
            None if subject is None else row[subject],
            None if customer is None else row[customer] or None,
            {name: row[place] for name, place in named} if named else _NO_DIMENSIONS,
        )


def _minute(instant: datetime) -> datetime:
    return instant.astimezone(UTC).replace(second=0, microsecond=0)
