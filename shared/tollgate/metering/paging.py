"""Pages of an answer: an opaque cursor names the last row of one.

Rows are ordered by window and groups, which no two rows share. So what comes in meanwhile changes
values and may add rows, but moves none to another side of a cursor.
"""

import hashlib
from base64 import urlsafe_b64decode, urlsafe_b64encode

import msgspec

from tollgate.core.errors import Fault, InvalidInput
from tollgate.metering.question import MeterQuery, RowKey

_CHECK_LENGTH = 8


class _Content(msgspec.Struct, frozen=True, array_like=True):
    question: str
    start: int
    groups: tuple[str, ...]


def encode_cursor(meter_id: str, asked: MeterQuery, after: RowKey) -> str:
    """The cursor of a row, good for the same question only."""
    content = _Content(_digest(meter_id, asked), after.start_us, after.groups)
    return urlsafe_b64encode(msgspec.json.encode(content)).rstrip(b"=").decode()


def decode_cursor(meter_id: str, asked: MeterQuery, cursor: str) -> RowKey:
    """The row that a page goes on after.

    Raises:
        InvalidInput: it is no cursor, or one of another question.
    """
    try:
        text = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        content = msgspec.json.decode(text, type=_Content)
    except ValueError:
        raise _refusal("is no cursor; send `nextCursor` of the page before") from None
    if content.question != _digest(meter_id, asked):
        raise _refusal("is of another question; send all else as it was for the page before")
    return RowKey(content.start, content.groups)


def _refusal(message: str) -> InvalidInput:
    return InvalidInput((Fault(field="cursor", code="invalid_cursor", message=message),))


def _digest(meter_id: str, asked: MeterQuery) -> str:
    content = (
        *(meter_id, asked.start, asked.end, asked.window, asked.time_zone, asked.subjects),
        *(asked.group_by, sorted(asked.filters.items()), asked.subject_filter),
        *(asked.customers, str(asked.as_of)),
        asked.fill,
    )
    return hashlib.sha256(repr(content).encode()).hexdigest()[:_CHECK_LENGTH]
