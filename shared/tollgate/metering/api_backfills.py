"""Corrections in bulk and backfills over HTTP."""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec

from tollgate.core.clock import datetime_from_us, us_from_datetime
from tollgate.core.decimals import plain_text
from tollgate.core.errors import Conflict, Fault, InvalidInput
from tollgate.core.times import format_instant
from tollgate.events.api_members import json_reply
from tollgate.events.api_position import await_position
from tollgate.events.as_of import vector_now
from tollgate.events.correction_operation import Kind, Operation, Step
from tollgate.events.correction_operation_store import open_operation_store
from tollgate.events.correction_work import await_written, count_events, proceed, tally
from tollgate.events.position import HEADER
from tollgate.events.selection import Selection
from tollgate.metering.correction_effect import OperationEffect, effect_of
from tollgate.metering.meter_reader import open_meters
from tollgate.metering.query import QueryBounds
from tollgate.metering.wire_backfills import (
    BackfillBody,
    BulkVoidBody,
    CloseBody,
    OperationBody,
    OperationListParameters,
    OperationPageBody,
    RevertBody,
    SelectionBody,
)
from tollgate.platform.access import Scope
from tollgate.platform.api import Call, Reply
from tollgate.platform.api import Operation as ApiOperation
from tollgate.platform.parts import open_clickhouse

_ONE = "backfills/{name}"


def void_in_bulk(call: Call) -> Reply:
    """Voids all events of a filter, or says what that would do."""
    body: BulkVoidBody = call.body
    wanted = _wanted(call, "void", body)
    if body.dry_run:
        return _planned(call, wanted)
    if body.confirm is None:
        raise _unconfirmed()
    return _closed(call, open_operation_store(call.parts).create(wanted), body.confirm)


def open_backfill(call: Call) -> Reply:
    """Begins a backfill: from now on events can be sent for it."""
    wanted = _wanted(call, "backfill", call.body)
    return _answer(call, open_operation_store(call.parts).create(wanted))


def close_backfill(call: Call) -> Reply:
    """Makes a backfill count, or says what that would do."""
    body: CloseBody = call.body
    found = _find(call)
    if body.dry_run:
        return _planned(call, found)
    return _closed(call, found, body.confirm)


def revert_operation(call: Call) -> Reply:
    """Takes back all that an operation did."""
    body: RevertBody = call.body
    store, found = open_operation_store(call.parts), _find(call)
    await_position(call)
    if found.state == "closing":
        raise Conflict(f"{found.name} is being closed: close it to the end, then revert it")
    clickhouse = call.parts.get(open_clickhouse)
    if found.state in ("open", "closed"):
        await_written(call.parts, found)
        begun = replace(found, vector=vector_now(clickhouse))
        total = sum(count_events(clickhouse, begun, step) for step in ("withdraw", "restore"))
        found = store.move(
            found,
            state="reverting",
            vector=begun.vector,
            step="withdraw",
            total=total,
            done=0,
            revert_reason=body.reason,
            revert_actor=call.access.key_id,
        )
    return _answer(call, proceed(call.parts, store, found))


def get_backfill(call: Call) -> Reply:
    """One backfill or correction in bulk."""
    await_position(call)
    return _answer(call, _find(call))


def list_backfills(call: Call) -> Reply:
    """A page of backfills and corrections in bulk."""
    query: OperationListParameters = call.query
    await_position(call)
    after = None if query.cursor is None else _parse_cursor(query.cursor)
    store = open_operation_store(call.parts)
    found = store.list(call.namespace, after, query.limit + 1)
    answer: dict[str, Any] = {"items": [_members(call, each) for each in found[: query.limit]]}
    if len(found) > query.limit:
        last = found[query.limit - 1]
        answer["nextCursor"] = _cursor(last.created_at, last.name)
    return json_reply(answer)


def _find(call: Call) -> Operation:
    return open_operation_store(call.parts).get(call.namespace, call.path["name"])


