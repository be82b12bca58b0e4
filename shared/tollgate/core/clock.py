"""Time is passed in. The one real clock stands here."""

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Clock(Protocol):
    """Where a use case gets the present from."""

    def now(self) -> datetime:
        """The present, aware, UTC, microseconds."""
        ...

    def now_us(self) -> int:
        """The present in microseconds since 1970-01-01T00:00:00Z."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The present, aware, UTC, microseconds."""
        return datetime_from_us(self.now_us())

    def now_us(self) -> int:
        """The present in microseconds since the epoch."""
        return time.time_ns() // 1000


def datetime_from_us(microseconds: int) -> datetime:
    """Aware UTC datetime of microseconds since the epoch, exact (no binary fraction in between)."""
    return _EPOCH + timedelta(microseconds=microseconds)


def us_from_datetime(instant: datetime) -> int:
    """Microseconds since the epoch of an aware datetime, exact."""
    return (instant - _EPOCH) // timedelta(microseconds=1)
