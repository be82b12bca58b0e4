"""Wire models of ours under /api/v1: one event's history, what did not count, the ledger."""

from typing import Annotated, Any, Literal

from pydantic import Field

from tollgate.platform.wire import Wire, WireInstant

EffectName = Literal["applied", "waiting", "none", "repeated", "conflict"]
_Count = Annotated[int, Field(ge=0)]


class EventKeyParameters(Wire):
    """Which event."""

    source: str = Field(description="the event's source, exactly as it was sent")
    id: str = Field(description="the event's id, exactly as it was sent")


class UncountedListParameters(Wire):
    """Which page."""

    start: WireInstant | None = Field(
        default=None, alias="from", description="received at or after this instant"
    )
    end: WireInstant | None = Field(
        default=None, alias="to", description="received before this instant"
    )
    cursor: str | None = Field(default=None, description="`nextCursor` of the page before")
    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    unattributed: bool = Field(
        default=False,
        description="for operators: records that can't be taken apart, so that nobody knows whose "
        "they are",
    )


class DeadLetterListParameters(UncountedListParameters):
    """Which page of dead letters."""

    open_only: bool = Field(
        default=False,
        alias="open",
        description="only those that were neither replayed nor discarded; a page may be shorter "
        "than `limit` then, or empty, and have a next one",
    )


class DeadLetterParameters(Wire):
    """Whose dead letter."""

    unattributed: bool = Field(
        default=False, description="for operators: records that can't be taken apart"
    )


_Reason = Annotated[
    str, Field(min_length=1, max_length=1000, description="why, for whoever reads it later")
]


class ReplayBody(Wire):
    """What to send again, and why."""

    reason: _Reason
    event: dict[str, Any] | None = Field(
        default=None,
        description="the CloudEvent as it should be, with the same source and id; left out: as it "
        "was kept. Without a time it happened when it was received first.",
    )


class DiscardBody(Wire):
    """Why it will never count."""

    reason: _Reason


class LedgerParameters(Wire):
    """Which hours."""

    start: WireInstant | None = Field(
        default=None,
        alias="from",
        description="begins with its hour; left out: 31 days before `to`",
    )
    end: WireInstant | None = Field(
        default=None, alias="to", description="exclusive; left out: now"
    )
    unattributed: bool = Field(
        default=False, description="for operators: records that can't be taken apart"
    )


class PositionBody(Wire):
    """A place in the log."""

    generation: int
    partition: int
    offset: int
    index: int


class UncountedBody(Wire):
    """An event that does not count, and why."""

    outcome: Literal["duplicate", "conflict", "dead"]
    source: str | None = None
    id: str | None = None
    code: str | None = None
    detail: str | None = None
    event: dict[str, Any] | None = Field(
        default=None, description="the CloudEvent, of conflicts and dead letters"
    )
    record: str | None = Field(default=None, description="base64 of what can't be taken apart")
    position: PositionBody
    first_position: PositionBody | None = Field(
        default=None, alias="firstPosition", description="of the event that holds the key"
    )
    received_at: WireInstant = Field(alias="receivedAt")
    appended_at: WireInstant = Field(alias="appendedAt")
    stored_at: WireInstant = Field(alias="storedAt")


class UncountedGroupBody(Wire):
    """How many, and the newest."""

    count: _Count
    newest: list[UncountedBody] = Field(max_length=10)


class CorrectionBody(Wire):
    """A correction, and what it did."""

    correction: str
    operation: str | None = None
    action: Literal["void", "amend"]
    effect: EffectName = Field(
        description="applied: something stopped counting, or counts anew; waiting: for its event; "
        "none: there was nothing to do; repeated: it came before; conflict: its id is another's"
    )
    source: str
    id: str
    reason: str
    actor: str | None = Field(default=None, description="id of the access key, if one was needed")
    position: PositionBody
    replaced: PositionBody | None = Field(
        default=None, description="the version of the event that stopped counting"
    )
    since: PositionBody | None = Field(
        default=None, description="from where on that holds, if later: a void that waited"
    )
    received_at: WireInstant = Field(alias="receivedAt")
    appended_at: WireInstant = Field(alias="appendedAt")


