"""Dead letters as a person works with them: what each is called, and how it ended."""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import msgspec

from tollgate.core.errors import Conflict, Fault, InvalidInput, NotFound
from tollgate.core.times import format_instant
from tollgate.events.inspect import Uncounted
from tollgate.events.position import Position

Action = Literal["replayed", "discarded"]
_NAME = re.compile(r"(\d{1,9})-(\d{1,5})-(\d{1,18})-(\d{1,9})", re.ASCII)
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What a person decided about a dead letter, once.

    Attributes:
        action: its event was sent again, or it will never count.
        reason: in that person's words.
        actor: id of the access key; "" where none was needed.
        ended_at: when.
        token: position of the event that was sent again; "" if none was.
    """

    action: Action
    reason: str
    actor: str
    ended_at: datetime
    token: str = ""


def letter_name(position: Position) -> str:
    """What a dead letter is called: its place in the log."""
    return f"{position.generation}-{position.partition}-{position.offset}-{position.index}"


def parse_letter_name(name: str) -> Position:
    """The place in the log.

    Raises:
        NotFound: no dead letter has such a name.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise NotFound(f"{name!r} names no dead letter; their list says what each is called")
    generation, partition, offset, index = map(int, match.groups())
    return Position(generation=generation, partition=partition, offset=offset, index=index)


def repaired_event(letter: Uncounted, given: bytes | None) -> bytes:
    """The CloudEvent to be sent again: the one given, or else the one that was kept.

    It keeps the letter's key, and its time: one that was sent without a time happened when it was
    received.

    Raises:
        Conflict: the letter is a record that can't be taken apart.
        InvalidInput: it has another key, or no event was kept and none is given.
    """
    if letter.record and not letter.event and given is None:
        raise _invalid("event", "required", "what was kept is no event: say what it should be")
    if given is None and letter.event is None:
        raise Conflict("nothing was kept that could be sent again")
    members: dict[str, object] = {}
    try:
        members |= (letter.event or {}) if given is None else _decode_members(given)
    except msgspec.DecodeError as problem:
        raise _invalid("event", "invalid_json", f"is no CloudEvent: {problem}") from None
    if letter.source or letter.id:
        for name, wanted in (("source", letter.source), ("id", letter.id)):
            if _text(members.get(name)) != wanted:
                message = f"must stay {wanted!r}: an event is replayed under its own key"
                raise _invalid(f"event.{name}", "changed_key", message)
    members.setdefault("time", format_instant(letter.arrival.received_at))
    return msgspec.json.encode(members)


def _text(member: object) -> object:
    if not isinstance(member, msgspec.Raw):
        return member
    try:
        return msgspec.json.decode(member)
    except msgspec.DecodeError:
        return None


def _invalid(field: str, code: str, message: str) -> InvalidInput:
    return InvalidInput((Fault(field=field, code=code, message=message),))
