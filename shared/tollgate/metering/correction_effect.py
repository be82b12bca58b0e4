"""Use case: what an operation on many events would do, before it does it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from tollgate.core.clock import datetime_from_us
from tollgate.events.correction_operation import Operation
from tollgate.events.correction_work import condition, count_events, parameters
from tollgate.events.facts import POSITION
from tollgate.metering.events_list import LiveMeters
from tollgate.metering.meter import Meter
from tollgate.metering.query import QueryBounds, run_query
from tollgate.metering.question import Hypothesis, MeterQuery
from tollgate.platform.clickhouse import DATABASE, ClickHouse

METERS_MAX = 50
SAMPLE_MAX = 10
_TYPES_MAX = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterEffect:
    """A meter's total over the operation's period of event time; None: nothing counts."""

    meter: Meter
    before: Decimal | None
    after: Decimal | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleEvent:
    """An event that would change."""

    source: str
    id: str
    type: str
    subject: str
    time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationEffect:
    """What an operation would do.

    Attributes:
        voided, released: events that stop counting, and that begin to.
        meters: those that read events of these types, at most `METERS_MAX`.
        meters_left_out: how many more there are.
        sample: some of the events that stop counting.
    """

    voided: int
    released: int
    meters: Sequence[MeterEffect]
    meters_left_out: int
    sample: Sequence[SampleEvent]

    @property
    def events(self) -> int:
        """How many events change."""
        return self.voided + self.released


def effect_of(
    clickhouse: ClickHouse, meters: LiveMeters, operation: Operation, bounds: QueryBounds
) -> OperationEffect:
    """Totals are computed again without and with the events, never subtracted.

    Args:
        clickhouse: the store.
        meters: those of the namespace.
        operation: with the vector that fixes its events.
        bounds: of each query.

    Raises:
        Transient: ClickHouse is away.
    """
    without, also = condition(operation, "void"), condition(operation, "release")
    changes = f"({without}) OR ({also})"
    bound = parameters(operation)
    rows = clickhouse.query(
        f"SELECT DISTINCT type FROM {DATABASE}.events WHERE {changes} LIMIT {_TYPES_MAX}", bound
    )
    live = meters.live_of_event_types(operation.namespace, {str(row[0]) for row in rows})
    supposing = Hypothesis(without=without, also=also, parameters=bound)
    found = []
    for meter in live[:METERS_MAX]:
        before, after = (
            _total(clickhouse, meter, operation, each, bounds) for each in (None, supposing)
        )
        found.append(MeterEffect(meter=meter, before=before, after=after))
    return OperationEffect(
        voided=count_events(clickhouse, operation, "void"),
        released=count_events(clickhouse, operation, "release"),
        meters=found,
        meters_left_out=max(0, len(live) - METERS_MAX),
        sample=_sample(clickhouse, without, bound),
    )


def _total(
    clickhouse: ClickHouse,
    meter: Meter,
    operation: Operation,
    supposing: Hypothesis | None,
    bounds: QueryBounds,
) -> Decimal | None:
    asked = MeterQuery(
        start=operation.selection.start,
        end=operation.selection.end,
        as_of=operation.vector,
        supposing=supposing,
    )
    rows = run_query(clickhouse, meter, asked, bounds)
    return rows[0].value if rows else None


def _sample(
    clickhouse: ClickHouse, without: str, bound: dict[str, object]
) -> tuple[SampleEvent, ...]:
    rows = clickhouse.query(
        f"SELECT {POSITION}, source, id, type, subject, toUnixTimestamp64Micro(time)"
        f" FROM {DATABASE}.events WHERE {without} ORDER BY time, {POSITION} LIMIT 1 BY {POSITION}"
        f" LIMIT {SAMPLE_MAX}",
        bound,
    )
    return tuple(
        SampleEvent(
            source=row[4], id=row[5], type=row[6], subject=row[7], time=datetime_from_us(row[8])
        )
        for row in rows
    )
