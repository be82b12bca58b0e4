"""What several answers of ours have in common: places, cursors, corrections."""

import base64
import re
from datetime import datetime
from typing import Any

import msgspec

from tollgate.core.clock import us_from_datetime
from tollgate.core.errors import Fault, InvalidInput
from tollgate.core.times import format_instant
from tollgate.events.correction_list import ListedCorrection
from tollgate.events.position import Position
from tollgate.platform.api import Reply

_CURSOR = re.compile(r"(\d{1,16})\.(\d{1,9})\.(\d{1,5})\.(\d{1,18})\.(\d{1,9})", re.ASCII)


def position_members(position: Position) -> dict[str, int]:
    """A place in the log as the wire has it."""
    return {
        "generation": position.generation,
        "partition": position.partition,
        "offset": position.offset,
        "index": position.index,
    }


def position_cursor(appended_at: datetime, place: Position) -> str:
    """The cursor after what was appended at a time and place."""
    text = (
        f"{us_from_datetime(appended_at)}.{place.generation}.{place.partition}"
        f".{place.offset}.{place.index}"
    )
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def parse_cursor(cursor: str) -> tuple[int, Position]:
    """Append time and place that `position_cursor` made a cursor of.

    Raises:
        InvalidInput: it is none.
    """
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        text = base64.b64decode(padded.encode(), altchars=b"-_", validate=True).decode()
    except ValueError:
        text = ""
    match = _CURSOR.fullmatch(text)
    if match is None:
        message = "is no cursor of this list; send back what `nextCursor` said"
        raise InvalidInput((Fault(field="cursor", code="invalid_cursor", message=message),))
    appended, generation, partition, offset, index = map(int, match.groups())
    place = Position(generation=generation, partition=partition, offset=offset, index=index)
    return appended, place


def correction_members(each: ListedCorrection) -> dict[str, Any]:
    """A correction as the wire has it."""
    members: dict[str, Any] = {
        "correction": each.correction,
        "action": each.action,
        "effect": each.effect,
        "source": each.source,
        "id": each.id,
        "reason": each.reason,
        "position": position_members(each.position),
        "receivedAt": format_instant(each.received_at),
        "appendedAt": format_instant(each.appended_at),
    }
    optional: dict[str, Position | str | None] = {
        "operation": each.operation,
        "actor": each.actor,
        "replaced": each.superseded,
        "since": each.since if each.since != each.position else None,
    }
    for name, value in optional.items():
        if value:
            members[name] = position_members(value) if isinstance(value, Position) else value
    return members


def json_reply(answer: dict[str, Any]) -> Reply:
    """An answer that may hold members of events as they were sent."""
    # msgspec passes an event's raw members through: no number is read on the way.
    return Reply(body=msgspec.json.encode(answer))
