"""Corrections of events over HTTP: void, amend, list."""

from typing import Any

import msgspec

from tollgate.core.errors import Fault, InvalidInput
from tollgate.events.api_members import (
    correction_members,
    json_reply,
    parse_cursor,
    position_cursor,
)
from tollgate.events.api_position import await_position
from tollgate.events.correction import Action
from tollgate.events.correction_list import (
    CorrectionListing,
    list_corrections,
)
from tollgate.events.correction_request import Item, correct
from tollgate.events.position import HEADER
from tollgate.events.wire_corrections import (
    CorrectionListParameters,
    CorrectionPageBody,
    CorrectionsBody,
    TakenCorrection,
    TakenCorrections,
)
from tollgate.events.wire_v1 import PositionBody
from tollgate.platform.access import Scope
from tollgate.platform.api import Call, Operation, Reply
from tollgate.platform.parts import open_clickhouse

_NOTHING = msgspec.Raw(b"null")


class _Item(msgspec.Struct):
    """An item, its event untouched: numbers keep their digits."""

    action: Action
    source: str
    id: str
    reason: str
    correction: str | None = None
    event: msgspec.Raw = _NOTHING


class _Items(msgspec.Struct):
    corrections: list[_Item]


def correct_events(call: Call) -> TakenCorrections:
    """Takes corrections; they are on disk when this is answered."""
    items = _items(call)
    await_position(call)
    taken = correct(call.parts, call.namespace, call.access.key_id, items)
    call.answer_headers[HEADER.lower()] = str(taken.token)
    return TakenCorrections(
        corrections=[
            TakenCorrection(
                correction=each.line.correction,
                action="amend" if each.line.action == "amend" else "void",
                source=each.line.source,
                id=each.line.id,
                expected=each.effect,
                replaces=_replaced(each.superseded.place) if each.superseded else None,
            )
            for each in taken.applied
        ]
    )


def _replaced(place: tuple[int, int, int, int]) -> PositionBody | None:
    # What an earlier item of the same request makes count has no place in the log yet.
    generation, partition, offset, index = place
    if generation >= 1 << 31:
        return None
    return PositionBody(generation=generation, partition=partition, offset=offset, index=index)


def _items(call: Call) -> list[Item]:
    read = msgspec.json.decode(call.raw, type=_Items).corrections
    faults = []
    for index, each in enumerate(read):
        given = bytes(each.event) != b"null"
        if given == (each.action == "amend"):
            continue
        message = "is for amend only" if given else "is what counts from now on"
        code = "unexpected" if given else "required"
        faults.append(Fault(field=f"corrections.{index}.event", code=code, message=message))
    if faults:
        raise InvalidInput(tuple(faults))
    return [
        Item(
            action=each.action,
            source=each.source,
            id=each.id,
            reason=each.reason,
            correction=each.correction or "",
            event=bytes(each.event),
        )
        for each in read
    ]


def get_corrections(call: Call) -> Reply:
    """A page of corrections."""
    query: CorrectionListParameters = call.query
    if (query.source is None) != (query.id is None):
        missing = "source" if query.source is None else "id"
        fault = Fault(field=missing, code="required", message="goes together with the other")
        raise InvalidInput((fault,))
    await_position(call)
    key = None if query.source is None or query.id is None else (query.source, query.id)
    found = list_corrections(
        call.parts.get(open_clickhouse),
        CorrectionListing(
            namespace=call.namespace,
            start=query.start,
            end=query.end,
            key=key,
            operation=query.operation,
            after=None if query.cursor is None else parse_cursor(query.cursor),
            limit=query.limit,
        ),
    )
    answer: dict[str, Any] = {"items": [correction_members(e) for e in found[: query.limit]]}
    if len(found) > query.limit:
        last = found[query.limit - 1]
        answer["nextCursor"] = position_cursor(last.appended_at, last.position)
    return json_reply(answer)


OPERATIONS: tuple[Operation, ...] = (
    Operation(
        method="POST",
        path="/api/v1/corrections",
        operation_id="correctEvents",
        summary="Void or amend events",
        tag="Corrections",
        scope=Scope.ADMIN,
        handler=correct_events,
        body=CorrectionsBody,
        response=TakenCorrections,
        status=202,
        failures=(409,),
        description="Facts that are added: what was sent stays, and what was known before can be "
        "asked for with `asOf`. All are taken, or none, and every fault is listed. A void of an "
        "event that is not known yet waits for it; an amendment needs its event: with the "
        "Tollgate-Position of the answer to it, this request waits until it is loaded.",
    ),
    Operation(
        method="GET",
        path="/api/v1/corrections",
        operation_id="listCorrections",
        summary="List corrections",
        tag="Corrections",
        scope=Scope.READ,
        handler=get_corrections,
        query=CorrectionListParameters,
        response=CorrectionPageBody,
    ),
)
