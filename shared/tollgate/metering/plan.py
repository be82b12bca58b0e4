"""The planner: which parts of a period rollups can answer, and which only events can.

Pure arithmetic on instants: integer microseconds since the epoch, UTC. Periods are half-open.

A window of a level is taken whole or not at all. It can be taken unless something cuts it: a bound
of the asked period, or of an asked window, or a change of owners, strictly inside it. Whole months
stand for their days.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

from tollgate.core.clock import datetime_from_us, us_from_datetime
from tollgate.metering.rollup import Level
from tollgate.metering.window import Windows, WindowSize

Span = tuple[int, int]
EDGES_MAX = 200
"""More pieces than that are read as one: all from events."""
_ENUMERATED_MAX = 4000
_DAY_US = 86_400_000_000
_MINUTES = {WindowSize.MINUTE: 1, WindowSize.HOUR: 60, WindowSize.DAY: 1440}


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """What is asked for of the facts that rollups hold.

    Attributes:
        low, high: the asked period; None is open.
        first, last: where those facts are: none before `first`, none at or after `last`.
        windows: the asked windows; None: one total.
        cuts: further instants that no window of a level may span.
    """

    low: int | None
    high: int | None
    first: int
    last: int
    windows: Windows | None
    cuts: frozenset[int] = frozenset()


class Tile(NamedTuple):
    """Whole windows of one level, from one instant to another."""

    level: Level
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiling:
    """Spans in order of time, none overlapping; together they hold every fact of the period.

    Attributes:
        tiles: whole windows.
        edges: what is left for events.
    """

    tiles: tuple[Tile, ...]
    edges: tuple[Span, ...]

    @property
    def levels(self) -> tuple[Level, ...]:
        """Those whose windows are taken."""
        return tuple(dict.fromkeys(each.level for each in self.tiles))

    def spans(self, level: Level) -> tuple[Span, ...]:
        """The tiles of a level."""
        return tuple((each.start, each.end) for each in self.tiles if each.level == level)


def tile(period: Period, level: Level, month: Level | None = None) -> Tiling | None:
    """Tiles a period by a level; None where the level can't help.

    Args:
        period: what is asked for.
        level: the level.
        month: the level of months that may stand for days of that one; None: there is none.
    """
    size = level.period_us
    start, end = period.first - period.first % size, period.last + -period.last % size
    if period.low is not None:
        start = max(start, period.low - period.low % size)
    if period.high is not None:
        end = min(end, period.high + -period.high % size)
    if start >= end:
        return Tiling(tiles=(), edges=())
    inner = _window_cuts(period.windows, start, end, level)
    if inner is None:
        return None
    bounds = [
        bound
        for bound, outside in (
            # What is not there can't be cut off: a bound beyond all facts cuts nothing.
            (period.low, period.low is not None and period.low <= period.first),
            (period.high, period.high is not None and period.high >= period.last),
        )
        if bound is not None and not outside
    ]
    inside = (*inner, *bounds, *period.cuts)
    cut = sorted({at - at % size for at in inside if at % size and start <= at < end})
    edges = tuple(_merged((at, at + size) for at in cut))
    tiles = tuple(_between(start, end, edges))
    left = sum(b - a for a, b in edges)
    if not tiles or len(edges) > EDGES_MAX or left > sum(b - a for a, b in tiles):
        return None
    left_over = tuple(_clipped(edges, period.low, period.high))
    if month is None or not _may_take_months(period, start, end):
        return Tiling(tiles=tuple(Tile(level, *span) for span in tiles), edges=left_over)
    # Where no fact is before the first day, or after the last, a month may reach beyond them.
    first, last = tiles[0], tiles[-1]
    opened = first[0] == start and (period.low is None or period.low <= period.first)
    closed = last[1] == end and (period.high is None or period.high >= period.last)
    if opened:
        tiles = ((_month_start(start), first[1]), *tiles[1:])
    if closed:
        tiles = (*tiles[:-1], (tiles[-1][0], _month_end(end - 1)))
    found = [each for span in tiles for each in _with_months(span, level, month, period.cuts)]
    return Tiling(tiles=tuple(found), edges=left_over)


def _may_take_months(period: Period, start: int, end: int) -> bool:
    """Whether no asked window begins inside a month of UTC."""
    windows = period.windows
    if windows is None:
        return True
    if windows.size is not WindowSize.MONTH:
        return False
    changes = windows.zone.changes(start, end)
    return not any((windows.zone.offset(start), *(change.offset for change in changes)))


def _with_months(span: Span, level: Level, month: Level, cuts: frozenset[int]) -> Iterator[Tile]:
    """A span of days, the whole months in it that nothing cuts as months."""
    start, end = span
    opened = at = start if _month_start(start) == start else _month_end(start)
    if at > end:
        yield Tile(level, start, end)
        return
    if start < at:
        yield Tile(level, start, at)
    while (close := _month_end(at)) <= end:
        if any(at < cut < close for cut in cuts):
            if opened < at:
                yield Tile(month, opened, at)
            yield Tile(level, at, close)
            opened = close
        at = close
    if opened < at:
        yield Tile(month, opened, at)
    if at < end:
        yield Tile(level, at, end)


def _month_start(at: int) -> int:
    """Where the month of UTC begins that an instant is in."""
    instant = datetime_from_us(at)
    return us_from_datetime(instant.replace(day=1, hour=0, minute=0, second=0, microsecond=0))


def _month_end(at: int) -> int:
    """Where the next one begins."""
    return _month_start(us_from_datetime(datetime_from_us(_month_start(at)) + timedelta(days=31)))


def _window_cuts(windows: Windows | None, start: int, end: int, level: Level) -> list[int] | None:
    """Bounds of asked windows that are no bounds of the level's; None: too many."""
    if windows is None:
        return []
    zone, size = windows.zone, level.period_us
    changes = zone.changes(start, end)
    offsets = {zone.offset(start), *(change.offset for change in changes)}
    plain = not any(offset % size for offset in offsets)
    minutes = _MINUTES.get(windows.size)
    if plain and (minutes is None or minutes % level.minutes == 0):
        # Whole windows of the level make up the asked ones, but where the clock changes.
        return [change.at for change in changes]
    if windows.size in (WindowSize.MINUTE, WindowSize.HOUR):
        return None
    shortest = _DAY_US if windows.size is WindowSize.DAY else 28 * _DAY_US
    if (end - start) // shortest > _ENUMERATED_MAX:
        return None
    return list(windows.starts_between(start, end))


def _merged(spans: Iterable[Span]) -> Iterator[Span]:
    open_span: Span | None = None
    for start, end in spans:
        if open_span is not None and open_span[1] == start:
            open_span = (open_span[0], end)
            continue
        if open_span is not None:
            yield open_span
        open_span = (start, end)
    if open_span is not None:
        yield open_span


def _between(start: int, end: int, edges: Iterable[Span]) -> Iterator[Span]:
    for low, high in edges:
        if start < low:
            yield start, low
        start = high
    if start < end:
        yield start, end


def _clipped(spans: Iterable[Span], low: int | None, high: int | None) -> Iterator[Span]:
    for span_start, span_end in spans:
        start = span_start if low is None else max(span_start, low)
        end = span_end if high is None else min(span_end, high)
        if start < end:
            yield start, end
