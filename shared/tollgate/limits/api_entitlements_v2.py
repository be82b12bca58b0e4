"""v2 of entitlements on HTTP: rights of customers, their grants, values and histories."""

from typing import Any

from tollgate.limits.entitlement_parts import (
    ENTITLEMENT_ORDERS,
    grant_listing,
    history_of,
    named_known,
    open_entitlements,
    open_grants,
)
from tollgate.limits.entitlement_record import EntitlementRecord
from tollgate.limits.entitlement_store import EntitlementListing
from tollgate.limits.reset import Reset
from tollgate.limits.wire_entitlement_inputs import (
    EntitlementV2Members,
    GrantV2Members,
    ResetBody,
    read_entitlement_input_v2,
    read_grant_input_v2,
)
from tollgate.limits.wire_entitlements import HistoryBody
from tollgate.limits.wire_entitlements_v2 import (
    CustomerEntitlementsParameters,
    EntitlementsV2Parameters,
    EntitlementV2Body,
    EntitlementV2PageBody,
    GrantOrderParameters,
    GrantsV2Parameters,
    GrantV2Body,
    GrantV2PageBody,
    HistoryParameters,
    VoidParameters,
    entitlement_v2_body,
    grant_v2_body,
)
from tollgate.platform.access import Scope
from tollgate.platform.api import Call, Operation, Reply
from tollgate.platform.exact import exact_reply

_CUSTOMER, _NAME = "customerIdOrKey", "entitlementIdOrFeatureKey"


def _entitlement(call: Call, found: tuple[EntitlementRecord, tuple[Reset, ...]]) -> Reply:
    return exact_reply(entitlement_v2_body(*found, call.parts.clock.now()))


def create_entitlement(call: Call) -> Reply:
    """Gives a customer a right to a feature, which it must not have yet."""
    wanted = read_entitlement_input_v2(call.raw)
    store = call.parts.get(open_entitlements)
    return _entitlement(call, store.create(call.namespace, call.path[_CUSTOMER], wanted))


def override_entitlement(call: Call) -> Reply:
    """Ends an entitlement where a new one to the same feature begins: now."""
    wanted = read_entitlement_input_v2(call.raw)
    customer, name = call.path[_CUSTOMER], call.path[_NAME]
    store = call.parts.get(open_entitlements)
    return _entitlement(call, store.override(call.namespace, customer, name, wanted))


def list_customer_entitlements(call: Call) -> Reply:
    """One page of a customer's entitlements."""
    query: CustomerEntitlementsParameters = call.query
    customer_id = call.parts.get(open_entitlements).require_customer(
        call.namespace, call.path[_CUSTOMER]
    )
    listing = EntitlementListing(
        skipped=query.skipped,
        count_max=query.count_max,
        order=ENTITLEMENT_ORDERS[query.order_by],
        descending=query.order == "DESC",
        include_deleted=query.include_deleted,
        customers=(customer_id,),
    )
    return _page(call, query, listing)


def list_entitlements(call: Call) -> Reply:
    """One page of all customers' entitlements."""
    query: EntitlementsV2Parameters = call.query
    customers = None
    if query.customer_keys is not None or query.customer_ids is not None:
        customers = (*(query.customer_keys or ()), *(query.customer_ids or ()))
    listing = EntitlementListing(
        skipped=query.skipped,
        count_max=query.count_max,
        order=ENTITLEMENT_ORDERS[query.order_by],
        descending=query.order == "DESC",
        customers=customers,
        features=None if query.feature is None else tuple(query.feature),
        kinds=tuple(query.entitlement_type or ()),
        active_at=call.parts.clock.now() if query.exclude_inactive else None,
    )
    return _page(call, query, listing)


def get_entitlement(call: Call) -> Reply:
    """A customer's entitlement: by id, or by the feature's key the one that holds now."""
    store = call.parts.get(open_entitlements)
    return _entitlement(call, store.get(call.namespace, call.path[_CUSTOMER], call.path[_NAME]))


def get_entitlement_by_id(call: Call) -> Reply:
    """Any customer's entitlement, also one that is over."""
    store = call.parts.get(open_entitlements)
    return _entitlement(call, store.get_by_id(call.namespace, call.path["entitlementId"]))


def delete_entitlement(call: Call) -> None:
    """Ends an entitlement now; what it was before stays."""
    store = call.parts.get(open_entitlements)
    store.delete(call.namespace, call.path[_CUSTOMER], call.path[_NAME])


def create_grant(call: Call) -> Reply:
    """Gives a grant to a metered entitlement that holds now."""
    wanted = read_grant_input_v2(call.raw)
    customer, name = call.path[_CUSTOMER], call.path[_NAME]
    made = call.parts.get(open_grants).add(call.namespace, customer, name, wanted)
    return exact_reply(grant_v2_body(made, call.parts.clock.now()))


def list_entitlement_grants(call: Call) -> Reply:
    """One page of an entitlement's grants."""
    query: GrantOrderParameters = call.query
    found, total = call.parts.get(open_grants).of_entitlement(
        call.namespace, call.path[_CUSTOMER], call.path[_NAME], grant_listing(query)
    )
    bodies = [grant_v2_body(each, call.parts.clock.now()) for each in found]
    return exact_reply(GrantV2PageBody.model_construct(**query.page_of(bodies, total)))


