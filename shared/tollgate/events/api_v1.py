"""Ours under /api/v1: an event's history, lists of what did not count, the ledger."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from tollgate.core.errors import Fault, InvalidInput, Transient
from tollgate.core.times import format_instant
from tollgate.events.api_members import (
    correction_members,
    json_reply,
    parse_cursor,
    position_cursor,
    position_members,
)
from tollgate.events.api_position import await_position
from tollgate.events.balance import NO_TALLY, Tally, read_frontiers, read_tallies, total
from tollgate.events.in_flight import read_in_flight
from tollgate.events.inspect import (
    UNATTRIBUTED,
    Arrival,
    Group,
    Listing,
    Outcome,
    Uncounted,
    find_event,
    list_uncounted,
)
from tollgate.events.seal_run import open_recount_store, open_seal_store
from tollgate.events.wire_seals import imbalance_body
from tollgate.events.wire_v1 import (
    EventHistoryBody,
    EventKeyParameters,
    FrontierBody,
    LagBody,
    LedgerBody,
    LedgerHourBody,
    LedgerParameters,
    TallyBody,
    UncountedListParameters,
    UncountedPageBody,
)
from tollgate.platform.access import Scope
from tollgate.platform.api import Call, Operation, Reply
from tollgate.platform.parts import open_clickhouse, open_log

_LEDGER_DEFAULT = timedelta(days=31)
_LEDGER_MAX = timedelta(days=400)
_MILLISECOND = timedelta(milliseconds=1)


def get_event(call: Call) -> Reply:
    """One event by source and id: whether it counts, and all that came under its key."""
    query: EventKeyParameters = call.query
    await_position(call)
    found = find_event(call.parts.get(open_clickhouse), call.namespace, query.source, query.id)
    answer: dict[str, Any] = {"source": query.source, "id": query.id, "state": found.state}
    if found.shown is not None:
        shown, answer["event"] = found.shown.arrival, found.shown.event
    else:
        newest = found.uncounted[_outcome_of(found.state)].newest[0]
        shown = newest.arrival
        if newest.event is not None:
            answer["event"] = newest.event
    answer |= _arrival(shown)
    answer["earlier"] = [position_members(each) for each in found.earlier]
    answer["corrections"] = [correction_members(each) for each in reversed(found.corrections)]
    names: tuple[tuple[str, Outcome], ...] = (
        ("duplicates", "duplicate"),
        ("conflicts", "conflict"),
        ("deadLetters", "dead"),
    )
    for name, outcome in names:
        group = found.uncounted.get(outcome, Group(count=0, newest=()))
        answer[name] = {
            "count": group.count,
            "newest": [uncounted_members(u) for u in group.newest],
        }
    return json_reply(answer)


def _outcome_of(state: str) -> Outcome:
    outcomes: dict[str, Outcome] = {"duplicate": "duplicate", "conflict": "conflict"}
    return outcomes.get(state, "dead")


def list_duplicates(call: Call) -> Reply:
    """Events that came again and had no effect."""
    return _list(call, "duplicate")


def list_conflicts(call: Call) -> Reply:
    """Events that came under a key with other content; the first counts, these are kept."""
    return _list(call, "conflict")


def _list(call: Call, outcome: Outcome) -> Reply:
    found, cursor = read_page(call, outcome)
    answer: dict[str, Any] = {"items": [uncounted_members(each) for each in found]}
    if cursor:
        answer["nextCursor"] = cursor
    return json_reply(answer)


def read_page(call: Call, outcome: Outcome) -> tuple[Sequence[Uncounted], str]:
    """A page of what the query parameters ask for, and the cursor of the next; "" if none is."""
    query: UncountedListParameters = call.query
    await_position(call)
    asked = Listing(
        namespace=namespace_of(call),
        outcome=outcome,
        start=query.start,
        end=query.end,
        after=None if query.cursor is None else parse_cursor(query.cursor),
        limit=query.limit,
    )
    found = list_uncounted(call.parts.get(open_clickhouse), asked)
    more = len(found) > query.limit
    return found[: query.limit], _cursor_of(found[query.limit - 1].arrival) if more else ""


def get_ledger(call: Call) -> LedgerBody:
    """What became of the events of each hour, and how far loading has come."""
    query: LedgerParameters = call.query
    await_position(call)
    now = call.parts.clock.now()
    end = query.end or now
    start = query.start or end - _LEDGER_DEFAULT
    if start >= end or end - start > _LEDGER_MAX:
        message = f"must be after `from`, at most {_LEDGER_MAX.days} days"
        raise InvalidInput((Fault(field="to", code="invalid_period", message=message),))
    begin = start.replace(minute=0, second=0, microsecond=0)
    namespace, log = namespace_of(call), call.parts.get(open_log)
    clickhouse = call.parts.get(open_clickhouse)
    # The frontier first: then the hours hold at least what it promises.
    frontiers = read_frontiers(clickhouse, log)
    in_flight = read_in_flight(log, frontiers, namespace)
    hours = dict(read_tallies(clickhouse, namespace, begin, end))
    for hour in in_flight.hours:
        if begin <= hour < end:
            hours.setdefault(hour, NO_TALLY)
    waiting = [f.oldest_waiting_at for f in frontiers if f.oldest_waiting_at is not None]
    return LedgerBody(
        start=begin,
        end=end,
        hours=[
            LedgerHourBody(hour=h, in_flight=in_flight.hours.get(h, 0), **_tally(tally))
            for h, tally in sorted(hours.items())
        ],
        totals=TallyBody(**_tally(total(list(hours.values())))),
        in_flight=sum(in_flight.hours.values()),
        in_flight_complete=in_flight.complete,
        **_sealing(call, namespace, begin, end),
        frontier=[
            FrontierBody(
                generation=f.generation,
                partition=f.partition,
                loaded_through=f.loaded_through,
                log_end=f.log_end,
                in_flight_records=f.records_in_flight,
            )
            for f in frontiers
        ],
        lag=LagBody(
            records=sum(f.records_in_flight for f in frontiers),
            milliseconds=max(0, (now - min(waiting)) // _MILLISECOND) if waiting else 0,
        ),
    )


def _sealing(call: Call, namespace: str, begin: datetime, end: datetime) -> dict[str, Any]:
    """What SQL knows of the ledger; nothing while it is away: loading goes on without it."""
    parts = call.parts
    try:
        state = parts.get(open_seal_store).state(namespace)
        off = parts.get(open_recount_store).imbalances(namespace)
    except Transient:
        return {}
    found: dict[str, Any] = {
        "imbalances": [imbalance_body(each, state) for each in off if begin <= each.hour < end]
    }
    if state.sealed_at is not None:
        found["sealed_through"] = state.sealed_through
    return found


def _tally(tally: Tally) -> dict[str, Any]:
    return {
        "accepted": tally.accepted,
        "stored": tally.stored,
        "duplicate": tally.duplicate,
        "conflict": tally.conflict,
        "dead": tally.dead,
        "corrections": tally.corrections,
        "balanced": tally.balanced,
    }


def namespace_of(call: Call) -> str:
    """The caller's, or nobody's: for operators who ask for what is unattributed."""
    if not call.query.unattributed:
        return call.namespace
    call.access.require(Scope.OPERATOR)
    return UNATTRIBUTED


def uncounted_members(item: Uncounted) -> dict[str, Any]:
    """An item as the wire has it."""
    members: dict[str, Any] = {
        "outcome": item.outcome,
        "source": item.source,
        "id": item.id,
        "code": item.code,
        "detail": item.detail,
        "event": item.event,
        "record": item.record,
        "firstPosition": None if item.first is None else position_members(item.first),
    }
    return {k: v for k, v in members.items() if v not in (None, "")} | _arrival(item.arrival)


def _arrival(arrival: Arrival) -> dict[str, Any]:
    return {
        "position": position_members(arrival.position),
        "receivedAt": format_instant(arrival.received_at),
        "appendedAt": format_instant(arrival.appended_at),
        "storedAt": format_instant(arrival.stored_at),
    }


def _cursor_of(last: Arrival) -> str:
    return position_cursor(last.appended_at, last.position)


def _operation(
    path: str, operation_id: str, summary: str, handler: Callable[[Call], object], **more: Any
) -> Operation:
    return Operation(
        method="GET",
        path=f"/api/v1/{path}",
        operation_id=operation_id,
        summary=summary,
        tag="Ledger",
        scope=Scope.READ,
        handler=handler,
        **more,
    )


_LIST: dict[str, Any] = {"query": UncountedListParameters, "response": UncountedPageBody}
OPERATIONS: tuple[Operation, ...] = (
    _operation(
        "events/lookup",
        "getEventBySourceAndId",
        "Get an event by source and id",
        get_event,
        query=EventKeyParameters,
        response=EventHistoryBody,
        failures=(404,),
        description="Says whether it counts, and what else came under the same key. An event that "
        "was just sent may still be on its way: with the Tollgate-Position header of the answer to "
        "it, the question waits until it is loaded.",
    ),
    _operation("duplicates", "listDuplicates", "List duplicates", list_duplicates, **_LIST),
    _operation("conflicts", "listConflicts", "List conflicts", list_conflicts, **_LIST),
    _operation(
        "ledger",
        "getLedger",
        "Get the ledger",
        get_ledger,
        query=LedgerParameters,
        response=LedgerBody,
        description="What became of every accepted event, by the hour of its receipt, how far each "
        "partition of the log is loaded, and what did not balance when it was counted again.",
    ),
)
