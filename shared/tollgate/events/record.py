"""The log's record: what ingest writes once and the loader slices.

Layout of versions 2 and 3, little endian::

    magic "TG" | version u8 | flags u8 | events u32 | checksum u64 (XXH3-64 of all but itself)
    namespaces u16 | per namespace: length u16, UTF-8
    requests u32 | per request: received i64 us | events u32 | namespace index u16 | pad 2
    per event: key hash, 16 bytes
    per event a line: its index in the record and the rest of a JSON array, ended by a newline

The loader puts `[generation,partition,offset,"appended",` before each line, and it is a row of
ClickHouse's JSONCompactEachRow for the columns of `LINE_COLUMNS`. JSON escapes newlines, so the
only ones in a record's lines are their ends.

A record of version 3 holds corrections instead of events. Its lines have `CORRECTION_COLUMNS`: what
is corrected and why, then the line of an event, which says the key, and what an amendment counts.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from xxhash import xxh3_64

VERSION = 2
CORRECTIONS_VERSION = 3
TIME_GIVEN = 1
LINE_COLUMNS = (
    "log_index",
    "namespace",
    "source",
    "id",
    "time",
    "time_given",
    "received_at",
    "key_hash",
    "type",
    "subject",
    "datacontenttype",
    "dataschema",
    "extensions",
    "data",
    "data_exact",
)
"""Columns of `arrivals` that a line carries, in order."""
CORRECTION_COLUMNS = (
    LINE_COLUMNS[0],
    *("correction", "operation", "action", "reason", "actor", "content", "target"),
    *LINE_COLUMNS[1:],
)
"""Members of a correction's line, in order."""

PREAMBLE = struct.Struct("<2sBBI")
CHECKSUM = struct.Struct("<Q")
REQUEST = struct.Struct("<qIH2x")
KEY_BYTES = 16
EVENT_BYTES = KEY_BYTES + 8
"""What an event takes in a record beside its line: its key hash and up to 8 digits of its index."""
REQUEST_BYTES = REQUEST.size + 66
"""What a request takes at most, with a namespace of its own."""
RECORD_BYTES = PREAMBLE.size + CHECKSUM.size + 2 + 4
"""What any record takes."""
_MAGIC = b"TG"
_CORRECTIONS_HEAD = _MAGIC + bytes([CORRECTIONS_VERSION])
_U16 = struct.Struct("<H")
_U32 = struct.Struct("<I")
_indexes = [b"%d," % index for index in range(1024)]


class Encoded(msgspec.Struct, frozen=True, gc=False):
    """One event as the log keeps it; `line` lacks the index, which the record adds."""

    key_hash: bytes
    line: bytes


class Group(msgspec.Struct, frozen=True, gc=False):
    """Events of one request, in order.

    Attributes:
        namespace: whose they are.
        received_us: the request's server time.
        events: as encoded.
        known_size: `size`, once it was asked for.
    """

    namespace: str
    received_us: int
    events: Sequence[Encoded]
    known_size: int = 0

    @property
    def size(self) -> int:
        """Most bytes that the group takes in a record."""
        if not self.known_size:
            lines = sum([len(event.line) for event in self.events])
            size = REQUEST_BYTES + EVENT_BYTES * len(self.events) + lines
            msgspec.structs.force_setattr(self, "known_size", size)
        return self.known_size


