"""The log's record: what ingest writes once and the loader slices.

Layout of version 1, little endian::

    magic "TG" | version u8 | flags u8 | events u32 | checksum u64 (XXH3-64 of all that follows)
    namespaces u16 | per namespace: length u16, UTF-8
    events x 64 bytes:
        key hash 16 | content hash 16 | event time i64 us | received i64 us | line length u32
        | key length u32 | namespace index u16 | flags u16 (bit 0: the client gave the time) | pad 4
    lines: each a JSON array without its opening bracket, ended by a newline

The loader puts `[generation,partition,offset,index,"appended",` before a line, and it is a row of
ClickHouse's JSONCompactEachRow for the columns of `LINE_COLUMNS`. The first `key length` bytes of a
line hold the columns of `KEY_COLUMNS`, and make a row of `event_keys` in the same way.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from xxhash import xxh3_64_intdigest

VERSION = 1
TIME_GIVEN = 1
LINE_COLUMNS = (
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
"""Columns of `events` that a line carries, in order."""
KEY_COLUMNS = LINE_COLUMNS[:7]

PREAMBLE = struct.Struct("<2sBBIQ")
ENTRY = struct.Struct("<16s16sqqIIHH4x")
_MAGIC = b"TG"
_U16 = struct.Struct("<H")


class Encoded(msgspec.Struct, frozen=True, gc=False):
    """One event as the log keeps it. The record adds the namespace index."""

    key_hash: bytes
    content_hash: bytes
    time_us: int
    received_us: int
    flags: int
    key_length: int
    line: bytes

    @property
    def size(self) -> int:
        """Bytes that the event takes in a record."""
        return ENTRY.size + len(self.line)


class CorruptRecord(Exception):
    """The bytes are no record of a known version; `code` says in which way."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A record taken apart, its lines still in one piece.

    Attributes:
        count: number of events.
        namespaces: names, in the order that entries refer to.
        entries: `count` entries of `ENTRY`, packed.
        lines: all lines, each ended by a newline.
    """

    count: int
    namespaces: tuple[str, ...]
    entries: memoryview
    lines: memoryview


def encode_record(groups: Sequence[tuple[str, Sequence[Encoded]]]) -> bytes:
    """Packs events of one or more namespaces into one record, in the order given."""
    names: dict[str, int] = {}
    entries: list[bytes] = []
    lines: list[bytes] = []
    pack = ENTRY.pack
    for namespace, events in groups:
        index = names.setdefault(namespace, len(names))
        for e in events:
            line = e.line
            entries.append(
                pack(
                    e.key_hash,
                    e.content_hash,
                    e.time_us,
                    e.received_us,
                    len(line),
                    e.key_length,
                    index,
                    e.flags,
                )
            )
            lines.append(line)
    head = [_U16.pack(len(names))]
    for name in names:
        encoded = name.encode()
        head += (_U16.pack(len(encoded)), encoded)
    body = b"".join((*head, *entries, *lines))
    return PREAMBLE.pack(_MAGIC, VERSION, 0, len(entries), xxh3_64_intdigest(body)) + body


def decode_record(data: bytes) -> Record:
    """Takes a record apart.

    Raises:
        CorruptRecord: wrong magic, unknown version, checksum or lengths that do not fit.
    """
    if len(data) < PREAMBLE.size:
        raise CorruptRecord("too_short", f"{len(data)} bytes are no record")
    magic, version, _flags, count, checksum = PREAMBLE.unpack_from(data)
    if magic != _MAGIC:
        raise CorruptRecord("not_a_record", "the bytes do not begin with TG")
    if version != VERSION:
        raise CorruptRecord("unknown_version", f"record version {version}, known is {VERSION}")
    view = memoryview(data)
    if xxh3_64_intdigest(view[PREAMBLE.size :]) != checksum:
        raise CorruptRecord("checksum", "the checksum does not fit the bytes")
    at = PREAMBLE.size
    namespaces = []
    try:
        (named,) = _U16.unpack_from(view, at)
        at += 2
        for _ in range(named):
            (length,) = _U16.unpack_from(view, at)
            namespaces.append(str(view[at + 2 : at + 2 + length], "utf-8"))
            at += 2 + length
    except (struct.error, UnicodeDecodeError) as problem:
        raise CorruptRecord("lengths", f"the namespaces can't be read: {problem}") from problem
    end = at + count * ENTRY.size
    if not count or end > len(view):
        raise CorruptRecord("lengths", f"{count} events in {len(data)} bytes")
    return Record(
        count=count,
        namespaces=tuple(namespaces),
        entries=view[at:end],
        lines=view[end:],
    )