def _wanted(call: Call, kind: Kind, body: BulkVoidBody | BackfillBody) -> Operation:
    selection = _selection(body.filter)
    faults = []
    for name, low, high in (
        ("to", selection.start, selection.end),
        ("receivedTo", selection.received_start, selection.received_end),
    ):
        if low is not None and high is not None and low >= high:
            message = "must be later than the start of the period; it is not part of the period"
            faults.append(Fault(field=f"filter.{name}", code="empty_period", message=message))
    if selection.is_everything:
        message = "must name something: types, subjects, a source, a period or a backfill"
        faults.append(Fault(field="filter", code="empty_filter", message=message))
    if faults:
        raise InvalidInput(tuple(faults))
    return Operation(
        namespace=call.namespace,
        name=body.name,
        kind=kind,
        reason=body.reason,
        actor=call.access.key_id,
        selection=selection,
        created_at=call.parts.clock.now(),
    )


def _selection(body: SelectionBody) -> Selection:
    return Selection(
        types=tuple(sorted(set(body.types or ()))),
        subjects=tuple(sorted(set(body.subjects or ()))),
        source=body.source,
        start=body.start,
        end=body.end,
        received_start=body.received_start,
        received_end=body.received_end,
        backfill=body.backfill,
    )


def _planned(call: Call, operation: Operation) -> Reply:
    await_position(call)
    clickhouse, settings = call.parts.get(open_clickhouse), call.parts.settings
    await_written(call.parts, operation)
    planned = replace(operation, vector=vector_now(clickhouse))
    bounds = QueryBounds(rows_max=settings.query_rows_max, seconds_max=settings.query_seconds_max)
    effect = effect_of(clickhouse, call.parts.get(open_meters), planned, bounds)
    members = _members(call, operation) | {"state": "planned", "effect": _effect(effect)}
    del members["createdAt"]
    return json_reply(members)


def _closed(call: Call, found: Operation, confirm: int | None) -> Reply:
    """Begins to close, or goes on; events that were sent after a close are taken in by the next."""
    store, clickhouse = open_operation_store(call.parts), call.parts.get(open_clickhouse)
    await_position(call)
    if found.state in ("reverting", "reverted"):
        raise Conflict(f"{found.name} is {found.state}: it can't be closed any more")
    if found.state in ("open", "closed"):
        await_written(call.parts, found)
        begun = replace(found, vector=vector_now(clickhouse))
        first: Step = "void" if found.state == "open" else "release"
        steps: tuple[Step, ...] = ("void", "release") if first == "void" else (first,)
        total = sum(count_events(clickhouse, begun, step) for step in steps)
        if found.state == "closed" and not total:
            return _answer(call, found)
        if confirm is None:
            raise _unconfirmed()
        if confirm != total:
            raise Conflict(
                f"{total} events would change, not {confirm}: nothing was done. Look again with"
                " dryRun, and confirm what it says"
            )
        found = store.move(
            found, state="closing", vector=begun.vector, step=first, total=total, done=0
        )
    return _answer(call, proceed(call.parts, store, found))


def _unconfirmed() -> InvalidInput:
    message = "must be `effect.events` of a dry run: say how many events you expect"
    return InvalidInput((Fault(field="confirm", code="required", message=message),))


def _answer(call: Call, operation: Operation) -> Reply:
    if operation.written.offsets:
        call.answer_headers[HEADER.lower()] = str(operation.written)
    return json_reply(_members(call, operation))


def _members(call: Call, operation: Operation) -> dict[str, Any]:
    done = tally(call.parts.get(open_clickhouse), operation)
    names = {"start": "from", "end": "to", "received_start": "receivedFrom"}
    names |= {"received_end": "receivedTo"}
    members: dict[str, Any] = {
        "name": operation.name,
        "kind": operation.kind,
        "state": operation.state,
        "reason": operation.reason,
        "filter": {names.get(n, n): value for n, value in operation.selection.members().items()},
        "total": operation.total,
        "done": operation.done,
        "held": done.held,
        "voided": done.voided,
        "givenBack": done.given_back,
        "createdAt": format_instant(operation.created_at),
    }
    optional = {
        "actor": operation.actor,
        "closedAt": operation.closed_at and format_instant(operation.closed_at),
        "revertedAt": operation.reverted_at and format_instant(operation.reverted_at),
        "revertReason": operation.revert_reason,
        "revertActor": operation.revert_actor,
    }
    return members | {name: value for name, value in optional.items() if value}


