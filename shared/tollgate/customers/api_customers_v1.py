"""v1 of customers on HTTP: create, list, read, replace, delete."""

from typing import Any

from tollgate.core.errors import Gone, NotFound
from tollgate.customers.customer import parse_customer
from tollgate.customers.customer_store import (
    CustomerField,
    CustomerListing,
    CustomerOrder,
    CustomerStore,
)
from tollgate.customers.wire_v1 import (
    CustomerBody,
    CustomerListParameters,
    CustomerMembers,
    CustomerPageBody,
    CustomerParameters,
    body_from_customer,
)
from tollgate.platform.access import Scope
from tollgate.platform.api import Call, Operation
from tollgate.platform.database import open_database
from tollgate.platform.filters import Filter, contains
from tollgate.platform.parts import Parts

_ORDERS = {
    "id": CustomerOrder.ID,
    "name": CustomerOrder.NAME,
    "createdAt": CustomerOrder.CREATED_AT,
}


def open_customers(parts: Parts) -> CustomerStore:
    """The customers of the control plane."""
    return CustomerStore(parts.get(open_database), parts.clock)


def list_customers(call: Call) -> CustomerPageBody:
    """One page of customers that pass the filters."""
    query: CustomerListParameters = call.query
    listing = CustomerListing(
        page=query.page,
        page_size=query.page_size,
        orders=((_ORDERS[query.order_by], query.order == "DESC"),),
        include_deleted=query.include_deleted,
        filters=_filters(query),
    )
    found, total = call.parts.get(open_customers).list(call.namespace, listing)
    return CustomerPageBody.model_construct(
        total_count=total,
        page=query.page,
        page_size=query.page_size,
        items=[body_from_customer(each, query.expand) for each in found],
    )


def create_customer(call: Call) -> CustomerBody:
    """Makes a customer; usage that its subjects had before is its too."""
    wanted = parse_customer(call.body)
    return body_from_customer(call.parts.get(open_customers).create(call.namespace, wanted))


def get_customer(call: Call) -> CustomerBody:
    """One customer by id or key."""
    found = call.parts.get(open_customers).get(call.namespace, call.path["customerIdOrKey"])
    return body_from_customer(found, call.query.expand)


def update_customer(call: Call) -> CustomerBody:
    """Makes a customer what the body says; what it leaves out is gone."""
    wanted = parse_customer(call.body)
    name = call.path["customerIdOrKey"]
    try:
        customers = call.parts.get(open_customers)
        return body_from_customer(customers.replace(call.namespace, name, lambda _: wanted))
    except Gone as gone:
        raise NotFound(gone.detail) from None


def delete_customer(call: Call) -> None:
    """Deletes a customer that has no entitlements; what was its usage stays its."""
    call.parts.get(open_customers).delete(call.namespace, call.path["customerIdOrKey"])


def _filters(query: CustomerListParameters) -> tuple[tuple[CustomerField, Filter], ...]:
    wanted = (
        (CustomerField.KEY, query.key),
        (CustomerField.NAME, query.name),
        (CustomerField.PRIMARY_EMAIL, query.primary_email),
        (CustomerField.SUBJECT, query.subject),
        # No customer is on a plan yet.
        (CustomerField.NOTHING, query.plan_key),
    )
    return tuple((field, contains(text)) for field, text in wanted if text)


def _operation(method: str, path: str, operation_id: str, summary: str, **more: Any) -> Operation:
    return Operation(
        method=method,
        path=f"/api/v1/customers{path}",
        operation_id=operation_id,
        summary=summary,
        tag="Customers",
        **{"scope": Scope.READ} | more,
    )


_ONE = "/{customerIdOrKey}"
OPERATIONS: tuple[Operation, ...] = (
    _operation(
        "GET",
        "",
        "listCustomers",
        "List customers",
        handler=list_customers,
        query=CustomerListParameters,
        response=CustomerPageBody,
    ),
    _operation(
        "POST",
        "",
        "createCustomer",
        "Create a customer",
        handler=create_customer,
        body=CustomerMembers,
        response=CustomerBody,
        status=201,
        scope=Scope.ADMIN,
    ),
    _operation(
        "GET",
        _ONE,
        "getCustomer",
        "Get a customer",
        handler=get_customer,
        query=CustomerParameters,
        response=CustomerBody,
    ),
    _operation(
        "PUT",
        _ONE,
        "updateCustomer",
        "Replace a customer",
        handler=update_customer,
        body=CustomerMembers,
        response=CustomerBody,
        scope=Scope.ADMIN,
    ),
    _operation(
        "DELETE",
        _ONE,
        "deleteCustomer",
        "Delete a customer",
        handler=delete_customer,
        status=204,
        scope=Scope.ADMIN,
        failures=(409,),
    ),
)
