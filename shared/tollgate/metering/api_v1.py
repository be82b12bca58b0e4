"""v1 of meters on HTTP: create, read, update, delete, query, subjects, dimensions, progress."""

import csv
import io
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

import msgspec
from pydantic import Field

from tollgate.core.decimals import plain_text
from tollgate.core.errors import Fault, InvalidInput
from tollgate.core.times import format_instant
from tollgate.events.api_position import await_position
from tollgate.events.as_of import as_of
from tollgate.metering.distinct import Asked, distinct_dimension_values, distinct_subjects
from tollgate.metering.filter_dialects import parse_filter_string
from tollgate.metering.filters import And, Filter, Membership
from tollgate.metering.meter import Meter, MeterChanges, MeterInput
from tollgate.metering.meter_reader import AGE_DOCUMENT, MeterReader, open_meters
from tollgate.metering.progress import QueryProgressStore
from tollgate.metering.query import QueryBounds, run_query
from tollgate.metering.question import SUBJECT, MeterQuery, QueryRow
from tollgate.metering.rollup_reader import open_rollup_reader
from tollgate.metering.store import MeterListing, MeterOrder
from tollgate.metering.tracking import tracked
from tollgate.metering.wire_v1 import (
    MeterBody,
    MeterCreateMembers,
    MeterQueryBody,
    MeterQueryParameters,
    MeterQueryResultBody,
    MeterUpdateMembers,
    PeriodParameters,
    ProgressBody,
    Wire,
    body_from_meter,
)
from tollgate.platform.access import Scope
from tollgate.platform.api import Call, Operation, Reply
from tollgate.platform.database import open_database
from tollgate.platform.parts import open_clickhouse

CSV = "text/csv"
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
    """Replaces name, description, metadata and groupBy."""
    members: dict[str, Any] = call.body
    meter = call.parts.get(open_meters).update(
        call.namespace,
        call.path["meterIdOrSlug"],
        lambda stored: MeterChanges.parse(members, stored),
    )
    return body_from_meter(meter)


def delete_meter(call: Call) -> None:
    """Deletes a meter; its events stay."""
    call.parts.get(open_meters).delete(call.namespace, call.path["meterIdOrSlug"])


def query_meter(call: Call) -> Reply:
    """Usage of a meter, as JSON or CSV."""
    meter, body = _meter(call), call.body or call.query
    asked = query_from_body(body)
    await_position(call)
    asked = replace(asked, as_of=as_of(call, body.as_of))
    rows = tracked_query(call, meter, asked, body.client_id)
    if wants_csv(call):
        return Reply(body=_csv(call, asked, rows), media_type=f"{CSV}; charset=utf-8")
    return Reply(body=_json(asked, rows))


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


def tracked_query(
    call: Call, meter: Meter, asked: MeterQuery, client_id: str | None
) -> tuple[QueryRow, ...]:
    """Runs a query and keeps its progress under the client's id, if it gave one."""
    settings = call.parts.settings
    bounds = QueryBounds(rows_max=settings.query_rows_max, seconds_max=settings.query_seconds_max)
    with tracked(call, client_id):
        reader = call.parts.get(open_rollup_reader)
        return run_query(call.parts.get(open_clickhouse), meter, asked, bounds, reader)


def query_from_body(body: MeterQueryBody) -> MeterQuery:
    """The question that a v1 request asks.

    Raises:
        InvalidInput: every fault of its filters.
    """
    group_by = list(body.group_by or ())
    if body.subject and SUBJECT not in group_by:
        # The contract: a filter by subject answers each subject apart.
        group_by.append(SUBJECT)
    return MeterQuery(
        start=body.start,
        end=body.end,
        window=body.window_size,
        time_zone=body.window_time_zone,
        subjects=tuple(body.subject) if body.subject else None,
        group_by=tuple(group_by),
        filters=_filters(body),
        customers={} if body.filter_customer_id else None,
    )


