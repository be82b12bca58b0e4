"""Usage windows: periods aligned in a time zone, the same in Python and in the analytics store.

Python alone knows time zones, from the pinned `tzdata` package; the store only does arithmetic on
the integers that Python hands it. So a newer or older zone table in the store changes nothing.

Rules:
- Windows tile the time line: contiguous, never overlapping, never empty. Bounds are reported whole.
- DAY: day d begins at the first instant at which the local date has reached d. Where midnight is
  skipped the day begins at the change of the clock; a date that the zone skipped has no window; a
  clock set back over midnight does not reopen the day before.
- MONTH: month m begins with its first day that exists.
- HOUR and MINUTE: a longest stretch within one local hour or minute under one UTC offset. A change
  of offset always ends a window: the repeated hour is two windows.

Instants are microseconds since the epoch, UTC, wherever they are integers.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from importlib import resources
from itertools import pairwise
from zoneinfo import ZoneInfo

from tollgate.core.errors import Fault, InvalidInput, PermanentFault
from tollgate.core.times import EARLIEST_US, LATEST_US

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY = _EPOCH.toordinal()
_MICROSECOND = timedelta(microseconds=1)
_SECOND_US = 1_000_000
_HOUR_US = 3600 * _SECOND_US
_DAY_US = 24 * _HOUR_US
# Longer than any window, so a stretch taken modulo this is one window.
_ENDLESS_US = 1 << 60


class WindowSize(StrEnum):
    """How long a window is, in local time."""

    MINUTE = "MINUTE"
    HOUR = "HOUR"
    DAY = "DAY"
    MONTH = "MONTH"


_PERIOD_US = {
    WindowSize.MINUTE: 60 * _SECOND_US,
    WindowSize.HOUR: _HOUR_US,
    WindowSize.DAY: _DAY_US,
}


@dataclass(frozen=True, slots=True)
class Change:
    """An instant from which on another UTC offset holds. Both in microseconds."""

    at: int
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Zone:
    """An IANA time zone as a step function from instants to UTC offsets; made by `zone`.

    Attributes:
        name: the IANA name.
        rules: what the pinned table says.
    """

    name: str
    rules: ZoneInfo = field(repr=False, compare=False)
    # Changes by year, filled as they are asked for: a year never changes, so threads may race here.
    _years: dict[int, tuple[Change, ...]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def offset(self, at: int) -> int:
        """The UTC offset that holds at an instant, microseconds east."""
        offset = _instant(at).astimezone(self.rules).utcoffset()
        if offset is None:
            raise PermanentFault(f"time zone {self.name} has no offset at {at}")
        return offset // _MICROSECOND

    def changes(self, after: int, until: int) -> list[Change]:
        """Every change of offset at an instant in (after, until], in order of time."""
        years = range(_instant(after).year, _instant(until).year + 1)
        return [
            change
            for year in years
            for change in self._changes_in(year)
            if after < change.at <= until
        ]

    def first_instant(self, day: int) -> int:
        """The first instant at which the local date has reached a day, counted from the epoch's."""
        # Offsets stay within a day of UTC, so two days on either side see all that matters.
        start = (day - 2) * _DAY_US
        steps = [Change(start, self.offset(start)), *self.changes(start, start + 4 * _DAY_US)]
        for step, following in pairwise(steps):
            reached = max(step.at, day * _DAY_US - step.offset)
            if reached < following.at:
                return reached
        return max(steps[-1].at, day * _DAY_US - steps[-1].offset)

    def day(self, at: int) -> int:
        """The latest day that the local date has reached at or before an instant."""
        day = (at + self.offset(at)) // _DAY_US
        while self.first_instant(day + 1) <= at:
            day += 1
        return day

    def _changes_in(self, year: int) -> tuple[Change, ...]:
        found = self._years.get(year)
        if found is None:
            found = tuple(self._find_changes(year))
            self._years[year] = found
        return found

    def _find_changes(self, year: int) -> Iterator[Change]:
        """Probe each day of a year, then bisect the days within which the offset changed.

        A change that is undone within the same day would be missed; a test holds that the table
        has none.
        """
        first = (datetime(year, 1, 1, tzinfo=UTC) - _EPOCH) // _MICROSECOND - 1
        last = (datetime(year + 1, 1, 1, tzinfo=UTC) - _EPOCH) // _MICROSECOND - 1
        seen = first
        offset = self.offset(first)
        while seen < last:
            probe = min(seen + _DAY_US, last)
            while self.offset(probe) != offset:
                low, high = seen, probe
                while high - low > 1:
                    middle = (low + high) // 2
                    if self.offset(middle) == offset:
                        low = middle
                    else:
                        high = middle
                seen, offset = high, self.offset(high)
                yield Change(high, offset)
            seen = probe


