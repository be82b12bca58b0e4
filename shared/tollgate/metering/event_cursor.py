"""Where a page of events ends: an opaque cursor that stays right while events arrive.

A cursor names one event by what the list is ordered by and by the event's place in the log, which
no two events share and which never changes. What arrives later takes its own place in that order:
it moves nobody to another side of the cursor.
"""

import binascii
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b

from tollgate.core.errors import Fault, InvalidInput
from tollgate.core.times import EARLIEST_US, LATEST_US
from tollgate.events.position import Position

_FORM = struct.Struct(">BBqIHQI")  # version, order, microseconds, position
_VERSION = 1
_CHECK_LENGTH = 5
_LENGTH = -(-(_FORM.size + _CHECK_LENGTH) * 4 // 3)


class EventOrder(StrEnum):
    """What a list of events is ordered by; the value is the column."""

    TIME = "time"
    INGESTED_AT = "received_at"
    STORED_AT = "stored_at"


_ORDERS = tuple(EventOrder)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventKey:
    """An event's place in an order.

    Attributes:
        order: which one.
        instant_us: the event's value in it, microseconds since the epoch.
        position: decides between equal instants.
    """

    order: EventOrder
    instant_us: int
    position: Position


def encode_cursor(key: EventKey) -> str:
    """The cursor of an event: base64url, without padding."""
    at = key.position
    packed = _FORM.pack(
        _VERSION,
        _ORDERS.index(key.order),
        key.instant_us,
        at.generation,
        at.partition,
        at.offset,
        at.index,
    )
    return urlsafe_b64encode(packed + _check(packed)).rstrip(b"=").decode()


def decode_cursor(text: str, order: EventOrder, field: str) -> EventKey:
    """The place that a cursor names.

    Args:
        text: what the client sent.
        order: of the list that is asked for.
        field: where it stood, for the fault.

    Raises:
        InvalidInput: not a cursor that was given out, or one of a list in another order.
    """
    key = _decoded(text)
    if key is None:
        raise _unusable(field, "invalid_cursor", "is not a cursor; send back one as it was given")
    if key.order is not order:
        raise _unusable(field, "cursor_of_another_order", "belongs to a list in another order")
    return key


def _decoded(text: str) -> EventKey | None:
    if len(text) != _LENGTH or not text.isascii():
        return None
    try:
        raw = urlsafe_b64decode(text + "=" * (-_LENGTH % 4))
    except binascii.Error:
        return None
    packed, check = raw[: _FORM.size], raw[_FORM.size :]
    if check != _check(packed):
        return None
    version, order, instant_us, *position = _FORM.unpack(packed)
    if version != _VERSION or order >= len(_ORDERS) or not EARLIEST_US <= instant_us <= LATEST_US:
        return None
    generation, partition, offset, index = position
    key = EventKey(
        order=_ORDERS[order],
        instant_us=instant_us,
        position=Position(generation=generation, partition=partition, offset=offset, index=index),
    )
    # One event has one cursor: other spellings of the same bytes are none.
    return key if encode_cursor(key) == text else None


def _check(packed: bytes) -> bytes:
    # Tells a mistake from a cursor; there is nothing secret to protect, the namespace is the key's.
    return blake2b(packed, digest_size=_CHECK_LENGTH, person=b"event cursor").digest()


def _unusable(field: str, code: str, message: str) -> InvalidInput:
    return InvalidInput((Fault(field=field, code=code, message=message),))
