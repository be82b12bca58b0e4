"""Corrections: what voids or amends an event, and what they do to the versions of a key.

A correction is a record of the log, on the partition of the key that it addresses, so it has a
place in the order of that key's events. It speaks of the last event that claimed the key before it.

- A **void** takes the version in force away, as if it had never been sent; the key stays claimed.
  A void that comes before its event waits for it.
- An **amendment** puts another content in its place. Without an event it does nothing.

What was replaced stays where it is; which row of `events` stops counting, and from which position
on, is a fact of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from tollgate.events.batch import Line
from tollgate.events.record import Encoded

Action = Literal["void", "amend"]
Effect = Literal["applied", "waiting", "none"]
Place = tuple[int, int, int, int]
"""(generation, partition, offset, index) of an event or a correction in the log."""
NOWHERE: Place = (0, 0, 0, 0)
"""Generations count from 1."""
_encode = msgspec.json.Encoder().encode


class CorrectionLine(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A correction's line, decoded: `CORRECTION_COLUMNS` of `tollgate.events.record`.

    Of a void the columns after `key_hash` are empty.
    """

    log_index: int
    correction: str
    operation: str
    action: Action
    reason: str
    actor: str
    namespace: str
    source: str
    id: str
    time: str
    time_given: int
    received_at: str
    key_hash: str
    type: str
    subject: str
    datacontenttype: str
    dataschema: str
    extensions: str
    data: str
    data_exact: str

    @property
    def key(self) -> tuple[str, str, str]:
        """Namespace, source and id."""
        return self.namespace, self.source, self.id

    @property
    def event(self) -> Line:
        """The line of the event that an amendment counts."""
        return Line(
            self.log_index,
            self.namespace,
            self.source,
            self.id,
            self.time,
            self.time_given,
            self.received_at,
            self.key_hash,
            self.type,
            self.subject,
            self.datacontenttype,
            self.dataschema,
            self.extensions,
            self.data,
            self.data_exact,
        )


_line = msgspec.json.Decoder(CorrectionLine)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Who corrects, and why.

    Attributes:
        correction: id of the correction.
        operation: name of the operation that it is part of; "" if of none.
        action: what it does.
        reason: in a person's words.
        actor: id of the access key; "" where none was needed.
    """

    correction: str
    operation: str
    action: Action
    reason: str
    actor: str


def encode_correction(request: Request, event: Encoded) -> Encoded:
    """The log's form of a correction.

    Args:
        request: who, what and why.
        event: of an amendment the event that counts from then on, else `encode_key`'s.
    """
    head = _encode(
        (request.correction, request.operation, request.action, request.reason, request.actor)
    )
    return Encoded(event.key_hash, head[1:-1] + b"," + event.line)


def encode_key(
    namespace: str, source: str, event_id: str, received: str, key_hash: bytes
) -> Encoded:
    """The line of an event of which only the key is said.

    Args:
        namespace: of the key.
        source: of the key.
        event_id: of the key.
        received: server time, as a line has it.
        key_hash: of the key.
    """
    hashed = key_hash.hex()
    row = (namespace, source, event_id, received, 0, received, hashed, *[""] * 7)
    return Encoded(key_hash, _encode(row)[1:] + b"\n")


def decode_correction(text: bytes) -> CorrectionLine:
    """A correction from its line, without the newline.

    Raises:
        msgspec.DecodeError: it can't be read.
    """
    return _line.decode(b"[" + text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A row of `events`: an event, or an amendment of it.

    Attributes:
        place: where it stands.
        type, subject, time: of its content; time as the column has it.
    """

    place: Place
    type: str
    subject: str
    time: str


@dataclass(slots=True, kw_only=True)
class KeyState:
    """A key just before a position of the log.

    Attributes:
        claim: the last event that claimed the key; None if none did.
        current: the version in force; None if it is voided, or if nothing claimed the key.
    """

    claim: Version | None = None
    current: Version | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What a correction did.

    Attributes:
        line: the correction.
        place: where it stands.
        effect: `applied`: something stopped counting, or counts anew; `waiting`: for its event;
            `none`: there was nothing to do.
        superseded: what stopped counting.
        since: position from which on that holds.
    """

    line: CorrectionLine
    place: Place
    effect: Effect
    superseded: Version | None
    since: Place


def apply_correction(state: KeyState, line: CorrectionLine, place: Place) -> Applied:
    """Changes the state of the key and says what was done."""
    before, superseded = state.current, state.current
    effect: Effect = "applied"
    if state.claim is None:
        effect = "waiting" if line.action == "void" else "none"
    elif line.action == "amend":
        state.current = Version(place=place, type=line.type, subject=line.subject, time=line.time)
    elif before is None:
        effect = "none"
    else:
        state.current = None
    return Applied(line=line, place=place, effect=effect, superseded=superseded, since=place)


def end_waiting(waiting: Sequence[tuple[CorrectionLine, Place]], event: Version) -> list[Applied]:
    """What voids did that waited for an event, now that it is there."""
    return [
        Applied(line=line, place=place, effect="applied", superseded=event, since=event.place)
        for line, place in waiting
        if place < event.place
    ]
