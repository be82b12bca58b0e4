"""v1 of entitlements on HTTP: what customers may use, and lists of all."""

from typing import Any

from tollgate.limits.entitlement_parts import (
    ENTITLEMENT_ORDERS,
    grant_listing,
    open_entitled_subjects,
    open_entitlements,
    open_grants,
)
from tollgate.limits.entitlement_store import EntitlementListing
from tollgate.limits.wire_entitlements_v1 import (
    EntitlementListBody,
    EntitlementPageBody,
    EntitlementsParameters,
    GrantListBody,
    GrantPageBody,
    GrantsParameters,
    SubjectEntitlementBody,
    grant_body,
    subject_entitlement_body,
)
from tollgate.platform.access import Scope
from tollgate.platform.api import Call, Operation, Reply
from tollgate.platform.exact import exact_reply


def list_entitlements(call: Call) -> Reply:
    """Entitlements of all customers."""
    query: EntitlementsParameters = call.query
    listing = EntitlementListing(
        skipped=query.skipped,
        count_max=query.count_max,
        order=ENTITLEMENT_ORDERS[query.order_by],
        descending=query.order == "DESC",
        customers=_customers(call, query.subject),
        features=None if query.feature is None else tuple(query.feature),
        kinds=tuple(query.entitlement_type or ()),
        active_at=call.parts.clock.now() if query.exclude_inactive else None,
    )
    found, total = call.parts.get(open_entitlements).list(call.namespace, listing)
    now = call.parts.clock.now()
    whose = {record.definition.customer_id for record, _ in found}
    subjects = call.parts.get(open_entitled_subjects).shown(call.namespace, whose)
    bodies = [
        subject_entitlement_body(record, resets, now, subjects[record.definition.customer_id])
        for record, resets in found
    ]
    if not query.is_paged:
        return exact_reply(bodies)
    return exact_reply(EntitlementPageBody.model_construct(**query.page_of(bodies, total)))


def get_entitlement(call: Call) -> Reply:
    """Any customer's entitlement, also one that is over."""
    store = call.parts.get(open_entitlements)
    record, resets = store.get_by_id(call.namespace, call.path["entitlementId"])
    whose = record.definition.customer_id
    subjects = call.parts.get(open_entitled_subjects).shown(call.namespace, [whose])
    now = call.parts.clock.now()
    return exact_reply(subject_entitlement_body(record, resets, now, subjects[whose]))


def list_grants(call: Call) -> Reply:
    """Grants of all customers."""
    query: GrantsParameters = call.query
    listing = grant_listing(
        query, features=query.feature, customers=_customers(call, query.subject)
    )
    found, total = call.parts.get(open_grants).list(call.namespace, listing)
    bodies = [grant_body(each, call.parts.clock.now()) for each in found]
    if not query.is_paged:
        return exact_reply(bodies)
    return exact_reply(GrantPageBody.model_construct(**query.page_of(bodies, total)))


def _customers(call: Call, subjects: list[str] | None) -> tuple[str, ...] | None:
    if subjects is None:
        return None
    found = call.parts.get(open_entitled_subjects).customers(call.namespace, subjects)
    return tuple(dict.fromkeys(found.values()))


def _operation(path: str, operation_id: str, summary: str, **more: Any) -> Operation:
    return Operation(
        method="GET",
        path=path,
        operation_id=operation_id,
        summary=summary,
        tag="Entitlements",
        scope=Scope.READ,
        **more,
    )


OPERATIONS: tuple[Operation, ...] = (
    _operation(
        "/api/v1/entitlements",
        "listEntitlements",
        "List entitlements",
        handler=list_entitlements,
        query=EntitlementsParameters,
        response=EntitlementListBody,
    ),
    _operation(
        "/api/v1/entitlements/{entitlementId}",
        "getEntitlementById",
        "Get an entitlement",
        handler=get_entitlement,
        response=SubjectEntitlementBody,
    ),
    _operation(
        "/api/v1/grants",
        "listGrants",
        "List grants",
        handler=list_grants,
        query=GrantsParameters,
        response=GrantListBody,
    ),
)
