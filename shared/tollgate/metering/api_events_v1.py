"""v1 and v2 of the events list on HTTP."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Annotated, Any

import msgspec
from pydantic import ConfigDict, Field

from tollgate.core.clock import datetime_from_us
from tollgate.core.errors import Fault, InvalidInput
from tollgate.core.times import format_instant
from tollgate.events.api_position import await_position
from tollgate.events.as_of import FIELD, as_of
from tollgate.metering.attribution_reader import attributions_of_filters, with_customers
from tollgate.metering.event_cursor import EventOrder, decode_cursor, encode_cursor
from tollgate.metering.event_filters import Fields, Filters, read_filters
from tollgate.metering.events_list import (
    LIMIT_MAX,
    EventField,
    EventPage,
    EventQuery,
    ListedEvent,
    list_events,
)
from tollgate.metering.meter_reader import AGE_DOCUMENT, MeterReader
from tollgate.metering.tracking import tracked
from tollgate.metering.wire_v1 import AsOf, JsonText, Names, Wire, WireInstant
from tollgate.platform.access import Scope
from tollgate.platform.api import Call, Operation, Reply
from tollgate.platform.filter_dialects import (
    parse_filter_id_exact,
    parse_filter_string,
    parse_filter_time,
)
from tollgate.platform.filters import Comparison, Filter, Operator, contains
from tollgate.platform.parts import open_clickhouse

_DEFAULT_PERIOD = timedelta(hours=72)
_TEXT_LENGTH_MAX = 1024
_FIELDS: Fields = {
    "id": (EventField.ID, parse_filter_string),
    "source": (EventField.SOURCE, parse_filter_string),
    "subject": (EventField.SUBJECT, parse_filter_string),
    "type": (EventField.TYPE, parse_filter_string),
    "customerId": (EventField.CUSTOMER, parse_filter_id_exact),
    "time": (EventField.TIME, parse_filter_time),
    "ingestedAt": (EventField.INGESTED_AT, parse_filter_time),
}
_Limit = Annotated[int, Field(ge=1, le=LIMIT_MAX)]
_ClientId = Annotated[str | None, Field(alias="clientId", min_length=1, max_length=36)]
_Part = Annotated[str | None, Field(max_length=_TEXT_LENGTH_MAX)]


class EventListParameters(Wire):
    """Which events, by v1: periods are half-open, `id` and `subject` are parts of the text."""

    client_id: _ClientId = None
    ingested_from: WireInstant | None = Field(default=None, alias="ingestedAtFrom")
    ingested_to: WireInstant | None = Field(default=None, alias="ingestedAtTo")
    id: _Part = None
    subject: _Part = None
    customer_id: Names | None = Field(default=None, alias="customerId")
    start: WireInstant | None = Field(default=None, alias="from")
    end: WireInstant | None = Field(default=None, alias="to")
    limit: _Limit = LIMIT_MAX
    as_of: AsOf = None


class EventPageParameters(Wire):
    """Which events, by v2: a filter as JSON text, and the cursor of the page before."""

    cursor: str | None = None
    limit: _Limit = LIMIT_MAX
    client_id: _ClientId = None
    filter: JsonText | None = None
    as_of: AsOf = None


class EventBody(Wire):
    """A CloudEvent (schema `Event`); extensions are further members."""

    model_config = ConfigDict(extra="allow")

    id: str
    source: str
    specversion: str
    type: str
    subject: str
    time: WireInstant
    datacontenttype: str | None = None
    dataschema: str | None = None
    data: dict[str, Any] | None = None


class IngestedEventBody(Wire):
    """An event and what became of it (schema `IngestedEvent`)."""

    event: EventBody
    customer_id: str | None = Field(default=None, alias="customerId")
    validation_error: str | None = Field(default=None, alias="validationError")
    ingested_at: WireInstant = Field(alias="ingestedAt")
    stored_at: WireInstant = Field(alias="storedAt")


class IngestedEventPageBody(Wire):
    """A page (schema `IngestedEventCursorPaginatedResponse`)."""

    items: list[IngestedEventBody]
    next_cursor: str | None = Field(default=None, alias="nextCursor")


def list_events_v1(call: Call) -> Reply:
    """The latest events of a period, as a bare array."""
    filters = filters_from_parameters(call.query, call.parts.clock.now())
    asked = EventQuery(namespace=call.namespace, filters=filters, limit=call.query.limit)
    page = read_page(call, asked, call.query.client_id)
    return Reply(body=msgspec.json.encode([_item(event) for event in page.events]))


def list_events_v2(call: Call) -> Reply:
    """A page of events, latest first, and the cursor of the next one while there is one."""
    query: EventPageParameters = call.query
    after = None
    if query.cursor is not None:
        after = decode_cursor(query.cursor, EventOrder.TIME, "cursor")
    asked = EventQuery(
        namespace=call.namespace,
        filters=filters_from_json(query.filter or {}),
        after=after,
        limit=query.limit,
    )
    page = read_page(call, asked, query.client_id)
    body: dict[str, object] = {"items": [_item(event) for event in page.events]}
    if page.more:
        body["nextCursor"] = encode_cursor(page.events[-1].key)
    return Reply(body=msgspec.json.encode(body))


def read_page(
    call: Call, asked: EventQuery, client_id: str | None, as_of_field: str = FIELD
) -> EventPage:
    """The page, once what the request's position token names is loaded; by its `asOf`."""
    await_position(call)
    asked = replace(
        asked,
        as_of=as_of(call, call.query.as_of, as_of_field),
        attributions=attributions_of_filters(call, asked.filters),
    )
    parts = call.parts
    with tracked(call, client_id):
        page = list_events(
            parts.get(open_clickhouse),
            MeterReader(call),
            asked,
            parts.settings.query_seconds_max,
        )
        return with_customers(call, page)


