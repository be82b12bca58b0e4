"""The careful path of ingest: event by event, with extensions, every fault named.

Slower than `tollgate.events.event` and complete: what both accept gives the same bytes.
"""

import json
import re
from collections.abc import Mapping

import msgspec

from tollgate.core.errors import Fault, InvalidInput
from tollgate.core.times import parse_instant_us
from tollgate.events.backfill import EXTENSION, NAME, NAME_PATTERN
from tollgate.events.event import (
    ATTRIBUTE_LENGTH_MAX,
    DEPTH_MAX,
    Arrival,
    Attributes,
    NeedsCare,
    encode,
)
from tollgate.events.record import Encoded

_REQUIRED = ("id", "source", "type", "subject")
_KNOWN = frozenset(
    (*_REQUIRED, "specversion", "time", "datacontenttype", "dataschema", "data", "data_base64")
)
_EXTENSION_NAME = re.compile(r"[A-Za-z0-9_]{1,64}", re.ASCII)
# CloudEvents 1.0.2, type String: control characters, surrogates and noncharacters are not allowed.
_FORBIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef"
    + "".join(f"{chr(p << 16 | 0xFFFE)}{chr(p << 16 | 0xFFFF)}" for p in range(17))
    + "]"
)
_JSON_TYPE = re.compile(r"application/(?:[\w.+-]+\+)?json\s*(?:;.*)?", re.ASCII | re.IGNORECASE)
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_EXTENSION_COUNT_MAX = 64
_BLANKS_MAX = 1 << 20
_TOO_DEEP = f"is nested deeper than {DEPTH_MAX} levels"
_MARKS = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\],]', re.DOTALL)

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_items = msgspec.json.Decoder(list[msgspec.Raw])

Outcome = Encoded | tuple[Fault, ...]


def split_batch(body: bytes) -> list[bytes]:
    """The raw events of a JSON array.

    Raises:
        InvalidInput: the body is no JSON array.
    """
    try:
        return [bytes(item) for item in _items.decode(body)]
    except (msgspec.DecodeError, RecursionError) as problem:
        faults = _lone_surrogates(body, batch=True) if b"\\u" in body else ()
        raise InvalidInput(faults or (_not_json(problem, None),)) from None


def has_more_events(body: bytes, most: int) -> bool:
    """Whether a JSON array holds more than `most` items; looks no further than that many."""
    depth = items = 0
    for match in _MARKS.finditer(body):
        mark = match[0]
        if mark == b",":
            items += depth == 1
            if items >= most:
                return True
        elif mark in b"{[":
            depth += 1
        elif mark in b"}]":
            depth -= 1
    return False


def event_id(raw: bytes) -> str:
    """The id of a refused event, "" if it has none that can be read."""
    try:
        found = json.loads(bytes(_members.decode(raw).get("id", b'""')))
    except (ValueError, msgspec.DecodeError, RecursionError):
        return ""
    return _printable(found) if isinstance(found, str) else ""


def read_event(raw: bytes, arrival: Arrival, index: int | None) -> Outcome:
    """Checks one structured event.

    Returns:
        the encoded event, or every fault found in it.
    """
    if len(raw) > arrival.event_bytes_max + _BLANKS_MAX:
        # Before its members are taken apart: a million of them take a hundred times their bytes.
        return (_too_large(arrival, index),)
    try:
        members = _members.decode(raw)
    except (msgspec.DecodeError, RecursionError) as problem:
        faults = _lone_surrogates(raw, batch=False) if b"\\u" in raw else ()
        return faults or (_not_json(problem, index),)
    plain = {name: bytes(value) for name, value in members.items()}
    return _Reading(index).read(plain, arrival)


