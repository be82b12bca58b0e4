"""Use case: what a meter says over a period, by window, subject and dimensions.

Reads raw events with FINAL, so a row written twice counts once. Periods are half-open; windows are
reported whole, values clipped to the period.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from tollgate.core.clock import datetime_from_us
from tollgate.core.decimals import divide
from tollgate.core.errors import Fault, InvalidInput
from tollgate.events.facts import UNCORRECTED, counting, has_corrections, within
from tollgate.events.position import Token
from tollgate.metering.aggregation import DOCUMENT, LATEST_ORDER, Value
from tollgate.metering.filters import Filter, Parameters, to_sql
from tollgate.metering.jsonpath import JsonPath
from tollgate.metering.meter import Aggregation, Meter
from tollgate.metering.window import Windows, WindowSize, Zone, zone
from tollgate.platform.clickhouse import DATABASE, ClickHouse

SUBJECT, CUSTOMER = "subject", "customer_id"
FINAL_SETTINGS: dict[str, object] = {"do_not_merge_across_partitions_select_final": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Hypothesis:
    """What if other events counted.

    Attributes:
        without: trusted SQL of rows of `events` that do not.
        also: the same of rows that do.
        parameters: what both bind.
    """

    without: str
    also: str
    parameters: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterQuery:
    """What is asked.

    Attributes:
        start, end: the period [start, end); None is open.
        window: size of the windows; None: one total.
        time_zone: where windows are aligned.
        subjects: only these; None: all.
        group_by: names of the meter's dimensions, `subject`, `customer_id`, in order.
        filters: conditions on dimensions.
        subject_filter: a condition on the subject, besides `subjects`.
        customers: subject to customer, of the customers asked for; None: no customer is asked for.
        as_of: only what was known at this vector of the log; None: all that is known now.
        supposing: that other events counted.
    """

    start: datetime | None = None
    end: datetime | None = None
    window: WindowSize | None = None
    time_zone: str = "UTC"
    subjects: tuple[str, ...] | None = None
    group_by: tuple[str, ...] = ()
    filters: Mapping[str, Filter] = field(default_factory=dict)
    subject_filter: Filter | None = None
    customers: Mapping[str, str] | None = None
    as_of: Token | None = None
    supposing: Hypothesis | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryRow:
    """One quantity. `dimensions` holds what was grouped by, subject and customer left out."""

    value: Decimal
    start: datetime
    end: datetime
    subject: str | None
    customer_id: str | None
    dimensions: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryBounds:
    """What one query may cost: rows in the answer, seconds."""

    rows_max: int
    seconds_max: int


def run_query(
    clickhouse: ClickHouse, meter: Meter, asked: MeterQuery, bounds: QueryBounds
) -> tuple[QueryRow, ...]:
    """The meter's quantities, in order of time, then of the groups.

    Raises:
        InvalidInput: unknown dimensions or zone, an empty period, too many rows.
        Transient: ClickHouse is away.
    """
    _check(meter, asked)
    if asked.customers is not None and not asked.customers:
        return ()
    aligned = zone(asked.time_zone)
    corrected = has_corrections(clickhouse, meter.namespace, meter.event_type)
    statement = _Statement(meter, asked, corrected=corrected)
    windows = _windows(clickhouse, statement, aligned) if asked.window else None
    if asked.window and windows is None:
        return ()
    rows = clickhouse.query(
        statement.select(windows, bounds.rows_max + 1),
        statement.parameters,
        FINAL_SETTINGS | {"max_execution_time": bounds.seconds_max},
    )
    if len(rows) > bounds.rows_max:
        raise InvalidInput(
            (
                Fault(
                    field="",
                    code="too_many_rows",
                    message=f"the answer has more than {bounds.rows_max} rows; ask for a shorter "
                    "period, larger windows or fewer groups",
                ),
            )
        )
    return tuple(statement.row(row, windows) for row in rows)


def _check(meter: Meter, asked: MeterQuery) -> None:
    faults: list[Fault] = []
    known = {*meter.group_by, SUBJECT, CUSTOMER}
    faults += [_unknown("groupBy", n, meter) for n in asked.group_by if n not in known]
    faults += [
        _unknown("filterGroupBy", n, meter) for n in asked.filters if n not in meter.group_by
    ]
    if CUSTOMER in asked.group_by and asked.customers is None:
        message = "group by customer_id needs a filter by customer"
        faults.append(Fault(field="groupBy", code="customer_filter_required", message=message))
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
    shown = name.encode("utf-8", "replace").decode()[:64]
    message = f"{shown!r} is no dimension of {meter.slug}; it has: {known}"
    return Fault(field=where, code="unknown_dimension", message=message)


def _windows(clickhouse: ClickHouse, statement: "_Statement", aligned: Zone) -> Windows | None:
    """The windows asked for, narrowed to where events are; None without events."""
    asked = statement.asked
    assert asked.window is not None
    low, high = statement.low, asked.end
    if low is None or high is None:
        rows = clickhouse.query(
            "SELECT count(), toUnixTimestamp64Micro(min(time)), toUnixTimestamp64Micro(max(time))"
            f" FROM {DATABASE}.events WHERE {statement.conditions()}",
            statement.parameters,
        )
        if not rows or not rows[0][0]:
            return None
        low = low or datetime_from_us(rows[0][1])
        high = high or datetime_from_us(rows[0][2]) + timedelta(microseconds=1)
    if low >= high:
        return None
    return Windows(size=asked.window, zone=aligned, low=low, high=high)


class _Statement:
    """Builds the SQL of one query and reads its rows. Every value is bound."""

    def __init__(self, meter: Meter, asked: MeterQuery, *, corrected: bool) -> None:
        self.meter = meter
        self.asked = asked
        self._corrected = corrected
        self.value = Value(aggregation=meter.aggregation, path=meter.value_path())
        self.low = max(filter(None, (asked.start, meter.event_from)), default=None)
        self._bound = Parameters("p")
        self._paths = {
            name: path
            for name, path in meter.dimension_paths().items()
            if name in asked.group_by or name in asked.filters
        }
        self._where = self._event_conditions()
        self._having = self._dimension_conditions()
        self._groups = tuple(dict.fromkeys(asked.group_by))

    @property
    def parameters(self) -> dict[str, object]:
        """All that the SQL binds."""
        found = dict(self._bound.values) | self.value.parameters()
        if self.asked.supposing is not None:
            found |= self.asked.supposing.parameters
        for number, path in enumerate(self._paths.values()):
            found |= path.parameters(f"d{number}")
        return found

    def conditions(self) -> str:
        """Which events are read, on the table's own columns."""
        return self._where

    def _event_conditions(self) -> str:
        asked, bind = self.asked, self._bound.bind
        namespace, event_type = bind(self.meter.namespace), bind(self.meter.event_type)
        parts = [f"namespace = {namespace}", f"type = {event_type}"]
        facts = []
        if asked.as_of is not None:
            facts.append(within(asked.as_of))
        corrected = counting(namespace, event_type, asked.as_of)
        facts.append(corrected if self._corrected else UNCORRECTED)
        if asked.supposing is not None:
            counted = " AND ".join(facts)
            facts = [
                f"(({counted}) AND NOT ({asked.supposing.without}) OR ({asked.supposing.also}))"
            ]
        parts += facts
        if asked.subjects is not None:
            parts.append(f"subject IN {bind(asked.subjects)}")
        if asked.customers is not None:
            parts.append(f"subject IN {bind(tuple(sorted(asked.customers)))}")
        if asked.subject_filter is not None:
            parts.append(f"({to_sql(asked.subject_filter, 'subject', self._bound)})")
        if self.low is not None:
            parts.append(f"time >= {bind(self.low)}")
        if asked.end is not None:
            parts.append(f"time < {bind(asked.end)}")
        return " AND ".join(parts)

    def _dimension_conditions(self) -> str:
        columns = {name: f"dimension_{number}" for number, name in enumerate(self._paths)}
        parts = [
            f"({to_sql(condition, columns[name], self._bound, nullable=True)})"
            for name, condition in self.asked.filters.items()
        ]
        return " AND ".join(parts) or "true"

    def select(self, windows: Windows | None, limit: int) -> str:
        """The whole statement. Columns: window start, value, first, last, then the groups."""
        dimensions = [
            f"{self._dimension(name, path, f'd{number}')} AS dimension_{number}"
            for number, (name, path) in enumerate(self._paths.items())
        ]
        start = windows.sql("time") if windows else "toInt64(0)"
        columns = {name: f"dimension_{number}" for number, name in enumerate(self._paths)}
        groups = []
        for name in self._groups:
            if name == SUBJECT:
                groups.append("subject")
            elif name == CUSTOMER:
                groups.append(self._customer())
            else:
                groups.append(f"ifNull({columns[name]}, '')")
        group_columns = [f"{sql} AS group_{number}" for number, sql in enumerate(groups)]
        names = ["window_start", *(f"group_{number}" for number in range(len(groups)))]
        counted = self.value.counted()
        order = ", ".join(LATEST_ORDER)
        needs_document = self.value.path is not None or dimensions
        inner = [f"{DOCUMENT} AS document"] if needs_document else []
        return (
            f"SELECT {', '.join(names)}, {self.value.aggregate()} AS quantity,"
            " toUnixTimestamp64Micro(min(time)), toUnixTimestamp64Micro(max(time))"
            f" FROM (SELECT {start} AS window_start, {', '.join([*group_columns, order])},"
            f" {self.value.columns()}"
            f" FROM (SELECT {', '.join([order, 'subject', *inner, *dimensions])}"
            f" FROM {DATABASE}.events FINAL WHERE {self._where})"
            f" WHERE {self._having}) WHERE {counted}"
            f" GROUP BY {', '.join(names)} ORDER BY {', '.join(names)} LIMIT {limit}"
        )

    def _dimension(self, name: str, path: JsonPath, prefix: str) -> str:
        if name not in self.asked.filters:
            return path.call("JSONExtractString", "document", prefix)
        # A filter can ask whether there is a value: only then absence and '' must differ.
        return f"{path.call('JSONExtract', 'document', prefix)[:-1]}, 'Nullable(String)')"

    def _customer(self) -> str:
        customers = self.asked.customers or {}
        subjects = self._bound.bind(tuple(customers))
        owners = self._bound.bind(tuple(customers.values()))
        return f"transform(subject, {subjects}, {owners}, '')"

    def row(self, row: Sequence[Any], windows: Windows | None) -> QueryRow:
        """One row of the answer from one of the engine's."""
        start_us, *rest = row
        groups = dict(zip(self._groups, rest[: len(self._groups)], strict=True))
        quantity, first_us, last_us = rest[len(self._groups) :]
        if windows is None:
            start = self.asked.start or _minute(datetime_from_us(first_us))
            end = self.asked.end or _minute(datetime_from_us(last_us)) + timedelta(minutes=1)
        else:
            start, end = windows.bounds(int(start_us))
        return QueryRow(
            value=_decimal(self.meter.aggregation, quantity),
            start=start,
            end=end,
            subject=groups.pop(SUBJECT, None),
            customer_id=groups.pop(CUSTOMER, None),
            dimensions=groups,
        )


def _decimal(aggregation: Aggregation, quantity: Any) -> Decimal:
    if aggregation is Aggregation.AVG:
        total, count = quantity
        return divide(Decimal(total), int(count))
    return Decimal(quantity)


def _minute(instant: datetime) -> datetime:
    return instant.astimezone(UTC).replace(second=0, microsecond=0)
