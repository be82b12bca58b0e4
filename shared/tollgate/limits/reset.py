"""Resets by hand: the usage period ends early, and may get a new anchor."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from tollgate.core.errors import Fault, InvalidInput
from tollgate.limits.period import Period


@dataclass(frozen=True, slots=True, kw_only=True)
class Reset:
    """A reset that a person or a program asked for.

    Attributes:
        effective_at: the instant; usage from here on belongs to the new period.
        retain_anchor: later periods end where they would have; otherwise they are counted from
            `effective_at`.
        preserve_overage: whether overage is deducted from the new period's grants; None: as the
            entitlement says.
    """

    effective_at: datetime
    retain_anchor: bool = False
    preserve_overage: bool | None = None


def check_reset(reset: Reset, *, period: Period, now: datetime) -> None:
    """Checks that a reset may be made now.

    Args:
        reset: the new one.
        period: the current usage period, which begins with the last reset.
        now: the present.

    Raises:
        InvalidInput: in the future, or before the current period: what was settled stays.
    """
    faults = tuple(_faults(reset, period, now))
    if faults:
        raise InvalidInput(faults)


def _faults(reset: Reset, period: Period, now: datetime) -> Iterator[Fault]:
    if reset.effective_at > now:
        message = "must not be in the future"
        yield Fault(field="effectiveAt", code="out_of_bounds", message=message)
    if reset.effective_at < period.start:
        message = "must not be before the current usage period"
        yield Fault(field="effectiveAt", code="out_of_bounds", message=message)
