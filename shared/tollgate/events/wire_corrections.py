"""Wire models of corrections, ours under /api/v1."""

from typing import Annotated, Any, Literal

from pydantic import Field

from tollgate.events.wire_v1 import CorrectionBody, EffectName, PositionBody
from tollgate.platform.wire import Wire, WireInstant

ITEMS_MAX = 1000
_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
Reason = Annotated[
    str, Field(min_length=1, max_length=1000, description="why, for whoever reads it later")
]


class CorrectionItem(Wire):
    """What is wrong with one event."""

    action: Literal["void", "amend"] = Field(
        description="void: the event counts as if it had never been sent; amend: `event` counts in "
        "its place"
    )
    source: Annotated[str, Field(min_length=1, description="the event's source")]
    id: Annotated[str, Field(min_length=1, description="the event's id")]
    reason: Reason
    correction: Annotated[
        str | None,
        Field(
            pattern=_ID_PATTERN,
            description="id of the correction, of your choice: sent again with it, nothing is "
            "corrected twice. Left out, one is made.",
        ),
    ] = None
    event: dict[str, Any] | None = Field(
        default=None,
        description="to amend: the CloudEvent as it should be, with the same source and id. "
        "Without a time it keeps the time of the event.",
    )


class CorrectionsBody(Wire):
    """Corrections: all are taken, or none."""

    corrections: Annotated[list[CorrectionItem], Field(min_length=1, max_length=ITEMS_MAX)]


class TakenCorrection(Wire):
    """A correction that is in the log."""

    correction: str
    action: Literal["void", "amend"]
    source: str
    id: str
    expected: EffectName = Field(
        description="what it does if nothing comes before it. applied: the event is known; "
        "waiting: the event is not known yet, and won't count when it comes; none: it is void "
        "already; repeated: this correction was taken before"
    )
    replaces: PositionBody | None = Field(
        default=None, description="the version of the event that stops counting"
    )


class TakenCorrections(Wire):
    """Corrections on disk. The Tollgate-Position header makes a query wait for them."""

    corrections: list[TakenCorrection]


class CorrectionListParameters(Wire):
    """Which page of corrections."""

    start: WireInstant | None = Field(
        default=None, alias="from", description="received at or after this instant"
    )
    end: WireInstant | None = Field(
        default=None, alias="to", description="received before this instant"
    )
    source: str | None = Field(default=None, description="of one event, together with `id`")
    id: str | None = Field(default=None, description="of one event, together with `source`")
    operation: str | None = Field(
        default=None, description="part of this bulk correction or backfill"
    )
    cursor: str | None = Field(default=None, description="`nextCursor` of the page before")
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


class CorrectionPageBody(Wire):
    """A page, newest first."""

    items: list[CorrectionBody]
    next_cursor: str | None = Field(default=None, alias="nextCursor")
