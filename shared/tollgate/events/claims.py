"""Who claimed a key first: the decision between stored, duplicate and conflict.

A decision depends only on what stands before the event in its partition, so any loader that reads
the same log decides the same.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec
import numpy as np

from tollgate.events.batch import CONFLICT, DEAD, DUPLICATE, STORED, Batch
from tollgate.events.dedupe import SeenKeys
from tollgate.events.identity import same_json
from tollgate.events.record import TIME_GIVEN
from tollgate.platform.clickhouse import DATABASE, ClickHouse

_JSON = "application/json"
_LOOKUP_KEYS = 10_000
Key = tuple[str, str, str]
PositionTuple = tuple[int, int, int, int]


class Content(msgspec.Struct, frozen=True, gc=False):
    """What an event says, time left out."""

    type: str
    subject: str
    datacontenttype: str
    dataschema: str
    extensions: str
    data: str


class Claim(msgspec.Struct, frozen=True, gc=False):
    """An event that holds a key.

    Attributes:
        position: where it stands.
        appended_us: when its record was appended: the claim's start.
        content_hash: 16 bytes.
        time_us: event time if the client gave it, else None.
        event: its number in the batch; -1 if it was stored before.
    """

    position: PositionTuple
    appended_us: int
    content_hash: bytes
    time_us: int | None
    event: int


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
    known = seen.contains(batch.keys)
    order = np.argsort(batch.keys[:, 0], kind="stable")
    ordered = batch.keys[order, 0]
    repeated = np.zeros(len(batch), np.bool_)
    same = ordered[1:] == ordered[:-1]
    repeated[order[1:][same]] = True
    repeated[order[:-1][same]] = True
    candidates = _readable(batch, np.flatnonzero(known | repeated).tolist())
    if not candidates:
        return
    claims = _stored_claims(clickhouse, batch, np.flatnonzero(known).tolist())
    contents = _stored_contents(clickhouse, batch, candidates, claims)
    for event in candidates:
        _decide_one(batch, event, claims, contents, window)


def _readable(batch: Batch, events: list[int]) -> list[int]:
    """Those that can be read; dead letters are left out, what can't be read becomes one."""
    found = []
    for event in events:
        if batch.outcome[event] == DEAD:
            continue
        try:
            event_key(batch.lines[event], batch, event)
            event_content(batch.lines[event], batch, event)
        except (msgspec.DecodeError, ValueError, TypeError, IndexError) as problem:
            batch.bury(event, "unreadable_line", str(problem))
        else:
            found.append(event)
    return found


def _decide_one(
    batch: Batch,
    event: int,
    claims: dict[Key, list[Claim]],
    contents: dict[PositionTuple, Content],
    window: Window,
) -> None:
    key, position = event_key(batch.lines[event], batch, event), batch.position(event)
    mine = _claim_of(batch, event, position)
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
    earlier = (
        contents.get(claim.position)
        if claim.event < 0
        else event_content(batch.lines[claim.event], batch, claim.event)
    )
    same = times_agree and earlier is not None
    if same and earlier is not None:
        same = same_content(earlier, event_content(batch.lines[event], batch, event))
    batch.outcome[event] = DUPLICATE if same else CONFLICT


def _claim_of(batch: Batch, event: int, position: PositionTuple) -> Claim:
    entry = batch.entries[event]
    given = int(entry["flags"]) & TIME_GIVEN
    return Claim(
        position,
        batch.appended_us(event),
        entry["content"].tobytes(),
        int(entry["time_us"]) if given else None,
        event,
    )


def same_content(left: Content, right: Content) -> bool:
    """Whether two contents mean the same: JSON as values, an omitted media type is JSON."""
    return (
        left.type == right.type
        and left.subject == right.subject
        and (left.datacontenttype or _JSON) == (right.datacontenttype or _JSON)
        and left.dataschema == right.dataschema
        and same_json(left.extensions, right.extensions)
        and same_json(left.data, right.data)
    )


def event_key(line: bytes, batch: Batch, event: int) -> Key:
    """Namespace, source and id of a line."""
    head = msgspec.json.decode(b"[" + line[: int(batch.entries["key_length"][event])] + b"]")
    return head[0], head[1], head[2]


def event_content(line: bytes, batch: Batch, event: int) -> Content:
    """The content of a line."""
    rest = msgspec.json.decode(b"[" + line[int(batch.entries["key_length"][event]) + 1 :])
    return Content(*rest[:6])


def _stored_claims(
    clickhouse: ClickHouse, batch: Batch, events: Iterable[int]
) -> dict[Key, list[Claim]]:
    texts = sorted({batch.key_text(event) for event in events})
    claims: dict[Key, list[Claim]] = {}
    for start in range(0, len(texts), _LOOKUP_KEYS):
        rows = clickhouse.query(
            "SELECT namespace, source, id, log_generation, log_partition, log_offset, log_index,"
            " toUnixTimestamp64Micro(appended_at), hex(content_hash),"
            " toUnixTimestamp64Micro(time), time_given"
            f" FROM {DATABASE}.event_keys WHERE key_hash IN"
            " (SELECT toUUID(arrayJoin({hashes:Array(String)})))",
            {"hashes": texts[start : start + _LOOKUP_KEYS]},
        )
        for row in rows:
            held = claims.setdefault((row[0], row[1], row[2]), [])
            claim = Claim(
                (row[3], row[4], row[5], row[6]),
                row[7],
                bytes.fromhex(row[8]),
                row[9] if row[10] else None,
                -1,
            )
            if claim not in held:
                held.append(claim)
    for held in claims.values():
        held.sort(key=lambda c: c.position)
    return claims


def _stored_contents(
    clickhouse: ClickHouse, batch: Batch, events: list[int], claims: dict[Key, list[Claim]]
) -> dict[PositionTuple, Content]:
    """Contents of stored claims whose bytes differ from an event that wants the same key."""
    wanted: set[str] = set()
    for event in events:
        held = claims.get(event_key(batch.lines[event], batch, event), ())
        mine = batch.entries["content"][event].tobytes()
        if any(claim.content_hash != mine for claim in held):
            wanted.add(batch.key_text(event))
    if not wanted:
        return {}
    rows = clickhouse.query(
        "SELECT log_generation, log_partition, log_offset, log_index,"
        " type, subject, datacontenttype, dataschema, extensions, data"
        f" FROM {DATABASE}.events WHERE key_hash IN {{hashes:Array(UUID)}}",
        {"hashes": sorted(wanted)},
    )
    return {(r[0], r[1], r[2], r[3]): Content(*r[4:]) for r in rows}
