"""Who claimed a key first: the decision between stored, duplicate and conflict.

A decision depends only on what stands before the event in its partition, so any loader that reads
the same log decides the same.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import md5

import msgspec
import numpy as np

from tollgate.core.clock import us_from_datetime
from tollgate.events.batch import CONFLICT, DEAD, DUPLICATE, STORED, Batch, Line
from tollgate.events.dedupe import SeenKeys
from tollgate.events.identity import same_json
from tollgate.events.stored_claims import Claim, Key, PositionTuple, stored_claims
from tollgate.platform.clickhouse import DATABASE, ClickHouse

_JSON = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """How long a claim holds. `us` 0: for ever."""

    us: int

    def covers(self, claim: Claim, appended_us: int) -> bool:
        """Whether an event appended at a time falls into the claim."""
        return self.us == 0 or appended_us - claim.appended_us < self.us


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
    claims = stored_claims(
        clickhouse,
        {day: [batch.key_text(event) for event in events.tolist()] for day, events in days.items()},
    )
    contents = _stored_contents(clickhouse, candidates, claims)
    for event, line in candidates.items():
        _decide_one(batch, event, line, claims, contents, window)


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


def _decide_one(
    batch: Batch,
    event: int,
    line: Line,
    claims: dict[Key, list[Claim]],
    contents: dict[PositionTuple, tuple[str, ...]],
    window: Window,
) -> None:
    key, position = key_of(line), batch.position(event)
    mine = Claim(position, batch.appended_us(event), content_hash(line), time_us_of(line), line)
    held = claims.setdefault(key, [])
    # A claim at or after this position is this event itself, read again after a crash, or its
    # future.
    before = [c for c in held if c.position < position]
    if not before or not window.covers(before[-1], mine.appended_us):
        if not any(c.position == position for c in held):
            held.append(mine)
            held.sort(key=lambda c: c.position)
        return
    claim = before[-1]
    batch.first[event] = claim.position
    times_agree = claim.time_us is None or mine.time_us is None or claim.time_us == mine.time_us
    if times_agree and claim.content_hash == mine.content_hash:
        batch.outcome[event] = DUPLICATE
        return
    earlier = content_of(claim.line) if claim.line else contents.get(claim.position)
    same = times_agree and earlier is not None and same_content(earlier, content_of(line))
    batch.outcome[event] = DUPLICATE if same else CONFLICT


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
    """What an event says, time left out: the columns that `content_hash` is taken of."""
    return (
        line.type,
        line.subject,
        line.datacontenttype,
        line.dataschema,
        line.extensions,
        line.data,
    )


def content_hash(line: Line) -> bytes:
    """What the engine computes for `event_keys` (infra/migrations/clickhouse): MD5, NUL between.

    Only the data may hold anything that a sender chose freely, and it stands last.
    """
    return md5("\0".join(content_of(line)).encode(), usedforsecurity=False).digest()


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


def _stored_contents(
    clickhouse: ClickHouse, candidates: dict[int, Line], claims: dict[Key, list[Claim]]
) -> dict[PositionTuple, tuple[str, ...]]:
    """Contents of stored claims whose bytes differ from an event that wants the same key."""
    wanted: set[str] = set()
    for line in candidates.values():
        held = claims.get(key_of(line))
        if held and any(claim.content_hash != content_hash(line) for claim in held):
            wanted.add(line.key_hash)
    if not wanted:
        return {}
    rows = clickhouse.query(
        "SELECT log_generation, log_partition, log_offset, log_index,"
        " type, subject, datacontenttype, dataschema, extensions, data"
        f" FROM {DATABASE}.events WHERE key_hash IN {{hashes:Array(UUID)}}",
        {"hashes": sorted(wanted)},
    )
    return {(r[0], r[1], r[2], r[3]): tuple(r[4:]) for r in rows}
