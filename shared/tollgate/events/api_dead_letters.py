"""Dead letters over HTTP: list, look at one, send it again, discard it."""

from collections.abc import Callable
from typing import Any

import msgspec

from tollgate.core.errors import Conflict, NotFound
from tollgate.core.times import format_instant
from tollgate.events.api_members import json_reply
from tollgate.events.api_position import await_position
from tollgate.events.api_v1 import namespace_of, read_page, uncounted_members
from tollgate.events.append import append_event
from tollgate.events.dead_letter import (
    Action,
    Ending,
    letter_name,
    parse_letter_name,
    repaired_event,
)
from tollgate.events.inspect import Uncounted, find_uncounted
from tollgate.events.position import HEADER
from tollgate.events.store import DeadLetterStore
from tollgate.events.wire_v1 import (
    DeadLetterBody,
    DeadLetterListParameters,
    DeadLetterPageBody,
    DeadLetterParameters,
    DiscardBody,
    ReplayBody,
)
from tollgate.platform.access import Scope
from tollgate.platform.api import Call, Operation, Reply
from tollgate.platform.database import open_database
from tollgate.platform.parts import Parts, open_clickhouse

_ONE = "dead-letters/{letter}"
_NOTHING = msgspec.Raw(b"null")


class _Replay(msgspec.Struct):
    """The body of a replay, its event untouched: numbers keep their digits."""

    reason: str
    event: msgspec.Raw = _NOTHING


def open_dead_letters(parts: Parts) -> DeadLetterStore:
    """The endings in the control plane."""
    return DeadLetterStore(parts.get(open_database))


def list_dead_letters(call: Call) -> Reply:
    """Events and records that could not be loaded as they were, and how they ended."""
    query: DeadLetterListParameters = call.query
    found, cursor = read_page(call, "dead")
    store = call.parts.get(open_dead_letters)
    endings = store.endings(namespace_of(call), [each.arrival.position for each in found])
    answer: dict[str, Any] = {
        "items": [
            _members(each, endings.get(each.arrival.position))
            for each in found
            if not (query.open_only and each.arrival.position in endings)
        ]
    }
    if cursor:
        answer["nextCursor"] = cursor
    return json_reply(answer)


def get_dead_letter(call: Call) -> Reply:
    """One of them."""
    letter = _find(call)
    return json_reply(_members(letter, _ending_of(call, letter)))


def replay_dead_letter(call: Call) -> Reply:
    """Sends the event again, as it was kept or as the body says, under the same key."""
    given = msgspec.json.decode(call.raw, type=_Replay)
    letter = _find(call)
    if namespace_of(call) != call.namespace:
        raise Conflict(
            "a record that can't be taken apart holds no event that could be sent again: have its "
            "events sent anew by who sent them, then discard it"
        )
    raw = repaired_event(letter, None if bytes(given.event) == b"null" else bytes(given.event))
    ending = _end(
        call,
        letter,
        "replayed",
        given.reason,
        lambda: str(append_event(call.parts, call.namespace, raw)),
    )
    call.answer_headers[HEADER.lower()] = ending.token
    return json_reply(_members(letter, ending))


def discard_dead_letter(call: Call) -> Reply:
    """Says that the event will never count."""
    body: DiscardBody = call.body
    letter = _find(call)
    return json_reply(_members(letter, _end(call, letter, "discarded", body.reason, str)))


def _find(call: Call) -> Uncounted:
    await_position(call)
    position = parse_letter_name(call.path["letter"])
    clickhouse = call.parts.get(open_clickhouse)
    found = find_uncounted(clickhouse, namespace_of(call), "dead", position)
    if found is None:
        raise NotFound(f"there is no dead letter {letter_name(position)}")
    return found


def _ending_of(call: Call, letter: Uncounted) -> Ending | None:
    position = letter.arrival.position
    return call.parts.get(open_dead_letters).endings(namespace_of(call), [position]).get(position)


def _end(
    call: Call, letter: Uncounted, action: Action, reason: str, work: Callable[[], str]
) -> Ending:
    ending = Ending(
        action=action,
        reason=reason,
        actor=call.access.key_id,
        ended_at=call.parts.clock.now(),
    )
    store = call.parts.get(open_dead_letters)
    return store.end(namespace_of(call), letter.arrival.position, ending, work)


def _members(letter: Uncounted, ending: Ending | None) -> dict[str, Any]:
    members = {"letter": letter_name(letter.arrival.position), **uncounted_members(letter)}
    if ending is not None:
        shown = {
            "action": ending.action,
            "reason": ending.reason,
            "actor": ending.actor,
            "endedAt": format_instant(ending.ended_at),
            "position": ending.token,
        }
        members["ending"] = {name: value for name, value in shown.items() if value}
    return members


def _operation(method: str, path: str, operation_id: str, summary: str, **more: Any) -> Operation:
    common: dict[str, Any] = {"scope": Scope.READ, "response": DeadLetterBody}
    return Operation(
        method=method,
        path=f"/api/v1/{path}",
        operation_id=operation_id,
        summary=summary,
        tag="Ledger",
        **common | more,
    )


OPERATIONS: tuple[Operation, ...] = (
    _operation(
        "GET",
        "dead-letters",
        "listDeadLetters",
        "List dead letters",
        handler=list_dead_letters,
        query=DeadLetterListParameters,
        response=DeadLetterPageBody,
    ),
    _operation(
        "GET",
        _ONE,
        "getDeadLetter",
        "Get a dead letter",
        handler=get_dead_letter,
        query=DeadLetterParameters,
        failures=(404,),
    ),
    _operation(
        "POST",
        f"{_ONE}/replay",
        "replayDeadLetter",
        "Replay a dead letter",
        handler=replay_dead_letter,
        query=DeadLetterParameters,
        body=ReplayBody,
        scope=Scope.ADMIN,
        failures=(404, 409),
        description="Sends the event again under its own source and id, as it was kept, or as the "
        "body says. A dead letter claims no key, so the event counts then; sent twice, it counts "
        "once. The answer's Tollgate-Position makes a query wait for it.",
    ),
    _operation(
        "POST",
        f"{_ONE}/discard",
        "discardDeadLetter",
        "Discard a dead letter",
        handler=discard_dead_letter,
        query=DeadLetterParameters,
        body=DiscardBody,
        scope=Scope.ADMIN,
        failures=(404, 409),
        description="Says, with a reason, that the event will never count. What was kept stays.",
    ),
)
