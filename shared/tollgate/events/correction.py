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

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import msgspec

from tollgate.events.batch import Line
from tollgate.events.record import LINE_COLUMNS, Encoded

Action = Literal["void", "amend", "hold"]
Effect = Literal["applied", "waiting", "none", "repeated", "conflict"]
Place = tuple[int, int, int, int]
"""(generation, partition, offset, index) of an event or a correction in the log."""
NOWHERE: Place = (0, 0, 0, 0)
"""Generations count from 1."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What a correction did.

    Attributes:
        line: the correction.
        place: where it stands.
        effect: `applied`: something stopped counting, or counts anew; `waiting`: for its event;
            `none`: there was nothing to do; `repeated`: it came before, `conflict`: with another
            content.
        superseded: what stopped counting.
        since: position from which on that holds.
    """

    line: CorrectionLine
    place: Place
    effect: Effect
    superseded: Version | None
    since: Place


class Timed(NamedTuple):
    """What a correction did; when it was appended and received, in microseconds since 1970."""

    applied: Applied
    appended_us: int
    received_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What is known of a correction that was decided before.

    Attributes:
        place: where it stands.
        since: from where on it holds; later than `place` if it waited.
        action, effect, operation, correction, content: of it.
        superseded: the row that stopped counting; `NOWHERE` if none did.
        target: the version that it addresses; None: what is in force.
    """

    place: Place
    since: Place
    action: Action
    effect: Effect
    operation: str
    correction: str
    content: str
    superseded: Place
    target: Place | None


@dataclass(slots=True)
class KeyState:
    """A key just before a position of the log. Of a key that nothing was read of: empty.

    Attributes:
        versions: of all events that claimed the key, and all amendments, by place.
        claims: places of the events among them, in order.
        in_force: by claim, the version that counts; None: it is voided.
        claim_of: by version, the event that it is one of.
        ended: the versions that count no more, and which operation ended them.
        last: by claim, the version that was in force last.
        decided: by id, a correction's content and place.
        held: the versions that an open backfill holds back, or held back once.
    """

    versions: dict[Place, Version] = field(default_factory=dict)
    claims: list[Place] = field(default_factory=list)
    in_force: dict[Place, Place | None] = field(default_factory=dict)
    claim_of: dict[Place, Place] = field(default_factory=dict)
    ended: dict[Place, str] = field(default_factory=dict)
    last: dict[Place, Place] = field(default_factory=dict)
    decided: dict[str, tuple[str, Place]] = field(default_factory=dict)
    held: set[Place] = field(default_factory=set)

    @property
    def claim(self) -> Place | None:
        """The last event that claimed the key."""
        return self.claims[-1] if self.claims else None

    def current(self, claim: Place | None = None) -> Version | None:
        """The version in force of an event; by default of the last one."""
        claim = claim or self.claim
        place = self.in_force.get(claim) if claim else None
        return self.versions[place] if place else None

    def latest(self) -> Version | None:
        """The version of the last event that is in force, or was before it was voided."""
        return self.versions[self.last[self.claims[-1]]] if self.claims else None

    def end(self, place: Place, operation: str) -> None:
        """A version counts no more."""
        self.ended[place] = operation
        claim = self.claim_of.get(place)
        if claim is not None and self.in_force.get(claim) == place:
            self.in_force[claim] = None

    def put(self, claim: Place, version: Version) -> None:
        """A version counts from now on."""
        self.versions[version.place] = version
        self.claim_of[version.place] = claim
        self.in_force[claim] = self.last[claim] = version.place


def state_of(
    claims: Sequence[Version], amendments: Sequence[Version], done: Sequence[Done]
) -> KeyState:
    """The state of a key from what is stored.

    Args:
        claims: the events that claimed it.
        amendments: rows of `events` that amendments made.
        done: what its corrections did.
    """
    state = KeyState()
    for version in sorted(claims, key=lambda each: each.place):
        state.claims.append(version.place)
        state.put(version.place, version)
    amended = {version.place: version for version in amendments}
    for each in sorted(done, key=lambda each: (each.since, each.place)):
        if each.correction and each.effect in ("applied", "waiting", "none"):
            state.decided[each.correction] = (each.content, each.place)
        if each.effect != "applied":
            continue
        if each.superseded != NOWHERE:
            state.end(each.superseded, each.operation)
        if each.action == "hold":
            state.held.add(each.superseded)
        amendment = amended.get(each.place)
        if amendment is None:
            continue
        if each.target is not None:
            claim = state.claim_of.get(each.target)
        else:
            claim = max((c for c in state.claims if c < each.place), default=None)
        if claim is not None:
            state.put(claim, amendment)
    return state


def apply_correction(state: KeyState, line: CorrectionLine, place: Place) -> Applied:
    """Changes the state of the key and says what was done."""
    effect: Effect
    superseded: Version | None = None
    known = state.decided.get(line.correction) if line.correction else None
    if known is not None:
        effect = "repeated" if known[0] == line.content else "conflict"
        return Applied(line=line, place=place, effect=effect, superseded=None, since=place)
    if line.correction:
        state.decided[line.correction] = (line.content, place)
    if line.action == "amend":
        effect, superseded = _amend(state, line, place)
    else:
        effect, superseded = _void(state, line)
    return Applied(line=line, place=place, effect=effect, superseded=superseded, since=place)


def _void(state: KeyState, line: CorrectionLine) -> tuple[Effect, Version | None]:
    target = line.target_place
    if target is not None:
        if target in state.ended:
            return "none", None
        version = Version(place=target, type=line.type, subject=line.subject, time=line.time)
        state.end(target, line.operation)
        return "applied", version
    if state.claim is None:
        return "waiting", None
    current = state.current()
    if current is None:
        return "none", None
    state.end(current.place, line.operation)
    return "applied", current


def _amend(state: KeyState, line: CorrectionLine, place: Place) -> tuple[Effect, Version | None]:
    version = Version(place=place, type=line.type, subject=line.subject, time=line.time)
    target, claim = line.target_place, state.claim
    if target is not None:
        claim = state.claim_of.get(target)
        if (
            claim is None
            or state.in_force[claim] is not None
            or state.last[claim] != target
            or state.ended.get(target) != line.operation
        ):
            return "none", None
    if claim is None:
        return "none", None
    current = state.current(claim)
    if current is not None:
        state.end(current.place, line.operation)
    state.put(claim, version)
    return "applied", current


def end_waiting(waiting: Sequence[tuple[CorrectionLine, Place]], event: Version) -> list[Applied]:
    """What voids did that waited for an event, now that it is there: the first takes it away."""
    met = sorted(((place, line) for line, place in waiting if place < event.place), key=_by_place)
    return [
        Applied(
            line=line,
            place=place,
            effect="none" if number else "applied",
            superseded=None if number else event,
            since=event.place,
        )
        for number, (place, line) in enumerate(met)
    ]


def _by_place(met: tuple[Place, CorrectionLine]) -> Place:
    return met[0]


def hold_of(line: Line, place: Place, operation: str) -> Applied:
    """What an event of a backfill does to itself."""
    correction = line_of(
        (
            *(line.log_index, "", operation, "hold", "counts once the backfill is closed", ""),
            *("", "", line.namespace, line.source, line.id, line.time, 0, line.received_at),
            line.key_hash,
        )
    )
    event = Version(place=place, type=line.type, subject=line.subject, time=line.time)
    return Applied(line=correction, place=place, effect="applied", superseded=event, since=place)