def filters_from_parameters(query: EventListParameters, now: datetime) -> Filters:
    """What must hold for the events that a v1 request asks for.

    Without `from` the period is the last 72 hours, or the 72 hours before `to` if that is before
    them.

    Raises:
        InvalidInput: an empty period, or customers that are no ULIDs.
    """
    found = [
        *_period(EventField.TIME, _start(query, now), query.end, "to"),
        *_period(EventField.INGESTED_AT, query.ingested_from, query.ingested_to, "ingestedAtTo"),
    ]
    if query.id:
        found.append((EventField.ID, _part(query.id)))
    if query.subject:
        found.append((EventField.SUBJECT, _part(query.subject)))
    if query.customer_id is not None:
        customers = parse_filter_id_exact({"$in": query.customer_id}, "customerId")
        found.append((EventField.CUSTOMER, customers))
    return tuple(found)


def _start(query: EventListParameters, now: datetime) -> datetime:
    if query.start is not None:
        return query.start
    recent = now - _DEFAULT_PERIOD
    if query.end is not None and query.end <= recent:
        return query.end - _DEFAULT_PERIOD
    return recent


def _period(
    field: EventField, low: datetime | None, high: datetime | None, name: str
) -> list[tuple[EventField, Filter]]:
    if low is not None and high is not None and low >= high:
        message = "must be later than the start of the period; it is not part of the period"
        raise InvalidInput((Fault(field=name, code="empty_period", message=message),))
    bounds = ((Operator.GREATER_OR_EQUAL, low), (Operator.LESS, high))
    return [
        (field, Comparison(operator=operator, value=bound))
        for operator, bound in bounds
        if bound is not None
    ]


def _part(text: str) -> Filter:
    return replace(contains(text), ignore_case=False)


def filters_from_json(wanted: dict[str, Any]) -> Filters:
    """What must hold for the events that a v2 `filter` asks for.

    Raises:
        InvalidInput: every fault; a member that is no filter is one, or it would list too much.
    """
    return read_filters(wanted, _FIELDS, lambda name: f"filter.{name}")


def _item(event: ListedEvent) -> dict[str, object]:
    found: dict[str, object] = {
        "event": event.members(extensions=True),
        "ingestedAt": format_instant(datetime_from_us(event.received_us)),
        "storedAt": format_instant(datetime_from_us(event.stored_us)),
    }
    if event.customer_id is not None:
        found["customerId"] = event.customer_id
    if event.faults:
        found["validationError"] = "; ".join(fault.message for fault in event.faults)
    return found


OPERATIONS: tuple[Operation, ...] = (
    Operation(
        method="GET",
        path="/api/v1/events",
        operation_id="listEvents",
        summary="List ingested events",
        tag="Events",
        scope=Scope.READ,
        handler=list_events_v1,
        document=AGE_DOCUMENT,
        query=EventListParameters,
        response=list[IngestedEventBody],
        description="The latest events first. Without `from`, those of the last 72 hours.",
    ),
    Operation(
        method="GET",
        path="/api/v2/events",
        operation_id="listEventsV2",
        summary="List ingested events",
        tag="Events",
        scope=Scope.READ,
        handler=list_events_v2,
        document=AGE_DOCUMENT,
        query=EventPageParameters,
        response=IngestedEventPageBody,
        description="The latest events first, page by page, with filters as JSON text.",
    ),
)
