"""What a query read, as a person may see it."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from tollgate.core.clock import datetime_from_us
from tollgate.metering.plan import Span
from tollgate.metering.question import MeterQuery
from tollgate.metering.statement import FromRollups


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """One source, and what of it.

    Attributes:
        source: `rollup` or `events`.
        why: `whole` windows of a rollup; events at an `edge` that no window of it covers, of
            windows that were `corrected` since it was built, `beyond` it, or `all`: no rollup can
            answer.
        level: of the rollup.
        start, end: times of events, [start, end); None is open.
        through: position up to which facts were read; None: all there are.
        after: position beyond which facts were read; None: from the first.
    """

    source: Literal["rollup", "events"]
    why: Literal["whole", "edge", "corrected", "beyond", "all"]
    level: str | None = None
    start: datetime | None
    end: datetime | None
    through: str | None = None
    after: str | None = None


def reads_of(asked: MeterQuery, source: FromRollups | None) -> tuple[Read, ...]:
    """All that a query read."""
    if source is None:
        through = None if asked.as_of is None else str(asked.as_of)
        return (
            Read(source="events", why="all", start=asked.start, end=asked.end, through=through),
        )
    return tuple(_reads(asked, source))


def _reads(asked: MeterQuery, source: FromRollups) -> Iterator[Read]:
    vector = str(source.vector)
    for tile in source.tiling.tiles:
        start, end = _times((tile.start, tile.end))
        level = tile.level.name
        yield Read(source="rollup", why="whole", level=level, start=start, end=end, through=vector)
    for start, end in map(_times, source.tiling.edges):
        yield Read(source="events", why="edge", start=start, end=end, through=vector)
    if source.pending:
        for tile in source.tiling.tiles:
            start, end = _times((tile.start, tile.end))
            yield Read(source="events", why="corrected", start=start, end=end, through=vector)
    if source.tail is not None:
        yield Read(source="events", why="beyond", start=asked.start, end=asked.end, after=vector)


def _times(span: Span) -> tuple[datetime, datetime]:
    return datetime_from_us(span[0]), datetime_from_us(span[1])
