"""Use case: an operation goes through its events, as far as one request may."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec

from tollgate.core.errors import Transient
from tollgate.events.append import append_lines, arrival_of
from tollgate.events.correction import (
    Place,
    Request,
    Version,
    encode_correction,
    encode_key,
    place_from_text,
    place_text,
)
from tollgate.events.correction_operation import (
    DONE_STATE,
    NEXT_STEP,
    Operation,
    Step,
)
from tollgate.events.correction_operation_store import OperationStore
from tollgate.events.correction_request import content_of
from tollgate.events.event import Arrival, column_time
from tollgate.events.facts import POSITION, counting, within
from tollgate.events.identity import key_hash
from tollgate.events.ledger import open_frontier
from tollgate.events.position import joined
from tollgate.events.record import CORRECTIONS_VERSION, Encoded
from tollgate.events.selection import OF_BACKFILL
from tollgate.platform.clickhouse import DATABASE, ClickHouse
from tollgate.platform.parts import Parts, open_clickhouse

_STEPS_MAX: Final = 10
_KEYS_MAX: Final = 2000
_EVENTS_MAX: Final = 500
"""Whole events at once: each may be as large as an event may."""
_SUPERSEDED: Final = (
    "superseded_generation, superseded_partition, superseded_offset, superseded_index"
)
_KEY_COLUMNS: Final = f"{POSITION}, source, id, type, subject, toUnixTimestamp64Micro(time)"
_EVENT_COLUMNS: Final = (
    f"{_KEY_COLUMNS}, time_given, toUnixTimestamp64Micro(received_at), datacontenttype, dataschema,"
    " extensions, data, data_exact"
)
_encode = msgspec.json.Encoder().encode


def condition(operation: Operation, step: Step) -> str:
    """SQL: a row of `events` is one that a step goes through, as of the operation's vector.

    Binds `parameters`.
    """
    vector = operation.vector
    table = (
        f"{DATABASE}.event_corrections"
        " WHERE namespace = {namespace:String} AND operation = {operation:String}"
    )
    counts = f"{within(vector)} AND {counting('{namespace:String}', vector=vector)}"
    applied = f"effect = 'applied' AND {within(vector, 'applied')}"
    near = (
        "(type, subject, time) IN"
        f" (SELECT superseded_type, superseded_subject, superseded_time FROM {table})"
    )
    match step:
        case "void":
            others = f" AND {OF_BACKFILL} != {{operation:String}}"
            others = others if operation.kind == "backfill" else ""
            chosen = operation.selection.sql()
            return f"namespace = {{namespace:String}} AND {chosen} AND {counts}{others}"
        case "release":
            text = ", '-', ".join(f"toString({name})" for name in POSITION.split(", "))
            given_back = f"SELECT target FROM {table} AND action = 'amend' AND {applied}"
            mine = (
                f"({POSITION}) IN (SELECT {_SUPERSEDED} FROM {table} AND action = 'hold'"
                f" AND {applied}) AND concat({text}) NOT IN ({given_back})"
            )
        case "withdraw":
            released = f"SELECT {POSITION} FROM {table} AND action = 'amend' AND {applied}"
            mine = f"({POSITION}) IN ({released}) AND {counts}"
        case _:
            voided = f"SELECT {_SUPERSEDED} FROM {table} AND action = 'void' AND {applied}"
            mine = f"({POSITION}) IN ({voided})"
    return f"namespace = {{namespace:String}} AND {near} AND {mine}"


def parameters(operation: Operation) -> dict[str, object]:
    """What `condition` binds."""
    names: dict[str, object] = {"namespace": operation.namespace, "operation": operation.name}
    return names | operation.selection.parameters()


def count_events(clickhouse: ClickHouse, operation: Operation, step: Step) -> int:
    """How many events a step goes through.

    Raises:
        Transient: ClickHouse is away.
    """
    ((count,),) = clickhouse.query(
        f"SELECT uniqExact({POSITION}) FROM {DATABASE}.events WHERE {condition(operation, step)}",
        parameters(operation),
    )
    return int(count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What an operation has done so far, as it is loaded.

    Attributes:
        held: events that were sent for it.
        voided: events that it took away.
        given_back: events that it made count: sent for it, or taken away before.
    """

    held: int
    voided: int
    given_back: int


