"""Usage events from the wire: CloudEvents 1.0 JSON, checked and made ready for the log.

The hot path decodes a whole body into structs in one call. Whatever it refuses goes through
`tollgate.events.faults`, which reads event by event, knows extensions, and names every fault.
Sources: CloudEvents 1.0.2 (attributes, JSON format); OpenMeter's contract (schema `Event`).
"""

import re
from datetime import datetime
from typing import Annotated

import msgspec

from tollgate.core.clock import datetime_from_us
from tollgate.core.times import EARLIEST_US, LATEST_US, parse_instant_us
from tollgate.events.identity import content_hash, key_hash, key_prefix
from tollgate.events.numbers import exact_copy, may_be_inexact
from tollgate.events.record import TIME_GIVEN, Encoded

ATTRIBUTE_LENGTH_MAX = 1024
DEPTH_MAX = 64
_Attribute = Annotated[str, msgspec.Meta(min_length=1, max_length=ATTRIBUTE_LENGTH_MAX)]
_NO_DATA = msgspec.Raw(b"")
_JSON = "application/json"
_DEEP_BYTES = 2 * DEPTH_MAX  # a value nested deeper has an opening and a closing byte per level
_NO_COPY = b'""'
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)


class Envelope(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """An event without extensions, `data` untouched."""

    id: _Attribute
    source: _Attribute
    type: _Attribute
    subject: _Attribute
    specversion: str = "1.0"
    time: str | None = None
    datacontenttype: str | None = None
    dataschema: str | None = None
    data: msgspec.Raw = _NO_DATA


class NeedsCare(Exception):
    """The hot path can't take this event; the careful path decides."""


class Arrival:
    """What all events of one request share.

    Attributes:
        namespace: whose events these are.
        received_us: the one server time of the request, microseconds since the epoch.
        event_bytes_max: bound on one event as the log keeps it.
        careful: the body holds something that needs a look at each event (escapes, numbers that
            may be inexact).
    """

    __slots__ = (
        "careful",
        "event_bytes_max",
        "namespace",
        "prefix",
        "received_text",
        "received_us",
    )

    def __init__(
        self, *, namespace: str, received_us: int, event_bytes_max: int, careful: bool
    ) -> None:
        self.namespace = namespace
        self.received_us = received_us
        self.event_bytes_max = event_bytes_max
        self.careful = careful
        self.prefix = key_prefix(namespace)
        self.received_text = _column_time(received_us)


_one = msgspec.json.Decoder(Envelope)
_many = msgspec.json.Decoder(list[Envelope])
_line = msgspec.json.Encoder().encode


def decode_envelopes(body: bytes, batch: bool) -> list[Envelope]:
    """Decodes a body in one call.

    Raises:
        msgspec.DecodeError, msgspec.ValidationError: the careful path has to look.
    """
    return _many.decode(body) if batch else [_one.decode(body)]


def needs_care(body: bytes) -> bool:
    """Whether any event of the body needs the checks that most bodies can go without."""
    return b"\\u" in body or may_be_inexact(body)


def encode_plain(event: Envelope, arrival: Arrival) -> Encoded:
    """Encodes an event that has no extensions.

    Raises:
        NeedsCare: something is wrong or unusual; nothing was decided.
    """
    data = bytes(event.data)
    if data[:1] != b"{":
        if data not in (b"", b"null"):
            raise NeedsCare
        data = b""
    if (
        event.specversion != "1.0"
        or not (event.datacontenttype is None or event.datacontenttype == _JSON)
        or event.dataschema is not None
        or not (event.id.isprintable() and event.source.isprintable())
        or not (event.type.isprintable() and event.subject.isprintable())
        or (len(data) > _DEEP_BYTES and _nesting(data) > DEPTH_MAX)
        or (arrival.careful and b"\\u" in data)
    ):
        raise NeedsCare
    return encode(
        Attributes(
            id=event.id,
            source=event.source,
            type=event.type,
            subject=event.subject,
            time_us=None if event.time is None else _time_us(event.time),
            datacontenttype=event.datacontenttype or "",
            dataschema="",
            extensions="",
        ),
        data,
        arrival,
    )


class Attributes(msgspec.Struct, frozen=True, gc=False):
    """An event's context, checked. `extensions` is a JSON object with sorted names, or ""."""

    id: str
    source: str
    type: str
    subject: str
    time_us: int | None
    datacontenttype: str
    dataschema: str
    extensions: str


def encode(event: Attributes, data: bytes, arrival: Arrival) -> Encoded:
    """Makes the log's form of a checked event: the only place that does.

    Args:
        event: the context.
        data: the payload as sent, a JSON object, or b"".
        arrival: the request.

    Raises:
        NeedsCare: the event is larger than allowed.
    """
    if len(data) > arrival.event_bytes_max:
        # Before its numbers are looked at one by one.
        raise NeedsCare
    text = data.decode()
    time_us = event.time_us
    if time_us is None:
        time_us, time_text, flags = arrival.received_us, arrival.received_text, 0
    else:
        time_text, flags = _column_time(time_us), TIME_GIVEN
    hashed = key_hash(arrival.prefix, event.source.encode(), event.id.encode())
    head = _line(
        (
            arrival.namespace,
            event.source,
            event.id,
            time_text,
            flags,
            arrival.received_text,
            hashed.hex(),
        )
    )
    content = _line(
        (
            event.type,
            event.subject,
            event.datacontenttype,
            event.dataschema,
            event.extensions,
            text,
        )
    )
    exact = _NO_COPY
    if arrival.careful and may_be_inexact(data):
        exact = _line(exact_copy(text))
    line = b"%b,%b,%b]\n" % (head[1:-1], content[1:-1], exact)
    if len(line) > arrival.event_bytes_max:
        raise NeedsCare
    return Encoded(
        hashed,
        content_hash(content),
        time_us,
        arrival.received_us,
        flags,
        len(head) - 2,
        line,
    )


def _time_us(text: str) -> int:
    try:
        return parse_instant_us(text)
    except ValueError:
        raise NeedsCare from None


def _column_time(microseconds: int) -> str:
    if 0 <= microseconds <= LATEST_US:
        return f"{microseconds // 1_000_000}.{microseconds % 1_000_000:06d}"
    assert microseconds >= EARLIEST_US
    before: datetime = datetime_from_us(microseconds).replace(tzinfo=None)
    return before.isoformat(" ", "microseconds")


def _nesting(data: bytes) -> int:
    """The nesting depth of valid JSON; 0 where it can't be more than allowed."""
    if data.count(b"{") + data.count(b"[") <= DEPTH_MAX:
        return 0
    depth = deepest = 0
    for byte in _STRING.sub(b"", data):
        if byte in b"{[":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"}]":
            depth -= 1
    return deepest
