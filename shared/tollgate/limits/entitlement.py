"""Entitlements: a customer's right to a feature, metered, static or boolean.

Definitions never change. To change one, another supersedes it: the first ends at the instant at
which the second begins.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from tollgate.core.errors import Conflict, Fault, InvalidInput
from tollgate.limits.grant import PRIORITY_MAX, Grant
from tollgate.limits.recurrence import Recurrence


@dataclass(frozen=True, slots=True, kw_only=True)
class Entitlement:
    """What the three kinds have in common.

    Attributes:
        id: unique.
        customer_id: whose right it is.
        feature_key: to what.
        created_at: when it was made.
        active_from: first instant at which it holds.
        active_to: first instant at which it no longer does; None: none is known.
        metadata: the maker's own.

    Raises:
        InvalidInput: it would end before it begins.
    """

    id: str
    customer_id: str
    feature_key: str
    created_at: datetime
    active_from: datetime
    active_to: datetime | None = None
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if self.active_to is not None and self.active_to < self.active_from:
            raise _refused("activeTo", "out_of_bounds", "must not be before activeFrom")

    def is_active(self, instant: datetime) -> bool:
        """Whether it holds at an instant."""
        return self.active_from <= instant and (self.active_to is None or instant < self.active_to)


@dataclass(frozen=True, slots=True, kw_only=True)
class IssueAfterReset:
    """What an entitlement grants by itself, anew in each usage period.

    Attributes:
        amount: 0 or more; 0 grants nothing.
        priority: of the grant, 1 to 255.

    Raises:
        InvalidInput: out of these bounds.
    """

    amount: Decimal
    priority: int = 1

    def __post_init__(self) -> None:
        if not self.amount.is_finite() or self.amount < 0:
            raise _refused("issueAfterReset", "out_of_bounds", "must be 0 or more")
        if not 1 <= self.priority <= PRIORITY_MAX:
            message = f"must be between 1 and {PRIORITY_MAX}"
            raise _refused("issueAfterResetPriority", "out_of_bounds", message)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeteredEntitlement(Entitlement):
    """A right to use so much of a feature as its grants allow.

    Attributes:
        usage_period: when usage begins anew; its zone is the entitlement's.
        measure_usage_from: usage before this instant is never counted.
        is_soft_limit: access stays when nothing is left.
        issue_after_reset: what it grants by itself; None: nothing.
        preserve_overage_at_reset: overage is deducted from the next period's grants.
    """

    usage_period: Recurrence
    measure_usage_from: datetime
    is_soft_limit: bool = False
    issue_after_reset: IssueAfterReset | None = None
    preserve_overage_at_reset: bool = False

    def default_grant(self, grant_id: str) -> Grant | None:
        """The grant that `issue_after_reset` stands for; None if it grants nothing.

        Every reset, also one by hand that moves the anchor, leaves exactly the amount of it. So it
        needs no recurrence, which would keep to the first anchor.
        """
        issue = self.issue_after_reset
        if issue is None or not issue.amount:
            return None
        return Grant(
            id=grant_id,
            amount=issue.amount,
            priority=issue.priority,
            effective_at=self.measure_usage_from,
            created_at=self.created_at,
            min_rollover=issue.amount,
            max_rollover=issue.amount,
            zone=self.usage_period.zone,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticEntitlement(Entitlement):
    """A right that says how a feature is set up.

    Attributes:
        config: a JSON object as text, given back as it came.

    Raises:
        InvalidInput: `config` is not a JSON object.
    """

    config: str

    def __post_init__(self) -> None:
        Entitlement.__post_init__(self)
        try:
            is_object = isinstance(json.loads(self.config), dict)
        except (ValueError, RecursionError):
            is_object = False
        if not is_object:
            raise _refused("config", "not_an_object", "must be the text of a JSON object")


@dataclass(frozen=True, slots=True, kw_only=True)
class BooleanEntitlement(Entitlement):
    """A right to a feature, with nothing more to say."""


AnyEntitlement = MeteredEntitlement | StaticEntitlement | BooleanEntitlement


class MeasureUsageFrom(StrEnum):
    """Instants from which usage may be measured, by name."""

    CURRENT_PERIOD_START = "CURRENT_PERIOD_START"
    NOW = "NOW"


def resolve_measure_usage_from(
    asked: MeasureUsageFrom | datetime | None, *, usage_period: Recurrence, now: datetime
) -> datetime:
    """The instant that a `measureUsageFrom` of the contract stands for; None is the creation."""
    match asked:
        case MeasureUsageFrom.CURRENT_PERIOD_START:
            return usage_period.period_at(now).start
        case MeasureUsageFrom.NOW | None:
            return now
        case datetime():
            return asked


def supersede(
    current: AnyEntitlement, successor: AnyEntitlement
) -> tuple[AnyEntitlement, AnyEntitlement]:
    """Ends an entitlement where another begins, so that one holds at every instant.

    Returns:
        The ended one and its successor, to be stored together.

    Raises:
        Conflict: another customer or feature, or the first does not hold when the other begins.
    """
    if (current.customer_id, current.feature_key) != (
        successor.customer_id,
        successor.feature_key,
    ):
        raise Conflict("an entitlement is superseded by one of the same customer and feature")
    if not current.is_active(successor.active_from):
        raise Conflict("the superseded entitlement is not active when its successor begins")
    return replace(current, active_to=successor.active_from), successor


def _refused(name: str, code: str, message: str) -> InvalidInput:
    return InvalidInput((Fault(field=name, code=code, message=message),))