def tally(clickhouse: ClickHouse, operation: Operation) -> Tally:
    """What it has done so far.

    Raises:
        Transient: ClickHouse is away.
    """
    place = f"tuple({POSITION})"
    ((held, voided, given_back),) = clickhouse.query(
        f"SELECT uniqExactIf({place}, action = 'hold'), uniqExactIf({place}, action = 'void'),"
        f" uniqExactIf({place}, action = 'amend') FROM {DATABASE}.event_corrections"
        " WHERE namespace = {namespace:String} AND operation = {operation:String}"
        " AND effect = 'applied'",
        {"namespace": operation.namespace, "operation": operation.name},
    )
    return Tally(held=int(held), voided=int(voided), given_back=int(given_back))


def proceed(parts: Parts, store: OperationStore, operation: Operation) -> Operation:
    """Goes on where the operation stands, a bounded way. Cut off anywhere, it may run again.

    Raises:
        Transient: a store is away.
    """
    clickhouse = parts.get(open_clickhouse)
    for _ in range(_STEPS_MAX):
        if not operation.step:
            break
        whole = operation.step in ("release", "restore")
        most = _EVENTS_MAX if whole else _KEYS_MAX
        rows = _read(clickhouse, operation, most, whole=whole)
        if rows:
            arrival = arrival_of(parts, operation.namespace)
            lines = [_line(operation, row, arrival, whole=whole) for row in rows]
            token = append_lines(parts, arrival, lines, CORRECTIONS_VERSION)
            cursor, step = place_text(_place(rows[-1])), operation.step
            operation = store.move(
                operation,
                cursor=cursor,
                done=operation.done + len(rows),
                written=joined(operation.written, token),
            )
            if (operation.step, operation.cursor) != (step, cursor):
                continue  # Another request went on meanwhile.
        if len(rows) < most:
            operation = _next_step(store, operation, parts.clock.now())
    return operation


def _next_step(store: OperationStore, operation: Operation, now: datetime) -> Operation:
    step = NEXT_STEP.get(operation.step, "")
    if step:
        return store.move(operation, step=step, cursor="")
    ended = "closed_at" if operation.state == "closing" else "reverted_at"
    state = DONE_STATE[operation.state]
    return store.move(operation, step="", cursor="", state=state, **{ended: now})


def _read(
    clickhouse: ClickHouse, operation: Operation, most: int, *, whole: bool
) -> Sequence[Sequence[Any]]:
    after = ""
    if operation.cursor:
        after = f" AND ({POSITION}) > {place_from_text(operation.cursor)}"
    return clickhouse.query(
        f"SELECT {_EVENT_COLUMNS if whole else _KEY_COLUMNS} FROM {DATABASE}.events"
        f" WHERE {condition(operation, operation.step)}{after}"
        f" ORDER BY {POSITION} LIMIT 1 BY {POSITION} LIMIT {most}",
        parameters(operation),
    )


def _place(row: Sequence[Any]) -> Place:
    return row[0], row[1], row[2], row[3]


def _line(operation: Operation, row: Sequence[Any], arrival: Arrival, *, whole: bool) -> Encoded:
    place = _place(row)
    source, event_id, kind, subject, time_us = row[4:9]
    hashed = key_hash(arrival.prefix, source, event_id)
    target = place_text(place)
    taken_back = operation.state == "reverting"
    request = Request(
        correction=f"{operation.name}:{operation.step}:{target}",
        operation=operation.name,
        action="amend" if whole else "void",
        reason=operation.revert_reason if taken_back else operation.reason,
        actor=operation.revert_actor if taken_back else operation.actor,
        content=content_of([operation.name, operation.step, target]),
        target=target,
    )
    if not whole:
        version = Version(place=place, type=kind, subject=subject, time=column_time(time_us))
        key = (operation.namespace, source, event_id)
        return encode_correction(request, encode_key(key, arrival.received_text, hashed, version))
    time_given, received_us, *content = row[9:]
    # With its own time of receipt: what is given back counts as it did, also for LATEST.
    head = (operation.namespace, source, event_id, column_time(time_us), time_given)
    members = (*head, column_time(received_us), hashed.hex(), kind, subject, *content)
    return encode_correction(request, Encoded(hashed, _encode(members)[1:] + b"\n"))


def await_written(parts: Parts, operation: Operation) -> None:
    """Waits until all that an operation wrote is loaded: what comes next is about it.

    Raises:
        Transient: it takes longer than the settings allow.
    """
    if operation.written.offsets and not parts.get(open_frontier).wait(
        operation.written, parts.settings.position_wait_ms
    ):
        raise Transient(f"what {operation.name} has written is not loaded yet; ask again")
