"""Wire models of v1: meters and their queries, named as the contract names them."""

import json
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from tollgate.core.times import format_instant, parse_instant
from tollgate.metering.explain import Read
from tollgate.metering.meter import Meter
from tollgate.metering.window import WindowSize


def _read_instant(value: object) -> object:
    if isinstance(value, str):
        return parse_instant(value.replace(" ", "+") if "T" in value else value)
    raise ValueError("must be an RFC 3339 date-time")


WireInstant = Annotated[
    datetime,
    BeforeValidator(_read_instant, json_schema_input_type=datetime),
    PlainSerializer(format_instant, return_type=str),
]
"""RFC 3339 both ways, to the microsecond. A `+` that became a space in a query is mended."""


def _read_json(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise ValueError("must be JSON") from None


JsonText = Annotated[dict[str, Any], BeforeValidator(_read_json, json_schema_input_type=str)]
"""An object that a query parameter carries as JSON text."""


def _bounded(values: list[str]) -> list[str]:
    if len(values) > 100:
        raise ValueError("has more than 100 values")
    return values


Names = Annotated[list[str], AfterValidator(_bounded)]


class Wire(BaseModel):
    """Base of wire models: names as in the contract, unknown members left alone."""

    model_config = ConfigDict(populate_by_name=True, extra="ignore", defer_build=True)


class MeterBody(Wire):
    """A meter (schema `Meter`)."""

    id: str
    slug: str
    name: str
    description: str | None = None
    metadata: dict[str, str] | None = None
    aggregation: str
    event_type: str = Field(alias="eventType")
    event_from: WireInstant | None = Field(default=None, alias="eventFrom")
    value_property: str | None = Field(default=None, alias="valueProperty")
    group_by: dict[str, str] = Field(alias="groupBy")
    annotations: dict[str, Any] | None = None
    created_at: WireInstant = Field(alias="createdAt")
    updated_at: WireInstant = Field(alias="updatedAt")
    deleted_at: WireInstant | None = Field(default=None, alias="deletedAt")


def body_from_meter(meter: Meter) -> MeterBody:
    """The wire's form of a meter."""
    return MeterBody.model_construct(
        id=meter.id,
        slug=meter.slug,
        name=meter.name,
        description=meter.description,
        metadata=dict(meter.metadata) or None,
        aggregation=meter.aggregation.value,
        event_type=meter.event_type,
        event_from=meter.event_from,
        value_property=meter.value_property,
        group_by=dict(meter.group_by),
        annotations=dict(meter.annotations) or None,
        created_at=meter.created_at,
        updated_at=meter.updated_at,
        deleted_at=meter.deleted_at,
    )


AsOf = Annotated[
    str | None,
    Field(
        alias="asOf",
        max_length=4096,
        description="What was known then: an RFC 3339 time, or a position as `Tollgate-Position` "
        "has it. Left out: all that is known now.",
    ),
]


class MeterQueryBody(Wire):
    """A query in a POST body (schema `MeterQueryRequest`)."""

    client_id: Annotated[str | None, Field(alias="clientId", min_length=1, max_length=36)] = None
    start: WireInstant | None = Field(default=None, alias="from")
    end: WireInstant | None = Field(default=None, alias="to")
    window_size: WindowSize | None = Field(default=None, alias="windowSize")
    window_time_zone: str = Field(default="UTC", alias="windowTimeZone")
    subject: Names | None = None
    filter_customer_id: Names | None = Field(default=None, alias="filterCustomerId")
    filter_group_by: dict[str, list[str]] | None = Field(default=None, alias="filterGroupBy")
    advanced_filters: dict[str, Any] | None = Field(
        default=None, alias="advancedMeterGroupByFilters"
    )
    group_by: Names | None = Field(default=None, alias="groupBy")
    as_of: AsOf = None
    limit: Annotated[
        int | None,
        Field(ge=1, description="At most so many rows; `nextCursor` of the answer leads on."),
    ] = None
    cursor: Annotated[
        str | None,
        Field(max_length=65536, description="`nextCursor` of the page before; needs `limit`."),
    ] = None
    fill: Annotated[
        bool,
        Field(
            description="Whether windows without usage are rows too: 0, or null where nothing has "
            "no such value. Of groups that have usage in the period, and of asked subjects."
        ),
    ] = False
    explain: Annotated[bool, Field(description="Whether the answer says what was read for it.")] = (
        False
    )


class ReadBody(Wire):
    """A part of what was read for an answer."""

    source: Literal["rollup", "events"]
    why: Annotated[
        Literal["whole", "edge", "corrected", "beyond", "all"],
        Field(
            description="`whole` windows of a rollup; events at an `edge` that no window of it "
            "covers, of windows that were `corrected` since, `beyond` the rollup; or `all` of them."
        ),
    ]
    level: Annotated[str | None, Field(description="of the rollup")] = None
    start: WireInstant | None = Field(default=None, alias="from")
    end: WireInstant | None = Field(default=None, alias="to")
    through: Annotated[str | None, Field(description="facts up to this position")] = None
    after: Annotated[str | None, Field(description="facts beyond this position")] = None


def body_from_read(read: Read) -> ReadBody:
    """The wire's form of a part of what was read."""
    return ReadBody.model_construct(
        source=read.source,
        why=read.why,
        level=read.level,
        start=read.start,
        end=read.end,
        through=read.through,
        after=read.after,
    )


class MeterQueryParameters(MeterQueryBody):
    """A query in a query string: lists are repeated, `filterGroupBy[name]=value`."""

    subject: Names | None = None
    filter_customer_id: Names | None = Field(default=None, alias="filterCustomerId")
    group_by: Names | None = Field(default=None, alias="groupBy")
    # A request's head has to hold it.
    cursor: Annotated[
        str | None,
        Field(max_length=32768, description="`nextCursor` of the page before; needs `limit`."),
    ] = None
    filter_group_by: dict[str, str] | None = Field(default=None, alias="filterGroupBy")  # type: ignore[assignment]
    advanced_filters: JsonText | None = Field(default=None, alias="advancedMeterGroupByFilters")


class PeriodParameters(Wire):
    """A period in a query string."""

    start: WireInstant | None = Field(default=None, alias="from")
    end: WireInstant | None = Field(default=None, alias="to")
    as_of: AsOf = None


class MeterQueryRowBody(Wire):
    """One quantity (schema `MeterQueryRow`); `value` is a JSON number with all its digits.

    It is null only in windows that `fill` adds.
    """

    value: Annotated[Any, Field(json_schema_extra={"type": ["number", "null"]})]
    window_start: WireInstant = Field(alias="windowStart")
    window_end: WireInstant = Field(alias="windowEnd")
    subject: str | None
    customer_id: str | None = Field(default=None, alias="customerId")
    group_by: dict[str, str | None] = Field(alias="groupBy")


class MeterQueryResultBody(Wire):
    """The answer (schema `MeterQueryResult`)."""

    start: WireInstant | None = Field(default=None, alias="from")
    end: WireInstant | None = Field(default=None, alias="to")
    window_size: WindowSize | None = Field(default=None, alias="windowSize")
    data: list[MeterQueryRowBody]
    next_cursor: Annotated[
        str | None, Field(alias="nextCursor", description="left out on the last page")
    ] = None
    explain: list[ReadBody] | None = None


class MeterUpdateBody(Wire):
    """What of a meter may change (schema `MeterUpdate`); checked by `MeterChanges.parse`."""

    name: str | None = None
    description: str | None = None
    metadata: dict[str, str] | None = None
    group_by: dict[str, str] | None = Field(default=None, alias="groupBy")


class MeterCreateBody(MeterUpdateBody):
    """A new meter (schema `MeterCreate`); checked by `MeterInput.parse`."""

    slug: str
    aggregation: str
    event_type: str = Field(alias="eventType")
    event_from: str | None = Field(default=None, alias="eventFrom")
    value_property: str | None = Field(default=None, alias="valueProperty")


def _as_sent(value: object) -> object:
    return value


# Read as plain members, so that all faults are found together, by the reader of `meter.py`.
MeterCreateMembers = Annotated[
    dict[str, Any], BeforeValidator(_as_sent, json_schema_input_type=MeterCreateBody)
]
MeterUpdateMembers = Annotated[
    dict[str, Any], BeforeValidator(_as_sent, json_schema_input_type=MeterUpdateBody)
]


class ProgressBody(Wire):
    """Progress of a query (schema `Progress`)."""

    success: int
    failed: int
    total: int
    updated_at: WireInstant = Field(alias="updatedAt")
