"""Corrections: what voids or amends an event, and what they do to the versions of a key.

A correction is a record of the log, on the partition of the key that it addresses, so it has a
place in the order of that key's events. An event that claimed the key and the amendments of it are
its versions; at most one of them is in force.

- A **void** takes a version away, as if it had never been sent; the key stays claimed. It speaks of
  what is in force of the last event that claimed the key; one that comes before any waits for it. A
  void with a **target** takes away that version and no other.
- An **amendment** puts another content in its place, also where it was voided. Without an event it
  does nothing. One with a target gives back what the same operation took away.
- A **hold** is what an event of a backfill does to itself: it counts once the backfill is closed.

What was replaced stays where it is; which row of `events` stops counting, and from which position
on, is a fact of its own. No row is replaced twice. A correction that comes again under its id does
nothing.
"""

from dataclasses import dataclass
from typing import Literal

import msgspec

from tollgate.events.batch import Line
from tollgate.events.record import LINE_COLUMNS, Encoded

Action = Literal["void", "amend", "hold"]
Place = tuple[int, int, int, int]
"""(generation, partition, offset, index) of an event or a correction in the log."""
_encode = msgspec.json.Encoder().encode


class CorrectionLine(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A correction's line, decoded: `CORRECTION_COLUMNS` of `tollgate.events.record`.

    Of a void without a target the columns after `key_hash` are empty; with one, `type`, `subject`
    and `time` are the target's.
    """

    log_index: int
    correction: str
    operation: str
    action: Action
    reason: str
    actor: str
    content: str
    target: str
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
        return Line(*(getattr(self, name) for name in LINE_COLUMNS))

    @property
    def target_place(self) -> Place | None:
        """The version that is addressed; None: the one in force."""
        return place_from_text(self.target) if self.target else None


_line = msgspec.json.Decoder(CorrectionLine)


def line_of(members: tuple[object, ...]) -> CorrectionLine:
    """A line from its first members; those left out are empty texts."""
    empty = ("",) * (len(CorrectionLine.__struct_fields__) - len(members))
    return msgspec.convert((*members, *empty), CorrectionLine)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Who corrects, and why.

    Attributes:
        correction: id of the correction, unique among those of the same event key.
        operation: name of the operation that it is part of; "" if of none.
        action: what it does.
        reason: in a person's words.
        actor: id of the access key; "" where none was needed.
        content: hash of all that was asked for: what comes again under the id is the same, or not.
        target: the version that is addressed; "": the one in force.
    """

    correction: str
    operation: str
    action: Action
    reason: str
    actor: str
    content: str
    target: str = ""


def encode_correction(request: Request, event: Encoded) -> Encoded:
    """The log's form of a correction.

    Args:
        request: who, what and why.
        event: of an amendment the event that counts from then on, else `encode_key`'s.
    """
    head = _encode(
        (
            *(request.correction, request.operation, request.action, request.reason),
            *(request.actor, request.content, request.target),
        )
    )
    return Encoded(event.key_hash, head[1:-1] + b"," + event.line)


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


def encode_key(
    key: tuple[str, str, str], received: str, key_hash: bytes, target: Version | None = None
) -> Encoded:
    """The line of an event of which only the key is said, and where its row stands.

    Args:
        key: namespace, source and id.
        received: server time, as a line has it.
        key_hash: of the key.
        target: the version that is addressed.
    """
    time, kind, subject = (received, "", "")
    if target is not None:
        time, kind, subject = target.time, target.type, target.subject
    row = (*key, time, 0, received, key_hash.hex(), kind, subject, *[""] * 5)
    return Encoded(key_hash, _encode(row)[1:] + b"\n")


def decode_correction(text: bytes) -> CorrectionLine:
    """A correction from its line, without the newline.

    Raises:
        msgspec.DecodeError: it can't be read.
    """
    line = _line.decode(b"[" + text)
    try:
        _ = line.target_place
    except ValueError as problem:
        raise msgspec.DecodeError(f"the target is no place of the log: {line.target}") from problem
    return line


def place_text(place: Place) -> str:
    """A place in one word."""
    return "-".join(map(str, place))


def place_from_text(text: str) -> Place:
    """What `place_text` wrote.

    Raises:
        ValueError: it is none.
    """
    generation, partition, offset, index = map(int, text.split("-"))
    return generation, partition, offset, index
