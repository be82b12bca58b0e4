"""Rows of a decided batch, as JSONCompactEachRow bytes for each table."""

import base64
from collections.abc import Iterable

import msgspec
import numpy as np

from tollgate.core.clock import datetime_from_us
from tollgate.core.times import format_instant
from tollgate.events.batch import CONFLICT, DEAD, OUTCOMES, Batch
from tollgate.events.claims import event_content, event_key
from tollgate.events.record import KEY_COLUMNS, LINE_COLUMNS

_POSITION = ("log_generation", "log_partition", "log_offset", "log_index", "appended_at")
EVENT_COLUMNS = (*_POSITION, *LINE_COLUMNS)
CLAIM_COLUMNS = (*_POSITION, "content_hash", *KEY_COLUMNS)
OUTCOME_COLUMNS = (
    *_POSITION,
    "namespace",
    "outcome",
    "source",
    "id",
    "key_hash",
    "code",
    "detail",
    "event",
    "first_generation",
    "first_partition",
    "first_offset",
    "first_index",
    "received_at",
)
LEDGER_COLUMNS = (
    "log_generation",
    "log_partition",
    "log_offset",
    "appended_at",
    "namespace",
    "received_hour",
    "accepted",
    *OUTCOMES,
)
_HOUR_US = 3_600_000_000
_NO_HASH = "0" * 32
_RAW_BYTES_KEPT = 1 << 20
_encode = msgspec.json.Encoder().encode


def instant_text(microseconds: int) -> str:
    """A DateTime64(6) value for the engine, from 1970 on."""
    return f"{microseconds // 1_000_000}.{microseconds % 1_000_000:06d}"


def _prefixes(batch: Batch) -> list[bytes]:
    """For each record the part of a row before the index, and after it."""
    return [
        b"[%d,%d,%d," % (batch.generation, batch.partition, record.offset)
        for record in batch.records
    ]


def event_rows(batch: Batch, events: Iterable[int]) -> tuple[bytes, bytes]:
    """Rows of `events` and of `event_keys` for the given events."""
    before = _prefixes(batch)
    after = [b',"%b",' % instant_text(record.appended_us).encode() for record in batch.records]
    record_of, index = batch.record_of.tolist(), batch.index.tolist()
    key_lengths = batch.entries["key_length"].tolist()
    contents = batch.entries["content"].tobytes().hex().encode()
    lines = batch.lines
    rows, claims = [], []
    for event in events:
        record, line = record_of[event], lines[event]
        head = b"%b%d%b" % (before[record], index[event], after[record])
        rows.append(head)
        rows.append(line)
        claims.append(
            b'%b"%b",%b]\n'
            % (head, contents[event * 32 : event * 32 + 32], line[: key_lengths[event]])
        )
    return b"".join(rows), b"".join(claims)


def outcome_rows(batch: Batch) -> bytes:
    """Rows of `event_outcomes`: what was not stored, and why."""
    rows = []
    for event in np.flatnonzero(batch.outcome).tolist():
        outcome = int(batch.outcome[event])
        generation, partition, offset, index = batch.position(event)
        code, detail = batch.reason.get(event, ("", ""))
        first = batch.first.get(event, (0, 0, 0, 0))
        namespace, source, event_id, kept = _kept(batch, event)
        rows.append(
            (
                generation,
                partition,
                offset,
                index,
                instant_text(batch.appended_us(event)),
                namespace,
                OUTCOMES[outcome],
                source,
                event_id,
                batch.key_text(event),
                code,
                detail,
                kept if outcome in (CONFLICT, DEAD) else "",
                *first,
                instant_text(int(batch.entries["received_us"][event])),
            )
        )
    for corrupt in batch.corrupt:
        appended = instant_text(corrupt.record.appended_us)
        raw = base64.b64encode(corrupt.record.value[:_RAW_BYTES_KEPT]).decode()
        position = (batch.generation, batch.partition, corrupt.record.offset, 0, appended)
        found = ("", OUTCOMES[DEAD], "", "", _NO_HASH, corrupt.code, corrupt.detail, raw)
        rows.append((*position, *found, 0, 0, 0, 0, appended))
    return b"".join(_encode(row) + b"\n" for row in rows)


def _kept(batch: Batch, event: int) -> tuple[str, str, str, str]:
    """Namespace, source, id and CloudEvent of an event; of a line that can't be read its text."""
    line = batch.lines[event]
    try:
        return *event_key(line, batch, event), _event_json(batch, event)
    except (msgspec.DecodeError, ValueError, TypeError, IndexError):
        namespace = batch.namespaces[int(batch.namespace[event])]
        return namespace, "", "", line[:_RAW_BYTES_KEPT].decode("utf-8", "replace")


def _event_json(batch: Batch, event: int) -> str:
    """The event as the CloudEvent that its sender would recognize."""
    line = batch.lines[event]
    head = msgspec.json.decode(b"[" + line[: int(batch.entries["key_length"][event])] + b"]")
    content = event_content(line, batch, event)
    members: dict[str, object] = {
        "specversion": "1.0",
        "id": head[2],
        "source": head[1],
        "type": content.type,
        "subject": content.subject,
    }
    if head[4]:
        members["time"] = format_instant(datetime_from_us(int(batch.entries["time_us"][event])))
    for name in ("datacontenttype", "dataschema"):
        if value := getattr(content, name):
            members[name] = value
    if content.extensions:
        members |= msgspec.json.decode(content.extensions, type=dict[str, msgspec.Raw])
    if content.data:
        members["data"] = msgspec.Raw(content.data.encode())
    return _encode(members).decode()


def ledger_rows(batch: Batch) -> bytes:
    """Rows of `ledger`: per record, namespace and received hour what became of its events."""
    rows: list[tuple[object, ...]] = []
    if len(batch):
        hours = batch.entries["received_us"] // _HOUR_US
        names = len(batch.namespaces)
        first_hour = int(hours.min())
        span = int(hours.max()) - first_hour + 1
        group = (batch.record_of * names + batch.namespace) * span + (hours - first_hour)
        keys, inverse = np.unique(group, return_inverse=True)
        counts = np.bincount(inverse * 4 + batch.outcome, minlength=len(keys) * 4)
        for key, tally in zip(keys.tolist(), counts.reshape(-1, 4).tolist(), strict=True):
            rest, hour = divmod(key, span)
            record, name = divmod(rest, names)
            rows.append(
                _ledger_row(
                    batch, record, batch.namespaces[name], (hour + first_hour) * 3600, tally
                )
            )
    at = {id(record): number for number, record in enumerate(batch.records)}
    for corrupt in batch.corrupt:
        hour = corrupt.record.appended_us // _HOUR_US * 3600
        rows.append(_ledger_row(batch, at[id(corrupt.record)], "", hour, [0, 0, 0, 1]))
    return b"".join(_encode(row) + b"\n" for row in rows)


def _ledger_row(
    batch: Batch, record: int, namespace: str, hour: int, tally: list[int]
) -> tuple[object, ...]:
    stored = batch.records[record]
    return (
        batch.generation,
        batch.partition,
        stored.offset,
        instant_text(stored.appended_us),
        namespace,
        hour,
        sum(tally),
        *tally,
    )
