"""Usage events from the wire: CloudEvents 1.0 JSON, checked and made ready for the log.

The hot path decodes a whole body into structs in one call. Whatever it refuses goes through
`tollgate.events.faults`, which reads event by event, knows extensions, and names every fault.
Sources: CloudEvents 1.0.2 (attributes, JSON format); OpenMeter's contract (schema `Event`).
"""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal

import msgspec
from xxhash import xxh3_128_digest

from tollgate.core.clock import datetime_from_us
from tollgate.core.times import EARLIEST_US, LATEST_US, parse_instant_us
from tollgate.events.identity import KEY_SEED, key_hash, key_prefix
from tollgate.events.numbers import exact_copy, may_be_inexact
from tollgate.events.record import TIME_GIVEN, Encoded

ATTRIBUTE_LENGTH_MAX = 1024
DEPTH_MAX = 64
_Attribute = Annotated[str, msgspec.Meta(min_length=1, max_length=ATTRIBUTE_LENGTH_MAX)]
_NO_DATA = msgspec.Raw(b"")
_DEEP_BYTES = 2 * DEPTH_MAX  # a value nested deeper has an opening and a closing byte per level
_SECOND = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:[0-5]\d", re.ASCII)
_US = 1_000_000
_BETWEEN = b"\x7f"  # what no plain body has, and no encoder escapes
_BETWEEN_TEXT = _BETWEEN.decode()
_FEW = 8  # times that are sooner looked at one by one
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)


