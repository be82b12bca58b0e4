"""Seals: from when on an hour's figures are final, and what changed them since.

An hour of event time seals once it and the allowed lateness are over, all is loaded that the log
held then, and the ledger balances. A seal is a vector of the log: what the hour's figures are is
what is known as of it. What comes later makes another revision, with a vector of its own; the one
before stays. Seals cover facts, not meters: a new meter or another groupBy is no correction.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from tollgate.core.errors import Fault, InvalidInput
from tollgate.core.times import EARLIEST
from tollgate.events.position import Token

HOUR = timedelta(hours=1)
BEGINNING = EARLIEST
"""No event is older: the first seal of a namespace takes all hours from here on."""
Kind = Literal["scheduled", "forced"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """The revision of one hour, or the first of several hours side by side.

    Attributes:
        start, end: the hours, half-open.
        revision: 1: of several hours; from 2 on: of one that changed after it was sealed.
        vector: what the figures of these hours are made of.
        previous: the vector up to which nothing had changed them; None of the first revision.
        sealed_at: when.
        extended_at: when hours were added last, because nothing had come in; None: never.
        kind: `scheduled`, or `forced` by a person.
        reason, actor: of a forced one.
        late_events, late_corrections: what changed the hour since the revision before.
        missing: of a forced one what spoke against it, for people.
    """

    start: datetime
    end: datetime
    revision: int
    vector: Token
    previous: Token | None = None
    sealed_at: datetime
    extended_at: datetime | None = None
    kind: Kind = "scheduled"
    reason: str = ""
    actor: str = ""
    late_events: int = 0
    late_corrections: int = 0
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SealState:
    """How far a namespace is sealed.

    Attributes:
        sealed_through: hours before it are; `BEGINNING`: none is.
        vector: up to which all that changed sealed hours has its revisions.
        sealed_at: when it was sealed last; None: never.
        accepted_at: imbalances found until then do not keep it from sealing: a person said so.
    """

    sealed_through: datetime
    vector: Token
    sealed_at: datetime | None
    accepted_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Late:
    """What changed a sealed hour: events and corrections, counted."""

    events: int
    corrections: int


def whole_hour(instant: datetime) -> datetime:
    """The begin of the hour that an instant is in."""
    return instant.replace(minute=0, second=0, microsecond=0)


def sealable_through(now: datetime, lateness: timedelta) -> datetime:
    """The end of the last hour that is over, lateness included."""
    return whole_hour(now - lateness)


def require_sealable(through: datetime, now: datetime) -> None:
    """A forced seal takes whole hours that are over.

    Raises:
        InvalidInput: they are not.
    """
    if through != whole_hour(through):
        code, message = "no_whole_hour", "must be the end of an hour, such as 2026-01-31T08:00:00Z"
    elif not BEGINNING < through <= now:
        code, message = "not_over", "must be the end of an hour that is over"
    else:
        return
    raise InvalidInput((Fault(field="through", code=code, message=message),))


def unloaded_text(
    ends: dict[tuple[int, int], int], loaded: dict[tuple[int, int], int]
) -> tuple[str, ...]:
    """What the log holds and the ledger does not, for people."""
    newest = max((generation for generation, _ in loaded), default=0)
    return tuple(
        f"generation {generation}, partition {partition}: loaded up to offset"
        f" {loaded.get((generation, partition), -1)} of {end}"
        for (generation, partition), end in sorted(ends.items())
        if generation >= newest and loaded.get((generation, partition), -1) < end
    )


def summary(found: Sequence[object], shown: int = 3) -> str:
    """The first of several findings, and how many there are."""
    more = f" (and {len(found) - shown} more)" if len(found) > shown else ""
    return "; ".join(map(str, found[:shown])) + more
