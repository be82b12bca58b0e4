"""Periods: half-open stretches of time."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """From `start` on, up to but without `end`; never empty.

    Attributes:
        start: first instant inside, aware, UTC, microseconds.
        end: first instant after it.
    """

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        assert self.start < self.end, f"a period from {self.start} to {self.end}"

    def holds(self, instant: datetime) -> bool:
        """Whether an instant falls into it."""
        return self.start <= instant < self.end
