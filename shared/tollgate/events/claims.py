"""Who claimed a key first: the decision between stored, duplicate and conflict.

A decision depends only on what stands before the event in its partition, so any loader that reads
the same log decides the same.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import md5

import msgspec
import numpy as np

from tollgate.core.clock import us_from_datetime
from tollgate.events.batch import CONFLICT, DEAD, DUPLICATE, STORED, Batch, Line
from tollgate.events.dedupe import DAY_US, SeenKeys, numbers_of
from tollgate.events.identity import key_prefix, same_json
from tollgate.events.stored_claims import Claim, stored_claims
from tollgate.events.stored_events import Key, PositionTuple, StoredEvent, find_events
from tollgate.platform.clickhouse import ClickHouse

_JSON = "application/json"
_Stored = Mapping[PositionTuple, StoredEvent]


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """How long a claim holds. `us` 0: for ever."""

    us: int

    def covers(self, began_us: int, appended_us: int) -> bool:
        """Whether an event appended at a time falls into a claim that began at another."""
        return self.us == 0 or appended_us - began_us < self.us

    def is_open(self, day: int, appended_us: int) -> bool:
        """Whether that depends on the time of the day at which the claim began."""
        first, last = day * DAY_US, (day + 1) * DAY_US - 1
        return self.covers(first, appended_us) != self.covers(last, appended_us)


def decide(batch: Batch, seen: SeenKeys, clickhouse: ClickHouse, window: Window) -> None:
    """Sets `outcome` and `first` of every event of the batch.

    Raises:
        Transient: ClickHouse is away; nothing was decided, call again.
    """
    batch.outcome[batch.outcome != DEAD] = STORED
    batch.first.clear()
    if not len(batch):
        return
    days = seen.days_of(batch.keys)
    known = np.zeros(len(batch), np.bool_)
    for events in days.values():
        known[events] = True
    order = np.argsort(batch.keys[:, 0], kind="stable")
    ordered = batch.keys[order, 0]
    repeated = np.zeros(len(batch), np.bool_)
    same = ordered[1:] == ordered[:-1]
    repeated[order[1:][same]] = True
    repeated[order[:-1][same]] = True
    candidates = _readable(batch, np.flatnonzero(known | repeated).tolist())
    if not candidates:
        return
    numbers = numbers_of(batch.keys)
    claims = stored_claims(
        clickhouse, {day: numbers[events].tolist() for day, events in days.items()}
    )
    wanted = [
        _Wanted(int(numbers[event]), line, batch.position(event), batch.appended_us(event))
        for event, line in candidates.items()
    ]
    stored = find_events(clickhouse, _unclear(wanted, claims, window))
    for event, each in zip(candidates, wanted, strict=True):
        _decide_one(batch, event, each, claims.setdefault(each.number, []), stored, window)


def _readable(batch: Batch, events: list[int]) -> dict[int, Line]:
    """Those that can be read; dead letters are left out, what can't be read becomes one."""
    found = {}
    for event in events:
        if batch.outcome[event] == DEAD:
            continue
        try:
            line = batch.line(event)
            time_us_of(line)
        except (msgspec.DecodeError, ValueError) as problem:
            batch.bury(event, "unreadable_line", str(problem))
        else:
            found[event] = line
    return found