class Envelope(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """An event without extensions and schema, `data` untouched."""

    id: _Attribute
    source: _Attribute
    type: _Attribute
    subject: _Attribute
    specversion: Literal["1.0"] = "1.0"
    time: str | None = None
    datacontenttype: Literal["application/json"] | None = None
    dataschema: None = None
    data: msgspec.Raw = _NO_DATA


class NeedsCare(Exception):
    """The hot path can't take this event; the careful path decides."""


class Arrival:
    """What all events of one request share.

    Attributes:
        namespace: whose events these are.
        received_us: the one server time of the request, microseconds since the epoch.
        event_bytes_max: bound on one event as the log keeps it.
        prefix: of the text that a key's hash is taken of.
        received_text: `received_us` as a line has it.
    """

    __slots__ = ("event_bytes_max", "namespace", "prefix", "received_text", "received_us")

    def __init__(self, *, namespace: str, received_us: int, event_bytes_max: int) -> None:
        self.namespace = namespace
        self.received_us = received_us
        self.event_bytes_max = event_bytes_max
        self.prefix = key_prefix(namespace)
        self.received_text = column_time(received_us)


_one = msgspec.json.Decoder(Envelope)
_many = msgspec.json.Decoder(list[Envelope])
_line = msgspec.json.Encoder().encode


def decode_envelopes(body: bytes, batch: bool) -> list[Envelope]:
    """Decodes a body in one call.

    Raises:
        msgspec.DecodeError, msgspec.ValidationError: the careful path has to look.
    """
    return _many.decode(body) if batch else [_one.decode(body)]


def is_plain(body: bytes) -> bool:
    """Whether every string of a JSON body reads as it is written: printable ASCII, no escapes.

    Then texts can be put together as they are. Control characters other than these three make the
    decoder refuse the body.
    """
    return (
        body.isascii()
        and b"\\" not in body
        and b"\x7f" not in body
        and b"\n" not in body
        and b"\r" not in body
        and b"\t" not in body
    )


def encode_all(envelopes: Sequence[Envelope], arrival: Arrival, *, plain: bool) -> list[Encoded]:
    """Encodes the events of a request that have no extensions.

    Args:
        envelopes: decoded from the body.
        arrival: the request.
        plain: `is_plain` of the body.

    Raises:
        NeedsCare: something is wrong or unusual; nothing was decided.
    """
    if not envelopes:
        return []
    joined = _BETWEEN.join([envelope.data for envelope in envelopes])
    if plain and not may_be_inexact(joined):
        return _encode_plain(envelopes, _payloads(envelopes, joined), arrival)
    datas = [bytes(envelope.data) for envelope in envelopes]
    return [
        encode(_checked(envelope, data), _object(data), arrival)
        for envelope, data in zip(envelopes, datas, strict=True)
    ]


def _encode_plain(
    envelopes: Sequence[Envelope], payloads: Sequence[str], arrival: Arrival
) -> list[Encoded]:
    """The lines of `encode` without an encoder: nothing in them has to be escaped but quotes.

    What the events share is worked out once: what is done for each is what takes the time.
    """
    head, received, most = (
        f'"{arrival.namespace}","',
        arrival.received_text,
        arrival.event_bytes_max,
    )
    begins: dict[str, str] = {}  # of keys, by source: the events of a request have few
    encoded = []
    moments = _moments(envelopes, received)
    for event, moment, payload in zip(envelopes, moments, payloads, strict=True):
        source, event_id = event.source, event.id
        begin = begins.get(source)
        if begin is None:
            begin = begins[source] = f"{arrival.prefix}{len(source)}:{source}"
        hashed = xxh3_128_digest(f"{begin}{event_id}".encode(), KEY_SEED)
        line = (
            f'{head}{source}","{event_id}","{moment}",{TIME_GIVEN if event.time else 0},'
            f'"{received}","{hashed.hex()}","{event.type}","{event.subject}",'
            f'"{event.datacontenttype or ""}","","","{payload}",""]\n'
        ).encode()
        if len(line) > most:
            raise NeedsCare
        encoded.append(Encoded(hashed, line))
    return encoded


def _payloads(envelopes: Sequence[Envelope], joined: bytes) -> Sequence[str]:
    """The payloads, escaped; "" for none. All are looked at, and escaped, in one pass each."""
    if len(envelopes) == 1:
        return (_payload(envelopes[0], joined.decode("ascii").replace('"', '\\"')),)
    escaped = _line(joined.decode("ascii"))[1:-1]
    texts = escaped.decode("ascii").split(_BETWEEN_TEXT)
    # Of what a JSON value begins with, "{" is the greatest. Each object has one opening, so none
    # can be nested deeper than all others have more.
    if min(texts) >= "{" and joined.count(b"{") + joined.count(b"[") < len(texts) + DEPTH_MAX:
        return texts
    return [_payload(event, text) for event, text in zip(envelopes, texts, strict=True)]


def _moments(envelopes: Sequence[Envelope], received: str) -> list[str]:
    """The column's texts of the events' times."""
    if len(envelopes) > _FEW:
        times = [event.time for event in envelopes if event.time]
        if len(times) == len(envelopes) and _have_microseconds(times):
            known = _seconds
            try:
                return [known[time[:19]] + time[19:26] for time in times]
            except KeyError:
                pass  # the next request finds it known
    return [received if event.time is None else _moment(event.time) for event in envelopes]


def _have_microseconds(times: Sequence[str]) -> bool:
    """Whether each has six digits after its second, and Z. All are looked at in one step each."""
    count, joined = len(times), "\n".join(times)
    return (
        len(joined) == 28 * count - 1
        and joined[19::28] == "." * count
        and joined[26::28] == "Z" * count
        and joined[27::28] == "\n" * (count - 1)
        and all(joined[place::28].isdigit() for place in range(20, 26))
    )


def _moment(time: str) -> str:
    """The column's text of one time."""
    second = _seconds.get(time[:19])
    if second is None:
        return _learn(time)
    ending = time[19:]
    if len(ending) == 8 and ending[0] == "." and ending[7] == "Z" and ending[1:7].isdigit():
        return second + ending[:7]
    fraction = _FRACTIONS.get(ending)
    return column_time(_time_us(time)) if fraction is None else second + fraction


# Events come close in time: of few seconds the time is worked out, the others are known.
_seconds: dict[str, str] = {}
_SECONDS_MAX = 8192
_FRACTIONS = {f".{ms:03d}Z": f".{ms:03d}000" for ms in range(1000)} | {"Z": ".000000"}


def _learn(time: str) -> str:
    """The column's text of a time; keeps its second for the next event."""
    moment = column_time(_time_us(time))
    begin, second = time[:19], moment.partition(".")[0]
    # Only as it is written most often: the time of any other fraction and Z is the sum of the two.
    if _SECOND.fullmatch(begin) and second.isdigit() and _time_us(f"{begin}Z") == int(second) * _US:
        if len(_seconds) >= _SECONDS_MAX:
            _seconds.clear()
        _seconds[begin] = second
    return moment


def _payload(event: Envelope, text: str) -> str:
    """An escaped payload; "" if there is none."""
    if text[:1] != "{":
        if text not in ("", "null"):
            raise NeedsCare
        return ""
    if (
        len(text) > _DEEP_BYTES
        and text.count("{") + text.count("[") > DEPTH_MAX
        and _nesting(bytes(event.data)) > DEPTH_MAX
    ):
        raise NeedsCare
    return text


def _object(data: bytes) -> bytes:
    """The payload, b"" if there is none."""
    if data[:1] == b"{":
        return data
    if data not in (b"", b"null"):
        raise NeedsCare
    return b""


def _checked(event: Envelope, data: bytes) -> "Attributes":
    """The context of an event that holds nothing to be named a fault."""
    if (
        not (event.id.isprintable() and event.source.isprintable())
        or not (event.type.isprintable() and event.subject.isprintable())
        or (len(data) > _DEEP_BYTES and _nesting(data) > DEPTH_MAX)
        or b"\\u" in data
    ):
        raise NeedsCare
    return Attributes(
        id=event.id,
        source=event.source,
        type=event.type,
        subject=event.subject,
        time_us=None if event.time is None else _time_us(event.time),
        datacontenttype=event.datacontenttype or "",
        dataschema="",
        extensions="",
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
    """Makes the log's form of a checked event; `_encode_plain` makes the same of plain ones.

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
    if event.time_us is None:
        moment, flags = arrival.received_text, 0
    else:
        moment, flags = column_time(event.time_us), TIME_GIVEN
    hashed = key_hash(arrival.prefix, event.source, event.id)
    line = _line(
        (
            arrival.namespace,
            event.source,
            event.id,
            moment,
            flags,
            arrival.received_text,
            hashed.hex(),
            event.type,
            event.subject,
            event.datacontenttype,
            event.dataschema,
            event.extensions,
            text,
            exact_copy(text) if may_be_inexact(data) else "",
        )
    )
    if len(line) > arrival.event_bytes_max:
        raise NeedsCare
    return Encoded(hashed, line[1:] + b"\n")


def _time_us(text: str) -> int:
    try:
        return parse_instant_us(text)
    except ValueError:
        raise NeedsCare from None


def column_time(microseconds: int) -> str:
    """An instant as a line has it: decimal seconds since the epoch, or before 1970 a date."""
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
