"""Conservation, counted twice: what the ledger says of a part of the log, and what the tables hold.

accepted = stored + duplicate + conflict + dead, in the ledger itself; and each of them is the
number of rows that stand in the tables at positions of that part.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

Place = tuple[str, int]
"""A namespace, and an hour of receipt: hours since 1970."""
EVERYBODY = ""
"""Namespace of what is off and can't be attributed: it concerns all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What became of the events and corrections of one namespace and hour.

    Attributes:
        accepted: events that the ledger was told of.
        stored, duplicate, conflict, dead: what became of them.
        corrections: corrections, of any effect.
        amended: corrections that put another event in place.
    """

    accepted: int = 0
    stored: int = 0
    duplicate: int = 0
    conflict: int = 0
    dead: int = 0
    corrections: int = 0
    amended: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One figure that is off.

    Attributes:
        what: which figure: a member of `Counts`, `log` (a record of the log) or `records` (their
            row in the ledger).
        expected: by the ledger; of `log` and `records` by the log.
        found: in the tables; of `accepted` the sum of its parts; of `log` and `records` in the
            ledger.
    """

    what: str
    expected: int
    found: int

    def __str__(self) -> str:
        return f"{self.what}: {self.expected:,} expected, {self.found:,} found"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Slice:
    """A part of the log: positions of one partition with after < offset <= through.

    Attributes:
        generation, partition: of the log.
        after, through: offsets.
        since_us, until_us: bounds of the append times of all that stands there.
    """

    generation: int
    partition: int
    after: int
    through: int
    since_us: int = field(compare=False)
    until_us: int = field(compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Imbalance:
    """What does not balance.

    Attributes:
        namespace: whose events; `EVERYBODY`: nobody knows.
        hour: of receipt, its begin.
        part: where in the log.
        differences: what is off.
        found_at: when it was seen first.
    """

    namespace: str
    hour: datetime
    part: Slice
    differences: tuple[Difference, ...]
    found_at: datetime

    def __str__(self) -> str:
        part, hour = self.part, self.hour.isoformat().replace("+00:00", "Z")
        return (
            f"received in the hour {hour}, generation {part.generation}, partition"
            f" {part.partition}, offsets {part.after + 1} to {part.through}: "
            + "; ".join(map(str, self.differences))
        )


def compare_counts(
    ledger: Mapping[Place, Counts], tables: Mapping[Place, Counts], amendments: Mapping[Place, int]
) -> dict[Place, tuple[Difference, ...]]:
    """What is off, where anything is.

    Args:
        ledger: what it says; `amended` is not its to say.
        tables: what they hold; `accepted` is not theirs.
        amendments: rows of `events` that are amendments.
    """
    wrong = {}
    for place in ledger.keys() | tables.keys() | amendments.keys():
        said, found = ledger.get(place, Counts()), tables.get(place, Counts())
        parts = said.stored + said.duplicate + said.conflict + said.dead
        pairs = (
            ("accepted", said.accepted, parts),
            ("stored", said.stored, found.stored),
            ("duplicate", said.duplicate, found.duplicate),
            ("conflict", said.conflict, found.conflict),
            ("dead", said.dead, found.dead),
            ("corrections", said.corrections, found.corrections),
            ("amended", found.amended, amendments.get(place, 0)),
        )
        off = tuple(Difference(what=w, expected=e, found=f) for w, e, f in pairs if e != f)
        if off:
            wrong[place] = off
    return wrong
