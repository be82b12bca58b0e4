"""Customers, and whose usage is theirs; subjects."""

from tollgate.customers.service import CustomersService
from tollgate.platform.application import Application
from tollgate.platform.target import framework_target

app = Application("customers", CustomersService)
customers = framework_target(app)
