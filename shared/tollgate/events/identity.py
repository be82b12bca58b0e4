"""Who an event is, and whether two of them say the same.

Identity is (namespace, source, id), length-prefixed, so that no two keys share a text. Its hash is
XXH3-128 with a fixed seed (https://xxhash.com): it only finds candidates, the full key decides.
"""

import json
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation

from xxhash import xxh3_128_digest

KEY_SEED = 0x746F_6C6C_6B65_7931
_POWERS = frozenset(1 << bits for bits in range(9))


def key_prefix(namespace: str) -> str:
    """The part of a key's text that all events of a namespace share."""
    return f"{len(namespace.encode())}:{namespace}"


def key_hash(prefix: str, source: str, event_id: str) -> bytes:
    """16 bytes that stand for an event key; equal keys give equal bytes.

    Args:
        prefix: `key_prefix` of the namespace.
        source: its length in UTF-8 goes into the text.
        event_id: the rest.
    """
    length = len(source) if source.isascii() else len(source.encode())
    return xxh3_128_digest(f"{prefix}{length}:{source}{event_id}".encode(), KEY_SEED)


def partition_of(hashed_key: bytes, partitions: int) -> int:
    """The partition that owns an identity; bits that the loader's filters do not use."""
    return int.from_bytes(hashed_key[12:16], "little") % partitions


def partitions_of(hashed_keys: Iterable[bytes], partitions: int) -> list[int]:
    """`partition_of` each."""
    if partitions in _POWERS:
        # The remainder is in the lowest bits, and the lowest byte has them.
        mask = partitions - 1
        return [hashed[12] & mask for hashed in hashed_keys]
    return [partition_of(hashed, partitions) for hashed in hashed_keys]


class _Pairs(dict[str, object]):
    """An object of which the first of duplicate members counts, as the engine reads it."""


def _first_wins(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = _Pairs()
    for name, value in pairs:
        members.setdefault(name, value)
    return members


class _Remote(str):
    """A number whose exponent no Decimal can hold: compared as written."""

    __slots__ = ()


def _number(token: str) -> Decimal | _Remote:
    try:
        return Decimal(token)
    except InvalidOperation:
        return _Remote(token)


def same_json(left: str, right: str) -> bool:
    """Whether two JSON texts are one value: order and space ignored, 1 is 1.0, true is not 1."""
    return left == right or _equal(_parse(left), _parse(right))


def _parse(text: str) -> object:
    return json.loads(
        text or "null", parse_float=_number, parse_int=_number, object_pairs_hook=_first_wins
    )


def canonical_json(text: str) -> str:
    """One text for all JSON texts of a value: order, space and spelling of numbers ignored."""
    return json.dumps(_canonical(_parse(text)), separators=(",", ":"), sort_keys=True)


def _canonical(value: object) -> object:
    match value:
        case dict():
            return {name: _canonical(member) for name, member in value.items()}
        case list():
            return [_canonical(member) for member in value]
        case Decimal():
            sign, digits, exponent = value.as_tuple()
            text = "".join(map(str, digits)).lstrip("0")
            kept = text.rstrip("0")
            power = int(exponent) + len(text) - len(kept)
            return {"": [sign, kept, power] if kept else []}
        case _Remote():
            return {"": str(value)}
        case _:
            return value


def _equal(left: object, right: object) -> bool:
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_equal(left[k], right[k]) for k in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_equal, left, right))
    return type(left) is type(right) and left == right
