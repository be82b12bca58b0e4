"""Time as a schedule has it: one that is true, and clocks that differ from it."""

from datetime import datetime

from tests.support.loading import NOON_US
from tollgate.core.clock import datetime_from_us

SECOND_US = 1_000_000
DAY_US = 86_400 * SECOND_US


class TrueTime:
    """What passes, whatever clocks say."""

    def __init__(self) -> None:
        self.us = NOON_US


class WorldClock:
    """The clock of one machine: ahead of the true time or behind it."""

    def __init__(self, time: TrueTime, skew_us: int = 0) -> None:
        self._time = time
        self.skew_us = skew_us

    def now_us(self) -> int:
        return self._time.us + self.skew_us

    def now(self) -> datetime:
        return datetime_from_us(self.now_us())
