"""The position token on requests that read: read your own writes."""

from tollgate.core.errors import Fault, InvalidInput, TollgateError, Transient
from tollgate.events.ledger import open_frontier
from tollgate.events.position import HEADER, Token, parse_token
from tollgate.platform.api import Call
from tollgate.platform.parts import Parts, open_layouts


def await_position(call: Call) -> None:
    """Waits until what the request's position token names is loaded.

    Raises:
        InvalidInput: no token, or one of another log. Transient: it takes longer than the settings
            allow.
    """
    text = call.headers.get(HEADER.lower())
    if text is None:
        return
    await_token(call, parse_token(text), HEADER)


def await_token(call: Call, token: Token, field: str) -> None:
    """Waits until what a token names is loaded.

    Args:
        call: the request.
        token: the position.
        field: where it stood.

    Raises:
        InvalidInput: it is one of another log. Transient: it takes longer than the settings allow.
    """
    limit, frontier = call.parts.settings.position_wait_ms, call.parts.get(open_frontier)
    if frontier.wait(token, 0):
        return
    heard_of = frontier.known()
    if any((token.generation, partition) not in heard_of for partition in token.offsets):
        _check_token(call.parts, token, field)
    if not frontier.wait(token, limit):
        raise Transient(f"position {token} is not loaded after {limit} ms; ask again")


def _check_token(parts: Parts, token: Token, field: str) -> None:
    """Nobody should wait for what can never be loaded.

    Raises:
        InvalidInput: the log has no such generation or partition.
    """
    layouts = parts.get(open_layouts)
    try:
        generations = layouts.generations()
        known = token.generation in generations
        partitions = layouts.open(token.generation).partitions if known else 0
    except TollgateError:
        return  # the log is away: how far the ledger is can be found out without it
    if not known:
        found = ", ".join(map(str, generations)) or "none"
        raise _fault(field, f"names generation {token.generation}; the event log has {found}")
    if beyond := [partition for partition in token.offsets if partition >= partitions]:
        raise _fault(
            field, f"names partition {beyond[0]}; generation {token.generation} has {partitions}"
        )


def _fault(field: str, message: str) -> InvalidInput:
    return InvalidInput((Fault(field=field, code="unknown_position", message=message),))
