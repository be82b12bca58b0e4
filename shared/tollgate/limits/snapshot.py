"""Snapshots: the state of a metered entitlement at an instant, from which its fold goes on.

A snapshot is cached, never a fact: all of them can be dropped. One is out of date as soon as a fact
comes to be known that takes effect at its instant or before: a grant, a void, a reset, or usage.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from tollgate.limits.recurrence import Recurrence


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """What a grant in force held at the last boundary.

    Attributes:
        grant_id: which.
        balance: what was left of it.
        burned: what usage of this period took from it since its balance was last set; usage that
            is given back restores at most this.
    """

    grant_id: str
    balance: Decimal
    burned: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything that the fold knows at an instant.

    It has seen all that happens at `at`, and usage before it. Between boundaries it keeps the last
    boundary's holdings and the usage since, because only their sum decides what burns: usage
    that comes and is given back between two boundaries leaves no trace.

    Attributes:
        at: the instant.
        boundary_at: the last boundary at or before it.
        holdings: of each grant in force, in burn order, as of the boundary.
        overage: at the boundary, not yet burned from the holdings there. Below zero: usage that
            was given back and that no grant could take.
        usage_since_boundary: in [boundary_at, at).
        usage: since the last reset.
        carried: overage that the last reset brought into this period.
        last_reset: when the usage period began.
        usage_period: when it ends, if no reset comes before.
    """

    at: datetime
    boundary_at: datetime
    holdings: tuple[Holding, ...]
    overage: Decimal
    usage_since_boundary: Decimal
    usage: Decimal
    carried: Decimal
    last_reset: datetime
    usage_period: Recurrence

    def is_current(self, known_from: datetime) -> bool:
        """Whether it stays right when a fact becomes known that takes effect at an instant."""
        return self.at < known_from
