"""The bytes of a webhook: written once, sent and shown as they are, numbers digit for digit."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal

import msgspec

from tollgate.core.decimals import plain_text
from tollgate.core.times import format_instant
from tollgate.notify.balance import Balance
from tollgate.notify.rule import Kind
from tollgate.notify.threshold import Level


def json_bytes(value: object) -> bytes:
    """JSON of plain values, decimals as numbers, instants in RFC 3339."""
    return msgspec.json.encode(_exact(value))


def _exact(value: object) -> object:
    match value:
        case Decimal():
            return msgspec.Raw(plain_text(value).encode())
        case datetime():
            return format_instant(value)
        case Mapping():
            return {name: _exact(each) for name, each in value.items()}
        case list() | tuple():
            return [_exact(each) for each in value]
        case _:
            return value


def payload_text(kind: Kind, event_id: str, created_at: datetime, data: object) -> str:
    """The payload of an event (schema `NotificationEventPayload`)."""
    payload = {"id": event_id, "type": kind.value, "timestamp": created_at, "data": data}
    return json_bytes(payload).decode()


def members_of_balance(
    balance: Balance, described: Mapping[str, object], level: Level | None
) -> dict[str, object]:
    """The data of a payload that tells of a balance.

    Args:
        balance: what is told.
        described: feature, subject and customer, as v1 shows them.
        level: that was reached; None: it is no matter of levels.
    """
    members: dict[str, object] = {
        "entitlement": balance.entitlement,
        **described,
        "value": {
            "hasAccess": balance.has_access,
            "balance": balance.balance,
            "usage": balance.usage,
            "overage": balance.overage,
            "totalAvailableGrantAmount": balance.total,
        },
    }
    if level is not None:
        members["threshold"] = members_of_level(level)
    return members


def members_of_level(level: Level) -> dict[str, object]:
    """A threshold, as v1 shows it."""
    return {"value": level.value, "type": level.type.value}
