"""Notification events are kept for a time; that they were told is kept for good.

A digest stands for what an event told once, 16 bytes of it. Events are found by age.
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Creates the table of digests and the index of ages."""
    op.create_table(
        "notification_told",
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_notification_told"),
    )
    op.create_index(
        "ix_notification_events_created_at", "notification_events", ["created_at", "id"]
    )
