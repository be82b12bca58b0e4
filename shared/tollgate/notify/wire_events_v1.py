"""Wire models of v1: notification events and their deliveries, named as the contract names them."""

from typing import Annotated, Any, Literal

import msgspec
from pydantic import Field

from tollgate.notify.delivery import Attempt, Delivery, State
from tollgate.notify.event_store import Event
from tollgate.notify.wire_v1 import (
    ChannelMetaBody,
    Id,
    PageParameters,
    RuleBody,
    members_from_rule,
    members_of_channel_meta,
)
from tollgate.platform.wire import Wire, WireInstant

_States = Literal["SUCCESS", "FAILED", "SENDING", "PENDING", "RESENDING"]


class AttemptResponseBody(Wire):
    """What a receiver answered (schema `EventDeliveryAttemptResponse`)."""

    status_code: int | None = Field(default=None, alias="statusCode")
    body: str
    duration_ms: int = Field(alias="durationMs")
    url: str | None = None


class AttemptBody(Wire):
    """One attempt (schema `NotificationEventDeliveryAttempt`)."""

    state: _States
    response: AttemptResponseBody
    error: Annotated[str | None, Field(description="Why there was no answer.")] = None
    timestamp: WireInstant


class DeliveryBody(Wire):
    """A delivery (schema `NotificationEventDeliveryStatus`)."""

    state: _States
    reason: str
    updated_at: WireInstant = Field(alias="updatedAt")
    channel: ChannelMetaBody
    annotations: dict[str, Any] | None = None
    next_attempt: WireInstant | None = Field(default=None, alias="nextAttempt")
    attempts: list[AttemptBody]


class EventBody(Wire):
    """An event (schema `NotificationEvent`)."""

    id: Id
    type: Literal[
        "entitlements.balance.threshold", "entitlements.reset", "invoice.created", "invoice.updated"
    ]
    created_at: WireInstant = Field(alias="createdAt")
    rule: RuleBody
    delivery_status: list[DeliveryBody] = Field(alias="deliveryStatus")
    payload: Annotated[dict[str, Any], Field(description="As it is sent.")]
    annotations: dict[str, Any] | None = None


class EventPageBody(Wire):
    """One page of events (schema `NotificationEventPaginatedResponse`)."""

    total_count: int = Field(alias="totalCount")
    page: int
    page_size: int = Field(alias="pageSize")
    items: list[EventBody]


class ResendBody(Wire):
    """To whom an event is sent again (schema `NotificationEventResendRequest`)."""

    channels: Annotated[
        list[Id] | None, Field(max_length=100, description="Left out or empty: to all.")
    ] = None


_Ids = Annotated[list[str] | None, Field(max_length=100)]


class EventListParameters(PageParameters):
    """Which page of which events; `to` is exclusive."""

    order_by: Annotated[Literal["id", "createdAt"], Field(alias="orderBy")] = "id"
    from_: Annotated[WireInstant | None, Field(alias="from")] = None
    to: WireInstant | None = None
    feature: _Ids = None
    subject: _Ids = None
    rule: _Ids = None
    channel: _Ids = None


def members_from_event(event: Event) -> dict[str, object]:
    """The wire's form of an event, for `json_bytes`."""
    members: dict[str, object] = {
        "id": event.id,
        "type": event.kind.value,
        "createdAt": event.created_at,
        "rule": members_from_rule(event.rule),
        "deliveryStatus": [_delivery(each) for each in event.deliveries],
        "payload": msgspec.Raw(event.payload.encode()),
    }
    if event.annotations:
        members["annotations"] = event.annotations
    return members


def _delivery(delivery: Delivery) -> dict[str, object]:
    members: dict[str, object] = {
        "state": delivery.state.value,
        "reason": delivery.reason,
        "updatedAt": delivery.updated_at,
        "channel": members_of_channel_meta(delivery.channel_id),
        "attempts": [_attempt(each) for each in delivery.attempts],
    }
    if delivery.next_attempt is not None:
        members["nextAttempt"] = delivery.next_attempt
    return members


def _attempt(attempt: Attempt) -> dict[str, object]:
    response: dict[str, object] = {
        "body": attempt.body,
        "durationMs": attempt.duration_ms,
        "url": attempt.url,
    }
    if attempt.status is not None:
        response["statusCode"] = attempt.status
    members: dict[str, object] = {
        "state": (State.SUCCESS if attempt.succeeded else State.FAILED).value,
        "response": response,
        "timestamp": attempt.at,
    }
    if attempt.error:
        members["error"] = attempt.error
    return members
