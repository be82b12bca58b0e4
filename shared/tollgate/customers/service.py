"""The service of `functions/customers`: customers and subjects."""

import importlib

from tollgate.platform.api import ApiService, Operation
from tollgate.platform.parts import Parts

_MODULES = (
    "tollgate.customers.api_customers_v1",
    "tollgate.customers.api_customers_v3",
    "tollgate.customers.api_customer_subjects",
    "tollgate.customers.api_v1",
)


def customers_operations() -> tuple[Operation, ...]:
    """All operations that the customers function serves."""
    found: list[Operation] = []
    for name in _MODULES:
        found += importlib.import_module(name).OPERATIONS
    return tuple(found)


class CustomersService(ApiService):
    """Serves the operations."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts, customers_operations())
