"""A file of the archive: records of one partition as Parquet, one row per event, and back.

Every record comes back byte by byte, which is tried before a file is given out. What is no record
of events, or would not come back from its rows, is kept whole in `raw` of its first row.
"""

import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from typing import Annotated

import msgspec
import numpy as np
from arro3.core import DataType

from tollgate.core.errors import PermanentFault
from tollgate.core.times import parse_instant_us
from tollgate.events.archive_columns import (
    INSTANT,
    Column,
    Ints,
    Rows,
    Values,
    instants_of,
    read_rows,
    texts_of,
    write_columns,
)
from tollgate.events.event import column_time
from tollgate.events.record import (
    KEY_BYTES,
    VERSION,
    CorruptRecord,
    Record,
    UnknownVersion,
    decode_record,
    join_record,
)
from tollgate.platform.event_log import StoredRecord

FORM = "tollgate.records.1"
"""What a file says that it is. Another form gets another number."""
EVENTS, CORRECTIONS, UNKNOWN = "events", "corrections", "unknown"
"""Kinds of record. Rows of the first are its events; the others have one row, with their bytes."""
COLUMNS = (
    Column(name="generation", type=DataType.uint32()),
    Column(name="partition", type=DataType.uint16()),
    Column(name="offset", type=DataType.uint64()),
    Column(name="index", type=DataType.uint32(), distinct=True),
    Column(name="appended_at", type=INSTANT),
    Column(name="received_at", type=INSTANT),
    Column(name="namespace", type=DataType.string()),
    Column(name="source", type=DataType.string()),
    Column(name="id", type=DataType.string(), distinct=True),
    Column(name="type", type=DataType.string()),
    Column(name="subject", type=DataType.string()),
    Column(name="time", type=INSTANT, distinct=True),
    Column(name="time_given", type=DataType.uint8()),
    Column(name="datacontenttype", type=DataType.string()),
    Column(name="dataschema", type=DataType.string()),
    Column(name="extensions", type=DataType.string()),
    Column(name="data", type=DataType.string(), distinct=True),
    Column(name="data_exact", type=DataType.string()),
    Column(name="key_hash", type=DataType.binary(KEY_BYTES), distinct=True),
    Column(name="request", type=DataType.uint32()),
    Column(name="record", type=DataType.string()),
    Column(name="raw", type=DataType.binary()),
)
_Index = Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)]
_Flags = Annotated[int, msgspec.Meta(ge=0, lt=1 << 8)]
_Line = tuple[_Index, str, str, str, str, _Flags, str, str, str, str, str, str, str, str, str]
_ZERO = "0000000000.000000"
_EMPTY_LINE: _Line = (0, "", "", "", _ZERO, 0, _ZERO, "", "", "", "", "", "", "", "")
_lines = msgspec.json.Decoder(list[_Line])
_encode_lines = msgspec.json.Encoder().encode_lines
_REPEATED = ("type", "subject", "datacontenttype", "dataschema", "extensions")
_PIECE_ROWS = 8192
_NEWLINE = 10
_SECONDS_LONGEST = 18
_HEAD = struct.Struct("<QqQ")
_NO_KEY = bytes(KEY_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """A file, not yet stored.

    Attributes:
        data: the Parquet file.
        content: digest of the records with their offsets and times, whatever form they are kept in.
        rows, records, raw: counts; `raw` of the records that are kept whole.
        received: least and greatest server time of a row, in microseconds.
        times: the same of event times.
        namespaces: rows by namespace; "" for records that are no events.
    """

    data: bytes
    content: str
    rows: int
    records: int
    raw: int
    received: tuple[int, int]
    times: tuple[int, int]
    namespaces: dict[str, int]


@dataclass(slots=True)
class _Gathered:
    """Rows of records, column by column where that is faster."""

    lines: list[_Line]
    keys: list[bytes]
    counts: list[int]
    requests: list[int]
    kinds: list[str]
    raw: list[bytes]


def content_of(records: Sequence[StoredRecord]) -> str:
    """Digest of records: the same for the same ones, however files are cut or written."""
    digest = sha256()
    for each in records:
        digest.update(_HEAD.pack(each.offset, each.appended_us, len(each.value)))
        digest.update(each.value)
    return digest.hexdigest()


def pack(generation: int, partition: int, records: Sequence[StoredRecord]) -> Packed:
    """Makes a file of consecutive records, at least one.

    Raises:
        PermanentFault: the file does not give its records back: a defect, nothing may be stored.
    """
    whole: frozenset[int] = frozenset()
    while True:
        packed = _pack(generation, partition, records, whole)
        back = unpack(packed.data)
        if len(back) != len(records):
            raise PermanentFault("a file of the archive lost records")
        wrong = [one.offset for one, other in zip(records, back, strict=True) if one != other]
        if not wrong:
            return packed
        if not whole.isdisjoint(wrong):
            raise PermanentFault(f"the archive can't keep the record at offset {wrong[0]}")
        whole |= frozenset(wrong)


def _pack(
    generation: int, partition: int, records: Sequence[StoredRecord], whole: frozenset[int]
) -> Packed:
    rows = _Gathered([], [], [], [], [], [])
    for each in records:
        _gather(rows, each, keep=each.offset in whole)
    count = len(rows.lines)
    values = tuple(zip(*rows.lines, strict=True))
    appended = np.repeat(np.array([each.appended_us for each in records], np.int64), rows.counts)
    received, times = _instants(values[6]), _instants(values[4])
    # A record without events has the time of its appending alone.
    is_raw = np.repeat(np.array([kind != EVENTS for kind in rows.kinds]), rows.counts)
    received, times = np.where(is_raw, appended, received), np.where(is_raw, appended, times)
    columns: Values = {
        "generation": np.full(count, generation, np.uint32),
        "partition": np.full(count, partition, np.uint16),
        "offset": np.repeat(np.array([each.offset for each in records], np.uint64), rows.counts),
        "index": np.array(values[0], np.uint32),
        "appended_at": appended,
        "received_at": received,
        "time": times,
        "time_given": np.array(values[5], np.uint8),
        "namespace": values[1],
        "source": values[2],
        "id": values[3],
        "type": values[8],
        "subject": values[9],
        "datacontenttype": values[10],
        "dataschema": values[11],
        "extensions": values[12],
        "data": values[13],
        "data_exact": values[14],
        "key_hash": rows.keys,
        "request": np.array(rows.requests, np.uint32),
        "record": [kind for kind, n in zip(rows.kinds, rows.counts, strict=True) for _ in range(n)],
        "raw": rows.raw,
    }
    facts: dict[str, str | int] = {
        "form": FORM,
        "generation": generation,
        "partition": partition,
        "first_offset": records[0].offset,
        "last_offset": records[-1].offset,
        "content": (content := content_of(records)),
    }
    return Packed(
        data=write_columns(COLUMNS, columns, facts),
        content=content,
        rows=count,
        records=len(records),
        raw=sum(1 for raw in rows.raw if raw),
        received=(int(received.min()), int(received.max())),
        times=(int(times.min()), int(times.max())),
        namespaces=dict(sorted(Counter(values[1]).items())),
    )


def _gather(rows: _Gathered, stored: StoredRecord, *, keep: bool) -> None:
    """Adds the rows of one record; `keep`: its bytes as well."""
    record, lines = _read(stored.value)
    if record is None or lines is None:
        rows.lines.append(_EMPTY_LINE)
        rows.keys.append(_NO_KEY)
        rows.counts.append(1)
        rows.requests.append(0)
        rows.kinds.append(CORRECTIONS if record is not None else UNKNOWN)
        rows.raw.append(stored.value)
        return
    keys = bytes(record.keys)
    rows.lines += lines
    rows.keys += [keys[at : at + KEY_BYTES] for at in range(0, len(keys), KEY_BYTES)]
    rows.counts.append(record.count)
    for number, (_, events, _) in enumerate(record.requests):
        rows.requests += [number] * events
    rows.kinds.append(EVENTS)
    rows.raw += [stored.value if keep else b""] + [b""] * (record.count - 1)


def _read(value: bytes) -> tuple[Record | None, list[_Line] | None]:
    """A record and the lines of its events, if it has some, or nothing if it is no record."""
    try:
        record = decode_record(value)
        if record.version != VERSION:
            return record, None
        return record, _lines.decode(b"[[" + record.lines[:-1].replace(b"\n", b",[") + b"]")
    except (CorruptRecord, UnknownVersion, msgspec.DecodeError, UnicodeDecodeError):
        return None, None


def _instants(texts: Sequence[str]) -> Ints:
    found = instants_of(texts)
    if found is None:
        found = np.array([_instant(text) for text in texts], np.int64)
    return found


def _instant(text: str) -> int:
    """Microseconds of a column's text; 0 for what is none: then the record is kept whole."""
    seconds, point, fraction = text.partition(".")
    if len(text) <= _SECONDS_LONGEST and point and text.isascii():
        try:
            return int(seconds) * 1_000_000 + int(fraction)
        except ValueError:
            return 0
    try:
        return parse_instant_us(text.replace(" ", "T") + "Z")
    except ValueError:
        return 0


def unpack(data: bytes) -> list[StoredRecord]:
    """The records of a file. Errors as in `ArchivedFile`."""
    file = ArchivedFile(data)
    return file.records(0, len(file))


class ArchivedFile:
    """A file read back, its events still in columns. Records are numbered from 0.

    Attributes:
        offsets, appended_us: of each record.
        starts: number of the first row of each record, and how many rows there are.
        rebuildable: whether the record's rows are its events, and all that it is.
        corrects: whether it holds corrections.
        rows: of all records.
    """

    def __init__(self, data: bytes) -> None:
        """Reads the columns.

        Raises:
            OSError, ValueError: it is no file of this form.
        """
        self.rows = read_rows(data)
        offsets = self.rows.numbers("offset").astype(np.int64)
        starts = np.flatnonzero(np.diff(offsets, prepend=-1))
        self.offsets = offsets[starts]
        self.appended_us = self.rows.numbers("appended_at")[starts]
        self.starts = np.append(starts, len(offsets))
        kinds, which = self.rows.distinct_texts("record")
        is_events, self.corrects = (
            np.array([kind == wanted for kind in kinds])[which[starts]]
            for wanted in (EVENTS, CORRECTIONS)
        )
        self._raw = self.rows.binaries("raw")
        self.rebuildable = is_events & ~np.array([bool(self._raw[at]) for at in starts.tolist()])

    def __len__(self) -> int:
        return len(self.offsets)

    def records(self, first: int, end: int) -> list[StoredRecord]:
        """The records from a number on, up to another, byte by byte as they were."""
        begin, stop = int(self.starts[first]), int(self.starts[end])
        if begin == stop:
            return []
        rows = self.rows.slice(begin, stop - begin)
        whole = [self._raw[at] for at in self.starts[first:end].tolist()]
        found = _rebuilt(rows, self.starts[first:end] - begin)
        return [
            StoredRecord(offset=offset, appended_us=appended_us, value=raw or value)
            for offset, appended_us, raw, value in zip(
                self.offsets[first:end].tolist(),
                self.appended_us[first:end].tolist(),
                whole,
                found,
                strict=True,
            )
        ]


def _rebuilt(rows: Rows, starts: Ints) -> Iterator[bytes]:
    """Each record put together from its rows; b"" for one that is kept whole."""
    received, requests = rows.numbers("received_at"), rows.numbers("request")
    names, kinds = rows.repeated_texts("namespace"), rows.repeated_texts("record")
    keys = b"".join(rows.binaries("key_hash"))
    text = text_of(rows, received, names, keys)
    ends = np.flatnonzero(np.frombuffer(text, np.uint8) == _NEWLINE) + 1
    edges = np.flatnonzero(np.diff(requests.astype(np.int64), prepend=-1))
    edges = np.union1d(edges, starts)
    bounds = [*starts.tolist(), len(rows)]
    cuts = [0, *ends[np.array(bounds[1:]) - 1].tolist()]
    firsts = np.searchsorted(edges, bounds).tolist()
    edges_and_end = [*edges.tolist(), len(rows)]
    for number, (start, stop) in enumerate(pairwise(bounds)):
        if kinds[start] != EVENTS:
            yield b""
            continue
        local: dict[str, int] = {}
        asked = []
        for each in range(firsts[number], firsts[number + 1]):
            first, last = edges_and_end[each], edges_and_end[each + 1]
            name = local.setdefault(names[first], len(local))
            asked.append((int(received[first]), last - first, name))
        yield join_record(
            Record(
                version=VERSION,
                count=stop - start,
                namespaces=tuple(local),
                requests=tuple(asked),
                keys=memoryview(keys)[start * KEY_BYTES : stop * KEY_BYTES],
                lines=text[cuts[number] : cuts[number + 1]],
            )
        )


def text_of(rows: Rows, received: Ints, names: list[str], keys: bytes) -> bytes:
    """The lines of all rows, as they stand in records."""
    hashes = keys.hex()
    width = 2 * KEY_BYTES
    columns = [
        rows.numbers("index").tolist(),
        names,
        rows.repeated_texts("source"),
        rows.texts("id"),
        _instant_texts(rows.numbers("time")),
        rows.numbers("time_given").tolist(),
        _repeated_instant_texts(received),
        [hashes[at : at + width] for at in range(0, len(hashes), width)],
        *(rows.repeated_texts(name) for name in _REPEATED),
        rows.texts("data"),
        rows.repeated_texts("data_exact"),
    ]
    pieces = []
    for at in range(0, len(rows), _PIECE_ROWS):
        # What fits into the processor's cache is done in half the time.
        lines = zip(*(column[at : at + _PIECE_ROWS] for column in columns), strict=True)
        # A line ends with its only newline, and begins after its bracket.
        pieces.append(_encode_lines(list(lines)).replace(b"\n[", b"\n")[1:])
    return b"".join(pieces)


def _instant_texts(instants: Ints) -> list[str]:
    found: list[str] = []
    for at in range(0, len(instants), _PIECE_ROWS):
        piece = instants[at : at + _PIECE_ROWS]
        found += texts_of(piece) or [column_time(each) for each in piece.tolist()]
    return found


def _repeated_instant_texts(instants: Ints) -> list[str]:
    """The same where many in a row are equal."""
    edges = np.flatnonzero(np.diff(instants, prepend=instants[0] - 1))
    texts = np.array(_instant_texts(instants[edges]), object)
    return np.repeat(texts, np.diff(edges, append=len(instants))).tolist()
