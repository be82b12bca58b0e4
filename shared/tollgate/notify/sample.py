"""What a test of a rule tells: made up, in the form of the real thing."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal

from tollgate.core.ids import new_ulid
from tollgate.core.times import format_instant
from tollgate.notify.balance import Balance
from tollgate.notify.new_event import NewEvent, new_event
from tollgate.notify.payload import members_of_balance
from tollgate.notify.rule import FeatureName, Rule

_TOTAL = Decimal(1000)
_USAGE = Decimal(900)
_NO_TOTALS = [
    "amount",
    "chargesTotal",
    "discountsTotal",
    "creditsTotal",
    "taxesInclusiveTotal",
    "taxesExclusiveTotal",
    "taxesTotal",
    "total",
]


def sample_event(rule: Rule, now: datetime) -> NewEvent:
    """A test event of a rule."""
    if not rule.kind.is_of_features:
        return new_event(rule, _invoice(now), None, None, now)
    balance = _balance(rule, now)
    level = rule.levels[0] if rule.levels else None
    data = members_of_balance(balance, _described(balance, now), level)
    return new_event(rule, data, balance, None, now)


def _balance(rule: Rule, now: datetime) -> Balance:
    feature = rule.features[0] if rule.features else FeatureName(id=new_ulid(), key="test_feature")
    start = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    end = (start + timedelta(days=32)).replace(day=1)
    entitlement_id = new_ulid()
    return Balance(
        namespace=rule.namespace,
        entitlement_id=entitlement_id,
        feature=feature,
        customer_id=new_ulid(),
        subject_key="test_subject",
        period_start=start,
        period_end=end,
        usage=_USAGE,
        total=_TOTAL,
        balance=_TOTAL - _USAGE,
        overage=Decimal(0),
        has_access=True,
        at=now,
        entitlement={
            "type": "metered",
            "id": entitlement_id,
            "subjectKey": "test_subject",
            "featureKey": feature.key,
            "featureId": feature.id,
            "activeFrom": format_instant(start),
            "measureUsageFrom": format_instant(start),
            "lastReset": format_instant(start),
            "currentUsagePeriod": {"from": format_instant(start), "to": format_instant(end)},
            "usagePeriod": {
                "interval": "MONTH",
                "intervalISO": "P1M",
                "anchor": format_instant(start),
            },
            "createdAt": format_instant(start),
            "updatedAt": format_instant(start),
        },
    )


def _described(balance: Balance, now: datetime) -> Mapping[str, object]:
    made = {"createdAt": now, "updatedAt": now}
    feature = balance.feature
    return {
        "feature": {"id": feature.id, "key": feature.key, "name": "Test feature", **made},
        "subject": {"id": balance.customer_id, "key": balance.subject_key, **made},
        "customer": {
            "id": balance.customer_id,
            "name": "Test customer",
            "usageAttribution": {"subjectKeys": [balance.subject_key]},
            **made,
        },
    }


def _invoice(now: datetime) -> Mapping[str, object]:
    return {
        "id": new_ulid(),
        "type": "standard",
        "number": "TEST-1",
        "currency": "USD",
        "supplier": {"name": "Test supplier"},
        "customer": {
            "name": "Test customer",
            "usageAttribution": {"subjectKeys": ["test_subject"]},
        },
        "totals": dict.fromkeys(_NO_TOTALS, "0"),
        "status": "draft",
        "statusDetails": {
            "immutable": False,
            "failed": False,
            "extendedStatus": "draft.created",
            "availableActions": {},
        },
        "workflow": {"sourceBillingProfileId": new_ulid(), "workflow": {}},
        "createdAt": now,
        "updatedAt": now,
    }
