"""v1 of notification events on HTTP: list, read, send again."""

from typing import Any

from tollgate.notify.api_rules_v1 import open_events
from tollgate.notify.channel_store import Order
from tollgate.notify.doorbell import open_doorbell
from tollgate.notify.event_store import EventListing
from tollgate.notify.outbox_store import OutboxStore
from tollgate.notify.payload import json_bytes
from tollgate.notify.wire_events_v1 import (
    EventBody,
    EventListParameters,
    EventPageBody,
    ResendBody,
    members_from_event,
)
from tollgate.platform.access import Scope
from tollgate.platform.api import Call, Operation, Reply
from tollgate.platform.database import open_database
from tollgate.platform.parts import Parts

_ORDERS = {"id": Order.ID, "createdAt": Order.CREATED_AT}


def open_outbox(parts: Parts) -> OutboxStore:
    """The deliveries of the control plane."""
    return OutboxStore(parts.get(open_database), parts.clock)


def list_events(call: Call) -> Reply:
    """One page of events."""
    query: EventListParameters = call.query
    listing = EventListing(
        page=query.page,
        page_size=query.page_size,
        order=_ORDERS[query.order_by],
        descending=query.order == "DESC",
        begin=query.from_,
        end=query.to,
        features=tuple(query.feature or ()),
        subjects=tuple(query.subject or ()),
        rules=tuple(query.rule or ()),
        channels=tuple(query.channel or ()),
    )
    found, total = call.parts.get(open_events).list(call.namespace, listing)
    page = {"totalCount": total, "page": query.page, "pageSize": query.page_size}
    return Reply(body=json_bytes(page | {"items": [members_from_event(each) for each in found]}))


def get_event(call: Call) -> Reply:
    """One event by id, with all attempts to deliver it."""
    found = call.parts.get(open_events).get(call.namespace, call.path["eventId"])
    return Reply(body=json_bytes(members_from_event(found)))


def resend_event(call: Call) -> None:
    """Sends an event again, under the id that it has."""
    wanted: ResendBody = call.body
    outbox = call.parts.get(open_outbox)
    outbox.resend(call.namespace, call.path["eventId"], wanted.channels or ())
    call.parts.get(open_doorbell).ring()


def _operation(method: str, path: str, operation_id: str, summary: str, **more: Any) -> Operation:
    return Operation(
        method=method,
        path=f"/api/v1/notification/events{path}",
        operation_id=operation_id,
        summary=summary,
        tag="Notifications",
        **{"scope": Scope.READ} | more,
    )


_ONE = "/{eventId}"
OPERATIONS: tuple[Operation, ...] = (
    _operation(
        "GET",
        "",
        "listNotificationEvents",
        "List notification events",
        handler=list_events,
        query=EventListParameters,
        response=EventPageBody,
    ),
    _operation(
        "GET",
        _ONE,
        "getNotificationEvent",
        "Get notification event",
        handler=get_event,
        response=EventBody,
    ),
    _operation(
        "POST",
        f"{_ONE}/resend",
        "resendNotificationEvent",
        "Re-send notification event",
        handler=resend_event,
        body=ResendBody,
        body_optional=True,
        status=202,
        scope=Scope.ADMIN,
    ),
)
