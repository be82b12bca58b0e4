"""Wire models of corrections in bulk and backfills, ours under /api/v1."""

from typing import Annotated, Any, Literal

from pydantic import Field

from tollgate.events.backfill import NAME_PATTERN
from tollgate.events.wire_corrections import Reason
from tollgate.metering.wire_v1 import Names
from tollgate.platform.wire import Wire, WireInstant

_Count = Annotated[int, Field(ge=0)]
_Quantity = Annotated[Any, Field(json_schema_extra={"type": ["number", "null"]})]
Name = Annotated[
    str,
    Field(pattern=f"^{NAME_PATTERN}$", description="of your choice, once in a namespace"),
]
DryRun = Annotated[
    bool, Field(alias="dryRun", description="only say what it would do; nothing is kept")
]
Confirm = Annotated[
    int | None,
    Field(
        ge=0,
        description="`effect.events` of the dry run: nobody changes more than was seen. Not needed "
        "to go on with what was begun.",
    ),
]


class SelectionBody(Wire):
    """Which events: all that is given must hold, and something must be given."""

    types: Names | None = None
    subjects: Names | None = None
    source: str | None = None
    start: WireInstant | None = Field(default=None, alias="from", description="of event time")
    end: WireInstant | None = Field(default=None, alias="to", description="exclusive")
    received_start: WireInstant | None = Field(default=None, alias="receivedFrom")
    received_end: WireInstant | None = Field(
        default=None, alias="receivedTo", description="exclusive"
    )
    backfill: str | None = Field(default=None, description="sent for the backfill of this name")


class BulkVoidBody(Wire):
    """Void all events that a filter finds."""

    name: Name
    filter: SelectionBody
    reason: Reason
    dry_run: DryRun = False
    confirm: Confirm = None


class BackfillBody(Wire):
    """Replace the events that a filter finds by those that are sent for the backfill."""

    name: Name
    filter: SelectionBody
    reason: Reason


class CloseBody(Wire):
    """Make the backfill count."""

    dry_run: DryRun = False
    confirm: Confirm = None


class RevertBody(Wire):
    """Take it back."""

    reason: Reason


class MeterEffectBody(Wire):
    """A meter's total over the filter's period of event time."""

    slug: str
    aggregation: str
    before: _Quantity
    after: _Quantity


class SampleEventBody(Wire):
    """An event that stops counting."""

    source: str
    id: str
    type: str
    subject: str
    time: WireInstant


class EffectBody(Wire):
    """What it would do now."""

    events: _Count = Field(description="how many change; what `confirm` has to say")
    voided: _Count = Field(description="that stop counting")
    released: _Count = Field(description="sent for the backfill, that begin to count")
    meters: list[MeterEffectBody] = Field(max_length=50)
    meters_left_out: _Count = Field(alias="metersLeftOut")
    sample: list[SampleEventBody] = Field(max_length=10)


class OperationBody(Wire):
    """A correction in bulk or a backfill."""

    name: str
    kind: Literal["void", "backfill"]
    state: Literal["planned", "open", "closing", "closed", "reverting", "reverted"] = Field(
        description="planned: a dry run; closing, reverting: ask again to go on"
    )
    reason: str
    actor: str | None = Field(default=None, description="id of the access key, if one was needed")
    filter: SelectionBody
    total: _Count = Field(description="events to go through in this state")
    done: _Count = Field(description="those that are done")
    held: _Count = Field(description="events sent for it, as far as they are loaded")
    voided: _Count = Field(description="events that it took away, as far as that is loaded")
    given_back: _Count = Field(
        alias="givenBack", description="events that it made count, as far as that is loaded"
    )
    created_at: WireInstant | None = Field(default=None, alias="createdAt")
    closed_at: WireInstant | None = Field(default=None, alias="closedAt")
    reverted_at: WireInstant | None = Field(default=None, alias="revertedAt")
    revert_reason: str | None = Field(default=None, alias="revertReason")
    revert_actor: str | None = Field(default=None, alias="revertActor")
    effect: EffectBody | None = Field(default=None, description="of a dry run")


class OperationListParameters(Wire):
    """Which page."""

    cursor: str | None = Field(default=None, description="`nextCursor` of the page before")
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


class OperationPageBody(Wire):
    """A page, newest first."""

    items: list[OperationBody]
    next_cursor: str | None = Field(default=None, alias="nextCursor")
