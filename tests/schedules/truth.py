"""What clients know: which requests were acknowledged, and what may count therefore."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from tests.schedules.reference import Key
from tollgate.events.position import Token


class Answer(Enum):
    """What a client heard."""

    ACCEPTED = "acknowledged"
    UNKNOWN = "503, no answer, or not waited for"
    REFUSED = "4xx: nothing was stored"


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """An event of a request, or what corrects one. `n` is the whole of its content."""

    key: Key
    n: int
    time: str | None = None
    spelling: int = 0

    @property
    def data(self) -> str:
        """The payload; its spelling does not matter."""
        return _SPELLINGS[self.spelling % len(_SPELLINGS)] % self.n


_SPELLINGS = ('{"n":%d}', '{ "n" : %d.0 }', '{"n":%de0}')


@dataclass(slots=True, kw_only=True)
class Attempt:
    """A request as it was sent once.

    Attributes:
        number: of the attempt.
        name: of what is sent; of a correction its id, the same when it is sent again.
        kind, items: what is asked for.
        answer: what was heard; None: nothing yet.
        token: the position that came with it.
    """

    number: int
    name: str
    kind: Literal["events", "void", "amend"]
    items: Sequence[Item]
    answer: Answer | None = None
    token: Token | None = None

    def __str__(self) -> str:
        items = ", ".join(f"{'/'.join(item.key)}={item.n}" for item in self.items)
        return f"request {self.number}: {self.kind} {items}"


@dataclass(slots=True, kw_only=True)
class Truth:
    """All attempts, in the order in which they were sent."""

    attempts: list[Attempt] = field(default_factory=list)

    def by_key(self) -> Mapping[Key, list[tuple[Attempt, Item]]]:
        found: dict[Key, list[tuple[Attempt, Item]]] = {}
        for attempt in self.attempts:
            for item in attempt.items:
                found.setdefault(item.key, []).append((attempt, item))
        return found

    def allowed(self) -> Mapping[Key, set[int | None]]:
        """By key which contents may count in the end; None: nothing does."""
        return {key: _allowed(sent) for key, sent in self.by_key().items()}


def _allowed(sent: Sequence[tuple[Attempt, Item]]) -> set[int | None]:
    claims: set[int | None] = set()
    accepted = False
    for attempt, item in sent:
        if attempt.kind == "events" and not accepted:
            claims.add(item.n)
            accepted = attempt.answer is Answer.ACCEPTED
    if not accepted:
        claims.add(None)
    counts, whenever = claims, set[int | None]()
    for attempt, item in sent:
        if attempt.kind != "events" and attempt.answer is not Answer.REFUSED:
            effect = item.n if attempt.kind == "amend" else None
            if attempt.answer is Answer.ACCEPTED:
                counts = {effect}
            else:
                # It may have happened, or happen after what was sent later.
                whenever.add(effect)
    return counts | whenever
