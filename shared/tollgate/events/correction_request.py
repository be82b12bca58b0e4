"""Use case: take corrections of single events, all or none, and say what each will address."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b

import msgspec

from tollgate.core.clock import datetime_from_us
from tollgate.core.errors import Conflict, Fault, InvalidInput
from tollgate.core.ids import new_ulid
from tollgate.core.times import format_instant, parse_instant
from tollgate.events.append import append_lines, arrival_of
from tollgate.events.correct import read_states
from tollgate.events.correction import (
    Action,
    Place,
    Request,
    decode_correction,
    encode_correction,
    encode_key,
)
from tollgate.events.event import Arrival
from tollgate.events.faults import read_event
from tollgate.events.identity import canonical_json, key_hash
from tollgate.events.key_state import Applied, KeyState, apply_correction
from tollgate.events.position import Token
from tollgate.events.record import CORRECTIONS_VERSION, Encoded
from tollgate.events.stored_events import Key
from tollgate.platform.clickhouse import DATABASE, ClickHouse
from tollgate.platform.parts import Parts, open_clickhouse

WAITING_MAX = 10_000
_HEAD_BYTES = 16 << 10
"""What a correction's line takes besides the event's: a reason, names, hashes."""
# Later than all that stands in the log.
_GENERATION = 1 << 31
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One correction as it was asked for.

    Attributes:
        action: void or amend.
        source, id: the event's.
        reason: in a person's words.
        correction: its id, chosen by the client; "": one is made.
        event: of an amendment the CloudEvent as sent; b"" of a void.
    """

    action: Action
    source: str
    id: str
    reason: str
    correction: str
    event: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """Corrections that are in the log.

    Attributes:
        applied: of each, what it will do if nothing else comes before it.
        token: where they stand.
    """

    applied: Sequence[Applied]
    token: Token


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyed:
    """An item with the key that it addresses."""

    index: int
    item: Item
    key: Key
    hashed: bytes


class Faults(list[Fault]):
    """Faults of items, by their place in the request."""

    def add(self, index: int, member: str, code: str, message: str) -> None:
        field = f"corrections.{index}.{member}".rstrip(".")
        self.append(Fault(field=field, code=code, message=message))


def correct(parts: Parts, namespace: str, actor: str, items: Sequence[Item]) -> Taken:
    """Puts corrections into the log.

    Args:
        parts: of the process.
        namespace: whose events.
        actor: id of the access key.
        items: in order.

    Raises:
        InvalidInput: every fault; nothing was stored.
        Conflict: an id stands for another correction of the event, or too many voids wait.
        Transient: a store is away; any may be stored. Sent again with the same ids they do nothing
            twice.
    """
    clickhouse = parts.get(open_clickhouse)
    arrival = arrival_of(parts, namespace, _HEAD_BYTES)
    faults = Faults()
    keyed = _keyed(arrival, items, faults)
    states = read_states(clickhouse, {each.key: (each.hashed.hex(), True) for each in keyed})
    lines: list[Encoded] = []
    applied: list[Applied] = []
    for each in keyed:
        line = _line(each, states[each.key], arrival, actor, faults)
        if line is None:
            continue
        decoded = decode_correction(b"%d," % each.index + line.line[:-1])
        place = (_GENERATION, 0, 0, each.index)
        found = apply_correction(states[each.key], decoded, place)
        applied.append(found)
        if found.effect == "conflict":
            raise Conflict(
                f"corrections.{each.index}: {decoded.correction} is the id of another correction of"
                " this event; the same id again must say the same"
            )
        if found.effect != "repeated":
            lines.append(line)
    if faults:
        raise InvalidInput(tuple(faults))
    if any(each.effect == "waiting" for each in applied):
        _require_few_waiting(clickhouse, namespace, sum(e.effect == "waiting" for e in applied))
    known = [states[each.line.key].decided[each.line.correction] for each in applied]
    # Those that came before stand where they stood.
    places = [place for _, place in known if place[0] != _GENERATION]
    if lines:
        token = append_lines(parts, arrival, lines, CORRECTIONS_VERSION)
        places += [(token.generation, p, offset, 0) for p, offset in token.offsets.items()]
    return Taken(applied=applied, token=_token_of(places))


