"""Wire models of v3: customers, named as the contract names them."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field

from tollgate.core.errors import Fault, InvalidInput
from tollgate.customers.customer import Customer, CustomerInput, parse_customer, v3_name
from tollgate.platform.wire import Wire, WireInstant
from tollgate.platform.wire_v3 import (
    LABELS_MAX,
    Closed,
    PageParameters,
    PaginatedMeta,
    labels_faults,
    labels_from_metadata,
    metadata_from_labels,
    unknown_members,
)


class UsageAttributionBody(Closed):
    """Whose usage is a customer's (schema `BillingCustomerUsageAttribution`)."""

    subject_keys: list[str]


class AddressBody(Closed):
    """An address (schema `Address`)."""

    country: Annotated[str | None, Field(pattern="^[A-Z]{2}$")] = None
    postal_code: str | None = None
    state: str | None = None
    city: str | None = None
    line1: str | None = None
    line2: str | None = None
    phone_number: str | None = None


class CustomerUpsertBody(Closed):
    """A customer as it should be (schema `UpsertCustomerRequest`); its key stays."""

    name: Annotated[str, Field(min_length=1, max_length=256)]
    description: Annotated[str | None, Field(max_length=1024)] = None
    labels: Annotated[dict[str, str] | None, Field(max_length=LABELS_MAX)] = None
    usage_attribution: UsageAttributionBody | None = None
    primary_email: str | None = None
    currency: Annotated[str | None, Field(pattern="^[A-Z]{3}$")] = None
    billing_address: AddressBody | None = None


class CustomerCreateBody(CustomerUpsertBody):
    """A new customer (schema `CreateCustomerRequest`)."""

    key: Annotated[str, Field(min_length=1, max_length=256)]


def _as_sent(value: object) -> object:
    return value


# Read as plain members, so that all faults are found together, by the reader of `customer.py`.
CustomerCreateMembers = Annotated[
    dict[str, Any], BeforeValidator(_as_sent, json_schema_input_type=CustomerCreateBody)
]
CustomerUpsertMembers = Annotated[
    dict[str, Any], BeforeValidator(_as_sent, json_schema_input_type=CustomerUpsertBody)
]


class CustomerBody(Wire):
    """A customer (schema `BillingCustomer`)."""

    id: str
    name: str
    description: str | None = None
    labels: dict[str, str] | None = None
    created_at: WireInstant
    updated_at: WireInstant
    deleted_at: WireInstant | None = None
    key: Annotated[str, Field(description="the id of a customer that has no key")]
    usage_attribution: UsageAttributionBody
    primary_email: str | None = None
    currency: str | None = None
    billing_address: AddressBody | None = None


class CustomerPageBody(Wire):
    """One page of customers (schema `CustomerPagePaginatedResponse`)."""

    data: list[CustomerBody]
    meta: PaginatedMeta


_Asked = str | dict[str, Any] | None


class CustomerFilterParameters(Closed):
    """`filter[key]` and so on, each a text or `[operator]=text`."""

    key: _Asked = None
    name: _Asked = None
    primary_email: _Asked = None
    usage_attribution_subject_key: _Asked = None
    plan_key: _Asked = None
    billing_profile_id: _Asked = None


class CustomerListParameters(Wire):
    """Which page of which customers."""

    page: PageParameters = PageParameters()
    sort: str = "name"
    filter: CustomerFilterParameters = CustomerFilterParameters()


def body_from_customer(customer: Customer) -> CustomerBody:
    """The wire's form of a customer."""
    address = customer.billing_address
    return CustomerBody.model_construct(
        id=customer.id,
        name=customer.name,
        description=customer.description,
        labels=labels_from_metadata(customer.metadata) or None,
        created_at=customer.created_at,
        updated_at=customer.updated_at,
        deleted_at=customer.deleted_at,
        # The contract knows no customer without a key; the id names it too.
        key=customer.key or customer.id,
        usage_attribution=UsageAttributionBody.model_construct(
            subject_keys=list(customer.subject_keys)
        ),
        primary_email=customer.primary_email,
        currency=customer.currency,
        billing_address=None if address is None else AddressBody.model_validate(address),
    )


def customer_from_members(members: Mapping[str, object]) -> CustomerInput:
    """A new customer from what a client sent.

    Raises:
        InvalidInput: every fault, under v3's names.
    """
    faults = _faults(members, CustomerCreateBody)
    if members.get("key") is None:
        faults.append(Fault(field="key", code="required", message="is required"))
    raw = {**members, "metadata": members.get("labels")}
    return _collected(faults, lambda: parse_customer(raw, v3_name))


def replacement_from_members(members: Mapping[str, object], stored: Customer) -> CustomerInput:
    """What a client makes of a customer: its key and what v3 does not show of it stay.

    Raises:
        InvalidInput: every fault, under v3's names.
    """
    faults = _faults(members, CustomerUpsertBody)
    labels = members.get("labels")
    if labels is None or isinstance(labels, Mapping):
        labels = metadata_from_labels(labels or {}, stored.metadata)
    # A customer without a key may lose its last subject: its id goes on naming it.
    raw = {**members, "metadata": labels, "key": stored.key or stored.id}
    found = _collected(faults, lambda: parse_customer(raw, v3_name))
    return replace(found, key=stored.key)


def _faults(members: Mapping[str, object], model: type[BaseModel]) -> list[Fault]:
    """What is wrong with v3's own rules."""
    faults = unknown_members(members, model) + labels_faults(members.get("labels"))
    inner: dict[str, type[BaseModel]] = {
        "usage_attribution": UsageAttributionBody,
        "billing_address": AddressBody,
    }
    for name, of_member in inner.items():
        value = members.get(name)
        if isinstance(value, Mapping):
            faults += unknown_members(value, of_member, f"{name}.")
    return faults


def _collected(faults: list[Fault], read: Callable[[], CustomerInput]) -> CustomerInput:
    """What `read` gives, unless there is a fault already; its own faults come after those."""
    try:
        found = read()
    except InvalidInput as invalid:
        own = {fault.field for fault in faults}
        more = [replace(f, field=_labels(f.field)) for f in invalid.faults]
        raise InvalidInput((*faults, *(each for each in more if each.field not in own))) from None
    if faults:
        raise InvalidInput(tuple(faults))
    return found


def _labels(field: str) -> str:
    head, dot, rest = field.partition(".")
    return ("labels" if head == "metadata" else head) + dot + rest
