"""Where an event stands in the log, and how far a reader has come.

A position is (generation, partition, offset, index). A token names, for one generation, the last
offset written in each partition: `2;0:17,1:9` is generation 2, offset 17 of partition 0, offset 9
of partition 1.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from tollgate.core.errors import Fault, InvalidInput

HEADER = "Tollgate-Position"
_TOKEN = re.compile(r"(\d{1,9});(\d{1,5}:\d{1,18}(?:,\d{1,5}:\d{1,18}){0,255})", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Position:
    """One event's place in the log."""

    generation: int
    partition: int
    offset: int
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """What a writer was told: all its events stand at or before these offsets.

    Attributes:
        generation: layout generation of the log.
        offsets: last offset by partition.
    """

    generation: int
    offsets: Mapping[int, int]

    def __str__(self) -> str:
        pairs = ",".join(f"{p}:{o}" for p, o in sorted(self.offsets.items()))
        return f"{self.generation};{pairs}"


def parse_token(text: str, field: str = HEADER) -> Token:
    """Reads a token.

    Args:
        text: as it was sent.
        field: where it stood.

    Raises:
        InvalidInput: not a token; nothing is guessed.
    """
    match = _TOKEN.fullmatch(text.strip())
    if match is None:
        raise InvalidInput(
            (
                Fault(
                    field=field,
                    code="invalid_position",
                    message="is not a position token; send back what an ingest answer carried",
                ),
            )
        )
    offsets: dict[int, int] = {}
    for pair in match[2].split(","):
        partition, offset = pair.split(":")
        offsets[int(partition)] = max(int(offset), offsets.get(int(partition), 0))
    return Token(generation=int(match[1]), offsets=offsets)


NOTHING = Token(generation=0, offsets={})
"""The vector before every position."""


def vector_from_text(text: str) -> Token:
    """Reads what `str` of a vector gave; unlike a token it may have no offsets."""
    generation, _, pairs = text.partition(";")
    places = [pair.split(":") for pair in pairs.split(",") if pair]
    return Token(generation=int(generation), offsets={int(p): int(o) for p, o in places})


def joined(one: Token, other: Token) -> Token:
    """The least vector that has all positions of both."""
    if one.generation != other.generation:
        return max(one, other, key=lambda vector: vector.generation)
    offsets = dict(one.offsets)
    for partition, offset in other.offsets.items():
        offsets[partition] = max(offset, offsets.get(partition, -1))
    return Token(generation=one.generation, offsets=offsets)


def covers(one: Token, other: Token) -> bool:
    """Whether a vector has all positions of another."""
    return joined(one, other) == one
