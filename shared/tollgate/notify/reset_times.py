"""When the usage period of an entitlement was reset. Pure."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from tollgate.limits.entitlement import MeteredEntitlement
from tollgate.limits.entitlement_record import usage_period_at
from tollgate.limits.reset import Reset

RESETS_MAX = 100
"""Of an entitlement, found at once: four days of hourly periods, eight years of monthly ones."""
_JUST_BEFORE = timedelta(microseconds=1)


def reset_times(
    entitlement: MeteredEntitlement, resets: Sequence[Reset], since: datetime, until: datetime
) -> tuple[datetime, ...]:
    """Every instant in (since, until] at which a usage period ended and the next began.

    It ran out, or was reset by hand. Where usage begins to be measured nothing is reset.

    Args:
        entitlement: whose.
        resets: all of it by hand.
        since: exclusive.
        until: inclusive.

    Returns:
        the newest `RESETS_MAX`, the newest first.
    """
    found: list[datetime] = []
    first = max(since, entitlement.measure_usage_from)
    while until > first and len(found) < RESETS_MAX:
        period, _ = usage_period_at(entitlement, tuple(resets), until)
        if period.start <= first:
            break
        found.append(period.start)
        until = period.start - _JUST_BEFORE
    return tuple(found)
