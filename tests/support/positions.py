"""Positions of several requests in one: each request's events stand in its own partitions."""

from tollgate.events.position import Token, parse_token


def joined(before: str, token: str) -> str:
    """The position up to which all stands that two tokens name; "" names nothing."""
    known = parse_token(before) if before else None
    new = parse_token(token)
    if known is None or known.generation != new.generation:
        return token
    return str(Token(generation=new.generation, offsets={**known.offsets, **new.offsets}))