class _Wanted:
    """An event that wants a key."""

    __slots__ = ("appended_us", "claim", "key", "line", "number", "time_us")

    def __init__(self, number: int, line: Line, position: PositionTuple, appended_us: int) -> None:
        self.number, self.line, self.appended_us = number, line, appended_us
        self.key, self.time_us = key_of(line), time_us_of(line)
        self.claim = Claim(position, appended_us // DAY_US, digest_of(line), line, appended_us)


def _unclear(
    wanted: Iterable[_Wanted], claims: Mapping[int, list[Claim]], window: Window
) -> Iterator[Key]:
    """Keys of which a stored claim does not say all: other bytes, or a day at the window's end."""
    for each in wanted:
        for claim in claims.get(each.number, ()):
            if claim.digest != each.claim.digest or window.is_open(claim.day, each.appended_us):
                yield each.key


def _decide_one(
    batch: Batch,
    event: int,
    mine: _Wanted,
    held: list[Claim],
    stored: _Stored,
    window: Window,
) -> None:
    """Decides by the claims of the key's number. If the event is stored, it is one of them."""
    position = mine.claim.position
    # A claim at or after this position is this event itself, read again after a crash, or its
    # future.
    before = [c for c in held if c.position < position and _is_of(c, mine, stored)]
    if not before or not window.covers(_began_us(before[-1], stored), mine.appended_us):
        held[:] = [*(c for c in held if c.position != position), mine.claim]
        held.sort(key=lambda claim: claim.position)
        return
    claim = before[-1]
    batch.first[event] = claim.position
    batch.outcome[event] = DUPLICATE if _says_the_same(claim, mine, stored) else CONFLICT


def _is_of(claim: Claim, mine: _Wanted, stored: _Stored) -> bool:
    """Whether a claim of the number is one of the key. Equal digests are of equal keys."""
    if claim.line is not None:
        return key_of(claim.line) == mine.key
    found = stored.get(claim.position)
    return claim.digest == mine.claim.digest or (found is not None and found.key == mine.key)


def _began_us(claim: Claim, stored: _Stored) -> int:
    """When a claim began. Its day's end, where that says all that is asked."""
    if claim.line is not None:
        return claim.appended_us
    found = stored.get(claim.position)
    return found.appended_us if found is not None else (claim.day + 1) * DAY_US - 1


def _says_the_same(claim: Claim, mine: _Wanted, stored: _Stored) -> bool:
    if claim.digest == mine.claim.digest:
        return True
    if claim.line is not None:
        time_us, content = time_us_of(claim.line), content_of(claim.line)
    else:
        found = stored[claim.position]
        time_us, content = found.time_us, found.content
    times_agree = time_us is None or mine.time_us is None or time_us == mine.time_us
    return times_agree and same_content(content, content_of(mine.line))


def same_content(left: tuple[str, ...], right: tuple[str, ...]) -> bool:
    """Whether two contents mean the same: JSON as values, an omitted media type is JSON."""
    return (
        left[:2] == right[:2]
        and (left[2] or _JSON) == (right[2] or _JSON)
        and left[3] == right[3]
        and same_json(left[4], right[4])
        and same_json(left[5], right[5])
    )


def key_of(line: Line) -> Key:
    """Namespace, source and id."""
    return line.namespace, line.source, line.id


def content_of(line: Line) -> tuple[str, ...]:
    """What an event says, time left out."""
    return (
        line.type,
        line.subject,
        line.datacontenttype,
        line.dataschema,
        line.extensions,
        line.data,
    )


def digest_of(line: Line) -> int:
    """What the engine computes for `event_keys` (infra/migrations/clickhouse) of all but positions.

    The first 8 bytes of an MD5 of key, given time and content, NUL between. Only the data may hold
    anything that a sender chose freely, and it stands last.
    """
    source, time_us = line.source, time_us_of(line)
    key = f"{key_prefix(line.namespace)}{len(source.encode())}:{source}{line.id}"
    text = "\0".join((key, "" if time_us is None else str(time_us), *content_of(line)))
    return int.from_bytes(md5(text.encode(), usedforsecurity=False).digest()[:8], "little")


def time_us_of(line: Line) -> int | None:
    """The event time that the client gave, None if it gave none.

    Raises:
        ValueError: no time that ingest writes.
    """
    if not line.time_given:
        return None
    seconds, _, fraction = line.time.partition(".")
    if seconds.isdigit():
        return int(seconds) * 1_000_000 + int(fraction)
    return us_from_datetime(datetime.fromisoformat(line.time).replace(tzinfo=UTC))
