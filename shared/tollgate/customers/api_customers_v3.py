"""v3 of customers on HTTP: create, list, read, replace, delete. They are named by id only."""

from typing import Any

from tollgate.core.errors import Fault, InvalidInput
from tollgate.customers.api_customers_v1 import open_customers
from tollgate.customers.customer_store import CustomerField, CustomerListing, CustomerOrder
from tollgate.customers.wire_v3 import (
    CustomerBody,
    CustomerCreateMembers,
    CustomerFilterParameters,
    CustomerListParameters,
    CustomerPageBody,
    CustomerUpsertMembers,
    body_from_customer,
    customer_from_members,
    replacement_from_members,
)
from tollgate.platform.access import Scope
from tollgate.platform.api import Call, Operation
from tollgate.platform.filter_dialects import parse_string_field, parse_ulid_field
from tollgate.platform.filters import Filter
from tollgate.platform.wire_v3 import PageMeta, PaginatedMeta, checked_id, read_orders

_ORDERS = {each.value: each for each in CustomerOrder}
_FIELDS = {
    "key": (CustomerField.KEY, parse_string_field),
    "name": (CustomerField.NAME, parse_string_field),
    "primary_email": (CustomerField.PRIMARY_EMAIL, parse_string_field),
    "usage_attribution_subject_key": (CustomerField.SUBJECT, parse_string_field),
    # No customer is on a plan or has a billing profile yet.
    "plan_key": (CustomerField.NOTHING, parse_string_field),
    "billing_profile_id": (CustomerField.NOTHING, parse_ulid_field),
}


def list_customers(call: Call) -> CustomerPageBody:
    """One page of customers that pass the filters."""
    query: CustomerListParameters = call.query
    faults: list[Fault] = []
    filters = _filters(query.filter, faults)
    orders = read_orders(query.sort, _ORDERS, faults)
    if faults:
        raise InvalidInput(tuple(faults))
    listing = CustomerListing(
        page=query.page.number, page_size=query.page.size, orders=orders, filters=filters
    )
    found, total = call.parts.get(open_customers).list(call.namespace, listing)
    page = PageMeta(number=query.page.number, size=query.page.size, total=total)
    return CustomerPageBody.model_construct(
        data=[body_from_customer(each) for each in found], meta=PaginatedMeta(page=page)
    )


def create_customer(call: Call) -> CustomerBody:
    """Makes a customer; usage that its subjects had before is its too."""
    wanted = customer_from_members(call.body)
    return body_from_customer(call.parts.get(open_customers).create(call.namespace, wanted))


def get_customer(call: Call) -> CustomerBody:
    """One customer."""
    return body_from_customer(
        call.parts.get(open_customers).get_by_id(call.namespace, _customer_id(call))
    )


def upsert_customer(call: Call) -> CustomerBody:
    """Makes a customer what the body says; what it leaves out is gone, but for the key."""
    members: dict[str, Any] = call.body
    customers, customer_id = call.parts.get(open_customers), _customer_id(call)
    return body_from_customer(
        customers.replace(
            call.namespace,
            customer_id,
            lambda stored: replacement_from_members(members, stored),
        )
    )


def delete_customer(call: Call) -> None:
    """Deletes a customer; key and subjects are free again, and what was its usage stays its."""
    customers, customer_id = call.parts.get(open_customers), _customer_id(call)
    customers.delete(call.namespace, customer_id)


def _customer_id(call: Call) -> str:
    return checked_id(call.path["customerId"], "customerId")


def _filters(
    asked: CustomerFilterParameters, faults: list[Fault]
) -> tuple[tuple[CustomerField, Filter], ...]:
    found: list[tuple[CustomerField, Filter]] = []
    for name, (field, parse) in _FIELDS.items():
        raw = getattr(asked, name)
        if raw is None:
            continue
        try:
            found.append((field, parse(raw, f"filter[{name}]")))
        except InvalidInput as invalid:
            faults += invalid.faults
    return tuple(found)


def _operation(method: str, path: str, operation_id: str, summary: str, **more: Any) -> Operation:
    return Operation(
        method=method,
        path=f"/api/v3/openmeter/customers{path}",
        operation_id=operation_id,
        summary=summary,
        tag="Customers",
        wire="v3",
        **{"scope": Scope.READ} | more,
    )


_ONE = "/{customerId}"
OPERATIONS: tuple[Operation, ...] = (
    _operation(
        "GET",
        "",
        "list-customers",
        "List customers",
        handler=list_customers,
        query=CustomerListParameters,
        response=CustomerPageBody,
    ),
    _operation(
        "POST",
        "",
        "create-customer",
        "Create a customer",
        handler=create_customer,
        body=CustomerCreateMembers,
        response=CustomerBody,
        status=201,
        scope=Scope.ADMIN,
    ),
    _operation(
        "GET",
        _ONE,
        "get-customer",
        "Get a customer",
        handler=get_customer,
        response=CustomerBody,
    ),
    _operation(
        "PUT",
        _ONE,
        "upsert-customer",
        "Replace a customer",
        handler=upsert_customer,
        body=CustomerUpsertMembers,
        response=CustomerBody,
        scope=Scope.ADMIN,
        failures=(410,),
    ),
    _operation(
        "DELETE",
        _ONE,
        "delete-customer",
        "Delete a customer",
        handler=delete_customer,
        status=204,
        scope=Scope.ADMIN,
        failures=(409,),
    ),
)
