"""Adjustments over HTTP: what late events and corrections changed in sealed hours."""

from decimal import Decimal
from typing import Annotated, Any

import msgspec
from pydantic import Field

from tollgate.core.decimals import plain_text
from tollgate.core.errors import Fault, InvalidInput
from tollgate.core.times import format_instant
from tollgate.events.api_position import await_position
from tollgate.events.api_seals import hour_cursor, parse_hour_cursor
from tollgate.events.seal_run import open_seal_store
from tollgate.metering.adjust import Adjuster, AdjustmentQuery
from tollgate.metering.adjustment import Adjustment
from tollgate.metering.meter_reader import MeterReader
from tollgate.metering.query import QueryBounds
from tollgate.metering.question import CUSTOMER, SUBJECT
from tollgate.metering.wire_v1 import Names
from tollgate.platform.access import Scope
from tollgate.platform.api import Call, Operation, Reply
from tollgate.platform.parts import open_clickhouse
from tollgate.platform.wire import Wire, WireInstant

_Count = Annotated[int, Field(ge=0)]
_Quantity = Annotated[Any, Field(json_schema_extra={"type": ["number", "null"]})]


class AdjustmentParameters(Wire):
    """Which adjustments."""

    meter: str = Field(description="id or slug")
    start: WireInstant | None = Field(
        default=None, alias="from", description="hours that end after this instant"
    )
    end: WireInstant | None = Field(
        default=None, alias="to", description="hours that begin before this instant"
    )
    subject: Names | None = None
    group_by: Names | None = Field(default=None, alias="groupBy")
    cursor: str | None = Field(default=None, description="`nextCursor` of the page before")
    limit: Annotated[
        int, Field(ge=1, le=1000, description="revisions of hours that the page goes through")
    ] = 100


class AdjustmentBody(Wire):
    """How a revision changed one quantity; numbers have all their digits."""

    hour: WireInstant
    subject: str
    group_by: dict[str, str] = Field(alias="groupBy")
    pending: bool = Field(description="the hour's next revision is not there yet")
    revision: int | None = Field(default=None, description="left out while pending")
    sealed_at: WireInstant | None = Field(
        default=None, alias="sealedAt", description="of the revision; left out while pending"
    )
    before: _Quantity = Field(description="as of the revision before; null: nothing counted")
    after: _Quantity = Field(description="as of this one; null: nothing counts any more")
    delta: _Quantity = Field(description="null where there is no number on one side")
    late_events: _Count = Field(alias="lateEvents", description="of the hour and subject")
    late_corrections: _Count = Field(alias="lateCorrections")
    reasons: list[str] = Field(max_length=10, description="of the corrections")
    actors: list[str] = Field(max_length=10)
    operations: list[str] = Field(max_length=10)


class AdjustmentPageBody(Wire):
    """A page, by hour and revision; pending ones are on the last."""

    items: list[AdjustmentBody]
    next_cursor: str | None = Field(default=None, alias="nextCursor")


def list_adjustments(call: Call) -> Reply:
    """What changed in sealed hours of a meter."""
    query: AdjustmentParameters = call.query
    await_position(call)
    settings = call.parts.settings
    adjuster = Adjuster(
        clickhouse=call.parts.get(open_clickhouse),
        store=call.parts.get(open_seal_store),
        meter=MeterReader(call).get(call.namespace, query.meter),
        bounds=QueryBounds(
            rows_max=settings.query_rows_max, seconds_max=settings.query_seconds_max
        ),
    )
    page = adjuster.page(
        AdjustmentQuery(
            start=query.start,
            end=query.end,
            subjects=tuple(query.subject) if query.subject else None,
            group_by=_dimensions(query),
            after=None if query.cursor is None else parse_hour_cursor(query.cursor),
            limit=query.limit,
        )
    )
    answer: dict[str, Any] = {"items": [_item(e) for e in (*page.adjustments, *page.pending)]}
    if page.after is not None:
        answer["nextCursor"] = hour_cursor(*page.after)
    return Reply(body=msgspec.json.encode(answer))


def _dimensions(query: AdjustmentParameters) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(query.group_by or ()))
    if CUSTOMER in names:
        message = (
            "adjustments are by subject: customers own subjects, and may do so for a time only"
        )
        raise InvalidInput((Fault(field="groupBy", code="unknown_dimension", message=message),))
    return tuple(name for name in names if name != SUBJECT)


def _item(each: Adjustment) -> dict[str, Any]:
    facts = each.facts
    found: dict[str, Any] = {
        "hour": format_instant(each.hour),
        "subject": each.subject,
        "groupBy": dict(each.dimensions),
        "pending": each.revision is None,
        "before": _number(each.before),
        "after": _number(each.after),
        "delta": _number(each.delta),
        "lateEvents": facts.events,
        "lateCorrections": facts.corrections,
        "reasons": facts.reasons,
        "actors": facts.actors,
        "operations": facts.operations,
    }
    if each.revision is not None:
        found["revision"] = each.revision
    if each.sealed_at is not None:
        found["sealedAt"] = format_instant(each.sealed_at)
    return found


def _number(value: Decimal | None) -> msgspec.Raw:
    return msgspec.Raw(b"null" if value is None else plain_text(value).encode())


OPERATIONS: tuple[Operation, ...] = (
    Operation(
        method="GET",
        path="/api/v1/usage/adjustments",
        operation_id="listAdjustments",
        summary="List adjustments",
        tag="Meters",
        scope=Scope.READ,
        handler=list_adjustments,
        query=AdjustmentParameters,
        response=AdjustmentPageBody,
        failures=(404,),
        description="What events and corrections that came after an hour was sealed changed in "
        "it: the quantity as of the revision before, as of this one, and the difference. The first "
        "revision's quantity and all differences of an hour and subject add up to what a query "
        "says now. A meter that was made or grouped otherwise since is no adjustment: all "
        "quantities are of the meter as it is.",
    ),
)
