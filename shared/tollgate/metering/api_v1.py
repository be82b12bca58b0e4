"""v1 of meters on HTTP: create, read, update, delete, subjects, dimensions, progress."""

from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import Field

from tollgate.events.api_position import await_position
from tollgate.events.as_of import as_of
from tollgate.metering.distinct import Asked, distinct_dimension_values, distinct_subjects
from tollgate.metering.meter import Meter, MeterChanges, MeterInput
from tollgate.metering.meter_reader import AGE_DOCUMENT, MeterReader, open_meters
from tollgate.metering.progress import QueryProgressStore
from tollgate.metering.store import MeterListing, MeterOrder
from tollgate.metering.wire_v1 import (
    MeterBody,
    MeterCreateMembers,
    MeterUpdateMembers,
    PeriodParameters,
    ProgressBody,
    Wire,
    body_from_meter,
)
from tollgate.platform.access import Scope
from tollgate.platform.api import Call, Operation
from tollgate.platform.database import open_database
from tollgate.platform.parts import open_clickhouse

_ORDERS = {
    "key": MeterOrder.SLUG,
    "name": MeterOrder.NAME,
    "aggregation": MeterOrder.AGGREGATION,
    "createdAt": MeterOrder.CREATED_AT,
    "updatedAt": MeterOrder.UPDATED_AT,
}


class MeterListParameters(Wire):
    """Which page of meters."""

    page: Annotated[int, Field(ge=1)] = 1
    page_size: Annotated[int, Field(ge=1, le=1000, alias="pageSize")] = 100
    order: Literal["ASC", "DESC"] = "ASC"
    order_by: Annotated[
        Literal["key", "name", "aggregation", "createdAt", "updatedAt"], Field(alias="orderBy")
    ] = "createdAt"
    include_deleted: Annotated[bool, Field(alias="includeDeleted")] = False


def list_meters(call: Call) -> list[MeterBody]:
    """One page of meters, as a bare array."""
    query: MeterListParameters = call.query
    listing = MeterListing(
        page=query.page,
        page_size=query.page_size,
        order_by=_ORDERS[query.order_by],
        descending=query.order == "DESC",
        include_deleted=query.include_deleted,
    )
    return [body_from_meter(m) for m in MeterReader(call).list(call.namespace, listing)]


def create_meter(call: Call) -> MeterBody:
    """Makes a meter; it counts events that came before it, from its `eventFrom` on."""
    wanted = MeterInput.parse(call.body)
    return body_from_meter(call.parts.get(open_meters).create(call.namespace, wanted))


def get_meter(call: Call) -> MeterBody:
    """One meter by id or slug."""
    return body_from_meter(_meter(call))


def update_meter(call: Call) -> MeterBody:
    """Replaces name, description, metadata and groupBy; dimensions that a feature needs stay."""
    members: dict[str, Any] = call.body
    meter = call.parts.get(open_meters).update(
        call.namespace,
        call.path["meterIdOrSlug"],
        lambda stored: MeterChanges.parse(members, stored),
    )
    return body_from_meter(meter)


def delete_meter(call: Call) -> None:
    """Deletes a meter that no feature counts by; its events stay."""
    call.parts.get(open_meters).delete(call.namespace, call.path["meterIdOrSlug"])


def list_subjects(call: Call) -> list[str]:
    """Subjects that a meter has events of, in order."""
    query: PeriodParameters = call.query
    meter, clickhouse = _meter(call), call.parts.get(open_clickhouse)
    await_position(call)
    asked = Asked(start=query.start, end=query.end, as_of=as_of(call, query.as_of))
    return distinct_subjects(clickhouse, meter, asked)


def list_group_by_values(call: Call) -> list[str]:
    """Values of one dimension, in order; by default of the last 24 hours."""
    query: PeriodParameters = call.query
    meter, clickhouse = _meter(call), call.parts.get(open_clickhouse)
    await_position(call)
    start: datetime = query.start or call.parts.clock.now() - timedelta(hours=24)
    asked = Asked(start=start, end=query.end, as_of=as_of(call, query.as_of))
    return distinct_dimension_values(clickhouse, meter, call.path["groupByKey"], asked)


def get_progress(call: Call) -> ProgressBody:
    """Progress of the query that a client runs or ran last."""
    store = QueryProgressStore(call.parts.get(open_database), call.parts.clock)
    found = store.get(call.namespace, call.path["id"])
    return ProgressBody.model_construct(
        success=found.success, failed=found.failed, total=found.total, updated_at=found.updated_at
    )


def _meter(call: Call) -> Meter:
    return MeterReader(call).get(call.namespace, call.path["meterIdOrSlug"])


def _operation(method: str, path: str, operation_id: str, summary: str, **more: Any) -> Operation:
    return Operation(
        method=method,
        path="/api/v1/" + path,
        operation_id=operation_id,
        summary=summary,
        tag="Meters",
        **{"scope": Scope.READ} | more,
    )


_ONE = "meters/{meterIdOrSlug}"
_ADMIN = {"scope": Scope.ADMIN}
_AGED = {"document": AGE_DOCUMENT}
OPERATIONS: tuple[Operation, ...] = (
    _operation(
        "GET",
        "meters",
        "listMeters",
        "List meters",
        handler=list_meters,
        **_AGED,
        query=MeterListParameters,
        response=list[MeterBody],
    ),
    _operation(
        "POST",
        "meters",
        "createMeter",
        "Create a meter",
        status=201,
        handler=create_meter,
        body=MeterCreateMembers,
        response=MeterBody,
        **_ADMIN,
    ),
    _operation(
        "GET", _ONE, "getMeter", "Get a meter", handler=get_meter, response=MeterBody, **_AGED
    ),
    _operation(
        "PUT",
        _ONE,
        "updateMeter",
        "Update a meter",
        handler=update_meter,
        body=MeterUpdateMembers,
        response=MeterBody,
        **_ADMIN,
    ),
    _operation(
        "DELETE",
        _ONE,
        "deleteMeter",
        "Delete a meter",
        status=204,
        handler=delete_meter,
        failures=(409,),
        **_ADMIN,
    ),
    _operation(
        "GET",
        f"{_ONE}/subjects",
        "listMeterSubjects",
        "List a meter's subjects",
        handler=list_subjects,
        **_AGED,
        query=PeriodParameters,
        response=list[str],
    ),
    _operation(
        "GET",
        _ONE + "/group-by/{groupByKey}/values",
        "listMeterGroupByValues",
        "List the values of a dimension",
        handler=list_group_by_values,
        **_AGED,
        query=PeriodParameters,
        response=list[str],
    ),
    _operation(
        "GET",
        "info/progress/{id}",
        "getProgress",
        "Get the progress of a query",
        handler=get_progress,
        response=ProgressBody,
    ),
)