class EventHistoryBody(Wire):
    """What became of the events of one source and id."""

    source: str
    id: str
    state: Literal["stored", "amended", "voided", "held", "duplicate", "conflict", "dead"] = Field(
        description="stored: it counts; amended: an amendment counts in its place; voided: it does "
        "not count; held: it counts once its backfill is closed; the others only where nothing "
        "under this key was stored"
    )
    event: dict[str, Any] | None = Field(
        default=None,
        description="the CloudEvent, its data digit for digit: the version in force, or the last "
        "one that was",
    )
    position: PositionBody
    received_at: WireInstant = Field(alias="receivedAt")
    appended_at: WireInstant = Field(alias="appendedAt")
    stored_at: WireInstant = Field(alias="storedAt")
    earlier: list[PositionBody] = Field(
        description="events that held the key before, until the dedupe window let go of it; they "
        "count too"
    )
    duplicates: UncountedGroupBody
    conflicts: UncountedGroupBody
    dead_letters: UncountedGroupBody = Field(alias="deadLetters")
    corrections: list[CorrectionBody] = Field(
        max_length=100, description="what was corrected, in order; the newest 100"
    )


class UncountedPageBody(Wire):
    """A page, newest first."""

    items: list[UncountedBody]
    next_cursor: str | None = Field(default=None, alias="nextCursor")


class TallyBody(Wire):
    """What became of events."""

    accepted: _Count
    stored: _Count
    duplicate: _Count
    conflict: _Count
    dead: _Count
    corrections: _Count = Field(description="voids and amendments; they are no events")
    balanced: bool = Field(description="accepted = stored + duplicate + conflict + dead")


class LedgerHourBody(TallyBody):
    """One hour of receipt."""

    hour: WireInstant
    in_flight: _Count = Field(
        alias="inFlight", description="events in the log and not loaded yet; not in `accepted`"
    )


class FrontierBody(Wire):
    """How far one partition is loaded; offsets count records, -1 is none."""

    generation: int
    partition: int
    loaded_through: int = Field(alias="loadedThrough")
    log_end: int = Field(alias="logEnd")
    in_flight_records: _Count = Field(alias="inFlightRecords")


class LagBody(Wire):
    """What is in the log and not yet loaded, of all namespaces."""

    records: _Count
    milliseconds: _Count = Field(description="age of the oldest such record; 0: none waits")


class DifferenceBody(Wire):
    """One figure that is off."""

    what: str = Field(
        description="accepted, stored, duplicate, conflict, dead, corrections, amended: what the"
        " ledger says and what the tables hold; log, records: what the log holds and what the"
        " ledger says"
    )
    expected: int
    found: int


class ImbalanceBody(Wire):
    """What does not balance in a part of the log: its namespace is not sealed."""

    hour: WireInstant = Field(description="of receipt")
    attributed: bool = Field(description="false: nobody knows whose; no namespace is sealed")
    generation: int
    partition: int
    after_offset: int = Field(alias="afterOffset")
    through_offset: int = Field(alias="throughOffset")
    differences: list[DifferenceBody]
    found_at: WireInstant = Field(alias="foundAt")
    accepted: bool = Field(description="a forced seal came after it: it blocks no longer")


class LedgerBody(Wire):
    """The ledger of a namespace."""

    start: WireInstant = Field(alias="from")
    end: WireInstant = Field(alias="to")
    hours: list[LedgerHourBody]
    totals: TallyBody
    in_flight: _Count = Field(
        alias="inFlight", description="events of all hours in the log and not loaded yet"
    )
    in_flight_complete: bool = Field(
        alias="inFlightComplete",
        description="false: so much waits that only the oldest of it was counted",
    )
    imbalances: list[ImbalanceBody] | None = Field(
        default=None, description="as last counted; left out while the control plane is away"
    )
    sealed_through: WireInstant | None = Field(
        default=None,
        alias="sealedThrough",
        description="hours of event time before it are sealed; left out if none is",
    )
    frontier: list[FrontierBody]
    lag: LagBody


class DeadLetterEndingBody(Wire):
    """What a person decided about a dead letter."""

    action: Literal["replayed", "discarded"]
    reason: str
    actor: str | None = Field(default=None, description="id of the access key, if one was needed")
    ended_at: WireInstant = Field(alias="endedAt")
    position: str | None = Field(
        default=None, description="of the event that was sent again, as Tollgate-Position has it"
    )


class DeadLetterBody(UncountedBody):
    """An event or record that could not be loaded as it was."""

    letter: str = Field(description="what it is called: its place in the log")
    ending: DeadLetterEndingBody | None = Field(
        default=None, description="left out while nobody has decided"
    )


class DeadLetterPageBody(Wire):
    """A page, newest first."""

    items: list[DeadLetterBody]
    next_cursor: str | None = Field(default=None, alias="nextCursor")
