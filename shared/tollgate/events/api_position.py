"""The position token on requests that read: read your own writes."""

from tollgate.core.errors import Transient
from tollgate.events.ledger import open_frontier
from tollgate.events.position import HEADER, parse_token
from tollgate.platform.api import Call


def await_position(call: Call) -> None:
    """Waits until what the request's position token names is loaded.

    Raises:
        InvalidInput: no token. Transient: it takes longer than the settings allow.
    """
    text = call.headers.get(HEADER.lower())
    if text is None:
        return
    limit = call.parts.settings.position_wait_ms
    if not call.parts.get(open_frontier).wait(parse_token(text), limit):
        raise Transient(f"position {text} is not loaded after {limit} ms; ask again")
