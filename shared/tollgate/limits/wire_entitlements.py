"""Wire models of v1 and v2: entitlements, grants, values and histories as they are answered."""

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import Field

from tollgate.core.decimals import total
from tollgate.limits.burn_down import Segment
from tollgate.limits.entitlement import MeteredEntitlement, StaticEntitlement
from tollgate.limits.entitlement_record import EntitlementRecord, usage_period_at
from tollgate.limits.entitlement_tables import zone_name
from tollgate.limits.history import History
from tollgate.limits.limit import Limit
from tollgate.limits.period import Period
from tollgate.limits.recurrence import Recurrence
from tollgate.limits.reset import Reset
from tollgate.platform.exact import ExactNumber
from tollgate.platform.wire import Wire, WireInstant

ZERO = Decimal(0)
_MICROSECOND = timedelta(microseconds=1)


class PeriodBody(Wire):
    """A stretch of time (schema `Period`)."""

    start: WireInstant = Field(alias="from")
    end: WireInstant = Field(alias="to")


class RecurringPeriodBody(Wire):
    """A recurrence (schema `RecurringPeriod`)."""

    interval: str
    anchor: WireInstant
    interval_iso: str = Field(alias="intervalISO")
    time_zone: Annotated[
        str | None, Field(alias="timeZone", description="Left out where it is UTC.")
    ] = None


class EntitlementBody(Wire):
    """What entitlements of every kind and version have in common."""

    type: Literal["metered", "static", "boolean"]
    id: str
    feature_key: str = Field(alias="featureKey")
    feature_id: str = Field(alias="featureId")
    metadata: dict[str, str] | None = None
    annotations: dict[str, Any] | None = None
    created_at: WireInstant = Field(alias="createdAt")
    updated_at: WireInstant = Field(alias="updatedAt")
    deleted_at: WireInstant | None = Field(default=None, alias="deletedAt")
    active_from: WireInstant = Field(alias="activeFrom")
    active_to: WireInstant | None = Field(default=None, alias="activeTo")
    usage_period: RecurringPeriodBody | None = Field(default=None, alias="usagePeriod")
    current_usage_period: PeriodBody | None = Field(default=None, alias="currentUsagePeriod")
    config: Annotated[str | None, Field(description="Of static ones alone.")] = None
    is_soft_limit: Annotated[
        bool | None,
        Field(alias="isSoftLimit", description="This and what follows: of metered ones alone."),
    ] = None
    preserve_overage: bool | None = Field(default=None, alias="preserveOverageAtReset")
    issue_after_reset: ExactNumber | None = Field(default=None, alias="issueAfterReset")
    issue_priority: int | None = Field(default=None, alias="issueAfterResetPriority")
    measure_usage_from: WireInstant | None = Field(default=None, alias="measureUsageFrom")
    last_reset: WireInstant | None = Field(default=None, alias="lastReset")


class ValueBody(Wire):
    """A decision (schema `EntitlementValue`); figures are those of a metered entitlement."""

    has_access: bool = Field(alias="hasAccess")
    balance: ExactNumber | None = None
    usage: ExactNumber | None = None
    overage: ExactNumber | None = None
    total_available: ExactNumber | None = Field(default=None, alias="totalAvailableGrantAmount")
    config: str | None = None


class WindowBody(Wire):
    """What was used in a window (schema `BalanceHistoryWindow`)."""

    period: PeriodBody
    usage: ExactNumber
    balance_at_start: ExactNumber = Field(alias="balanceAtStart")


class GrantUsageBody(Wire):
    """What was burned of a grant (schema `GrantUsageRecord`); below zero: given back."""

    grant_id: str = Field(alias="grantId")
    usage: ExactNumber


class SegmentBody(Wire):
    """What was used between two changes of the balance (`GrantBurnDownHistorySegment`)."""

    period: PeriodBody
    usage: ExactNumber
    overage: ExactNumber
    balance_at_start: ExactNumber = Field(alias="balanceAtStart")
    grant_balances_at_start: dict[str, ExactNumber] = Field(alias="grantBalancesAtStart")
    balance_at_end: ExactNumber = Field(alias="balanceAtEnd")
    grant_balances_at_end: dict[str, ExactNumber] = Field(alias="grantBalancesAtEnd")
    grant_usages: list[GrantUsageBody] = Field(alias="grantUsages")


