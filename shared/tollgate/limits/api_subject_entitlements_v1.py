"""v1 of entitlements on HTTP under the subject whose customer has them."""

from typing import Any

from tollgate.core.errors import NotFound
from tollgate.limits.entitlement_parts import (
    GRANT_ORDERS,
    history_of,
    named_known,
    open_entitled_subjects,
    open_entitlements,
    open_grants,
)
from tollgate.limits.entitlement_record import EntitlementRecord
from tollgate.limits.entitlement_store import EntitlementListing
from tollgate.limits.grant_store import GrantListing
from tollgate.limits.reset import Reset
from tollgate.limits.wire_entitlement_inputs import (
    EntitlementMembers,
    GrantMembers,
    ResetBody,
    read_entitlement_input,
    read_grant_input,
)
from tollgate.limits.wire_entitlements import HistoryBody
from tollgate.limits.wire_entitlements_v1 import (
    GrantBody,
    SubjectEntitlementBody,
    SubjectEntitlementsParameters,
    SubjectGrantsParameters,
    grant_body,
    subject_entitlement_body,
)
from tollgate.limits.wire_entitlements_v2 import HistoryParameters
from tollgate.platform.access import Scope
from tollgate.platform.api import Call, Operation, Reply
from tollgate.platform.exact import exact_reply

_SUBJECT, _NAME, _ID = "subjectIdOrKey", "entitlementIdOrFeatureKey", "entitlementId"
_LISTED_MAX = 10_000
"""Of the lists that have no pages."""
_NO_PAGES = f"The first {_LISTED_MAX}; v2 has pages."


def _subject(call: Call) -> str:
    subjects = call.parts.get(open_entitled_subjects)
    return subjects.key(call.namespace, call.path[_SUBJECT])


def _customer(call: Call) -> str:
    return call.parts.get(open_entitled_subjects).customer(call.namespace, _subject(call))


def _name(call: Call) -> str:
    return call.path.get(_NAME) or call.path[_ID]


def _entitlement(
    call: Call, subject: str, found: tuple[EntitlementRecord, tuple[Reset, ...]]
) -> Reply:
    return exact_reply(subject_entitlement_body(*found, call.parts.clock.now(), subject))


def create_entitlement(call: Call) -> Reply:
    """Gives a subject's customer a right to a feature; a subject that is nobody's gets one."""
    wanted, subject = read_entitlement_input(call.raw), _subject(call)
    store = call.parts.get(open_entitlements)
    # No customer is made for what is refused.
    store.require_feature(call.namespace, wanted)
    subjects = call.parts.get(open_entitled_subjects)
    customer_id = subjects.customer_or_new(call.namespace, subject)
    return _entitlement(call, subject, store.create(call.namespace, customer_id, wanted))


def override_entitlement(call: Call) -> Reply:
    """Ends an entitlement where a new one to the same feature begins: now."""
    wanted = read_entitlement_input(call.raw)
    store = call.parts.get(open_entitlements)
    made = store.override(call.namespace, _customer(call), _name(call), wanted)
    return _entitlement(call, _subject(call), made)


def list_entitlements(call: Call) -> Reply:
    """All entitlements of a subject's customer; of nobody's subject none."""
    query: SubjectEntitlementsParameters = call.query
    try:
        customer_id = _customer(call)
    except NotFound:
        return exact_reply([])
    listing = EntitlementListing(
        count_max=_LISTED_MAX, include_deleted=query.include_deleted, customers=(customer_id,)
    )
    found, _ = call.parts.get(open_entitlements).list(call.namespace, listing)
    subject, now = _subject(call), call.parts.clock.now()
    return exact_reply([subject_entitlement_body(*each, now, subject) for each in found])


def get_entitlement(call: Call) -> Reply:
    """An entitlement: by id, or by the feature's key the one that holds now."""
    store = call.parts.get(open_entitlements)
    found = store.get(call.namespace, _customer(call), _name(call))
    return _entitlement(call, _subject(call), found)


def delete_entitlement(call: Call) -> None:
    """Ends an entitlement now; what it was before stays."""
    call.parts.get(open_entitlements).delete(call.namespace, _customer(call), _name(call))


