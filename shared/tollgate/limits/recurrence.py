"""Recurrences: instants at an interval from an anchor, and the periods between them.

The n-th occurrence is counted from the anchor, never from the one before. Finding the period of an
instant takes a few steps however far the anchor is: elapsed time over the interval's mean length is
off by a few occurrences at most, because the Gregorian calendar never strays further from its mean.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

from tollgate.core.errors import Fault, InvalidInput
from tollgate.core.times import EARLIEST, LATEST
from tollgate.limits.interval import Interval
from tollgate.limits.period import Period

MEAN_US_MIN = 3_600_000_000
"""An hour: the shortest that may recur, as the contract's backend has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recurrence:
    """Instants at an interval from an anchor, both ways, in order of time.

    Attributes:
        interval: between one occurrence and the next; at least an hour.
        anchor: an occurrence, the one numbered 0; aware, UTC.
        zone: whose calendar and clock count months and days. A value of the pinned table, not of
            the machine's.

    Raises:
        InvalidInput: shorter than an hour, or an anchor outside the years of event time.
    """

    interval: Interval
    anchor: datetime
    zone: tzinfo = UTC

    def __post_init__(self) -> None:
        faults = []
        if self.interval.mean_us < MEAN_US_MIN:
            message = "must be at least an hour"
            faults.append(Fault(field="interval", code="out_of_bounds", message=message))
        if not EARLIEST <= self.anchor <= LATEST:
            message = "is outside the years 1900 to 2299"
            faults.append(Fault(field="anchor", code="out_of_bounds", message=message))
        if faults:
            raise InvalidInput(tuple(faults))

    def occurrence(self, number: int) -> datetime:
        """The occurrence so many after the anchor; before it if negative.

        Two in a row are the same instant where the zone skipped a whole day between them.
        """
        if not number:
            return self.anchor
        return self.interval.step(self.anchor, self.zone, number)

    def number_at(self, instant: datetime) -> int:
        """The number of the last occurrence at or before an instant."""
        number = (instant - self.anchor) // timedelta.resolution // self.interval.mean_us
        while self.occurrence(number) > instant:
            number -= 1
        while self.occurrence(number + 1) <= instant:
            number += 1
        return number

    def occurrences(self, after: datetime, until: datetime) -> Iterator[datetime]:
        """Every occurrence in (after, until], each once, in order of time; made as it is asked for.

        Both ends are so because a state at an instant has seen what happens at that instant.
        """
        number = self.number_at(after) + 1
        last = after
        while (found := self.occurrence(number)) <= until:
            if found > last:
                yield found
            last = found
            number += 1

    def next_after(self, instant: datetime) -> datetime:
        """The first occurrence after an instant."""
        return self.occurrence(self.number_at(instant) + 1)

    def period_at(self, instant: datetime) -> Period:
        """The period between occurrences that holds an instant."""
        number = self.number_at(instant)
        return Period(start=self.occurrence(number), end=self.occurrence(number + 1))

    def periods(self, start: datetime, end: datetime) -> Iterator[Period]:
        """Every period, whole, that holds an instant in [start, end), in order of time."""
        if start >= end:
            return
        number = self.number_at(start)
        opened = self.occurrence(number)
        while opened < end:
            number += 1
            closed = self.occurrence(number)
            if closed > opened:
                yield Period(start=opened, end=closed)
            opened = closed
