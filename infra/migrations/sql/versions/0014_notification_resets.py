"""Resets are watched: since when a rule is in force, and up to when resets were reported.

Before this revision nobody watched them, so rules that there are tell of resets from now on.
"""

import time

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Adds both times."""
    op.add_column(
        "notification_rules",
        sa.Column("enabled_at", sa.BigInteger, nullable=False, server_default="0"),
    )
    now_us = time.time_ns() // 1000
    op.execute(sa.text("UPDATE notification_rules SET enabled_at = :now").bindparams(now=now_us))
    op.add_column("notification_watches", sa.Column("resets_at", sa.BigInteger))