def _effect(effect: OperationEffect) -> dict[str, Any]:
    return {
        "events": effect.events,
        "voided": effect.voided,
        "released": effect.released,
        "meters": [
            {
                "slug": each.meter.slug,
                "aggregation": each.meter.aggregation.value,
                "before": _number(each.before),
                "after": _number(each.after),
            }
            for each in effect.meters
        ],
        "metersLeftOut": effect.meters_left_out,
        "sample": [
            {
                "source": each.source,
                "id": each.id,
                "type": each.type,
                "subject": each.subject,
                "time": format_instant(each.time),
            }
            for each in effect.sample
        ],
    }


def _number(value: Decimal | None) -> msgspec.Raw:
    return msgspec.Raw(b"null" if value is None else plain_text(value).encode())


def _cursor(created_at: datetime, name: str) -> str:
    text = f"{us_from_datetime(created_at)}.{name}"
    return urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _parse_cursor(cursor: str) -> tuple[datetime, str]:
    try:
        text = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        created, _, name = text.partition(".")
        return datetime_from_us(int(created)), name
    except (ValueError, OverflowError, binascii.Error):
        message = "is no cursor of this list; send back what `nextCursor` said"
        fault = Fault(field="cursor", code="invalid_cursor", message=message)
        raise InvalidInput((fault,)) from None


def _operation(
    method: str, path: str, operation_id: str, summary: str, **more: Any
) -> ApiOperation:
    common: dict[str, Any] = {"scope": Scope.ADMIN, "response": OperationBody}
    return ApiOperation(
        method=method,
        path=f"/api/v1/{path}",
        operation_id=operation_id,
        summary=summary,
        tag="Corrections",
        **common | more,
    )


OPERATIONS: tuple[ApiOperation, ...] = (
    _operation(
        "POST",
        "corrections/bulk",
        "voidEventsInBulk",
        "Void events in bulk",
        handler=void_in_bulk,
        body=BulkVoidBody,
        failures=(409,),
        description="With `dryRun` it says what it would do, meter by meter. For real it needs "
        "`confirm`, and goes through a bounded number of events in each request: repeat it until "
        "`state` is `closed`. Cut off anywhere, it may be repeated; it is undone by "
        "`/api/v1/backfills/{name}/revert`.",
    ),
    _operation(
        "POST",
        "backfills",
        "openBackfill",
        "Open a backfill",
        handler=open_backfill,
        body=BackfillBody,
        status=201,
        failures=(409,),
        description="Events that are sent with the CloudEvents extension `tollgatebackfill`, its "
        "value the name, are kept and do not count before the backfill is closed. They need ids "
        "of their own: an id that was sent before is a duplicate here too.",
    ),
    _operation(
        "GET",
        "backfills",
        "listBackfills",
        "List backfills and corrections in bulk",
        handler=list_backfills,
        query=OperationListParameters,
        response=OperationPageBody,
        scope=Scope.READ,
    ),
    _operation(
        "GET",
        _ONE,
        "getBackfill",
        "Get a backfill or a correction in bulk",
        handler=get_backfill,
        scope=Scope.READ,
        failures=(404,),
    ),
    _operation(
        "POST",
        f"{_ONE}/close",
        "closeBackfill",
        "Close a backfill",
        handler=close_backfill,
        body=CloseBody,
        failures=(404, 409),
        description="The events of its filter stop counting, those that were sent for it begin to. "
        "Repeat it until `state` is `closed`. Events that are sent for it later count once it is "
        "closed again.",
    ),
    _operation(
        "POST",
        f"{_ONE}/revert",
        "revertBackfill",
        "Revert a backfill or a correction in bulk",
        handler=revert_operation,
        body=RevertBody,
        failures=(404, 409),
        description="What it took away counts again, unless it was corrected since, and what was "
        "sent for it does not. Repeat it until `state` is `reverted`.",
    ),
)