@lru_cache(maxsize=1)
def zone_names() -> frozenset[str]:
    """Every zone name that the pinned table knows."""
    return frozenset(resources.files("tzdata").joinpath("zones").read_text("utf-8").split())


@lru_cache(maxsize=1024)
def zone(name: str) -> Zone:
    """The time zone of an IANA name, written as the table writes it.

    Raises:
        InvalidInput: no such zone.
    """
    # Looking the name up in the list first keeps hostile names away from paths.
    if name not in zone_names():
        shown = name if len(name) <= 64 else name[:64] + "…"
        fault = Fault(
            field="windowTimeZone",
            code="unknown_time_zone",
            message=f"{shown!r} is not an IANA time zone, such as Europe/Berlin",
        )
        raise InvalidInput((fault,))
    path = resources.files("tzdata").joinpath("zoneinfo", *name.split("/"))
    with path.open("rb") as table:
        return Zone(name=name, rules=ZoneInfo.from_file(table, key=name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """The windows of one size in one zone, as far as instants in [low, high) fall into them.

    Attributes:
        size: how long the windows are.
        zone: where they are aligned.
        low: first instant that may be asked for; None is the earliest event time there can be.
        high: first instant that is not asked for; None is after the latest there can be. Narrow
            bounds keep the SQL short: take the asked period, or the first and last event time.
    """

    size: WindowSize
    zone: Zone
    low: datetime | None = None
    high: datetime | None = None

    def sql(self, column: str) -> str:
        """An expression that maps an event time to its window's start: Int64, microseconds.

        Right only for instants in [low, high); others must be filtered out.

        Args:
            column: trusted SQL of type DateTime64(6, 'UTC').
        """
        return self.sql_of_instant(f"toUnixTimestamp64Micro({column})")

    def sql_of_instant(self, at: str) -> str:
        """The same for instants.

        Args:
            at: trusted SQL of type Int64: microseconds.
        """
        if self.size is WindowSize.MONTH:
            starts = [self._start_of(self._low), *self.starts_between(self._low, self._high)]
            if len(starts) == 1:
                return f"toInt64({starts[0]})"
            return f"roundDown({at}, {_array(starts)})"
        stretches = self._stretches()
        if len(stretches) == 1:
            only = stretches[0]
            return f"{at} - positiveModulo({at} + {only.offset}, {only.period})"
        starts = [stretch.start for stretch in stretches]
        key = f"roundDown({at}, {_array(starts)})"
        offset = _lookup(key, starts, [stretch.offset for stretch in stretches])
        period = _lookup(key, starts, [stretch.period for stretch in stretches])
        return f"{at} - positiveModulo({at} + {offset}, {period})"

    def bounds(self, start_us: int) -> tuple[datetime, datetime]:
        """The whole window that begins at an instant which `sql` gave: [start, end), UTC.

        Raises:
            PermanentFault: no window begins there, so the store computed something else.
        """
        start, end = self._bounds_of(start_us)
        if start != start_us:
            raise PermanentFault(
                f"no {self.size} window in {self.zone.name} begins at {_instant(start_us)}"
            )
        return _instant(start), _instant(end)

    def start_of(self, instant: datetime) -> datetime:
        """When the window begins that an instant falls into."""
        return _instant(self._start_of(_microseconds(instant)))

    def end_of(self, instant: datetime) -> datetime:
        """When the window ends, exclusive, that an instant falls into."""
        return _instant(self._end_of(_microseconds(instant)))

    def tile(self) -> Iterator[tuple[datetime, datetime]]:
        """Every window, whole, that holds an instant in [low, high), in order of time."""
        if self._low >= self._high:
            return
        start = self._start_of(self._low)
        while start < self._high:
            end = self._end_of(start)
            yield _instant(start), _instant(end)
            start = end

    def starts_between(self, low: int, high: int) -> Iterator[int]:
        """When windows begin, of those that begin in (low, high); in order of time."""
        end = self._end_of(low)
        while end < high:
            yield end
            end = self._end_of(end)

    @property
    def _low(self) -> int:
        return EARLIEST_US if self.low is None else _microseconds(self.low)

    @property
    def _high(self) -> int:
        return LATEST_US + 1 if self.high is None else _microseconds(self.high)

    def _start_of(self, at: int) -> int:
        return self._bounds_of(at)[0]

    def _end_of(self, at: int) -> int:
        return self._bounds_of(at)[1]

    def _bounds_of(self, at: int) -> tuple[int, int]:
        match self.size:
            case WindowSize.MINUTE | WindowSize.HOUR:
                return self._clipped(at)
            case WindowSize.DAY:
                day = self.zone.day(at)
                return self.zone.first_instant(day), self.zone.first_instant(day + 1)
            case WindowSize.MONTH:
                first, following = _month_around(self.zone.day(at))
                return self.zone.first_instant(first), self.zone.first_instant(following)

    def _clipped(self, at: int) -> tuple[int, int]:
        """The local hour or minute around an instant, cut where the offset changes."""
        period = _PERIOD_US[self.size]
        start = at - (at + self.zone.offset(at)) % period
        end = start + period
        changes = [change.at for change in self.zone.changes(start, end)]
        passed = bisect_right(changes, at)
        return (
            changes[passed - 1] if passed else start,
            changes[passed] if passed < len(changes) else end,
        )

    def _stretches(self) -> list["_Stretch"]:
        """[low, high) cut into stretches within which arithmetic alone finds the window's start."""
        first = self._start_of(self._low)
        cuts = [first, *(change.at for change in self.zone.changes(first, self._high - 1))]
        period = _PERIOD_US[self.size]
        stretches: list[_Stretch] = []
        for cut, following in pairwise([*cuts, max(self._high, first + 1)]):
            plain = _Stretch(start=cut, offset=self.zone.offset(cut), period=period)
            start, end = self._bounds_of(cut)
            if (plain.window_start(cut), plain.window_start(cut) + period) == (start, end):
                stretches.append(plain)
                continue
            # The clock changes within this window: one answer up to its end, arithmetic after it.
            stretches.append(_Stretch(start=cut, offset=-start, period=_ENDLESS_US))
            if end < following:
                stretches.append(_Stretch(start=end, offset=plain.offset, period=period))
        return stretches


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stretch:
    """From `start` on, a window starts where instant plus offset is a multiple of the period."""

    start: int
    offset: int
    period: int

    def window_start(self, at: int) -> int:
        return at - (at + self.offset) % self.period


def _month_around(day: int) -> tuple[int, int]:
    """The first days, counted from the epoch's, of the month of a day and of the one after."""
    date = datetime.fromordinal(day + _EPOCH_DAY)
    first = date.replace(day=1)
    # The 1st plus 32 days is always in the month after.
    following = (first + timedelta(days=32)).replace(day=1)
    return first.toordinal() - _EPOCH_DAY, following.toordinal() - _EPOCH_DAY


def _microseconds(instant: datetime) -> int:
    return (instant - _EPOCH) // _MICROSECOND


def _instant(at: int) -> datetime:
    return _EPOCH + at * _MICROSECOND


def _array(numbers: list[int]) -> str:
    return f"CAST([{', '.join(map(str, numbers))}] AS Array(Int64))"


def _lookup(key: str, keys: list[int], values: list[int]) -> str:
    """SQL that finds the value beside a key. Without a default the store would keep the key."""
    if len(set(values)) == 1:
        return str(values[0])
    return f"transform({key}, {_array(keys)}, {_array(values)}, toInt64(0))"
