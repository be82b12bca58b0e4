"""Adjustments: what a sealed hour's quantity was, and what it is since something came late.

Each revision of a sealed hour has a quantity; the first plus all deltas is the last. Void and
amended events are left out and computed again, never subtracted.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from tollgate.core.decimals import EXACT
from tollgate.events.late import Touched
from tollgate.metering.meter import Aggregation
from tollgate.metering.question import QueryRow

_FROM_ZERO = frozenset((Aggregation.SUM, Aggregation.COUNT, Aggregation.UNIQUE_COUNT))
"""An hour without events has the quantity 0 of these; of the others it has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adjustment:
    """How a revision changed one quantity.

    Attributes:
        hour: begin of the hour.
        subject: whose.
        dimensions: of the group.
        revision: of the seal; None: not sealed yet, pending.
        sealed_at: when the revision was; None: pending.
        before, after: quantities; None: nothing counted.
        delta: what to bill or give back; None where there is no number on one side.
        facts: what came late.
    """

    hour: datetime
    subject: str
    dimensions: Mapping[str, str]
    revision: int | None
    sealed_at: datetime | None
    before: Decimal | None
    after: Decimal | None
    delta: Decimal | None
    facts: Touched


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """Which revision of an hour: number and time; both None of what is pending."""

    revision: int | None
    sealed_at: datetime | None


def delta_of(
    aggregation: Aggregation, before: Decimal | None, after: Decimal | None
) -> Decimal | None:
    """The change of a quantity."""
    if aggregation in _FROM_ZERO:
        before, after = before or Decimal(0), after or Decimal(0)
    if before is None or after is None:
        return None
    return EXACT.subtract(after, before)


def adjustments_of(
    aggregation: Aggregation,
    facts: Iterable[Touched],
    stamps: Mapping[datetime, Stamp],
    before: Sequence[QueryRow],
    after: Sequence[QueryRow],
) -> list[Adjustment]:
    """What changed, where anything did, by hour, subject and group.

    Args:
        aggregation: of the meter.
        facts: what came late, by hour and subject.
        stamps: the revision of each of these hours.
        before: quantities by hour, subject and dimensions, as of the revision before.
        after: the same as of the revision.
    """
    touched = {(each.hour, each.subject): each for each in facts}
    old, new = _by_group(before), _by_group(after)
    found = []
    for group in sorted(old.keys() | new.keys()):
        hour, subject, dimensions = group
        fact, was, now = touched.get((hour, subject)), old.get(group), new.get(group)
        if fact is None or was == now:
            continue
        stamp = stamps[hour]
        found.append(
            Adjustment(
                hour=hour,
                subject=subject,
                dimensions=dict(dimensions),
                revision=stamp.revision,
                sealed_at=stamp.sealed_at,
                before=was,
                after=now,
                delta=delta_of(aggregation, was, now),
                facts=fact,
            )
        )
    return found


Group = tuple[datetime, str, tuple[tuple[str, str], ...]]


def _by_group(rows: Sequence[QueryRow]) -> dict[Group, Decimal]:
    return {(r.start, r.subject or "", tuple(r.dimensions.items())): r.value for r in rows}
