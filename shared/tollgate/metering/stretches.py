"""Stretches as SQL: a period cut at any instants, to the microsecond, in one statement."""

from collections.abc import Sequence
from datetime import datetime

from tollgate.core.clock import datetime_from_us, us_from_datetime
from tollgate.metering.ownership import bind_numbers
from tollgate.metering.question import Stretches
from tollgate.metering.window import Windows
from tollgate.platform.filters import Parameters


class StretchWindows:
    """Stretches where windows of the clock could be."""

    def __init__(self, stretches: Stretches, bound: Parameters) -> None:
        self._bounds = [us_from_datetime(each) for each in stretches.bounds]
        self._ends = dict(zip(self._bounds, self._bounds[1:], strict=False))
        self._starts = bind_numbers(bound, self._bounds[:-1], "Int64")
        restarts = [us_from_datetime(each) for each in stretches.restarts]
        self._restarts = bind_numbers(bound, restarts, "Int64") if restarts else ""

    @property
    def cuts(self) -> frozenset[int]:
        """Instants inside the period at which one stretch ends and the next begins."""
        return frozenset(self._bounds[1:-1])

    def sql(self, column: str) -> str:
        """An expression that maps an event time to its stretch's start: Int64, microseconds."""
        return self.sql_of_instant(f"toUnixTimestamp64Micro({column})")

    def sql_of_instant(self, at: str) -> str:
        """The same for instants."""
        return f"roundDown({at}, {self._starts})"

    def bounds(self, start_us: int) -> tuple[datetime, datetime]:
        """The stretch that begins at an instant which `sql` gave."""
        return datetime_from_us(start_us), datetime_from_us(self._ends[start_us])

    def first_seen(self, names: Sequence[str], parts: str, limit: int) -> str | None:
        """SELECT of how many values come first in each stretch, since the last restart.

        Args:
            names: columns that tell rows apart, the stretch's start first.
            parts: SQL of partial rows with these columns and the array `uniques`.
            limit: of rows.

        Returns:
            None if nothing restarts: then each stretch counts for itself.
        """
        if not self._restarts:
            return None
        groups = "".join(f", {name}" for name in names[1:])
        shown = ", ".join(names)
        return (
            f"SELECT first_start AS {shown}, count() AS quantity, 0, 0 FROM ("
            f"SELECT min({names[0]}) AS first_start{groups}"
            f" FROM (SELECT {shown}, arrayJoin(uniques) AS single FROM ({parts}))"
            f" GROUP BY roundDown({names[0]}, {self._restarts}){groups}, single)"
            f" GROUP BY {shown} ORDER BY {shown} LIMIT {limit}"
        )


AnyWindows = Windows | StretchWindows
