"""Intervals: how far apart recurring instants are, in months, days and elapsed time.

Months and days are steps on the calendar and clock of a zone: a day may have 23 or 25 hours, a
month ends where the calendar says. Hours, minutes and seconds are elapsed time. Where both are
given, the calendar's part is stepped first.

Rules for steps on the calendar:
- A day that the month does not have is its last day: one month after January 31 is February 28.
- A time of day that the zone skips is read with the offset before the change, so it comes as much
  later as the clock was put forward; one that happens twice is the first (PEP 495, fold 0).

The source of the text form is ISO 8601, as far as the contract's `RecurringPeriodInterval` has it.
"""

import re
from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from typing import Self

from tollgate.core.decimals import EXACT
from tollgate.core.errors import Fault, InvalidInput

MEAN_US_MAX = 400 * 31_556_952_000_000
"""400 years of the Gregorian calendar: nothing recurs within all event time if it is longer."""
TEXT_LENGTH_MAX = 64

_MONTH_US = 2_629_746_000_000  # 146,097 days are 4,800 months
_DAY_US = 86_400_000_000
_HOUR_US = 3_600_000_000
_MINUTE_US = 60_000_000
_SECOND_US = 1_000_000
_MICROSECOND = timedelta(microseconds=1)
_NAMED = {"DAY": (0, 1), "WEEK": (0, 7), "MONTH": (1, 0), "YEAR": (12, 0)}
_NAMES = {step: name for name, step in _NAMED.items()}
_NUMBER = r"(\d+(?:\.\d+)?)"
_ISO = re.compile(
    rf"P(?:{_NUMBER}Y)?(?:{_NUMBER}M)?(?:{_NUMBER}W)?(?:{_NUMBER}D)?"
    rf"(T(?:{_NUMBER}H)?(?:{_NUMBER}M)?(?:{_NUMBER}S)?)?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A step in time that is longer than nothing; two that step alike are equal.

    Attributes:
        months: of the calendar; a year is 12.
        days: of the calendar; a week is 7.
        elapsed: time that passes, whatever clocks show.

    Raises:
        InvalidInput: a part below zero, nothing at all, or over 400 years.
    """

    months: int = 0
    days: int = 0
    elapsed: timedelta = timedelta(0)

    def __post_init__(self) -> None:
        if self.months < 0 or self.days < 0 or self.elapsed < timedelta(0):
            raise _refused("out_of_bounds", "must not run backwards")
        if not 0 < self.mean_us <= MEAN_US_MAX:
            raise _refused("out_of_bounds", "must be longer than nothing and at most 400 years")

    @property
    def mean_us(self) -> int:
        """How long it is on average, microseconds."""
        return self.months * _MONTH_US + self.days * _DAY_US + self.elapsed // timedelta.resolution

    @property
    def name(self) -> str | None:
        """The contract's name for it: DAY, WEEK, MONTH or YEAR; None if it has none."""
        if self.elapsed:
            return None
        return _NAMES.get((self.months, self.days))

    def iso_text(self) -> str:
        """ISO 8601, one text for each value: `P1M`, `P1Y`, `P7D` (a week), `P1DT12H`."""
        years, months = divmod(self.months, 12)
        microseconds = self.elapsed // _MICROSECOND
        hours, rest = divmod(microseconds, _HOUR_US)
        minutes, rest = divmod(rest, _MINUTE_US)
        seconds = f"{rest // _SECOND_US}.{rest % _SECOND_US:06}".rstrip("0").rstrip(".")
        date = "".join(f"{n}{unit}" for n, unit in ((years, "Y"), (months, "M")) if n)
        date += f"{self.days}D" if self.days else ""
        time = "".join(f"{n}{unit}" for n, unit in ((hours, "H"), (minutes, "M")) if n)
        time += f"{seconds}S" if rest else ""
        return f"P{date}" + (f"T{time}" if time else "")

    def step(self, instant: datetime, zone: tzinfo, count: int = 1) -> datetime:
        """The instant so many intervals after another; before it if the count is negative.

        All are stepped at once, so month ends never drift: two months after January 31 is March 31.

        Args:
            instant: aware, UTC.
            zone: whose calendar and clock count months and days.
            count: how many.
        """
        if not self.months and not self.days:
            return instant + count * self.elapsed
        # In UTC the clock of the wall is the instant itself, which saves most of the work.
        is_utc = zone is UTC
        wall = instant if is_utc else instant.astimezone(zone).replace(tzinfo=None, fold=0)
        if self.months:
            month_index = wall.year * 12 + wall.month - 1 + count * self.months
            year, month = month_index // 12, month_index % 12 + 1
            day = wall.day if wall.day <= 28 else min(wall.day, monthrange(year, month)[1])
            wall = wall.replace(year=year, month=month, day=day)
        if self.days:
            wall += timedelta(days=count * self.days)
        stepped = wall if is_utc else wall.replace(tzinfo=zone).astimezone(UTC)
        return stepped + count * self.elapsed if self.elapsed else stepped

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads DAY, WEEK, MONTH, YEAR or an ISO 8601 duration such as `P1M` or `PT12H`.

        Raises:
            InvalidInput: neither; a fraction of a year, month, week or day, which no calendar has;
                an elapsed time finer than a microsecond; nothing, or over 400 years.
        """
        if text in _NAMED:
            return cls(months=_NAMED[text][0], days=_NAMED[text][1])
        match = _ISO.fullmatch(text) if len(text) <= TEXT_LENGTH_MAX else None
        if match is None or text[-1] in "PT":
            shown = text if len(text) <= TEXT_LENGTH_MAX else text[:TEXT_LENGTH_MAX] + "…"
            raise _refused(
                "not_an_interval",
                f"{shown!r} is not DAY, WEEK, MONTH, YEAR or an ISO 8601 duration such as P1M",
            )
        years, months, weeks, days, _, *time = match.groups()
        if any(part and "." in part for part in (years, months, weeks, days)):
            raise _refused("fraction", "has a fraction of a year, month, week or day; write it out")
        microseconds = Decimal(0)
        for part, unit in zip(time, (_HOUR_US, _MINUTE_US, _SECOND_US), strict=True):
            product = EXACT.multiply(Decimal(part or 0), Decimal(unit))
            microseconds = EXACT.add(microseconds, product)
        if microseconds > MEAN_US_MAX:
            raise _refused("out_of_bounds", "must be longer than nothing and at most 400 years")
        if EXACT.remainder(microseconds, Decimal(1)):
            raise _refused("too_fine", "has a time that is finer than a microsecond")
        return cls(
            months=12 * int(years or 0) + int(months or 0),
            days=7 * int(weeks or 0) + int(days or 0),
            elapsed=timedelta(microseconds=int(microseconds)),
        )


def _refused(code: str, message: str) -> InvalidInput:
    return InvalidInput((Fault(field="interval", code=code, message=message),))
