"""Wire models of v1: customers, named as the contract names them."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from tollgate.customers.customer import Customer, v1_name
from tollgate.platform.wire import Wire, WireInstant


class UsageAttributionBody(Wire):
    """Whose usage is a customer's (schema `CustomerUsageAttribution`)."""

    subject_keys: list[str] = Field(alias="subjectKeys")


class AddressBody(Wire):
    """An address (schema `Address`)."""

    country: Annotated[str | None, Field(pattern="^[A-Z]{2}$")] = None
    postal_code: str | None = Field(default=None, alias="postalCode")
    state: str | None = None
    city: str | None = None
    line1: str | None = None
    line2: str | None = None
    phone_number: str | None = Field(default=None, alias="phoneNumber")


class CustomerWriteBody(Wire):
    """A customer as it should be (`CustomerCreate`, `CustomerReplaceUpdate`).

    Checked by `parse_customer`.
    """

    name: Annotated[str, Field(min_length=1, max_length=256)]
    description: Annotated[str | None, Field(max_length=1024)] = None
    metadata: dict[str, str] | None = None
    key: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=256,
            description="Usage under this subject is the customer's too. Needed if there are no "
            "subject keys.",
        ),
    ] = None
    usage_attribution: Annotated[
        UsageAttributionBody | None,
        Field(
            alias="usageAttribution",
            description="A subject's first customer has all of its usage, also from before; a "
            "later one has it from the moment of the change. What was before never changes.",
        ),
    ] = None
    primary_email: str | None = Field(default=None, alias="primaryEmail")
    currency: Annotated[str | None, Field(pattern="^[A-Z]{3}$")] = None
    billing_address: AddressBody | None = Field(default=None, alias="billingAddress")


def _as_sent(value: object) -> object:
    return value


# Read as plain members, so that all faults are found together, by the reader of `customer.py`.
CustomerMembers = Annotated[
    dict[str, Any], BeforeValidator(_as_sent, json_schema_input_type=CustomerWriteBody)
]


class CustomerBody(CustomerWriteBody):
    """A customer (schema `Customer`)."""

    id: str
    created_at: WireInstant = Field(alias="createdAt")
    updated_at: WireInstant = Field(alias="updatedAt")
    deleted_at: WireInstant | None = Field(default=None, alias="deletedAt")
    current_subscription_id: str | None = Field(default=None, alias="currentSubscriptionId")
    subscriptions: list[dict[str, Any]] | None = None
    annotations: dict[str, Any] | None = None


class CustomerPageBody(Wire):
    """One page of customers (schema `CustomerPaginatedResponse`)."""

    total_count: int = Field(alias="totalCount")
    page: int
    page_size: int = Field(alias="pageSize")
    items: list[CustomerBody]


Expand = Annotated[list[Literal["subscriptions"]] | None, Field(max_length=1)]


class CustomerParameters(Wire):
    """What of a customer is shown."""

    expand: Expand = None


class CustomerListParameters(Wire):
    """Which page of which customers; texts are found anywhere, ignoring the case of ASCII."""

    page: Annotated[int, Field(ge=1)] = 1
    page_size: Annotated[int, Field(ge=1, le=1000, alias="pageSize")] = 100
    order: Literal["ASC", "DESC"] = "ASC"
    order_by: Annotated[Literal["id", "name", "createdAt"], Field(alias="orderBy")] = "name"
    include_deleted: Annotated[bool, Field(alias="includeDeleted")] = False
    key: Annotated[str | None, Field(max_length=1024)] = None
    name: Annotated[str | None, Field(max_length=1024)] = None
    primary_email: Annotated[str | None, Field(max_length=1024, alias="primaryEmail")] = None
    subject: Annotated[str | None, Field(max_length=1024)] = None
    plan_key: Annotated[str | None, Field(max_length=1024, alias="planKey")] = None
    expand: Expand = None


def _address(address: Mapping[str, str]) -> AddressBody:
    return AddressBody.model_validate({v1_name(name): text for name, text in address.items()})


def body_from_customer(customer: Customer, expand: Expand = None) -> CustomerBody:
    """The wire's form of a customer."""
    address = customer.billing_address
    return CustomerBody.model_construct(
        id=customer.id,
        key=customer.key,
        name=customer.name,
        description=customer.description,
        metadata=dict(customer.metadata) or None,
        usage_attribution=UsageAttributionBody.model_construct(
            subject_keys=list(customer.subject_keys)
        ),
        primary_email=customer.primary_email,
        currency=customer.currency,
        billing_address=None if address is None else _address(address),
        # No customer has a subscription yet.
        subscriptions=[] if expand else None,
        annotations=dict(customer.annotations) or None,
        created_at=customer.created_at,
        updated_at=customer.updated_at,
        deleted_at=customer.deleted_at,
    )
