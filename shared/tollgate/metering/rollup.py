"""What is kept ready of a meter: which levels of rollups, and what makes two meters the same one.

A *definition* is all of a meter that decides on its cells: change any of it, and other cells are
needed. A *cell* of a level holds what all counted events of one window add up to, by subject or of
all subjects, by dimensions or of all of them.

The levels were chosen by measurement (infra/decisions/0010-rollups.md).
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

from tollgate.core.times import format_instant
from tollgate.events.position import Token
from tollgate.metering.meter import Aggregation, Meter

_FORM = 2
"""Of cells: whoever changes what a cell holds counts it up, and all are built anew."""
MINUTE_US = 60_000_000
DAY_MINUTES = 1440


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One way to sum events up.

    Attributes:
        number: in the store.
        name: for people.
        minutes: length of a window, of a month the longest; windows are aligned in UTC.
        by_subject: a cell is of one subject.
        by_dimensions: a cell is of one value of each dimension.
        is_month: a window is a month of the calendar.
    """

    number: int
    name: str
    minutes: int
    by_subject: bool
    by_dimensions: bool
    is_month: bool = False

    @property
    def period_us(self) -> int:
        """Length of a window in microseconds."""
        return self.minutes * MINUTE_US

    def minute_sql(self, time: str) -> str:
        """SQL of the window that a time falls into: minutes since the epoch, Int32.

        Args:
            time: trusted SQL of type DateTime64(6, 'UTC').
        """
        at = f"toUnixTimestamp64Micro({time})"
        if self.is_month:
            day = f"intDiv({at} - positiveModulo({at}, {DAY_MINUTES * MINUTE_US}), {MINUTE_US})"
            return f"toInt32({day} - (toDayOfMonth({time}) - 1) * {DAY_MINUTES})"
        start = f"({at} - positiveModulo({at}, {self.period_us}))"
        return f"toInt32(intDiv({start}, {MINUTE_US}))"


MINUTE = Level(number=1, name="minute", minutes=1, by_subject=False, by_dimensions=False)
QUARTER = Level(
    number=2, name="quarter_by_dimensions", minutes=15, by_subject=False, by_dimensions=True
)
SUBJECT_DAY = Level(
    number=3, name="day_by_subject", minutes=1440, by_subject=True, by_dimensions=False
)
FULL_DAY = Level(
    number=4,
    name="day_by_subject_and_dimensions",
    minutes=1440,
    by_subject=True,
    by_dimensions=True,
)
HOUR = Level(number=5, name="hour", minutes=60, by_subject=False, by_dimensions=False)
SUBJECT_MONTH = Level(
    number=6,
    name="month_by_subject",
    minutes=31 * DAY_MINUTES,
    by_subject=True,
    by_dimensions=False,
    is_month=True,
)
MONTH_OF_DAY = {SUBJECT_DAY: SUBJECT_MONTH}
"""Of a level of days the one whose months are made of them."""


def levels_of(meter: Meter) -> tuple[Level, ...]:
    """The levels that are kept of a meter, the cheapest to read first."""
    if meter.aggregation is Aggregation.UNIQUE_COUNT:
        # A cell holds every distinct value: finer levels would hold each event's value again.
        return (HOUR, SUBJECT_DAY)
    if not meter.group_by:
        return (MINUTE, SUBJECT_DAY, SUBJECT_MONTH)
    return (MINUTE, QUARTER, SUBJECT_DAY, FULL_DAY, SUBJECT_MONTH)


def dimension_names(meter: Meter) -> tuple[str, ...]:
    """The dimensions in the order in which cells hold them."""
    return tuple(sorted(meter.group_by))


def digest_of(meter: Meter) -> str:
    """What makes a definition: equal for meters whose cells are the same."""
    value, paths = meter.value_path(), meter.dimension_paths()
    content = [
        _FORM,
        meter.aggregation.value,
        meter.event_type,
        format_instant(meter.event_from) if meter.event_from else None,
        value.spelling() if value else None,
        [(name, paths[name].spelling()) for name in dimension_names(meter)],
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Segment:
    """Cells that were written together and never change.

    Attributes:
        sequence: cells of a later segment replace what it names of earlier ones.
        id: in the store.
        cells: how many rows it has.
        replacing: whether it replaces cells of earlier segments.
    """

    sequence: int
    id: int
    cells: int
    replacing: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollups:
    """What is kept ready of one definition.

    Attributes:
        definition: its id in the store.
        vector: the facts up to here are in the cells, none beyond; None: none at all.
        ready: whether it has ever come as far as the ledger.
        first_minute, last_minute: no counted event up to the vector is outside of these, in minutes
            since the epoch; None: there is none.
        segments: in order of their sequence.
    """

    definition: int
    vector: Token | None
    ready: bool
    first_minute: int | None
    last_minute: int | None
    segments: tuple[Segment, ...]

    def replacements(self) -> Iterable[tuple[Segment, tuple[Segment, ...]]]:
        """Segments that replace cells, each with those in which they are replaced."""
        for number, segment in enumerate(self.segments):
            if segment.replacing and number:
                yield segment, self.segments[:number]
