"""What keeps a customer: entitlements that hold, or are to.

Entitlements are a floor above: of their table only what is asked here is known.
"""

from datetime import datetime

import sqlalchemy as sa

from tollgate.core.errors import Conflict
from tollgate.platform.sql import Instant, Text

_SHOWN_MAX = 5
_entitlements = sa.table(
    "entitlements",
    sa.column("namespace", Text),
    sa.column("customer_id", Text),
    sa.column("feature_key", Text),
    sa.column("active_to", Instant),
)


def refuse_if_entitled(
    connection: sa.Connection, namespace: str, customer_id: str, now: datetime
) -> None:
    """Keeps a customer that has a right to something.

    Args:
        connection: that holds the customer's row for update, so no entitlement comes in between.
        namespace: whose customer.
        customer_id: of the one to be deleted.
        now: the present.

    Raises:
        Conflict: it has entitlements; says to what.
    """
    c = _entitlements.c
    query = sa.select(c.feature_key).where(
        c.namespace == namespace,
        c.customer_id == customer_id,
        sa.or_(c.active_to.is_(None), c.active_to > now),
    )
    found = connection.scalars(query.order_by(c.feature_key).limit(_SHOWN_MAX + 1)).all()
    if found:
        shown = ", ".join(found[:_SHOWN_MAX]) + (", …" if len(found) > _SHOWN_MAX else "")
        raise Conflict(
            f"the customer {customer_id} has entitlements to {shown}; delete these first"
        )
