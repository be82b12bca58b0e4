"""Every table of the control plane: whoever imports this module knows them all."""

import tollgate.customers.attribution_store
import tollgate.customers.customer_store
import tollgate.customers.store
import tollgate.events.correction_operation_store
import tollgate.events.recount_store
import tollgate.events.seal_store
import tollgate.events.store
import tollgate.limits.entitlement_tables
import tollgate.limits.feature_store
import tollgate.limits.limit_rule_store
import tollgate.limits.reservation_tables
import tollgate.metering.progress
import tollgate.metering.rollup_store
import tollgate.metering.store
import tollgate.notify.tables
import tollgate.platform.access_store  # noqa: F401 -- each is imported for its tables
from tollgate.platform.sql import metadata

TABLES = metadata.sorted_tables
"""In an order in which rows can be written."""