def list_grants(call: Call) -> Reply:
    """All grants of an entitlement."""
    query: SubjectGrantsParameters = call.query
    listing = GrantListing(
        count_max=_LISTED_MAX,
        order=GRANT_ORDERS[query.order_by],
        include_deleted=query.include_deleted,
    )
    found, _ = call.parts.get(open_grants).of_entitlement(
        call.namespace, _customer(call), _name(call), listing
    )
    return exact_reply([grant_body(each, call.parts.clock.now()) for each in found])


def create_grant(call: Call) -> Reply:
    """Gives a grant to a metered entitlement that holds now."""
    wanted, grants = read_grant_input(call.raw), call.parts.get(open_grants)
    made = grants.add(call.namespace, _customer(call), _name(call), wanted)
    return exact_reply(grant_body(made, call.parts.clock.now()))


def reset_usage(call: Call) -> None:
    """Ends the usage period of a metered entitlement and begins the next."""
    body: ResetBody = call.body
    call.parts.get(open_grants).reset(call.namespace, _customer(call), _name(call), body.asked)


def get_history(call: Call) -> Reply:
    """What was used of a metered entitlement, and what remained."""
    found = named_known(call, _customer(call), _name(call), call.parts.clock.now())
    return exact_reply(history_of(call, found))


def _operation(method: str, path: str, operation_id: str, summary: str, **more: Any) -> Operation:
    return Operation(
        method=method,
        path=f"/api/v1/subjects/{{{_SUBJECT}}}/entitlements{path}",
        operation_id=operation_id,
        summary=summary,
        tag="Entitlements",
        **{"scope": Scope.READ} | more,
    )


_BY_NAME, _BY_ID = f"/{{{_NAME}}}", f"/{{{_ID}}}"
OPERATIONS: tuple[Operation, ...] = (
    _operation(
        "POST",
        "",
        "createEntitlement",
        "Create an entitlement of a subject",
        handler=create_entitlement,
        body=EntitlementMembers,
        response=SubjectEntitlementBody,
        status=201,
        scope=Scope.ADMIN,
    ),
    _operation(
        "GET",
        "",
        "listSubjectEntitlements",
        "List entitlements of a subject",
        handler=list_entitlements,
        query=SubjectEntitlementsParameters,
        response=list[SubjectEntitlementBody],
        description=_NO_PAGES,
    ),
    _operation(
        "GET",
        _BY_ID,
        "getEntitlement",
        "Get an entitlement of a subject",
        handler=get_entitlement,
        response=SubjectEntitlementBody,
    ),
    _operation(
        "DELETE",
        _BY_ID,
        "deleteEntitlement",
        "Delete an entitlement of a subject",
        handler=delete_entitlement,
        status=204,
        scope=Scope.ADMIN,
    ),
    _operation(
        "PUT",
        f"{_BY_NAME}/override",
        "overrideEntitlement",
        "Put an entitlement in the place of another",
        handler=override_entitlement,
        body=EntitlementMembers,
        response=SubjectEntitlementBody,
        status=201,
        scope=Scope.ADMIN,
    ),
    _operation(
        "GET",
        f"{_BY_NAME}/grants",
        "listEntitlementGrants",
        "List grants of an entitlement",
        handler=list_grants,
        query=SubjectGrantsParameters,
        response=list[GrantBody],
        description=_NO_PAGES,
    ),
    _operation(
        "POST",
        f"{_BY_NAME}/grants",
        "createGrant",
        "Give a grant to an entitlement",
        handler=create_grant,
        body=GrantMembers,
        response=GrantBody,
        status=201,
        scope=Scope.ADMIN,
    ),
    _operation(
        "GET",
        f"{_BY_ID}/history",
        "getEntitlementHistory",
        "Get the history of an entitlement",
        handler=get_history,
        query=HistoryParameters,
        response=HistoryBody,
    ),
    _operation(
        "POST",
        f"{_BY_ID}/reset",
        "resetEntitlementUsage",
        "Reset the usage of an entitlement",
        handler=reset_usage,
        body=ResetBody,
        status=204,
        scope=Scope.ADMIN,
    ),
)
