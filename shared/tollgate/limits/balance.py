"""Balances: what remains of a metered entitlement at an instant."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """What remains, and of what; exact.

    Attributes:
        at: the instant: all that happens at it is seen, and usage before it.
        remaining: sum of the grants in force, never below zero.
        usage: in the current usage period; below zero if more was given back than used.
        overage: usage that no grant covers, with what the last reset carried over; 0 or more.
        total_available: what the grants in force offer in this period, and what was burned in it
            from those since gone.
        by_grant: what is left of each grant in force, by id, in burn order.
        last_reset: when the current usage period began.
        next_reset: when it ends, if no reset comes before.
    """

    at: datetime
    remaining: Decimal
    usage: Decimal
    overage: Decimal
    total_available: Decimal
    by_grant: Mapping[str, Decimal]
    last_reset: datetime
    next_reset: datetime
