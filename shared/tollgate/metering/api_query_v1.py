"""v1 of meter queries on HTTP, by GET and by POST, as JSON or CSV."""

import csv
import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec

from tollgate.core.decimals import plain_text
from tollgate.core.errors import Fault, InvalidInput
from tollgate.core.times import format_instant
from tollgate.events.api_position import await_position
from tollgate.events.as_of import as_of
from tollgate.metering.attribution_reader import customer_ids, with_attributions
from tollgate.metering.explain import reads_of
from tollgate.metering.meter import Meter
from tollgate.metering.meter_reader import AGE_DOCUMENT, MeterReader
from tollgate.metering.paging import decode_cursor, encode_cursor
from tollgate.metering.query import WHOLE, Answer, Page, QueryBounds, answer_query
from tollgate.metering.question import CUSTOMER, SUBJECT, MeterQuery, QueryRow
from tollgate.metering.rollup_reader import open_rollup_reader
from tollgate.metering.tracking import tracked
from tollgate.metering.wire_v1 import (
    MeterQueryBody,
    MeterQueryParameters,
    MeterQueryResultBody,
    body_from_read,
)
from tollgate.platform.access import Scope
from tollgate.platform.api import Call, Operation, Reply
from tollgate.platform.filter_dialects import parse_filter_string
from tollgate.platform.filters import And, Filter, Membership
from tollgate.platform.parts import open_clickhouse

CSV: Final = "text/csv"
_NEXT: Final = "tollgate-next-cursor"


def query_meter(call: Call) -> Reply:
    """Usage of a meter, as JSON or CSV."""
    meter = MeterReader(call).get(call.namespace, call.path["meterIdOrSlug"])
    body: MeterQueryBody = call.body or call.query
    asked = with_attributions(call, meter, query_from_body(body))
    await_position(call)
    asked = replace(asked, as_of=as_of(call, body.as_of))
    page = _page(call, meter, asked, body)
    answer = tracked_query(call, meter, asked, body.client_id, page)
    cursor = None
    if not answer.is_last:
        cursor = encode_cursor(meter.id, asked, answer.rows[-1].key(asked))
    if wants_csv(call):
        # CSV has no place for it.
        headers = ((_NEXT, cursor),) if cursor else ()
        content = _csv(call, asked, answer.rows)
        return Reply(body=content, media_type=f"{CSV}; charset=utf-8", headers=headers)
    more: dict[str, Any] = {"nextCursor": cursor} if cursor else {}
    if body.explain:
        reads = (body_from_read(each) for each in reads_of(asked, answer.source))
        more["explain"] = [
            each.model_dump(mode="json", by_alias=True, exclude_none=True) for each in reads
        ]
    return Reply(body=_json(asked, answer.rows, more))


def _page(call: Call, meter: Meter, asked: MeterQuery, body: MeterQueryBody) -> Page:
    """Which rows a request wants.

    Raises:
        InvalidInput: the limit is more than this server allows, or the cursor is wrong.
    """
    most = call.parts.settings.query_rows_max
    if body.limit is not None and body.limit > most:
        fault = Fault(field="limit", code="too_many_rows", message=f"must be at most {most}")
        raise InvalidInput((fault,))
    if body.cursor is None:
        return Page(limit=body.limit)
    if body.limit is None:
        fault = Fault(field="limit", code="required", message="is needed with `cursor`")
        raise InvalidInput((fault,))
    return Page(limit=body.limit, after=decode_cursor(meter.id, asked, body.cursor))


def tracked_query(
    call: Call, meter: Meter, asked: MeterQuery, client_id: str | None, page: Page = WHOLE
) -> Answer:
    """Runs a query and keeps its progress under the client's id, if it gave one."""
    settings, clickhouse = call.parts.settings, call.parts.get(open_clickhouse)
    bounds = QueryBounds(rows_max=settings.query_rows_max, seconds_max=settings.query_seconds_max)
    with tracked(call, client_id):
        reader = call.parts.get(open_rollup_reader)
        return answer_query(clickhouse, meter, asked, bounds, reader, page)


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
        customers=customer_ids(body.filter_customer_id),
        fill=body.fill,
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


def _json(asked: MeterQuery, rows: Sequence[QueryRow], more: dict[str, Any]) -> bytes:
    head: dict[str, Any] = {}
    if asked.start is not None:
        head["from"] = format_instant(asked.start)
    if asked.end is not None:
        head["to"] = format_instant(asked.end)
    if asked.window is not None:
        head["windowSize"] = asked.window.value
    return msgspec.json.encode(head | {"data": [_row(row) for row in rows]} | more)


def _row(row: QueryRow) -> dict[str, Any]:
    found: dict[str, Any] = {
        # A JSON number with all its digits: no double in between.
        "value": None if row.is_gap else msgspec.Raw(plain_text(row.value).encode()),
        "windowStart": format_instant(row.start),
        "windowEnd": format_instant(row.end),
        "subject": row.subject,
        "groupBy": dict(row.dimensions),
    }
    if row.customer_id is not None:
        found["customerId"] = row.customer_id
    return found


def _csv(call: Call, asked: MeterQuery, rows: Sequence[QueryRow]) -> bytes:
    dimensions = [n for n in asked.group_by if n not in (SUBJECT, CUSTOMER)]
    by_subject, by_customer = SUBJECT in asked.group_by, CUSTOMER in asked.group_by
    names: dict[str, str] = {}
    if by_subject and rows:
        subjects = {row.subject for row in rows if row.subject}
        names = MeterReader(call).display_names(call.namespace, subjects)
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    subject_columns = ["subject", "subject_display_name"] if by_subject else []
    subject_columns += [CUSTOMER] if by_customer else []
    writer.writerow(["window_start", "window_end", *subject_columns, *dimensions, "value"])
    for row in rows:
        subject = [row.subject, names.get(row.subject or "", "")] if by_subject else []
        subject += [row.customer_id] if by_customer else []
        writer.writerow(
            [
                format_instant(row.start),
                format_instant(row.end),
                *map(safe_cell, subject),
                *(safe_cell(row.dimensions[name]) for name in dimensions),
                "" if row.is_gap else plain_text(row.value),
            ]
        )
    return out.getvalue().encode()


def safe_cell(text: str | None) -> str:
    """A text that no spreadsheet takes for a formula (OWASP: CSV injection)."""
    value = text or ""
    return f"'{value}" if value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def _operation(method: str, operation_id: str, **more: Any) -> Operation:
    return Operation(
        method=method,
        path="/api/v1/meters/{meterIdOrSlug}/query",
        operation_id=operation_id,
        summary="Query a meter",
        tag="Meters",
        scope=Scope.READ,
        handler=query_meter,
        document=AGE_DOCUMENT,
        response=MeterQueryResultBody,
        other_media=(CSV,),
        **more,
    )


OPERATIONS: tuple[Operation, ...] = (
    _operation("GET", "queryMeter", query=MeterQueryParameters),
    _operation("POST", "queryMeterPost", body=MeterQueryBody),
)
