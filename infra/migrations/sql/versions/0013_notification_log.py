"""Notification events go to the event log too: when each is due to be appended.

What was told before this revision is not appended: nothing is due of it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Adds the time, with an index of those that are due."""
    op.add_column("notification_events", sa.Column("log_due", sa.BigInteger))
    is_due = sa.text("log_due IS NOT NULL")
    op.create_index(
        "ix_notification_events_log_due",
        "notification_events",
        ["log_due"],
        sqlite_where=is_due,
        postgresql_where=is_due,
    )