def list_grants(call: Call) -> Reply:
    """One page of all grants."""
    query: GrantsV2Parameters = call.query
    listing = grant_listing(query, features=query.feature, customers=query.customer)
    found, total = call.parts.get(open_grants).list(call.namespace, listing)
    bodies = [grant_v2_body(each, call.parts.clock.now()) for each in found]
    return exact_reply(GrantV2PageBody.model_construct(**query.page_of(bodies, total)))


def void_grant(call: Call) -> None:
    """Takes a grant back; what usage burned of it before stays burned."""
    call.parts.get(open_grants).void(call.namespace, call.path["grantId"], call.query.at)


def reset_usage(call: Call) -> None:
    """Ends the usage period of a metered entitlement and begins the next."""
    body: ResetBody = call.body
    customer, name = call.path[_CUSTOMER], call.path[_NAME]
    call.parts.get(open_grants).reset(call.namespace, customer, name, body.asked)


def get_history(call: Call) -> Reply:
    """What was used of a metered entitlement, and what remained."""
    found = named_known(call, call.path[_CUSTOMER], call.path[_NAME], call.parts.clock.now())
    return exact_reply(history_of(call, found))


def _page(
    call: Call,
    query: CustomerEntitlementsParameters | EntitlementsV2Parameters,
    listing: EntitlementListing,
) -> Reply:
    found, total = call.parts.get(open_entitlements).list(call.namespace, listing)
    now = call.parts.clock.now()
    bodies = [entitlement_v2_body(record, resets, now) for record, resets in found]
    return exact_reply(EntitlementV2PageBody.model_construct(**query.page_of(bodies, total)))


def _operation(method: str, path: str, operation_id: str, summary: str, **more: Any) -> Operation:
    return Operation(
        method=method,
        path=path,
        operation_id=operation_id,
        summary=summary,
        tag="Entitlements",
        **{"scope": Scope.READ} | more,
    )


_ALL = f"/api/v2/customers/{{{_CUSTOMER}}}/entitlements"
_ONE = f"{_ALL}/{{{_NAME}}}"
OPERATIONS: tuple[Operation, ...] = (
    _operation(
        "POST",
        _ALL,
        "createCustomerEntitlementV2",
        "Create an entitlement of a customer",
        handler=create_entitlement,
        body=EntitlementV2Members,
        response=EntitlementV2Body,
        status=201,
        scope=Scope.ADMIN,
        failures=(409,),
    ),
    _operation(
        "GET",
        _ALL,
        "listCustomerEntitlementsV2",
        "List entitlements of a customer",
        handler=list_customer_entitlements,
        query=CustomerEntitlementsParameters,
        response=EntitlementV2PageBody,
    ),
    _operation(
        "GET",
        _ONE,
        "getCustomerEntitlementV2",
        "Get an entitlement of a customer",
        handler=get_entitlement,
        response=EntitlementV2Body,
    ),
    _operation(
        "DELETE",
        _ONE,
        "deleteCustomerEntitlementV2",
        "Delete an entitlement of a customer",
        handler=delete_entitlement,
        status=204,
        scope=Scope.ADMIN,
    ),
    _operation(
        "PUT",
        f"{_ONE}/override",
        "overrideCustomerEntitlementV2",
        "Put an entitlement in the place of another",
        handler=override_entitlement,
        body=EntitlementV2Members,
        response=EntitlementV2Body,
        status=201,
        scope=Scope.ADMIN,
        failures=(409,),
    ),
    _operation(
        "GET",
        f"{_ONE}/grants",
        "listCustomerEntitlementGrantsV2",
        "List grants of an entitlement",
        handler=list_entitlement_grants,
        query=GrantOrderParameters,
        response=GrantV2PageBody,
    ),
    _operation(
        "POST",
        f"{_ONE}/grants",
        "createCustomerEntitlementGrantV2",
        "Give a grant to an entitlement",
        handler=create_grant,
        body=GrantV2Members,
        response=GrantV2Body,
        status=201,
        scope=Scope.ADMIN,
        failures=(409,),
    ),
    _operation(
        "GET",
        f"{_ONE}/history",
        "getCustomerEntitlementHistoryV2",
        "Get the history of an entitlement",
        handler=get_history,
        query=HistoryParameters,
        response=HistoryBody,
    ),
    _operation(
        "POST",
        f"{_ONE}/reset",
        "resetCustomerEntitlementUsageV2",
        "Reset the usage of an entitlement",
        handler=reset_usage,
        body=ResetBody,
        status=204,
        scope=Scope.ADMIN,
        failures=(409,),
    ),
    _operation(
        "GET",
        "/api/v2/entitlements",
        "listEntitlementsV2",
        "List entitlements",
        handler=list_entitlements,
        query=EntitlementsV2Parameters,
        response=EntitlementV2PageBody,
    ),
    _operation(
        "GET",
        "/api/v2/entitlements/{entitlementId}",
        "getEntitlementByIdV2",
        "Get an entitlement",
        handler=get_entitlement_by_id,
        response=EntitlementV2Body,
    ),
    _operation(
        "GET",
        "/api/v2/grants",
        "listGrantsV2",
        "List grants",
        handler=list_grants,
        query=GrantsV2Parameters,
        response=GrantV2PageBody,
    ),
    _operation(
        "DELETE",
        "/api/v1/grants/{grantId}",
        "voidGrant",
        "Void a grant",
        handler=void_grant,
        query=VoidParameters,
        status=204,
        scope=Scope.ADMIN,
        failures=(409,),
    ),
)
