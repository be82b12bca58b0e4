"""Use case: what became of an event, and which events did not count.

Rows may stand twice (a batch that was loaded again after a crash), always at the same position: so
`LIMIT 1 BY` the position instead of FINAL, which would merge far more than is asked for.
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import msgspec

from tollgate.core.clock import datetime_from_us
from tollgate.core.errors import NotFound
from tollgate.core.times import format_instant
from tollgate.events.correct import read_states
from tollgate.events.correction import Place
from tollgate.events.correction_list import (
    CorrectionListing,
    ListedCorrection,
    list_corrections,
)
from tollgate.events.identity import key_hash, key_prefix
from tollgate.events.key_state import KeyState
from tollgate.events.position import HEADER, Position
from tollgate.platform.clickhouse import DATABASE, ClickHouse

State = Literal["stored", "amended", "voided", "held", "duplicate", "conflict", "dead"]
Outcome = Literal["duplicate", "conflict", "dead"]
SHOWN_MAX = 10
CORRECTIONS_MAX = 100
UNATTRIBUTED = ""
"""Namespace of records that can't be taken apart, so that nobody knows whose they are."""

_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_POSITION = "log_generation, log_partition, log_offset, log_index"
_TIMES = ", ".join(f"toUnixTimestamp64Micro({c}_at)" for c in ("received", "appended", "stored"))
_NEWEST = f"ORDER BY appended_at DESC, {', '.join(f'{c} DESC' for c in _POSITION.split(', '))}"
_OF_KEY = "namespace = {namespace:String} AND source = {source:String} AND id = {id:String}"
_OF_HASH = "key_hash = {key:UUID}"
_STORED_COLUMNS = (
    f"{_POSITION}, {_TIMES}, toUnixTimestamp64Micro(time), source, id, type, subject,"
    " datacontenttype, dataschema, extensions, data"
)
_OUTCOME_COLUMNS = (
    f"{_POSITION}, {_TIMES}, toString(outcome), source, id, code, detail, event,"
    " first_generation, first_partition, first_offset, first_index, namespace"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """When and where an event came in."""

    position: Position
    received_at: datetime
    appended_at: datetime
    stored_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEvent:
    """An event or an amendment. `event` is the CloudEvent, its data as it was sent."""

    arrival: Arrival
    event: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Uncounted:
    """An event that does not count.

    Attributes:
        arrival: of this event.
        outcome: why it does not count.
        source, id: its key; "" if the record can't be taken apart.
        code, detail: of dead letters.
        event: the CloudEvent where it was kept (conflicts, dead letters).
        record: base64 of what can't be taken apart, cut at a mebibyte; "" otherwise.
        first: where the event stands that holds the key.
    """

    arrival: Arrival
    outcome: Outcome
    source: str
    id: str
    code: str
    detail: str
    event: Mapping[str, object] | None
    record: str
    first: Position | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """How many there are, and the newest of them."""

    count: int
    newest: tuple[Uncounted, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """All that is known under one source and id.

    Attributes:
        state: `stored` if an event counts, `amended` if an amendment does in its place, `voided` or
            `held` if a correction or an open backfill keeps it from counting; without any event
            what became of the only ones there were.
        shown: the version in force of the last event that claimed the key, or the last one that
            was; None without any event.
        earlier: versions of events before it that count too: only where the key came again after
            the dedupe window.
        uncounted: the others, by outcome.
        corrections: of the key, newest first, at most `CORRECTIONS_MAX`.
    """

    state: State
    shown: StoredEvent | None
    earlier: tuple[Position, ...]
    uncounted: Mapping[Outcome, Group]
    corrections: tuple[ListedCorrection, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Which uncounted events are asked for, newest first by the time of their append.

    Attributes:
        namespace: whose, or `UNATTRIBUTED`.
        outcome: of which kind.
        start, end: half-open period of receipt; None is open.
        after: append time and position of the last item of the page before.
        limit: items at most.
    """

    namespace: str
    outcome: Outcome
    start: datetime | None
    end: datetime | None
    after: tuple[int, Position] | None
    limit: int


def find_event(clickhouse: ClickHouse, namespace: str, source: str, event_id: str) -> History:
    """What became of the events of a source and id.

    Raises:
        NotFound: none is loaded.
        Transient: ClickHouse is away.
    """
    # No event has control characters in its key, and not every driver carries them unharmed.
    if not (_is_plain(source) and _is_plain(event_id)):
        raise _unknown()
    hashed = key_hash(key_prefix(namespace), source, event_id)
    key = {"namespace": namespace, "key": hashed.hex(), "source": source, "id": event_id}
    mine = (namespace, source, event_id)
    state = read_states(clickhouse, {mine: (hashed.hex(), True)})[mine]
    counts = clickhouse.query(
        f"SELECT toString(outcome), uniqExact({_POSITION}) FROM {DATABASE}.event_outcomes"
        f" WHERE {_OF_KEY} AND {_OF_HASH} GROUP BY outcome",
        key,
    )
    if not state.claims and not counts:
        raise _unknown()
    groups: dict[Outcome, Group] = {}
    for outcome, count in counts:
        rows = clickhouse.query(
            f"SELECT {_OUTCOME_COLUMNS} FROM {DATABASE}.event_outcomes"
            f" WHERE {_OF_KEY} AND {_OF_HASH} AND outcome = {{outcome:String}}"
            f" {_NEWEST} LIMIT 1 BY {_POSITION} LIMIT {SHOWN_MAX}",
            key | {"outcome": outcome},
        )
        groups[outcome] = Group(count=count, newest=tuple(map(_uncounted, rows)))
    asked = CorrectionListing(
        namespace=namespace, key=(source, event_id), limit=CORRECTIONS_MAX - 1
    )
    earlier = [state.in_force[claim] for claim in reversed(state.claims[:-1])]
    return History(
        state=_state(state, groups),
        shown=_shown(clickhouse, state, key),
        earlier=tuple(_position_of(place) for place in earlier if place)[:SHOWN_MAX],
        uncounted=groups,
        corrections=list_corrections(clickhouse, asked),
    )


def _state(state: KeyState, groups: Mapping[Outcome, Group]) -> State:
    claim = state.claim
    if claim is None:
        others: tuple[Outcome, ...] = ("dead", "conflict", "duplicate")
        return next(name for name in others if name in groups)
    in_force = state.in_force[claim]
    if in_force is None:
        return "held" if state.last[claim] in state.held else "voided"
    return "stored" if in_force == claim else "amended"


def _shown(
    clickhouse: ClickHouse, state: KeyState, key: Mapping[str, object]
) -> StoredEvent | None:
    version = state.latest()
    if version is None:
        return None
    (row,) = clickhouse.query(
        f"SELECT {_STORED_COLUMNS} FROM {DATABASE}.events WHERE {_OF_KEY}"
        f" AND type = {{type:String}} AND subject = {{subject:String}}"
        f" AND ({_POSITION}) = {version.place} LIMIT 1",
        {**key, "type": version.type, "subject": version.subject},
    )
    return _stored(row)


def _position_of(place: Place) -> Position:
    generation, partition, offset, index = place
    return Position(generation=generation, partition=partition, offset=offset, index=index)


def list_uncounted(clickhouse: ClickHouse, asked: Listing) -> tuple[Uncounted, ...]:
    """One page of events that do not count; one item more than asked if there is a next page."""
    conditions = ["namespace = {namespace:String}", "outcome = {outcome:String}"]
    values: dict[str, object] = {"namespace": asked.namespace, "outcome": asked.outcome}
    if asked.start is not None:
        conditions.append("received_at >= {start:DateTime64(6, 'UTC')}")
        values["start"] = asked.start
    if asked.end is not None:
        conditions.append("received_at < {end:DateTime64(6, 'UTC')}")
        values["end"] = asked.end
    if asked.after is not None:
        appended_us, place = asked.after
        before = "fromUnixTimestamp64Micro({appended:Int64}, 'UTC')"
        conditions.append(f"appended_at <= {before}")
        conditions.append(
            f"(appended_at, {_POSITION}) < ({before}, {{generation:UInt32}}, {{partition:UInt16}},"
            " {offset:UInt64}, {index:UInt32})"
        )
        values |= {
            "appended": appended_us,
            "generation": place.generation,
            "partition": place.partition,
            "offset": place.offset,
            "index": place.index,
        }
    rows = clickhouse.query(
        f"SELECT {_OUTCOME_COLUMNS} FROM {DATABASE}.event_outcomes"
        f" WHERE {' AND '.join(conditions)} {_NEWEST} LIMIT 1 BY {_POSITION}"
        f" LIMIT {asked.limit + 1}",
        values,
    )
    return tuple(map(_uncounted, rows))


def find_uncounted(
    clickhouse: ClickHouse, namespace: str, outcome: Outcome, position: Position
) -> Uncounted | None:
    """The event of this outcome at a place in the log, if there is one."""
    rows = clickhouse.query(
        f"SELECT {_OUTCOME_COLUMNS} FROM {DATABASE}.event_outcomes"
        " WHERE namespace = {namespace:String} AND outcome = {outcome:String}"
        f" AND ({_POSITION}) = ({{generation:UInt32}}, {{partition:UInt16}}, {{offset:UInt64}},"
        " {index:UInt32}) LIMIT 1",
        {
            "namespace": namespace,
            "outcome": outcome,
            "generation": position.generation,
            "partition": position.partition,
            "offset": position.offset,
            "index": position.index,
        },
    )
    return _uncounted(rows[0]) if rows else None


def _unknown() -> NotFound:
    return NotFound(
        "no event of this source and id is loaded. One that was just sent may still be on its way: "
        f"ask again with the {HEADER} header that the answer to it carried, and the question waits"
    )


def _is_plain(text: str) -> bool:
    return all(character >= " " and not "\x7f" <= character <= "\x9f" for character in text)


def _arrival(row: Sequence[Any]) -> Arrival:
    return Arrival(
        position=Position(generation=row[0], partition=row[1], offset=row[2], index=row[3]),
        received_at=datetime_from_us(row[4]),
        appended_at=datetime_from_us(row[5]),
        stored_at=datetime_from_us(row[6]),
    )


def _stored(row: Sequence[Any]) -> StoredEvent:
    time_us, source, event_id, kind, subject, media_type, schema, extensions, data = row[7:]
    event: dict[str, object] = {
        "specversion": "1.0",
        "id": event_id,
        "source": source,
        "type": kind,
        "subject": subject,
        "time": format_instant(datetime_from_us(time_us)),
    }
    if media_type:
        event["datacontenttype"] = media_type
    if schema:
        event["dataschema"] = schema
    if extensions:
        event |= _decode_members(extensions)
    if data:
        event["data"] = msgspec.Raw(data.encode())
    return StoredEvent(arrival=_arrival(row), event=event)


def _uncounted(row: Sequence[Any]) -> Uncounted:
    outcome, source, event_id, code, detail, kept = row[7:13]
    first = Position(generation=row[13], partition=row[14], offset=row[15], index=row[16])
    event, record = _kept(kept, is_record=row[17] == UNATTRIBUTED)
    return Uncounted(
        arrival=_arrival(row),
        outcome=outcome,
        source=source,
        id=event_id,
        code=code,
        detail=detail,
        event=event,
        record=record,
        # Dead letters claim nothing and repeat nothing; generations count from 1.
        first=first if first.generation else None,
    )


def _kept(kept: str, *, is_record: bool) -> tuple[Mapping[str, object] | None, str]:
    """The CloudEvent, or base64 of what is none."""
    if is_record or not kept:
        return None, kept
    try:
        return _decode_members(kept), ""
    except msgspec.DecodeError:
        # A line that even the loader could not read: kept as text.
        return None, b64encode(kept.encode()).decode()
