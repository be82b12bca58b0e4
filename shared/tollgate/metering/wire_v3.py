"""Wire models of v3: meters and their queries, named as the contract names them."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import StrEnum
from typing import Annotated, Any, Literal, TypeVar, cast

from pydantic import BeforeValidator, Field

from tollgate.core.errors import Fault, InvalidInput
from tollgate.core.reading import shown
from tollgate.metering.meter import Aggregation, Meter, MeterChanges, MeterInput
from tollgate.metering.window import WindowSize
from tollgate.metering.wire_v1 import ReadBody
from tollgate.platform.wire import Wire, WireInstant
from tollgate.platform.wire_v3 import (
    LABELS_MAX,
    Closed,
    PageParameters,
    PaginatedMeta,
    labels_faults,
    labels_from_metadata,
    metadata_from_labels,
    unknown_members,
)

_V1_NAMES = {
    "key": "slug",
    "labels": "metadata",
    "event_type": "eventType",
    "events_from": "eventFrom",
    "value_property": "valueProperty",
    "dimensions": "groupBy",
}
_V3_NAMES = {v1: v3 for v3, v1 in _V1_NAMES.items()}
_QUERY_NAMES = {
    "asOf": "as_of",
    "groupBy": "group_by_dimensions",
    "filterGroupBy": "filters.dimensions",
    "filterCustomerId": "filters.dimensions.customer_id",
    "windowTimeZone": "time_zone",
}
_WORD = re.compile(r"\b(?:slug|eventType|eventFrom|valueProperty|groupBy)\b")
Read = TypeVar("Read")
AggregationName = Literal["sum", "count", "unique_count", "avg", "min", "max", "latest"]


class Granularity(StrEnum):
    """Size of a time bucket, as an ISO 8601 duration."""

    PT1M = "PT1M"
    PT1H = "PT1H"
    P1D = "P1D"
    P1M = "P1M"

    @property
    def window(self) -> WindowSize:
        """The window of this length."""
        return _WINDOWS[self]


_WINDOWS = {
    Granularity.PT1M: WindowSize.MINUTE,
    Granularity.PT1H: WindowSize.HOUR,
    Granularity.P1D: WindowSize.DAY,
    Granularity.P1M: WindowSize.MONTH,
}


class MeterUpdateBody(Closed):
    """What of a meter may change (schema `UpdateMeterRequest`)."""

    name: Annotated[str | None, Field(min_length=1, max_length=256)] = None
    description: Annotated[str | None, Field(max_length=1024)] = None
    labels: Annotated[dict[str, str] | None, Field(max_length=LABELS_MAX)] = None
    dimensions: dict[str, str] | None = None


class MeterCreateBody(MeterUpdateBody):
    """A new meter (schema `CreateMeterRequest`)."""

    key: str
    name: Annotated[str, Field(min_length=1, max_length=256)]
    aggregation: AggregationName
    event_type: Annotated[str, Field(min_length=1)]
    events_from: WireInstant | None = None
    value_property: Annotated[str | None, Field(min_length=1)] = None


def _as_sent(value: object) -> object:
    return value


# Read as plain members, so that all faults are found together, by the reader of `meter.py`.
MeterCreateMembers = Annotated[
    dict[str, Any], BeforeValidator(_as_sent, json_schema_input_type=MeterCreateBody)
]
MeterUpdateMembers = Annotated[
    dict[str, Any], BeforeValidator(_as_sent, json_schema_input_type=MeterUpdateBody)
]


class MeterBody(Wire):
    """A meter (schema `Meter`)."""

    id: str
    name: str
    description: str | None = None
    labels: dict[str, str] | None = None
    created_at: WireInstant
    updated_at: WireInstant
    deleted_at: WireInstant | None = None
    key: str
    aggregation: AggregationName
    event_type: str
    events_from: WireInstant | None = None
    value_property: str | None = None
    dimensions: dict[str, str] | None = None


class MeterPageBody(Wire):
    """One page of meters (schema `MeterPagePaginatedResponse`)."""

    data: list[MeterBody]
    meta: PaginatedMeta


class MeterFilterParameters(Closed):
    """`filter[key]` and `filter[name]`, each a text or `[operator]=text`."""

    key: str | dict[str, Any] | None = None
    name: str | dict[str, Any] | None = None


class MeterListParameters(Wire):
    """Which page of which meters."""

    page: PageParameters = PageParameters()
    sort: str = "created_at"
    filter: MeterFilterParameters = MeterFilterParameters()


class MeterQueryFilters(Closed):
    """Conditions on dimensions, by name."""

    dimensions: Annotated[dict[str, Any] | None, Field(max_length=10)] = None


AsOf = Annotated[
    str | None,
    Field(
        max_length=4096,
        description="What was known then: an RFC 3339 time, or a position as `Tollgate-Position` "
        "has it. Left out: all that is known now.",
    ),
]


class UsageQueryBody(Closed):
    """Which usage is asked for (schema `MeterQueryRequest`)."""

    start: WireInstant | None = Field(default=None, alias="from")
    end: WireInstant | None = Field(default=None, alias="to")
    granularity: Granularity | None = None
    time_zone: str = "UTC"
    group_by_dimensions: Annotated[list[str] | None, Field(max_length=100)] = None
    filters: MeterQueryFilters | None = None
    as_of: AsOf = None


class MeterQueryBody(UsageQueryBody):
    """A query (schema `MeterQueryRequest`)."""

    explain: bool = False


class MeterQueryRowBody(Wire):
    """One quantity (schema `MeterQueryRow`)."""

    value: Annotated[str, Field(pattern=r"^-?[0-9]+(\.[0-9]+)?$")]
    start: WireInstant = Field(alias="from")
    end: WireInstant = Field(alias="to")
    dimensions: dict[str, str]


class MeterQueryResultBody(Wire):
    """The answer (schema `MeterQueryResult`)."""

    start: WireInstant | None = Field(default=None, alias="from")
    end: WireInstant | None = Field(default=None, alias="to")
    data: list[MeterQueryRowBody]
    explain: list[ReadBody] | None = None


def body_from_meter(meter: Meter) -> MeterBody:
    """The wire's form of a meter."""
    return MeterBody.model_construct(
        id=meter.id,
        name=meter.name,
        description=meter.description,
        labels=labels_from_metadata(meter.metadata) or None,
        created_at=meter.created_at,
        updated_at=meter.updated_at,
        deleted_at=meter.deleted_at,
        key=meter.slug,
        aggregation=cast(AggregationName, meter.aggregation.value.lower()),
        event_type=meter.event_type,
        events_from=meter.event_from,
        value_property=meter.value_property,
        dimensions=dict(meter.group_by),
    )


