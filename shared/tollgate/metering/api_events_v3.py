"""v3 of the events list on HTTP."""

from typing import Annotated, Any
from urllib.parse import parse_qsl, urlencode

import msgspec
from pydantic import BaseModel, ConfigDict, Field

from tollgate.core.clock import datetime_from_us
from tollgate.core.errors import Fault, InvalidInput
from tollgate.core.times import format_instant
from tollgate.metering.api_events_v1 import EventBody, read_page
from tollgate.metering.event_cursor import EventKey, EventOrder, decode_cursor, encode_cursor
from tollgate.metering.event_filters import Fields, Filters, read_filters
from tollgate.metering.events_list import (
    LIMIT_MAX,
    EventField,
    EventPage,
    EventQuery,
    ListedEvent,
)
from tollgate.metering.meter_reader import AGE_DOCUMENT
from tollgate.metering.wire_v1 import WireInstant
from tollgate.metering.wire_v3 import AsOf
from tollgate.platform.access import Scope
from tollgate.platform.api import Call, Operation, Reply
from tollgate.platform.filter_dialects import (
    parse_datetime_field,
    parse_string_field,
    parse_ulid_field,
)

PATH = "/api/v3/openmeter/events"
_AFTER, _BEFORE = "page[after]", "page[before]"
_ORDERS = {
    "time": EventOrder.TIME,
    "ingested_at": EventOrder.INGESTED_AT,
    "stored_at": EventOrder.STORED_AT,
}
_FIELDS: Fields = {
    "id": (EventField.ID, parse_string_field),
    "source": (EventField.SOURCE, parse_string_field),
    "subject": (EventField.SUBJECT, parse_string_field),
    "type": (EventField.TYPE, parse_string_field),
    "customer_id": (EventField.CUSTOMER, parse_ulid_field),
    "time": (EventField.TIME, parse_datetime_field),
    "ingested_at": (EventField.INGESTED_AT, parse_datetime_field),
    "stored_at": (EventField.STORED_AT, parse_datetime_field),
}


class CursorPageParameters(BaseModel):
    """`page[size]`, and `page[after]` or `page[before]`."""

    model_config = ConfigDict(extra="forbid")

    size: Annotated[int, Field(ge=1, le=LIMIT_MAX)] = LIMIT_MAX
    after: str | None = None
    before: str | None = None


class EventListParametersV3(BaseModel):
    """Which events, in which order."""

    model_config = ConfigDict(extra="ignore")

    page: CursorPageParameters = CursorPageParameters()
    filter: dict[str, Any] | None = None
    sort: str | None = None
    as_of: AsOf = None


class EventFaultBody(BaseModel):
    """One reason why an event does not count."""

    code: str
    message: str
    attributes: dict[str, str]


class MeteringEventBody(EventBody):
    """A CloudEvent (schema `MeteringEvent`), without extensions: the contract has no room."""

    model_config = ConfigDict(extra="forbid")


class CustomerReferenceBody(BaseModel):
    """Whose usage an event is (schema `CustomerReference`)."""

    id: str


class MeteringIngestedEventBody(BaseModel):
    """An event and what became of it (schema `MeteringIngestedEvent`)."""

    event: MeteringEventBody
    customer: CustomerReferenceBody | None = None
    ingested_at: WireInstant
    stored_at: WireInstant
    validation_errors: list[EventFaultBody] | None = None


class CursorMetaPageBody(BaseModel):
    """URIs of the pages around this one; null where there is none."""

    first: str
    next: str | None
    previous: str | None
    size: int


class CursorMetaBody(BaseModel):
    """What the contract wraps the page in."""

    page: CursorMetaPageBody


class IngestedEventPageBodyV3(BaseModel):
    """A page (schema `IngestedEventPaginatedResponse`)."""

    data: list[MeteringIngestedEventBody]
    meta: CursorMetaBody


def list_events_v3(call: Call) -> Reply:
    """A page of events, with the URIs of the pages around it."""
    asked = query_from_parameters(call.namespace, call.query)
    page = read_page(call, asked, None, "as_of")
    body = {
        "data": [_item(event) for event in page.events],
        "meta": {"page": _links(call.target, asked, page) | {"size": asked.limit}},
    }
    return Reply(body=msgspec.json.encode(body))


