"""Wire models of v3: what customers may use, named as the contract names it."""

from typing import Annotated, Any, Literal

from pydantic import Field

from tollgate.customers.wire_v3 import CustomerBody, body_from_customer
from tollgate.limits.access import MESSAGES, CustomerAccess, Reason
from tollgate.limits.entitlement import AnyEntitlement, MeteredEntitlement, StaticEntitlement
from tollgate.limits.limit import Limit
from tollgate.platform.wire import Wire, WireInstant
from tollgate.platform.wire_v3 import Closed

KEYS_MAX = 100
_Keys = Annotated[list[str], Field(min_length=1, max_length=KEYS_MAX)]


class AccessResultBody(Wire):
    """One entitlement that holds (schema `BillingEntitlementAccessResult`)."""

    type: Literal["metered", "static", "boolean"]
    feature_key: str
    has_access: bool
    config: str | None = None


class AccessListBody(Wire):
    """All of a customer (schema `ListCustomerEntitlementAccessResponseData`)."""

    data: list[AccessResultBody]


class AskedCustomersBody(Closed):
    """Whom to answer for: customers' keys or ids, or subjects."""

    keys: _Keys


class AskedFeaturesBody(Closed):
    """Of what."""

    keys: _Keys


class AccessQueryBody(Closed):
    """A question (schema `EntitlementAccessQueryRequest`)."""

    include_credits: Annotated[
        bool, Field(description="There are no credits yet: true is refused.")
    ] = False
    customer: AskedCustomersBody
    feature: Annotated[
        AskedFeaturesBody | None, Field(description="All features if it is left out.")
    ] = None


class CursorPageParameters(Closed):
    """`page[size]`, and `page[after]` or `page[before]`: a customer's id."""

    size: Annotated[int, Field(ge=1, le=KEYS_MAX)] = KEYS_MAX
    after: str | None = None
    before: str | None = None


class AccessQueryParameters(Wire):
    """Which page of the answer, which is in order of the customers' ids."""

    page: CursorPageParameters = CursorPageParameters()


class ReasonBody(Wire):
    """Why there is no access (schema `EntitlementFeatureAccessReason`)."""

    code: Reason
    message: str


class FeatureAccessBody(Wire):
    """Whether a feature may be used (schema `EntitlementFeatureAccess`)."""

    has_access: bool
    reason: ReasonBody | None = None


class CustomerAccessBody(Wire):
    """What a customer may use (schema `EntitlementAccessQueryResult`)."""

    matched: list[str]
    customer: CustomerBody
    features: dict[str, FeatureAccessBody]
    updated_at: WireInstant


class UnknownCustomerBody(Wire):
    """A name that is nobody's (schema `EntitlementAccessQueryError`)."""

    code: Literal["customer_not_found"] = "customer_not_found"
    message: str
    customer: str


class CursorMetaPageBody(Wire):
    """URIs of the pages around this one; null where there is none."""

    first: str
    next: str | None
    previous: str | None
    size: int


class CursorMetaBody(Wire):
    """What the contract wraps the page in."""

    page: CursorMetaPageBody


class AccessQueryResultBody(Wire):
    """The answer (schema `EntitlementAccessQueryResponse`)."""

    data: list[CustomerAccessBody]
    errors: list[UnknownCustomerBody]
    meta: CursorMetaBody


def access_result_body(definition: AnyEntitlement, limit: Limit) -> AccessResultBody:
    """The wire's form of a decision for an entitlement."""
    kind: Literal["metered", "static", "boolean"]
    match definition:
        case MeteredEntitlement():
            kind = "metered"
        case StaticEntitlement():
            kind = "static"
        case _:
            kind = "boolean"
    return AccessResultBody.model_construct(
        type=kind,
        feature_key=definition.feature_key,
        has_access=limit.has_access,
        config=limit.config,
    )


def customer_access_body(found: CustomerAccess) -> CustomerAccessBody:
    """The wire's form of what a customer may use."""
    return CustomerAccessBody.model_construct(
        matched=list(found.matched),
        customer=body_from_customer(found.customer),
        features={key: _feature(reason) for key, reason in found.features.items()},
        updated_at=found.updated_at,
    )


def unknown_customer_body(name: str) -> UnknownCustomerBody:
    """The wire's form of a name that is nobody's."""
    message = "no customer has this key, and no customer this subject"
    return UnknownCustomerBody(message=message, customer=name)


def _feature(reason: Reason | None) -> FeatureAccessBody:
    said: dict[str, Any] = {}
    if reason is not None:
        said["reason"] = ReasonBody.model_construct(code=reason, message=MESSAGES[reason])
    return FeatureAccessBody.model_construct(has_access=reason is None, **said)