def meter_from_members(members: Mapping[str, object]) -> MeterInput:
    """A new meter from what a client sent.

    Raises:
        InvalidInput: every fault, under v3's names.
    """
    raw, faults = _read_members(members, MeterCreateBody)
    known = {each.value.lower(): each.value for each in Aggregation}
    aggregation = raw.get("aggregation")
    if isinstance(aggregation, str):
        raw["aggregation"] = known.get(aggregation)
        if raw["aggregation"] is None:
            message = f"{shown(aggregation)!r} is not one of {', '.join(known)}"
            faults.append(Fault(field="aggregation", code="unknown_aggregation", message=message))
    if members.get("name") is None:
        faults.append(Fault(field="name", code="required", message="is required"))
    return _collect(faults, lambda: MeterInput.parse(raw))


def changes_from_members(members: Mapping[str, object], stored: Meter) -> MeterChanges:
    """The new mutable part of a meter from what a client sent; metadata that v3 hides stays.

    Raises:
        InvalidInput: every fault, under v3's names.
    """
    raw, faults = _read_members(members, MeterUpdateBody)
    labels = raw.get("metadata")
    if labels is None or isinstance(labels, Mapping):
        raw["metadata"] = metadata_from_labels(labels or {}, stored.metadata)
    return _collect(faults, lambda: MeterChanges.parse(raw, stored))


def query_fault_in_v3_names(fault: Fault) -> Fault:
    """A fault of a query under v3's names."""
    head, dot, rest = fault.field.partition(".")
    return replace(fault, field=_QUERY_NAMES.get(head, head) + dot + rest)


def _read_members(
    members: Mapping[str, object], model: type[Closed]
) -> tuple[dict[str, object], list[Fault]]:
    """The members that a model has, under v1's names, and what is wrong with v3's own rules."""
    known = {name: value for name, value in members.items() if name in model.model_fields}
    raw = {_V1_NAMES.get(name, name): value for name, value in known.items()}
    return raw, unknown_members(members, model) + labels_faults(raw.get("metadata"))


def _collect(faults: list[Fault], read: Callable[[], Read]) -> Read:
    """What `read` gives, unless there is a fault already; its own faults come after those."""
    try:
        found = read()
    except InvalidInput as invalid:
        own = {fault.field for fault in faults}
        found_too = [_in_v3_names(fault) for fault in invalid.faults]
        more = [fault for fault in found_too if fault.field not in own]
        raise InvalidInput((*faults, *more)) from None
    if faults:
        raise InvalidInput(tuple(faults))
    return found


def _in_v3_names(fault: Fault) -> Fault:
    head, dot, rest = fault.field.partition(".")
    message = _WORD.sub(lambda word: _V3_NAMES[word[0]], fault.message)
    return replace(fault, field=_V3_NAMES.get(head, head) + dot + rest, message=message)
