"""Use case: a page of a namespace's events, as they were sent, with what is wrong with them.

Two steps: which events are on the page is decided on the small columns alone; only then are the
payloads of these few rows read, found by the table's order. A row that the loader wrote twice (the
same position) is one event.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import msgspec

from tollgate.core.clock import datetime_from_us
from tollgate.core.times import format_instant
from tollgate.customers.attribution import Attribution
from tollgate.events.facts import UNCORRECTED, counting, has_corrections, within
from tollgate.events.position import Position, Token
from tollgate.metering.aggregation import DOCUMENT
from tollgate.metering.event_cursor import EventKey, EventOrder
from tollgate.metering.meter import Meter
from tollgate.metering.ownership import ownership
from tollgate.metering.query import FINAL_SETTINGS
from tollgate.metering.validation import (
    READINGS_MAX,
    EventFault,
    Found,
    Reading,
    event_faults,
    found_from_row,
    readings_of,
    readings_parameters,
    readings_sql,
)
from tollgate.platform.clickhouse import DATABASE, ClickHouse
from tollgate.platform.filters import (
    And,
    Comparison,
    Filter,
    Membership,
    Operator,
    Parameters,
    to_sql,
)

LIMIT_MAX = 100
_POSITION = ("log_generation", "log_partition", "log_offset", "log_index")
_PAYLOAD = ", ".join(
    [
        *_POSITION,
        *("time_us", "received_us", "stored_us", "id", "source", "type", "subject"),
        *("datacontenttype", "dataschema", "extensions", "data"),
    ]
)
_PAYLOAD_SOURCE = (
    f"SELECT *, toUnixTimestamp64Micro(time) AS time_us, {DOCUMENT} AS document,"
    " toUnixTimestamp64Micro(received_at) AS received_us,"
    f" toUnixTimestamp64Micro(stored_at) AS stored_us FROM {DATABASE}.events"
)
_STORED_US = 6  # place in `_PAYLOAD`
Row = Sequence[Any]


class EventField(StrEnum):
    """What events can be filtered by."""

    ID = "id"
    SOURCE = "source"
    TYPE = "type"
    SUBJECT = "subject"
    CUSTOMER = "customer"
    TIME = "time"
    INGESTED_AT = "received_at"
    STORED_AT = "stored_at"


@dataclass(frozen=True, slots=True, kw_only=True)
class EventQuery:
    """Which page of which events.

    Attributes:
        namespace: whose events.
        filters: all must hold.
        order: what the list is ordered by; equal instants by the place in the log.
        descending: latest first.
        after: only what follows this event in the list.
        before: only what precedes it, the nearest ones; not together with `after`.
        limit: events on the page, 1 to `LIMIT_MAX`.
        as_of: only what was known at this vector of the log; None: all that is known now.
        attributions: of every customer that is named in filters.
    """

    namespace: str
    filters: tuple[tuple[EventField, Filter], ...] = ()
    order: EventOrder = EventOrder.TIME
    descending: bool = True
    after: EventKey | None = None
    before: EventKey | None = None
    limit: int = LIMIT_MAX
    as_of: Token | None = None
    attributions: tuple[Attribution, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedEvent:
    """An event as it was sent, and what became of it.

    Attributes:
        key: its place in the list.
        time_us: when it happened: the time that was sent, or the server's.
        received_us, stored_us: when it was taken in, and stored, microseconds since the epoch.
        datacontenttype, dataschema: "" if not sent.
        extensions: JSON object of CloudEvents extensions, "" without any.
        data: JSON object as it was sent, digit for digit; "" without any.
        faults: why it does not count.
        customer_id: whose usage it is; None: nobody's, or not asked yet.
    """

    key: EventKey
    id: str
    source: str
    type: str
    subject: str
    time_us: int
    received_us: int
    stored_us: int
    datacontenttype: str
    dataschema: str
    extensions: str
    data: str
    faults: tuple[EventFault, ...]
    customer_id: str | None = None

    def members(self, *, extensions: bool) -> dict[str, object]:
        """The CloudEvent for JSON by msgspec; `data` is raw text, so no number is touched.

        Args:
            extensions: with the extension attributes.
        """
        found: dict[str, object] = {
            "id": self.id,
            "source": self.source,
            "specversion": "1.0",
            "type": self.type,
            "subject": self.subject,
            "time": format_instant(datetime_from_us(self.time_us)),
        }
        if self.datacontenttype:
            found["datacontenttype"] = self.datacontenttype
        if self.dataschema:
            found["dataschema"] = self.dataschema
        if extensions and self.extensions:
            found |= msgspec.json.decode(self.extensions, type=dict[str, msgspec.Raw])
        if self.data:
            found["data"] = msgspec.Raw(self.data.encode())
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class EventPage:
    """A page of a list.

    Attributes:
        events: in the list's order.
        more: whether there are events beyond the page, in the direction that was read.
    """

    events: tuple[ListedEvent, ...]
    more: bool


class LiveMeters(Protocol):
    """Where live meters are known."""

    def live_of_event_types(
        self, namespace: str, event_types: Collection[str], /
    ) -> tuple[Meter, ...]:
        """Every live meter that reads one of these event types, by slug."""


def list_events(
    clickhouse: ClickHouse, meters: LiveMeters, asked: EventQuery, seconds_max: int
) -> EventPage:
    """One page of events.

    Raises:
        Transient: ClickHouse is away, or takes longer than `seconds_max`.
    """
    assert asked.after is None or asked.before is None
    settings = FINAL_SETTINGS | {"max_execution_time": seconds_max}
    places = _select(clickhouse, asked, settings)
    more = len(places) > asked.limit
    places = places[: asked.limit]
    if asked.before is not None:
        places.reverse()
    if not places:
        return EventPage(events=(), more=False)
    live = meters.live_of_event_types(asked.namespace, {place.type for place in places})
    readings = readings_of(live)
    payloads: dict[Position, Row] = {}
    found: dict[Position, dict[Reading, Found]] = {}
    # Without meters there is one round too: it reads the payloads.
    for first in range(0, len(readings) or 1, READINGS_MAX):
        some = readings[first : first + READINGS_MAX]
        for *payload, faults, kinds in _read(clickhouse, asked.namespace, places, some, settings):
            position = _position(payload)
            found.setdefault(position, {}).update(found_from_row(some, faults, kinds))
            known = payloads.get(position)
            # Of a row that stands twice, FINAL too would keep the one stored last.
            if known is None or known[_STORED_US] < payload[_STORED_US]:
                payloads[position] = payload
    events = []
    for place in places:
        position = place.key.position
        of_type = [meter for meter in live if meter.event_type == place.type]
        told = event_faults(place.type, datetime_from_us(place.time_us), of_type, found[position])
        events.append(_event(place.key, payloads[position], told))
    return EventPage(events=tuple(events), more=more)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """An event on the page, before its payload is read."""

    key: EventKey
    type: str
    subject: str
    time_us: int


def _select(
    clickhouse: ClickHouse, asked: EventQuery, settings: Mapping[str, object]
) -> list[_Place]:
    """The events of the page and one more if there is one, in the direction that is read."""
    wanted = asked.limit + 1
    bound = Parameters("p")
    ascending = asked.descending == (asked.before is not None)
    namespace = bound.bind(asked.namespace)
    conditions = [f"namespace = {namespace}"]
    if asked.as_of is not None:
        conditions.append(within(asked.as_of))
    corrected = has_corrections(clickhouse, asked.namespace)
    conditions.append(counting(namespace, vector=asked.as_of) if corrected else UNCORRECTED)
    for field, condition in asked.filters:
        if field is EventField.CUSTOMER:
            conditions += _of_customer(condition, asked.attributions, bound)
        else:
            conditions.append(f"({to_sql(condition, field.value, bound)})")
    boundary = asked.after or asked.before
    parameters: dict[str, object] = {}
    if boundary is not None:
        conditions.append(_beyond(boundary, bound, parameters, ascending=ascending))
    # All columns but `stored_at` are the same in rows of one position, so such rows stand side by
    # side and FINAL, which reads the whole sorting key, is not needed.
    by_stored = asked.order is EventOrder.STORED_AT or any(
        field is EventField.STORED_AT for field, _ in asked.filters
    )
    direction = "ASC" if ascending else "DESC"
    order = ", ".join(f"{column} {direction}" for column in (asked.order.value, *_POSITION))
    statement = (
        f"SELECT toUnixTimestamp64Micro({asked.order.value}), {', '.join(_POSITION)}, type,"
        f" subject, toUnixTimestamp64Micro(time) FROM {DATABASE}.events"
        f"{' FINAL' if by_stored else ''} WHERE {' AND '.join(conditions)} ORDER BY {order}"
    )
    rows_max = wanted if by_stored else 2 * wanted
    while True:
        rows = clickhouse.query(
            f"{statement} LIMIT {rows_max}", bound.values | parameters, settings
        )
        places = {_position(row[1:]): row for row in rows}
        if len(places) >= wanted or len(rows) < rows_max:
            break
        rows_max *= 4
    return [
        _Place(
            key=EventKey(order=asked.order, instant_us=row[0], position=position),
            type=row[5],
            subject=row[6],
            time_us=row[7],
        )
        for position, row in list(places.items())[:wanted]
    ]


def _of_customer(
    condition: Filter, attributions: Sequence[Attribution], bound: Parameters
) -> Iterable[str]:
    """Conditions on whose usage an event is."""
    owned = ownership(attributions, None, None)
    subjects = owned.subjects_sql(bound)
    if not _holds_for_nobody(condition):
        # The table's order finds them.
        yield f"subject IN {subjects}"
    owner = owned.owner_sql(bound, subjects, "toUnixTimestamp64Micro(time)")
    yield f"({to_sql(condition, f'({owner})', bound)})"


def _holds_for_nobody(condition: Filter) -> bool:
    match condition:
        case Comparison(operator=operator):
            return operator is not Operator.EQUAL
        case Membership(negated=negated):
            return negated
        case And(filters=filters):
            return all(map(_holds_for_nobody, filters))
        case _:
            return True


def _beyond(
    key: EventKey, bound: Parameters, parameters: dict[str, object], *, ascending: bool
) -> str:
    """SQL of what comes after an event in the direction of reading; the event is not part of it."""
    sign = ">" if ascending else "<"
    column, instant = key.order.value, bound.bind(datetime_from_us(key.instant_us))
    at = key.position
    parameters |= {
        "after_generation": at.generation,
        "after_partition": at.partition,
        "after_offset": at.offset,
        "after_index": at.index,
    }
    return (
        f"{column} {sign}= {instant} AND ({column} {sign} {instant}"
        f" OR ({', '.join(_POSITION)}) {sign} ({{after_generation:UInt32}},"
        " {after_partition:UInt16}, {after_offset:UInt64}, {after_index:UInt32}))"
    )


def _read(
    clickhouse: ClickHouse,
    namespace: str,
    places: Sequence[_Place],
    readings: Sequence[Reading],
    settings: Mapping[str, object],
) -> Sequence[Row]:
    """Payloads and readings of at least these events; some may be given twice, or not be asked for.

    The conditions follow the table's order so that only few granules are read; they hold for each
    column alone, so other rows may pass too.
    """
    bound = Parameters("p")
    parameters = readings_parameters(readings) | {
        "times": sorted({_column_time(place.time_us) for place in places}),
        "offsets": sorted({place.key.position.offset for place in places}),
        "indexes": sorted({place.key.position.index for place in places}),
    }
    source = (
        f"{_PAYLOAD_SOURCE} WHERE namespace = {bound.bind(namespace)}"
        f" AND type IN {bound.bind(tuple(sorted({place.type for place in places})))}"
        f" AND subject IN {bound.bind(tuple(sorted({place.subject for place in places})))}"
        " AND time IN {times:Array(DateTime64(6, 'UTC'))}"
        " AND log_offset IN {offsets:Array(UInt64)} AND log_index IN {indexes:Array(UInt32)}"
    )
    return clickhouse.query(
        readings_sql(source, _PAYLOAD, readings), bound.values | parameters, settings
    )


def _column_time(microseconds: int) -> str:
    instant = datetime_from_us(microseconds).replace(tzinfo=None)
    return instant.isoformat(sep=" ", timespec="microseconds")


def _position(row: Row) -> Position:
    return Position(generation=row[0], partition=row[1], offset=row[2], index=row[3])


def _event(key: EventKey, payload: Row, faults: tuple[EventFault, ...]) -> ListedEvent:
    time_us, received_us, stored_us, event_id, source, event_type, subject = payload[4:11]
    datacontenttype, dataschema, extensions, data = payload[11:]
    return ListedEvent(
        key=key,
        id=event_id,
        source=source,
        type=event_type,
        subject=subject,
        time_us=time_us,
        received_us=received_us,
        stored_us=stored_us,
        datacontenttype=datacontenttype,
        dataschema=dataschema,
        extensions=extensions,
        data=data,
        faults=faults,
    )