def _keyed(arrival: Arrival, items: Sequence[Item], faults: Faults) -> list[Keyed]:
    found = []
    for index, item in enumerate(items):
        names = {"source": item.source, "id": item.id, "type": "t", "subject": "s"}
        read = read_event(msgspec.json.encode(names), arrival, None)
        if not isinstance(read, Encoded):
            for fault in read:
                faults.add(index, fault.field, fault.code, fault.message)
            continue
        hashed = key_hash(arrival.prefix, item.source, item.id)
        key = (arrival.namespace, item.source, item.id)
        found.append(Keyed(index=index, item=item, key=key, hashed=hashed))
    return found


def _line(
    each: Keyed, state: KeyState, arrival: Arrival, actor: str, faults: Faults
) -> Encoded | None:
    """The correction as the log keeps it; None if it has faults."""
    item = each.item
    members: dict[str, msgspec.Raw] = {}
    event: Encoded | None
    if item.action == "void":
        event = encode_key(each.key, arrival.received_text, each.hashed)
    else:
        members = _event_members(each, faults) or {}
        event = _amended(each, members, state, arrival, faults) if members else None
    if event is None:
        return None
    asked = [item.action, item.reason, *each.key]
    if members:
        asked.append(canonical_json(msgspec.json.encode(members).decode()))
    request = Request(
        correction=item.correction or new_ulid(),
        operation="",
        action=item.action,
        reason=item.reason,
        actor=actor,
        content=content_of(asked),
    )
    return encode_correction(request, event)


def content_of(asked: Sequence[str]) -> str:
    """A hash of all that a correction says, who and when left out."""
    return blake2b(msgspec.json.encode(asked), digest_size=16).hexdigest()


def _event_members(each: Keyed, faults: Faults) -> dict[str, msgspec.Raw] | None:
    try:
        members = _members.decode(each.item.event)
    except msgspec.DecodeError as problem:
        faults.add(each.index, "event", "invalid_json", f"is no CloudEvent: {problem}")
        return None
    for name, wanted in (("source", each.item.source), ("id", each.item.id)):
        found = members.setdefault(name, msgspec.Raw(msgspec.json.encode(wanted)))
        if not _is_text(found, wanted):
            message = f"must stay {wanted!r}: an amendment keeps the event's source and id"
            faults.add(each.index, f"event.{name}", "changed_key", message)
            return None
    return members


def _is_text(raw: msgspec.Raw, wanted: str) -> bool:
    try:
        return bool(msgspec.json.decode(raw) == wanted)
    except msgspec.DecodeError:
        return False


def _amended(
    each: Keyed, members: dict[str, msgspec.Raw], state: KeyState, arrival: Arrival, faults: Faults
) -> Encoded | None:
    version = state.latest()
    if version is None:
        faults.add(
            each.index,
            "",
            "unknown_event",
            "no event of this source and id is loaded. One that was just sent may still be on its"
            " way: ask again with the Tollgate-Position header of the answer to it",
        )
        return None
    if members.get("time", msgspec.Raw(b"null")) == msgspec.Raw(b"null"):
        time = msgspec.json.encode(format_instant(_instant(version.time)))
        members = members | {"time": msgspec.Raw(time)}
    event = read_event(msgspec.json.encode(members), arrival, None)
    if isinstance(event, Encoded):
        return event
    for fault in event:
        faults.add(each.index, f"event.{fault.field}", fault.code, fault.message)
    return None


def _instant(column: str) -> datetime:
    seconds, _, fraction = column.partition(".")
    if seconds.isdigit():
        return datetime_from_us(int(seconds) * 1_000_000 + int(fraction))
    return parse_instant(column + "Z")


def _require_few_waiting(clickhouse: ClickHouse, namespace: str, more: int) -> None:
    place = "log_generation, log_partition, log_offset, log_index"
    ((waiting,),) = clickhouse.query(
        f"SELECT count() FROM (SELECT {place} FROM {DATABASE}.event_corrections"
        " WHERE namespace = {namespace:String} AND action = 'void'"
        f" GROUP BY {place} HAVING countIf(effect = 'waiting') > 0"
        " AND countIf(effect != 'waiting') = 0)",
        {"namespace": namespace},
    )
    if int(waiting) + more > WAITING_MAX:
        raise Conflict(f"{waiting} voids wait for their events already; at most {WAITING_MAX} may")


def _token_of(places: Sequence[Place]) -> Token:
    """A position at which all of these are loaded."""
    newest = max(place[0] for place in places)
    offsets: dict[int, int] = {}
    for generation, partition, offset, _ in places:
        if generation == newest:
            offsets[partition] = max(offset, offsets.get(partition, 0))
    return Token(generation=newest, offsets=offsets)