def query_from_parameters(namespace: str, query: EventListParametersV3) -> EventQuery:
    """The question that a v3 request asks.

    Raises:
        InvalidInput: every fault of order, filters and cursor.
    """
    faults: list[Fault] = []
    order, descending = EventOrder.TIME, True
    filters: Filters = ()
    after = before = None
    try:
        order, descending = read_sort(query.sort)
        after, before = _boundaries(query.page, order)
    except InvalidInput as problem:
        faults += problem.faults
    try:
        filters = _filters(query.filter or {})
    except InvalidInput as problem:
        faults += problem.faults
    if faults:
        raise InvalidInput(tuple(faults))
    return EventQuery(
        namespace=namespace,
        filters=filters,
        order=order,
        descending=descending,
        after=after,
        before=before,
        limit=query.page.size,
    )


def read_sort(text: str | None) -> tuple[EventOrder, bool]:
    """The order that a `sort` names, and whether it is descending, which it is unless it says asc.

    Raises:
        InvalidInput: not one of the orders there are.
    """
    if text is None:
        return EventOrder.TIME, True
    name, *suffix = text.split() or [""]
    if name in _ORDERS and suffix in ([], ["asc"], ["desc"]):
        return _ORDERS[name], suffix != ["asc"]
    message = f"must be one of {', '.join(_ORDERS)}, alone or followed by a space and asc or desc"
    raise InvalidInput((Fault(field="sort", code="invalid_sort", message=message),))


def _boundaries(
    page: CursorPageParameters, order: EventOrder
) -> tuple[EventKey | None, EventKey | None]:
    if page.after is not None and page.before is not None:
        message = f"cannot be given together with {_AFTER}"
        raise InvalidInput((Fault(field=_BEFORE, code="conflicting_cursors", message=message),))
    after = None if page.after is None else decode_cursor(page.after, order, _AFTER)
    before = None if page.before is None else decode_cursor(page.before, order, _BEFORE)
    return after, before


def _filters(wanted: dict[str, Any]) -> Filters:
    return read_filters(wanted, _FIELDS, lambda name: f"filter[{name}]")


def _links(target: str, asked: EventQuery, page: EventPage) -> dict[str, str | None]:
    """URIs of the first, next and previous page of the same list."""
    path, _, query = target.partition("?")
    kept = [
        (name, value)
        for name, value in parse_qsl(query, keep_blank_values=True)
        if name not in (_AFTER, _BEFORE)
    ]

    def link(*cursor: tuple[str, str]) -> str:
        pairs = [*kept, *cursor]
        return f"{path}?{urlencode(pairs)}" if pairs else path

    following = previous = None
    backwards = asked.before is not None
    if page.events:
        # The event whose cursor was sent stands beyond the page, on the side it was read from.
        if page.more or backwards:
            following = link((_AFTER, encode_cursor(page.events[-1].key)))
        if asked.after is not None or (backwards and page.more):
            previous = link((_BEFORE, encode_cursor(page.events[0].key)))
    elif backwards:
        following = link()
    return {"first": link(), "next": following, "previous": previous}


def _item(event: ListedEvent) -> dict[str, object]:
    found: dict[str, object] = {
        "event": event.members(extensions=False),
        "ingested_at": format_instant(datetime_from_us(event.received_us)),
        "stored_at": format_instant(datetime_from_us(event.stored_us)),
    }
    if event.customer_id is not None:
        found["customer"] = {"id": event.customer_id}
    if event.faults:
        found["validation_errors"] = [
            {"code": fault.code, "message": fault.message, "attributes": fault.attributes}
            for fault in event.faults
        ]
    return found


OPERATIONS: tuple[Operation, ...] = (
    Operation(
        method="GET",
        path=PATH,
        operation_id="list-metering-events",
        summary="List metering events",
        tag="Metering Events",
        scope=Scope.READ,
        handler=list_events_v3,
        document=AGE_DOCUMENT,
        query=EventListParametersV3,
        response=IngestedEventPageBodyV3,
        wire="v3",
        description="Sorted by `time desc` unless `sort` says otherwise.",
    ),
)
