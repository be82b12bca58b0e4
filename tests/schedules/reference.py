"""What must come out of a log, worked out from its records alone, in a few lines that are not ours.

"Not ours": nothing of the loader. Records are sliced by the product's reader of records; what the
lines say, and what it means, is read here once more.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from typing import Any

from tollgate.events.record import CORRECTIONS_VERSION, CorruptRecord, decode_record
from tollgate.platform.event_log import StoredRecord

Place = tuple[int, int, int]
"""Partition, offset, index: a schedule has one generation."""
Key = tuple[str, str, str]
Vector = Mapping[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """A line of the log.

    Attributes:
        place, appended_us: where and when.
        name, action: of a correction its id and what it does; "" of an event.
        key, subject, data: of it.
        time: None if the client gave none.
        time_us: event time, in microseconds since the epoch.
    """

    place: Place
    appended_us: int
    name: str
    action: str
    key: Key
    time: str | None
    time_us: int
    subject: str
    data: str


@dataclass(slots=True, kw_only=True)
class KeyHistory:
    """What is known of a key."""

    claim: Fact | None = None
    current: Place | None = None
    voids: int = 0
    decided: set[str] = field(default_factory=set)


@dataclass(slots=True, kw_only=True)
class Reckoning:
    """What must be stored.

    Attributes:
        counting: by place the key and the data of what counts.
        times: by namespace and place the event time of what counts, in microseconds.
        claims: places of events that claimed a key, with the times of their records.
        outcomes: of the other events, with the place of the claim.
        ledger: by partition and offset: accepted, stored, duplicate, conflict, dead, corrections.
    """

    counting: dict[Place, tuple[Key, str]] = field(default_factory=dict)
    times: dict[tuple[str, Place], int] = field(default_factory=dict)
    claims: dict[Place, int] = field(default_factory=dict)
    outcomes: dict[Place, tuple[str, Place]] = field(default_factory=dict)
    ledger: dict[tuple[int, int], tuple[int, ...]] = field(default_factory=dict)


def reckon(
    history: Sequence[Sequence[StoredRecord]], window_us: int, vector: Vector | None = None
) -> Reckoning:
    """Reads a log from its begin.

    Args:
        history: by partition all records.
        window_us: how long a key is claimed; 0: for ever.
        vector: by partition how far to read; None: to the end.
    """
    found = Reckoning()
    for partition, records in enumerate(history):
        end = None if vector is None else vector.get(partition, -1)
        keys: dict[Key, KeyHistory] = {}
        for record in records:
            if end is None or record.offset <= end:
                _reckon_record(found, keys, partition, record, window_us)
    return found


def _reckon_record(
    found: Reckoning,
    keys: dict[Key, KeyHistory],
    partition: int,
    record: StoredRecord,
    window_us: int,
) -> None:
    tally = {"stored": 0, "duplicate": 0, "conflict": 0, "dead": 0, "corrections": 0}
    facts = facts_of(partition, record)
    for fact in facts:
        known = keys.setdefault(fact.key, KeyHistory())
        if fact.action:
            tally["corrections"] += 1
            _correct(found, known, fact)
        else:
            tally[_take(found, known, fact, window_us)] += 1
    tally["dead"] += not facts
    accepted = sum(tally.values()) - tally["corrections"]
    found.ledger[partition, record.offset] = (accepted, *tally.values())


def _take(found: Reckoning, known: KeyHistory, fact: Fact, window_us: int) -> str:
    claim = known.claim
    if claim is None or (window_us and fact.appended_us - claim.appended_us >= window_us):
        known.claim, known.current = fact, fact.place
        found.claims[fact.place] = fact.appended_us
        if known.voids:
            known.current, known.voids = None, 0
        else:
            _count(found, fact)
        return "stored"
    same = (
        claim.subject == fact.subject
        and (None in (claim.time, fact.time) or claim.time == fact.time)
        and value_of(claim.data) == value_of(fact.data)
    )
    kind = "duplicate" if same else "conflict"
    found.outcomes[fact.place] = (kind, claim.place)
    return kind


def _correct(found: Reckoning, known: KeyHistory, fact: Fact) -> None:
    if fact.name in known.decided:
        return
    known.decided.add(fact.name)
    if known.claim is None:
        known.voids += fact.action == "void"
        return
    if known.current is not None:
        del found.counting[known.current]
        del found.times[fact.key[0], known.current]
    known.current = None
    if fact.action == "amend":
        known.current = fact.place
        _count(found, fact)


def _count(found: Reckoning, fact: Fact) -> None:
    found.counting[fact.place] = (fact.key, fact.data)
    found.times[fact.key[0], fact.place] = fact.time_us


@cache
def value_of(data: str) -> Any:
    """Data as a value: order, space and the spelling of numbers do not matter."""
    return json.loads(data, parse_int=Decimal, parse_float=Decimal)


def facts_of(partition: int, record: StoredRecord) -> tuple[Fact, ...]:
    """The lines of a record; () for what is no record."""
    try:
        return tuple(_read(partition, record))
    except CorruptRecord:
        return ()


def _read(partition: int, stored: StoredRecord) -> Iterator[Fact]:
    record = decode_record(stored.value)
    for index, line in enumerate(record.lines.splitlines()):
        members = json.loads(b"[" + line)
        name = action = ""
        if record.version == CORRECTIONS_VERSION:
            name, action = members[1], members[3]
            del members[1:8]
        yield Fact(
            place=(partition, stored.offset, index),
            appended_us=stored.appended_us,
            name=name,
            action=action,
            key=(members[1], members[2], members[3]),
            time_us=int(members[4].replace(".", "") or 0),
            time=members[4] if members[5] else None,
            subject=f"{members[8]} {members[9]}",
            data=members[13],
        )
