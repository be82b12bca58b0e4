"""The parts that the operations on entitlements share, and the questions that they all ask."""

import re
from collections.abc import Sequence
from datetime import datetime

from tollgate.core.errors import Fault, InvalidInput, NotFound
from tollgate.core.ids import ULID_PATTERN
from tollgate.events.api_position import await_position
from tollgate.limits.entitled_subjects import EntitledSubjects
from tollgate.limits.entitlement_record import usage_period_at
from tollgate.limits.entitlement_store import EntitlementOrder, EntitlementStore
from tollgate.limits.evaluate import history, limits_at
from tollgate.limits.facts_store import FactsStore, Known
from tollgate.limits.grant_store import GrantListing, GrantOrder, GrantStore
from tollgate.limits.limit import Limit
from tollgate.limits.usage_reader import UsageReader
from tollgate.limits.wire_entitlements import HistoryBody, history_body
from tollgate.limits.wire_entitlements_v2 import GrantOrderParameters, HistoryParameters
from tollgate.metering.rollup_reader import open_rollup_reader
from tollgate.metering.window import Windows, zone
from tollgate.platform.api import Call
from tollgate.platform.database import open_database
from tollgate.platform.parts import Parts, open_clickhouse

_ULID = re.compile(ULID_PATTERN, re.IGNORECASE)
ENTITLEMENT_ORDERS = {
    "createdAt": EntitlementOrder.CREATED_AT,
    "updatedAt": EntitlementOrder.UPDATED_AT,
}
GRANT_ORDERS = {
    "id": GrantOrder.ID,
    "createdAt": GrantOrder.CREATED_AT,
    "updatedAt": GrantOrder.UPDATED_AT,
}


def open_entitlements(parts: Parts) -> EntitlementStore:
    """The entitlements of the control plane."""
    return EntitlementStore(parts.get(open_database), parts.clock)


def open_grants(parts: Parts) -> GrantStore:
    """The grants and resets of the control plane."""
    return GrantStore(parts.get(open_database), parts.clock)


def open_entitled_subjects(parts: Parts) -> EntitledSubjects:
    """Whose the subjects are."""
    return EntitledSubjects(parts.get(open_database), parts.clock)


def open_facts(parts: Parts) -> FactsStore:
    """All that is known of entitlements."""
    return FactsStore(parts.get(open_database))


def open_usage_reader(parts: Parts) -> UsageReader:
    """Usage, as entitlements need it."""
    return UsageReader(
        parts.get(open_clickhouse),
        parts.get(open_rollup_reader),
        parts.settings.query_seconds_max,
    )


def limits_of(call: Call, known: tuple[Known, ...], at: datetime) -> list[Limit]:
    """The decisions for entitlements, with the usage that the call's position token asks for."""
    if any(each.metering is not None for each in known):
        await_position(call)
    return limits_at(call.parts.get(open_usage_reader), known, at)


def named_known(call: Call, customer: str, name: str, at: datetime) -> Known:
    """A customer's entitlement: by id, or by the feature's key the one that holds at an instant.

    Raises:
        NotFound: there is none.
    """
    facts = call.parts.get(open_facts)
    customer_id, known = facts.of_customer(call.namespace, customer, at, [name])
    if not known:
        raise NotFound(f"the customer {customer_id} has no entitlement {name}")
    return known[0]


def looks_like_id(name: str) -> bool:
    """Whether a name is no feature's key: no key looks like an id."""
    return _ULID.fullmatch(name) is not None


def value_of(call: Call, customer: str, name: str, at: datetime) -> Limit:
    """The decision for a customer at an instant; of a feature without an entitlement: no access.

    Raises:
        NotFound: there is no such customer, or `name` looks like an id and is none.
    """
    facts = call.parts.get(open_facts)
    customer_id, known = facts.of_customer(call.namespace, customer, at, [name])
    if known:
        return limits_of(call, known, at)[0]
    if looks_like_id(name):
        raise NotFound(f"the customer {customer_id} has no entitlement {name}")
    return Limit(has_access=False)


def history_of(call: Call, known: Known) -> HistoryBody:
    """The history that a call asks for.

    Raises:
        InvalidInput: the entitlement is not metered, or has nothing in the period.
    """
    query: HistoryParameters = call.query
    if known.metering is None:
        message = f"the entitlement {known.record.id} is not metered: it has no history"
        raise InvalidInput((Fault(field="", code="not_metered", message=message),))
    now = call.parts.clock.now()
    metering = known.metering
    low, high = query.start, min(query.end or now, now)
    if low is None:
        at = max(high, metering.entitlement.measure_usage_from)
        low = usage_period_at(metering.entitlement, metering.resets, at)[0].start
    await_position(call)
    windows = Windows(size=query.window_size, zone=zone(query.window_time_zone), low=low, high=high)
    return history_body(history(call.parts.get(open_usage_reader), metering, windows))


def grant_listing(
    query: GrantOrderParameters,
    *,
    features: Sequence[str] | None = None,
    customers: Sequence[str] | None = None,
) -> GrantListing:
    """Which grants a call asks for."""
    return GrantListing(
        skipped=query.skipped,
        count_max=query.count_max,
        order=GRANT_ORDERS[query.order_by],
        descending=query.order == "DESC",
        include_deleted=query.include_deleted,
        features=None if features is None else tuple(features),
        customers=None if customers is None else tuple(customers),
    )
