"""Wire models of ours under /api/v1: seals."""

from typing import Annotated, Literal

from pydantic import Field

from tollgate.events.imbalance import EVERYBODY, Imbalance
from tollgate.events.seal import Seal, SealState
from tollgate.events.wire_v1 import DifferenceBody, ImbalanceBody
from tollgate.platform.wire import Wire, WireInstant

_Count = Annotated[int, Field(ge=0)]


class SealListParameters(Wire):
    """Which page of seals."""

    start: WireInstant | None = Field(
        default=None, alias="from", description="hours that end after this instant"
    )
    end: WireInstant | None = Field(
        default=None, alias="to", description="hours that begin before this instant"
    )
    revisions: bool = Field(
        default=False, description="only of hours that changed after they were sealed"
    )
    cursor: str | None = Field(default=None, description="`nextCursor` of the page before")
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


class SealBody(Wire):
    """A revision of one hour, or the first of several hours side by side."""

    start: WireInstant = Field(alias="from", description="the first is that of all older hours")
    end: WireInstant = Field(alias="to", description="exclusive")
    revision: Annotated[int, Field(ge=1)]
    position: str = Field(
        description="what the figures of these hours are made of: give it as `asOf` to a query"
    )
    sealed_at: WireInstant = Field(alias="sealedAt")
    extended_at: WireInstant | None = Field(
        default=None,
        alias="extendedAt",
        description="when hours were added last, in which nothing had come in",
    )
    kind: Literal["scheduled", "forced"]
    reason: str | None = None
    actor: str | None = Field(default=None, description="id of the access key, if one was needed")
    late_events: _Count = Field(
        alias="lateEvents", description="that came in since the revision before"
    )
    late_corrections: _Count = Field(alias="lateCorrections")
    missing: list[str] | None = Field(
        default=None, description="of a forced seal: what spoke against it"
    )


class SealPageBody(Wire):
    """A page, by hour and revision."""

    sealed_through: WireInstant | None = Field(
        default=None,
        alias="sealedThrough",
        description="hours before it are sealed; left out if none is",
    )
    items: list[SealBody]
    next_cursor: str | None = Field(default=None, alias="nextCursor")


class SealRequestBody(Wire):
    """Which hours to seal by force, and why."""

    through: WireInstant = Field(description="end of the last of these hours")
    reason: Annotated[
        str, Field(min_length=1, max_length=1000, description="why, for whoever reads it later")
    ]


class ForcedSealBody(Wire):
    """What a forced seal did: the hours, and new revisions of older ones that had changed."""

    items: list[SealBody]


def seal_body(seal: Seal) -> SealBody:
    """The wire's form of a seal."""
    body = SealBody(
        start=seal.start,
        end=seal.end,
        revision=seal.revision,
        position=str(seal.vector),
        sealed_at=seal.sealed_at,
        kind=seal.kind,
        late_events=seal.late_events,
        late_corrections=seal.late_corrections,
    )
    if seal.extended_at is not None:
        body.extended_at = seal.extended_at
    if seal.kind == "forced":
        body.reason, body.missing = seal.reason, list(seal.missing)
        if seal.actor:
            body.actor = seal.actor
    return body


def imbalance_body(each: Imbalance, state: SealState) -> ImbalanceBody:
    """The wire's form of what does not balance, for a namespace that is sealed so far."""
    return ImbalanceBody(
        hour=each.hour,
        attributed=each.namespace != EVERYBODY,
        generation=each.part.generation,
        partition=each.part.partition,
        after_offset=each.part.after,
        through_offset=each.part.through,
        differences=[
            DifferenceBody(what=d.what, expected=d.expected, found=d.found)
            for d in each.differences
        ],
        found_at=each.found_at,
        accepted=state.accepted_at is not None and each.found_at <= state.accepted_at,
    )
