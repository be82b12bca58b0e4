"""A notification event as an event of the log: a CloudEvent whose identity and content stay. Pure.

Made of what is stored and never changes, so it is the same however often it is made: appended
again it is the same event, and counts once.
"""

from datetime import datetime

import msgspec

from tollgate.core.times import format_instant
from tollgate.events.event import ATTRIBUTE_LENGTH_MAX
from tollgate.notify.rule import Kind

SOURCE = "tollgate/notify"
TYPE_PREFIX = "tollgate."


class _Named(msgspec.Struct):
    key: str | None = None
    id: str | None = None


class _About(msgspec.Struct):
    customer: _Named | None = None
    subject: _Named | None = None


class _Payload(msgspec.Struct):
    data: _About


_payload = msgspec.json.Decoder(_Payload)


def event_type(kind: Kind) -> str:
    """The type under which meters find events of a kind: `tollgate.entitlements.reset`, say."""
    return TYPE_PREFIX + kind.value


def cloud_event(event_id: str, kind: Kind, created_at: datetime, payload: str) -> bytes:
    """The CloudEvent of a notification event, as JSON.

    Its data is the payload, as webhooks carry it, digit for digit. It is the usage of the customer
    that it tells of: its subject is the customer's key, or else its id, or else a subject.
    """
    return msgspec.json.encode(
        {
            "specversion": "1.0",
            "id": event_id,
            "source": SOURCE,
            "type": event_type(kind),
            "subject": _subject(payload) or event_id,
            "time": format_instant(created_at),
            "datacontenttype": "application/json",
            "data": msgspec.Raw(payload.encode()),
        }
    )


def _subject(payload: str) -> str | None:
    about = _payload.decode(payload).data
    customer, subject = about.customer or _Named(), about.subject or _Named()
    candidates = (customer.key, customer.id, subject.key)
    return next((each for each in candidates if each and _is_attribute(each)), None)


def _is_attribute(text: str) -> bool:
    return len(text) <= ATTRIBUTE_LENGTH_MAX and text.isprintable()