def _filters(body: MeterQueryBody) -> dict[str, Filter]:
    found: dict[str, list[Filter]] = {}
    faults: list[Fault] = []
    simple: dict[str, Any] = dict(body.filter_group_by or {})
    for name, wanted in simple.items():
        values = (wanted,) if isinstance(wanted, str) else tuple(wanted)
        found.setdefault(name, []).append(Membership(values=values, negated=False))
    for name, wanted in (body.advanced_filters or {}).items():
        try:
            parsed = parse_filter_string(wanted, f"advancedMeterGroupByFilters.{name}")
            found.setdefault(name, []).append(parsed)
        except InvalidInput as problem:
            faults += problem.faults
    if faults:
        raise InvalidInput(tuple(faults))
    return {n: f[0] if len(f) == 1 else And(filters=tuple(f)) for n, f in found.items()}


def wants_csv(call: Call) -> bool:
    """Whether the caller prefers CSV: it names text/csv before JSON."""
    accepted = [
        part.partition(";")[0].strip() for part in call.headers.get("accept", "").split(",")
    ]
    return next((kind == CSV for kind in accepted if kind in (CSV, "application/json")), False)


def _json(asked: MeterQuery, rows: Sequence[QueryRow]) -> bytes:
    head: dict[str, Any] = {}
    if asked.start is not None:
        head["from"] = format_instant(asked.start)
    if asked.end is not None:
        head["to"] = format_instant(asked.end)
    if asked.window is not None:
        head["windowSize"] = asked.window.value
    return msgspec.json.encode(head | {"data": [_row(row) for row in rows]})


def _row(row: QueryRow) -> dict[str, Any]:
    found: dict[str, Any] = {
        # A JSON number with all its digits: no double in between.
        "value": msgspec.Raw(plain_text(row.value).encode()),
        "windowStart": format_instant(row.start),
        "windowEnd": format_instant(row.end),
        "subject": row.subject,
        "groupBy": dict(row.dimensions),
    }
    if row.customer_id is not None:
        found["customerId"] = row.customer_id
    return found


def _csv(call: Call, asked: MeterQuery, rows: Sequence[QueryRow]) -> bytes:
    dimensions = [n for n in asked.group_by if n not in (SUBJECT, "customer_id")]
    by_subject = SUBJECT in asked.group_by
    names: dict[str, str] = {}
    if by_subject and rows:
        subjects = {row.subject for row in rows if row.subject}
        names = MeterReader(call).display_names(call.namespace, subjects)
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    subject_columns = ["subject", "subject_display_name"] if by_subject else []
    writer.writerow(["window_start", "window_end", *subject_columns, *dimensions, "value"])
    for row in rows:
        subject = [row.subject, names.get(row.subject or "", "")] if by_subject else []
        writer.writerow(
            [
                format_instant(row.start),
                format_instant(row.end),
                *map(safe_cell, subject),
                *(safe_cell(row.dimensions[name]) for name in dimensions),
                plain_text(row.value),
            ]
        )
    return out.getvalue().encode()


def safe_cell(text: str | None) -> str:
    """A text that no spreadsheet takes for a formula (OWASP: CSV injection)."""
    value = text or ""
    return f"'{value}" if value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


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
        "DELETE", _ONE, "deleteMeter", "Delete a meter", status=204, handler=delete_meter, **_ADMIN
    ),
    _operation(
        "GET",
        f"{_ONE}/query",
        "queryMeter",
        "Query a meter",
        handler=query_meter,
        **_AGED,
        query=MeterQueryParameters,
        response=MeterQueryResultBody,
        other_media=(CSV,),
    ),
    _operation(
        "POST",
        f"{_ONE}/query",
        "queryMeterPost",
        "Query a meter",
        handler=query_meter,
        **_AGED,
        body=MeterQueryBody,
        response=MeterQueryResultBody,
        other_media=(CSV,),
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
