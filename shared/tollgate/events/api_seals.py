"""Seals over HTTP: list them, and seal by force."""

import base64
import re
from datetime import datetime
from typing import Any

from tollgate.core.clock import datetime_from_us, us_from_datetime
from tollgate.core.errors import Fault, InvalidInput
from tollgate.events.seal import Seal
from tollgate.events.seal_run import open_seal_store, open_sealer
from tollgate.events.wire_seals import (
    ForcedSealBody,
    SealListParameters,
    SealPageBody,
    SealRequestBody,
    seal_body,
)
from tollgate.platform.access import Scope
from tollgate.platform.api import Call, Operation

_CURSOR = re.compile(r"(-?\d{1,16})\.(\d{1,18})", re.ASCII)


def list_seals(call: Call) -> SealPageBody:
    """The namespace's seals."""
    query: SealListParameters = call.query
    store = call.parts.get(open_seal_store)
    found = store.list(
        call.namespace,
        start=query.start,
        end=query.end,
        revised=query.revisions,
        after=None if query.cursor is None else parse_hour_cursor(query.cursor),
        limit=query.limit + 1,
    )
    shown, state = found[: query.limit], store.state(call.namespace)
    page = SealPageBody(items=[seal_body(each) for each in shown])
    if state.sealed_at is not None:
        page.sealed_through = state.sealed_through
    if len(found) > query.limit:
        page.next_cursor = hour_cursor(shown[-1].start, shown[-1].revision)
    return page


def force_seal(call: Call) -> ForcedSealBody:
    """Seals hours whatever speaks against it."""
    body: SealRequestBody = call.body
    sealer = call.parts.get(open_sealer)
    found: tuple[Seal, ...] = sealer.force(
        call.namespace, body.through, body.reason, call.access.key_id
    )
    return ForcedSealBody(items=[seal_body(each) for each in found])


def hour_cursor(hour: datetime, revision: int) -> str:
    """A cursor after a revision of an hour."""
    text = f"{us_from_datetime(hour)}.{revision}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def parse_hour_cursor(cursor: str) -> tuple[datetime, int]:
    """The hour and revision that a page ended with.

    Raises:
        InvalidInput: no cursor of ours.
    """
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        text = base64.b64decode(padded.encode(), altchars=b"-_", validate=True).decode()
        match = _CURSOR.fullmatch(text)
        if match is not None:
            return datetime_from_us(int(match[1])), int(match[2])
    except (ValueError, OverflowError):
        pass
    message = "is no cursor of this list; send back what `nextCursor` said"
    raise InvalidInput((Fault(field="cursor", code="invalid_cursor", message=message),))


def _operation(method: str, operation_id: str, summary: str, **more: Any) -> Operation:
    return Operation(
        method=method,
        path="/api/v1/seals",
        operation_id=operation_id,
        summary=summary,
        tag="Ledger",
        **more,
    )


OPERATIONS: tuple[Operation, ...] = (
    _operation(
        "GET",
        "listSeals",
        "List seals",
        handler=list_seals,
        query=SealListParameters,
        response=SealPageBody,
        scope=Scope.READ,
        description="An hour of event time is sealed once it and the allowed lateness are over, "
        "all is loaded that the log held then, and the ledger balances. Its figures are then what "
        "a query says with `asOf` set to the seal's position, for ever. What comes later makes a "
        "further revision; `/api/v1/usage/adjustments` says what it changed.",
    ),
    _operation(
        "POST",
        "forceSeal",
        "Seal hours by force",
        handler=force_seal,
        body=SealRequestBody,
        response=ForcedSealBody,
        scope=Scope.ADMIN,
        failures=(409,),
        description="Seals all hours up to an instant although events are not loaded, or the "
        "ledger does not balance, and records who wanted it, why, and what spoke against it. What "
        "does not balance by then keeps later hours from being sealed no longer.",
    ),
)
