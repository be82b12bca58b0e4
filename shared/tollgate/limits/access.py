"""Use case: which features which customers may use now, in one question."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from tollgate.core.errors import Fault, InvalidInput
from tollgate.customers.customer import Customer
from tollgate.limits.entitled_subjects import EntitledSubjects
from tollgate.limits.entitlement_record import EntitlementRecord
from tollgate.limits.feature_store import FeatureListing, FeatureStore
from tollgate.limits.limit import Limit

FEATURES_MAX = 300
"""Features of a namespace that are all answered for where none is named."""


class Reason(StrEnum):
    """Why a customer may not use a feature."""

    USAGE_LIMIT_REACHED = "usage_limit_reached"
    FEATURE_UNAVAILABLE = "feature_unavailable"
    FEATURE_NOT_FOUND = "feature_not_found"


MESSAGES: Mapping[Reason, str] = {
    Reason.USAGE_LIMIT_REACHED: "nothing remains of what the customer may use",
    Reason.FEATURE_UNAVAILABLE: "the customer has no right to the feature",
    Reason.FEATURE_NOT_FOUND: "there is no such feature",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomerAccess:
    """What a customer may use.

    Attributes:
        matched: the names that were asked for and are this customer's, in their order.
        features: by key; None: it may be used.
        updated_at: when the customer or something of its entitlements changed last.
    """

    matched: tuple[str, ...]
    customer: Customer
    features: Mapping[str, Reason | None]
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """Whom the names of a question stand for.

    Attributes:
        names: by customer, those that are its.
        unknown: names that are nobody's.
    """

    names: Mapping[str, tuple[str, ...]]
    unknown: tuple[str, ...]


def resolve(subjects: EntitledSubjects, namespace: str, names: Collection[str]) -> Resolved:
    """Finds customers by key, id or subject; each once, in order of their ids."""
    owners = subjects.customers(namespace, names)
    found: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        if name in owners:
            found.setdefault(owners[name], []).append(name)
    return Resolved(
        names={customer_id: tuple(found[customer_id]) for customer_id in sorted(found)},
        unknown=tuple(name for name in dict.fromkeys(names) if name not in owners),
    )


def wanted_features(
    features: FeatureStore, namespace: str, keys: Collection[str] | None
) -> dict[str, bool]:
    """The features of a question, each with whether there is one; by key.

    Raises:
        InvalidInput: none is named, and there are too many.
    """
    if keys is not None:
        known = features.by_keys(namespace, keys)
        return {key: key in known for key in dict.fromkeys(keys)}
    found, total = features.list(namespace, FeatureListing(count_max=FEATURES_MAX))
    if total > len(found):
        message = f"is needed where there are over {FEATURES_MAX} features"
        raise InvalidInput((Fault(field="feature", code="required", message=message),))
    return {each.key: True for each in found}


def accesses(
    resolved: Mapping[str, tuple[str, ...]],
    features: Mapping[str, bool],
    known: Collection[tuple[EntitlementRecord, Limit]],
    customers: Mapping[str, Customer],
    changed_at: Mapping[str, datetime],
) -> list[CustomerAccess]:
    """What customers may use.

    Args:
        resolved: customers' ids, with the names that stand for them.
        features: keys, with whether there is such a feature.
        known: entitlements that hold, with their decisions.
        customers: by id.
        changed_at: when their entitlements changed last.
    """
    limits = {(it.definition.customer_id, it.definition.feature_key): limit for it, limit in known}
    found = []
    for customer_id, names in resolved.items():
        customer = customers[customer_id]
        own = {
            key: _reason(limits.get((customer_id, key)), is_there=is_there)
            for key, is_there in features.items()
        }
        changed = changed_at.get(customer_id, customer.updated_at)
        found.append(
            CustomerAccess(
                matched=names,
                customer=customer,
                features=own,
                updated_at=max(changed, customer.updated_at),
            )
        )
    return found


def _reason(limit: Limit | None, *, is_there: bool) -> Reason | None:
    if limit is not None:
        # Also to a feature that is archived: what was given stays.
        return None if limit.has_access else Reason.USAGE_LIMIT_REACHED
    return Reason.FEATURE_UNAVAILABLE if is_there else Reason.FEATURE_NOT_FOUND
