"""v3 of meters on HTTP: create, list, read, update, delete, query. Meters are named by id only."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tollgate.core.decimals import plain_text
from tollgate.core.errors import Conflict, Fault, InvalidInput
from tollgate.core.reading import shown
from tollgate.core.times import format_instant
from tollgate.customers.api_customers_v1 import open_customers
from tollgate.customers.customer import Customer
from tollgate.events.api_position import await_position
from tollgate.events.as_of import as_of
from tollgate.metering.api_query_v1 import (
    CSV,
    safe_cell,
    tracked_query,
    wants_csv,
)
from tollgate.metering.attribution_reader import customer_ids, with_attributions
from tollgate.metering.explain import reads_of
from tollgate.metering.meter import Meter
from tollgate.metering.meter_reader import AGE_DOCUMENT, MeterReader, open_meters
from tollgate.metering.question import CUSTOMER, SUBJECT, MeterQuery, QueryRow
from tollgate.metering.store import MeterListing, MeterOrder
from tollgate.metering.wire_v1 import body_from_read
from tollgate.metering.wire_v3 import (
    MeterBody,
    MeterCreateMembers,
    MeterFilterParameters,
    MeterListParameters,
    MeterPageBody,
    MeterQueryBody,
    MeterQueryResultBody,
    MeterQueryRowBody,
    MeterUpdateMembers,
    UsageQueryBody,
    body_from_meter,
    changes_from_members,
    meter_from_members,
    query_fault_in_v3_names,
)
from tollgate.platform.access import Scope
from tollgate.platform.api import Call, Operation, Reply
from tollgate.platform.filter_dialects import parse_query_filter_map_item, parse_string_field
from tollgate.platform.filters import And, Comparison, Filter, Membership, Operator
from tollgate.platform.wire_v3 import PageMeta, PaginatedMeta, checked_id, read_orders

_ORDERS = {
    "key": MeterOrder.SLUG,
    "name": MeterOrder.NAME,
    "aggregation": MeterOrder.AGGREGATION,
    "created_at": MeterOrder.CREATED_AT,
    "updated_at": MeterOrder.UPDATED_AT,
}
_RESERVED = (SUBJECT, CUSTOMER)


def list_meters(call: Call) -> MeterPageBody:
    """One page of meters that pass the filters."""
    query: MeterListParameters = call.query
    faults: list[Fault] = []
    filters = _list_filters(query.filter, faults)
    orders = read_orders(query.sort, _ORDERS, faults)
    if faults:
        raise InvalidInput(tuple(faults))
    (order_by, descending), *then_by = orders
    listing = MeterListing(
        page=query.page.number,
        page_size=query.page.size,
        order_by=order_by,
        descending=descending,
        then_by=tuple(then_by),
        filters=filters,
    )
    store = MeterReader(call)
    meta = PageMeta(
        number=query.page.number,
        size=query.page.size,
        total=store.count(call.namespace, listing),
    )
    return MeterPageBody(
        data=[body_from_meter(each) for each in store.list(call.namespace, listing)],
        meta=PaginatedMeta(page=meta),
    )


def create_meter(call: Call) -> MeterBody:
    """Makes a meter; it counts events that came before it, from its `events_from` on."""
    wanted = meter_from_members(call.body)
    try:
        return body_from_meter(call.parts.get(open_meters).create(call.namespace, wanted))
    except Conflict:
        raise Conflict(f"there is a meter with the key {wanted.slug} already") from None


def get_meter(call: Call) -> MeterBody:
    """One meter."""
    return body_from_meter(_meter(call))


def update_meter(call: Call) -> MeterBody:
    """Replaces name, description, labels and dimensions; those that a feature needs stay."""
    members: dict[str, Any] = call.body
    meter = call.parts.get(open_meters).update(
        call.namespace, _meter(call).id, lambda stored: changes_from_members(members, stored)
    )
    return body_from_meter(meter)


def delete_meter(call: Call) -> None:
    """Deletes a meter that no feature counts by; its events stay."""
    call.parts.get(open_meters).delete(call.namespace, _meter(call).id)


def query_meter(call: Call) -> Reply | MeterQueryResultBody:
    """Usage of a meter, as JSON or CSV."""
    meter, body = _meter(call), call.body
    asked = query_from_body(body)
    await_position(call)
    try:
        asked = with_attributions(call, meter, asked)
        asked = replace(asked, as_of=as_of(call, body.as_of))
        answer = tracked_query(call, meter, asked, client_id=None)
    except InvalidInput as invalid:
        raise InvalidInput(tuple(map(query_fault_in_v3_names, invalid.faults))) from None
    if wants_csv(call):
        return Reply(body=_csv(call, asked, answer.rows), media_type=f"{CSV}; charset=utf-8")
    explained = [body_from_read(each) for each in reads_of(asked, answer.source)]
    return MeterQueryResultBody.model_construct(
        start=asked.start,
        end=asked.end,
        data=[_row(asked, row) for row in answer.rows],
        explain=explained if body.explain else None,
    )


def query_from_body(body: UsageQueryBody) -> MeterQuery:
    """The question that a v3 request asks.

    Raises:
        InvalidInput: every fault of its filters.
    """
    filters: dict[str, Filter] = {}
    members: dict[str, tuple[str, ...]] = {}
    faults: list[Fault] = []
    wanted = (body.filters and body.filters.dimensions) or {}
    for name, raw in wanted.items():
        place = f"filters.dimensions.{shown(name)}"
        try:
            found = parse_query_filter_map_item(raw, place)
            if name in _RESERVED:
                members |= _members(name, found, place)
            else:
                filters[name] = found
        except InvalidInput as invalid:
            faults += invalid.faults
    if faults:
        raise InvalidInput(tuple(faults))
    return MeterQuery(
        start=body.start,
        end=body.end,
        window=body.granularity.window if body.granularity else None,
        time_zone=body.time_zone,
        subjects=members.get(SUBJECT),
        group_by=tuple(body.group_by_dimensions or ()),
        filters=filters,
        customers=customer_ids(members.get(CUSTOMER)),
    )


def _members(name: str, found: Filter, place: str) -> dict[str, tuple[str, ...]]:
    """What `subject` or `customer_id` may be; the contract allows `eq` and `in` only."""
    match found:
        case Comparison(operator=Operator.EQUAL, value=str(value)):
            return {name: (value,)}
        case Membership(values=values, negated=False):
            return {name: values}
        case And(filters=()):
            return {}
        case _:
            message = f"{name} can be filtered by eq and in only"
            fault = Fault(field=place, code="unsupported_operator", message=message)
            raise InvalidInput((fault,))


def _list_filters(
    asked: MeterFilterParameters, faults: list[Fault]
) -> tuple[tuple[MeterOrder, Filter], ...]:
    found: list[tuple[MeterOrder, Filter]] = []
    for name, raw in (("key", asked.key), ("name", asked.name)):
        if raw is None:
            continue
        try:
            found.append((_ORDERS[name], parse_string_field(raw, f"filter[{name}]")))
        except InvalidInput as invalid:
            faults += invalid.faults
    return tuple(found)


def _row(asked: MeterQuery, row: QueryRow) -> MeterQueryRowBody:
    return MeterQueryRowBody.model_construct(
        value=plain_text(row.value),
        start=row.start,
        end=row.end,
        dimensions={name: group_value(row, name) for name in asked.group_by},
    )


def group_value(row: QueryRow, name: str) -> str:
    """The value that a row has of what was grouped by; "" of what has none."""
    match name:
        case "subject":
            return row.subject or ""
        case "customer_id":
            return row.customer_id or ""
        case _:
            return row.dimensions[name]


def _csv(call: Call, asked: MeterQuery, rows: Sequence[QueryRow]) -> bytes:
    subject = [SUBJECT] if SUBJECT in asked.group_by else []
    by_customer = CUSTOMER in asked.group_by
    dimensions = [name for name in dict.fromkeys(asked.group_by) if name not in _RESERVED]
    customer = ["customer_id", "customer_key", "customer_name"] if by_customer else []
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    # A dimension is named freely, so its name is as unsafe as its values.
    writer.writerow(["from", "to", *subject, *customer, *map(safe_cell, dimensions), "value"])
    ids = {row.customer_id for row in rows if row.customer_id}
    names = call.parts.get(open_customers).find(call.namespace, ids) if ids else {}
    for row in rows:
        customer_cells = _customer_cells(names, row.customer_id) if by_customer else []
        writer.writerow(
            [
                format_instant(row.start),
                format_instant(row.end),
                *(safe_cell(row.subject) for _ in subject),
                *map(safe_cell, customer_cells),
                *(safe_cell(row.dimensions[name]) for name in dimensions),
                plain_text(row.value),
            ]
        )
    return out.getvalue().encode()


def _customer_cells(known: Mapping[str, Customer], customer_id: str | None) -> list[str]:
    found = known.get(customer_id or "")
    return ["", "", ""] if found is None else [found.id, found.key or "", found.name]


def _meter(call: Call) -> Meter:
    meter_id = checked_id(call.path["meterId"], "meterId")
    return MeterReader(call).get_by_id(call.namespace, meter_id)


def _operation(method: str, path: str, operation_id: str, summary: str, **more: Any) -> Operation:
    return Operation(
        method=method,
        path="/api/v3/openmeter/" + path,
        operation_id=operation_id,
        summary=summary,
        tag="Meters",
        wire="v3",
        **{"scope": Scope.READ} | more,
    )


_ONE = "meters/{meterId}"
_ADMIN = {"scope": Scope.ADMIN}
_AGED = {"document": AGE_DOCUMENT}
OPERATIONS: tuple[Operation, ...] = (
    _operation(
        "GET",
        "meters",
        "list-meters",
        "List meters",
        handler=list_meters,
        **_AGED,
        query=MeterListParameters,
        response=MeterPageBody,
    ),
    _operation(
        "POST",
        "meters",
        "create-meter",
        "Create a meter",
        status=201,
        handler=create_meter,
        body=MeterCreateMembers,
        response=MeterBody,
        **_ADMIN,
    ),
    _operation(
        "GET", _ONE, "get-meter", "Get a meter", handler=get_meter, response=MeterBody, **_AGED
    ),
    _operation(
        "PUT",
        _ONE,
        "update-meter",
        "Update a meter",
        handler=update_meter,
        body=MeterUpdateMembers,
        response=MeterBody,
        **_ADMIN,
    ),
    _operation(
        "DELETE",
        _ONE,
        "delete-meter",
        "Delete a meter",
        status=204,
        handler=delete_meter,
        failures=(409,),
        **_ADMIN,
    ),
    _operation(
        "POST",
        f"{_ONE}/query",
        "query-meter",
        "Query a meter",
        handler=query_meter,
        **_AGED,
        body=MeterQueryBody,
        response=MeterQueryResultBody,
        other_media=(CSV,),
    ),
)
