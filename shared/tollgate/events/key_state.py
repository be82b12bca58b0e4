"""What corrections do to the versions of a key: see `tollgate.events.correction` for the rules."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from tollgate.events.batch import Line
from tollgate.events.correction import Action, CorrectionLine, Place, Version, line_of

Effect = Literal["applied", "waiting", "none", "repeated", "conflict"]
NOWHERE: Place = (0, 0, 0, 0)
"""Generations count from 1."""


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
