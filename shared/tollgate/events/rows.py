"""Rows of a decided batch, as JSONCompactEachRow bytes for each table."""

import base64

import msgspec
import numpy as np
import numpy.typing as npt

from tollgate.core.clock import datetime_from_us
from tollgate.core.times import format_instant
from tollgate.events.batch import CONFLICT, DEAD, OUTCOMES, STORED, Batch, Line
from tollgate.events.claims import time_us_of
from tollgate.events.correction import decode_correction
from tollgate.events.record import CORRECTIONS_VERSION, LINE_COLUMNS
from tollgate.platform.event_log import StoredRecord

EVENT_COLUMNS = ("log_generation", "log_partition", "log_offset", "appended_at", *LINE_COLUMNS)
OUTCOME_COLUMNS = (
    "log_generation",
    "log_partition",
    "log_offset",
    "log_index",
    "appended_at",
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
    "corrections",
)
_HOUR_US = 3_600_000_000
_NO_HASH = "0" * 32
_RAW_BYTES_KEPT = 1 << 20
_encode = msgspec.json.Encoder().encode


def instant_text(microseconds: int) -> str:
    """A DateTime64(6) value for the engine, from 1970 on."""
    return f"{microseconds // 1_000_000}.{microseconds % 1_000_000:06d}"


def event_rows(batch: Batch, chosen: npt.NDArray[np.bool_]) -> list[bytes]:
    """Rows of `arrivals` for the chosen ones, in pieces.

    Lines next to each other go through one `replace`, so the work is by record, not by event.
    """
    rows: list[bytes] = []
    edges = np.diff(chosen.astype(np.int8), prepend=0, append=0)
    # A run ends where a record ends, too.
    firsts = np.array([place.first for place in batch.places], np.int64)
    begin = np.union1d(np.flatnonzero(edges == 1), firsts[chosen[firsts]])
    stop = np.append(begin[1:], len(chosen))
    cut = np.flatnonzero(edges == -1)
    end = np.minimum(stop, cut[np.searchsorted(cut, begin, side="right")])
    ends = batch.ends[end - 1].tolist()
    starts = batch.starts[begin].tolist()
    for place_number, start, last in zip(batch.place_of[begin].tolist(), starts, ends, strict=True):
        place = batch.places[place_number]
        prefix = b'[%d,%d,%d,"%b",' % (
            batch.generation,
            batch.partition,
            place.record.offset,
            instant_text(place.record.appended_us).encode(),
        )
        rows += (prefix, place.text[start:last].replace(b"\n", b"\n" + prefix), b"\n")
    return rows


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
                instant_text(int(batch.received_us[event])),
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
    try:
        if batch.kind == CORRECTIONS_VERSION:
            # Of an amendment the event it would have made count; a void's text has no event.
            line = decode_correction(batch.text(event)).event
            return line.namespace, line.source, line.id, _event_json(line)
        line = batch.line(event)
        return line.namespace, line.source, line.id, _event_json(line)
    except (msgspec.DecodeError, ValueError):
        namespace = batch.namespaces[int(batch.namespace[event])]
        return namespace, "", "", batch.text(event)[:_RAW_BYTES_KEPT].decode("utf-8", "replace")


def _event_json(line: Line) -> str:
    """The event as the CloudEvent that its sender would recognize."""
    members: dict[str, object] = {
        "specversion": "1.0",
        "id": line.id,
        "source": line.source,
        "type": line.type,
        "subject": line.subject,
    }
    time_us = time_us_of(line)
    if time_us is not None:
        members["time"] = format_instant(datetime_from_us(time_us))
    for name in ("datacontenttype", "dataschema"):
        if value := getattr(line, name):
            members[name] = value
    if line.extensions:
        members |= msgspec.json.decode(line.extensions, type=dict[str, msgspec.Raw])
    if line.data:
        members["data"] = msgspec.Raw(line.data.encode())
    return _encode(members).decode()


def ledger_rows(batch: Batch) -> bytes:
    """Rows of `ledger`: per record, namespace and received hour what became of its events.

    Corrections are counted apart: they are no events.
    """
    rows: list[tuple[object, ...]] = []
    if len(batch):
        hours = batch.received_us // _HOUR_US
        names = len(batch.namespaces)
        first_hour = int(hours.min())
        span = int(hours.max()) - first_hour + 1
        group = (batch.place_of * names + batch.namespace) * span + (hours - first_hour)
        keys, inverse = np.unique(group, return_inverse=True)
        counts = np.bincount(inverse * 4 + batch.outcome, minlength=len(keys) * 4)
        for key, tally in zip(keys.tolist(), counts.reshape(-1, 4).tolist(), strict=True):
            rest, hour = divmod(key, span)
            record, name = divmod(rest, names)
            rows.append(
                _ledger_row(
                    batch,
                    batch.places[record].record,
                    batch.namespaces[name],
                    (hour + first_hour) * 3600,
                    tally,
                )
            )
    for corrupt in batch.corrupt:
        hour = corrupt.record.appended_us // _HOUR_US * 3600
        rows.append(_ledger_row(batch, corrupt.record, "", hour, [0, 0, 0, 1]))
    return b"".join(_encode(row) + b"\n" for row in rows)


def _ledger_row(
    batch: Batch, stored: StoredRecord, namespace: str, hour: int, tally: list[int]
) -> tuple[object, ...]:
    corrections = 0
    if batch.kind == CORRECTIONS_VERSION:
        corrections, tally = tally[STORED], [0, *tally[1:]]
    return (
        batch.generation,
        batch.partition,
        stored.offset,
        instant_text(stored.appended_us),
        namespace,
        hour,
        sum(tally),
        *tally,
        corrections,
    )
