"""Limits: the decision whether a customer may use a feature. A denied one is a value, no error."""

from dataclasses import dataclass
from datetime import datetime

from tollgate.limits.balance import Balance
from tollgate.limits.entitlement import (
    AnyEntitlement,
    BooleanEntitlement,
    MeteredEntitlement,
    StaticEntitlement,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A decision.

    Attributes:
        has_access: whether the feature may be used.
        balance: of a metered entitlement that is active.
        config: of a static entitlement that is active: a JSON object as text.
    """

    has_access: bool
    balance: Balance | None = None
    config: str | None = None


def decide(entitlement: AnyEntitlement, at: datetime, balance: Balance | None = None) -> Limit:
    """The decision for an entitlement at an instant.

    Metered: something remains, or the limit is soft. Static and boolean: yes. Not active: no,
    whatever the kind, and nothing more is said.

    Args:
        entitlement: of the customer, to the feature.
        at: the instant.
        balance: of a metered entitlement at that instant; needed if it is active.
    """
    if not entitlement.is_active(at):
        return Limit(has_access=False)
    match entitlement:
        case MeteredEntitlement():
            assert balance is not None, "a metered entitlement is decided by its balance"
            assert balance.at == at, f"the balance is of {balance.at}, not of {at}"
            may = entitlement.is_soft_limit or balance.remaining > 0
            return Limit(has_access=may, balance=balance)
        case StaticEntitlement():
            return Limit(has_access=True, config=entitlement.config)
        case BooleanEntitlement():
            return Limit(has_access=True)