class CorruptRecord(Exception):
    """The bytes are no record of a known version; `code` says in which way."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class UnknownVersion(Exception):
    """A record of a later version: nothing is wrong with it, this reader is too old."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A record taken apart, its lines still in one piece.

    Attributes:
        version: `VERSION`: events; `CORRECTIONS_VERSION`: corrections.
        count: number of events.
        namespaces: names, in the order that requests refer to.
        requests: of each, its server time in microseconds, count of events, and namespace index.
        keys: `count` key hashes of 16 bytes.
        lines: all lines, each ended by a newline.
    """

    version: int
    count: int
    namespaces: tuple[str, ...]
    requests: tuple[tuple[int, int, int], ...]
    keys: memoryview
    lines: bytes


def encode_record(groups: Sequence[Group], version: int = VERSION) -> bytes:
    """Packs the events of one or more requests into one record, in the order given.

    Args:
        groups: of events, or of corrections.
        version: which of the two.
    """
    names: dict[str, int] = {}
    requests: list[bytes] = []
    keys: list[bytes] = []
    lines: list[bytes] = []
    for group in groups:
        index = names.setdefault(group.namespace, len(names))
        requests.append(REQUEST.pack(group.received_us, len(group.events), index))
        keys += [event.key_hash for event in group.events]
        lines += [event.line for event in group.events]
    while len(_indexes) < len(lines):
        _indexes.append(b"%d," % len(_indexes))
    numbered = [b""] * (2 * len(lines))
    numbered[::2] = _indexes[: len(lines)]
    numbered[1::2] = lines
    named: list[bytes] = []
    for name in names:
        encoded = name.encode()
        named += (_U16.pack(len(encoded)), encoded)
    counts = (_U16.pack(len(names)), *named, _U32.pack(len(requests)))
    body = b"".join((*counts, *requests, *keys, *numbered))
    head = PREAMBLE.pack(_MAGIC, version, 0, len(lines))
    return b"".join((head, CHECKSUM.pack(_checksum(head, body)), body))


def _checksum(head: bytes | memoryview, body: bytes | memoryview) -> int:
    hasher = xxh3_64(head)
    hasher.update(body)
    return hasher.intdigest()


def events_in(data: bytes) -> int:
    """How many events a record says that it holds; 1 for what is no record."""
    if len(data) < PREAMBLE.size + CHECKSUM.size or data[:2] != _MAGIC:
        return 1
    return max(1, int(PREAMBLE.unpack_from(data)[3]))


def holds_corrections(data: bytes) -> bool:
    """Whether a record says that it holds corrections, not events."""
    return data[:3] == _CORRECTIONS_HEAD


def decode_record(data: bytes) -> Record:
    """Takes a record apart.

    Raises:
        CorruptRecord: wrong magic, checksum or lengths that do not fit.
        UnknownVersion: written by a later release.
    """
    first = PREAMBLE.size + CHECKSUM.size
    if len(data) < first:
        raise CorruptRecord("too_short", f"{len(data)} bytes are no record")
    magic, version, _flags, count = PREAMBLE.unpack_from(data)
    if magic != _MAGIC:
        raise CorruptRecord("not_a_record", "the bytes do not begin with TG")
    view = memoryview(data)
    (checksum,) = CHECKSUM.unpack_from(data, PREAMBLE.size)
    if _checksum(view[: PREAMBLE.size], view[first:]) != checksum:
        raise CorruptRecord("checksum", "the checksum does not fit the bytes")
    if version not in (VERSION, CORRECTIONS_VERSION):
        raise UnknownVersion(
            f"a record of version {version}; this loader reads versions {VERSION} and"
            f" {CORRECTIONS_VERSION}: run the release that wrote it, or a later one"
        )
    try:
        return _decode_body(data, first, count, version)
    except (struct.error, UnicodeDecodeError) as problem:
        raise CorruptRecord("lengths", f"the head can't be read: {problem}") from problem


def _decode_body(data: bytes, at: int, count: int, version: int) -> Record:
    view = memoryview(data)
    namespaces = []
    (named,) = _U16.unpack_from(view, at)
    at += 2
    for _ in range(named):
        (length,) = _U16.unpack_from(view, at)
        namespaces.append(str(view[at + 2 : at + 2 + length], "utf-8"))
        at += 2 + length
    (asked,) = _U32.unpack_from(view, at)
    at += 4
    end = at + asked * REQUEST.size
    if end > len(view):
        raise CorruptRecord("lengths", f"{asked} requests in {len(data)} bytes")
    requests = tuple(REQUEST.iter_unpack(view[at:end]))
    lines = end + count * KEY_BYTES
    if not count or lines > len(view) or sum(n for _, n, _ in requests) != count:
        raise CorruptRecord("lengths", f"{count} events in {len(data)} bytes")
    if any(name >= named for _, _, name in requests):
        raise CorruptRecord("lengths", "a request names no namespace of the record")
    text = data[lines:]
    if text[-1:] != b"\n" or text.count(b"\n") != count:
        raise CorruptRecord("lengths", f"{text.count(10)} lines for {count} events")
    return Record(
        version=version,
        count=count,
        namespaces=tuple(namespaces),
        requests=requests,
        keys=view[end:lines],
        lines=text,
    )


def join_record(record: Record) -> bytes:
    """Packs a record that was taken apart: the inverse of `decode_record`."""
    named: list[bytes] = []
    for name in record.namespaces:
        encoded = name.encode()
        named += (_U16.pack(len(encoded)), encoded)
    body = b"".join(
        (
            _U16.pack(len(record.namespaces)),
            *named,
            _U32.pack(len(record.requests)),
            *(REQUEST.pack(*request) for request in record.requests),
            record.keys,
            record.lines,
        )
    )
    head = PREAMBLE.pack(_MAGIC, record.version, 0, record.count)
    return b"".join((head, CHECKSUM.pack(_checksum(head, body)), body))