class _Reading:
    """Collects the faults of one event."""

    def __init__(self, index: int | None) -> None:
        self.index = index
        self.faults: list[Fault] = []

    def fault(self, field: str, code: str, message: str) -> None:
        self.faults.append(Fault(field=field, code=code, message=message, index=self.index))

    def read(self, members: Mapping[str, bytes], arrival: Arrival) -> Outcome:
        texts = {name: self._required(name, members.get(name)) for name in _REQUIRED}
        self._specversion(members.get("specversion"))
        attributes = Attributes(
            id=texts["id"],
            source=texts["source"],
            type=texts["type"],
            subject=texts["subject"],
            time_us=self._time(members.get("time")),
            datacontenttype=self._content_type(members.get("datacontenttype")),
            dataschema=self._optional("dataschema", members.get("dataschema")),
            extensions=self._extensions(members),
        )
        data = self._data(members.get("data"))
        if members.get("data_base64") not in (None, b"null"):
            self.fault("data_base64", "not_supported", "send `data` as a JSON object instead")
        if self.faults:
            return tuple(self.faults)
        try:
            return encode(attributes, data, arrival)
        except NeedsCare:
            return (_too_large(arrival, self.index),)

    def _text(self, field: str, raw: bytes) -> str | None:
        try:
            value = json.loads(raw)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, str):
            self.fault(field, "not_a_string", "must be a JSON string")
            return None
        if not value:
            self.fault(field, "empty", "must not be empty")
        elif len(value) > ATTRIBUTE_LENGTH_MAX:
            self.fault(field, "too_long", f"is longer than {ATTRIBUTE_LENGTH_MAX} characters")
        elif _FORBIDDEN.search(value):
            self.fault(
                field,
                "forbidden_character",
                "holds a control character, lone surrogate or noncharacter "
                "(CloudEvents 1.0, type String)",
            )
        else:
            return value
        return None

    def _required(self, field: str, raw: bytes | None) -> str:
        if raw is None or raw == b"null":
            self.fault(field, "required", "is required")
            return ""
        return self._text(field, raw) or ""

    def _optional(self, field: str, raw: bytes | None) -> str:
        if raw is None or raw == b"null":
            return ""
        return self._text(field, raw) or ""

    def _specversion(self, raw: bytes | None) -> None:
        if raw is not None and raw != b'"1.0"':
            self.fault("specversion", "not_supported", 'must be "1.0"')

    def _content_type(self, raw: bytes | None) -> str:
        text = self._optional("datacontenttype", raw)
        if text and not _JSON_TYPE.fullmatch(text):
            self.fault("datacontenttype", "not_supported", "must be application/json")
        return text

    def _time(self, raw: bytes | None) -> int | None:
        text = self._optional("time", raw)
        if not text:
            return None
        try:
            return parse_instant_us(text)
        except ValueError as problem:
            self.fault("time", "invalid_time", str(problem))
            return None

    def _extensions(self, members: Mapping[str, bytes]) -> str:
        found: dict[str, object] = {}
        for name in sorted(members.keys() - _KNOWN):
            raw = members[name]
            if raw == b"null":
                continue
            if not _EXTENSION_NAME.fullmatch(name):
                self.fault(
                    _printable(name),
                    "invalid_extension_name",
                    "an extension's name has letters, digits and underscores only, at most 64",
                )
            elif raw[:1] == b'"':
                found[name] = self._optional(name, members[name])
            elif raw[:1] in b"{[":
                self.fault(
                    name, "invalid_extension", "must be a string, number or boolean; use `data`"
                )
            else:
                found[name] = msgspec.Raw(raw)
        if len(found) > _EXTENSION_COUNT_MAX:
            self.fault(
                "", "too_many_extensions", f"has more than {_EXTENSION_COUNT_MAX} extensions"
            )
        backfill = found.get(EXTENSION, "a")
        if not (isinstance(backfill, str) and NAME.fullmatch(backfill)):
            # It would wait for a backfill that can't be: nobody would see it count.
            self.fault(EXTENSION, "invalid_backfill", f"must be a name like {NAME_PATTERN}")
        return msgspec.json.encode(found).decode() if found else ""

    def _data(self, raw: bytes | None) -> bytes:
        data = raw or b""
        if data in (b"", b"null"):
            return b""
        if data[:1] != b"{":
            self.fault("data", "not_an_object", "must be a JSON object or null")
            return b""
        if data.count(b"{") + data.count(b"[") > DEPTH_MAX or b"\\u" in data:
            self._walk(data)
        return data

    def _walk(self, data: bytes) -> None:
        """Looks for what only a full parse shows: depth and lone surrogates, with their path."""
        try:
            found = _unstorable(_parse(data), "data", 1)
        except RecursionError:
            found = ("data", "too_deep", _TOO_DEEP)
        if found is not None:
            self.fault(*found)


class _Object(list[tuple[str, object]]):
    """A JSON object with all its members, duplicates too: the engine reads the first of a name."""


def _parse(text: bytes) -> object:
    return json.loads(text, parse_int=str, parse_float=str, object_pairs_hook=_Object)


def _unstorable(document: object, path: str, depth: int) -> tuple[str, str, str] | None:
    """Field, code and message of the first place that can't be stored."""
    stack: list[tuple[object, str, int]] = [(document, path, depth)]
    while stack:
        value, path, depth = stack.pop()
        if isinstance(value, str):
            if _LONE_SURROGATE.search(value):
                return _printable(path), "lone_surrogate", "holds a lone surrogate escape"
            continue
        if not isinstance(value, list):
            continue
        if depth > DEPTH_MAX:
            return _printable(path), "too_deep", _TOO_DEEP
        members = value if isinstance(value, _Object) else list(enumerate(value))
        for name, child in reversed(members):
            below = f"{path}.{name}" if path else str(name)
            stack.append((child, below, depth + 1))
            if isinstance(name, str):
                stack.append((name, below, 0))
    return None


def _lone_surrogates(body: bytes, *, batch: bool) -> tuple[Fault, ...]:
    """Names the lone surrogates for which the decoder refuses a whole body."""
    try:
        document = _parse(body)
    except (ValueError, RecursionError):
        return ()
    events = (
        list(enumerate(document)) if batch and isinstance(document, list) else [(None, document)]
    )
    faults = []
    for index, event in events:
        found = _unstorable(event, "", 0)
        if found is not None:
            field, code, message = found
            faults.append(Fault(field=field, code=code, message=message, index=index))
    return tuple(faults)


def _too_large(arrival: Arrival, index: int | None) -> Fault:
    return Fault(
        field="",
        code="event_too_large",
        message=f"the event is larger than {arrival.event_bytes_max} bytes; "
        "send less in `data`, or raise TOLLGATE_EVENT_BYTES_MAX",
        index=index,
    )


def _not_json(problem: Exception, index: int | None) -> Fault:
    if isinstance(problem, msgspec.ValidationError):
        message = "must be a JSON object" if index is not None else str(problem)
        return Fault(field="", code="wrong_shape", message=message, index=index)
    detail = "nested too deeply" if isinstance(problem, RecursionError) else str(problem)
    return Fault(field="", code="invalid_json", message=f"is not JSON: {detail}", index=index)


def _printable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()[:200]