class HistoryBody(Wire):
    """A history (schema `WindowedBalanceHistory`); only windows in which something was used."""

    windows: list[WindowBody] = Field(alias="windowedHistory")
    segments: list[SegmentBody] = Field(alias="burndownHistory")


def entitlement_members(
    record: EntitlementRecord, resets: tuple[Reset, ...], now: datetime
) -> dict[str, Any]:
    """What `EntitlementBody` has, by its names.

    Of one that is over it is the last usage period, of one to come the first.
    """
    known = record.definition
    members: dict[str, Any] = {
        "type": "boolean",
        "id": record.id,
        "feature_key": known.feature_key,
        "feature_id": record.feature_id,
        "metadata": dict(known.metadata) or None,
        "annotations": dict(record.annotations) or None,
        "created_at": known.created_at,
        "updated_at": record.updated_at,
        "deleted_at": record.deleted_at,
        "active_from": known.active_from,
        "active_to": known.active_to,
    }
    at = max(now, known.active_from)
    if known.active_to is not None and known.active_to <= at:
        at = max(known.active_to - _MICROSECOND, known.active_from)
    if record.usage_period is not None:
        members["usage_period"] = recurring_period_body(record.usage_period)
        members["current_usage_period"] = period_body(record.usage_period.period_at(at))
    match known:
        case StaticEntitlement():
            members |= {"type": "static", "config": known.config}
        case MeteredEntitlement():
            period, recurrence = usage_period_at(known, resets, at)
            issue = known.issue_after_reset
            members |= {
                "type": "metered",
                "usage_period": recurring_period_body(recurrence),
                "current_usage_period": period_body(period),
                "is_soft_limit": known.is_soft_limit,
                "preserve_overage": known.preserve_overage_at_reset,
                "issue_after_reset": issue and issue.amount,
                "issue_priority": issue and issue.priority,
                "measure_usage_from": known.measure_usage_from,
                "last_reset": period.start,
            }
        case _:
            pass
    return members


def value_members(limit: Limit) -> dict[str, Any]:
    """What `ValueBody` has, by its names."""
    members: dict[str, Any] = {"has_access": limit.has_access, "config": limit.config}
    if limit.balance is not None:
        members |= {
            "balance": limit.balance.remaining,
            "usage": limit.balance.usage,
            "overage": limit.balance.overage,
            "total_available": limit.balance.total_available,
        }
    return members


def value_body(limit: Limit) -> ValueBody:
    """The wire's form of a decision."""
    return ValueBody.model_construct(**value_members(limit))


def recurring_period_body(known: Recurrence) -> RecurringPeriodBody:
    """The wire's form of a recurrence."""
    name, iso_text = zone_name(known.zone), known.interval.iso_text()
    return RecurringPeriodBody.model_construct(
        interval=known.interval.name or iso_text,
        anchor=known.anchor,
        interval_iso=iso_text,
        time_zone=None if name == "UTC" else name,
    )


def period_body(period: Period) -> PeriodBody:
    """The wire's form of a period."""
    return PeriodBody.model_construct(start=period.start, end=period.end)


def history_body(found: History) -> HistoryBody:
    """The wire's form of a history."""
    windows = [
        WindowBody.model_construct(
            period=PeriodBody.model_construct(start=each.start, end=each.end),
            usage=each.usage,
            balance_at_start=each.balance_at_start,
        )
        for each in found.windows
        if each.usage
    ]
    segments = [_segment(each) for each in found.segments]
    return HistoryBody.model_construct(windows=windows, segments=segments)


def _segment(segment: Segment) -> SegmentBody:
    return SegmentBody.model_construct(
        period=PeriodBody.model_construct(start=segment.start, end=segment.end),
        usage=segment.usage,
        overage=max(segment.overage, ZERO),
        balance_at_start=total(segment.balances_at_start.values()),
        grant_balances_at_start=dict(segment.balances_at_start),
        balance_at_end=total(segment.balances_at_end.values()),
        grant_balances_at_end=dict(segment.balances_at_end),
        grant_usages=[
            GrantUsageBody.model_construct(grant_id=grant_id, usage=amount)
            for grant_id, amount in segment.burned.items()
        ],
    )
