"""Budgets within limits, and what a limit does while its usage is not known.

Times are microseconds since the epoch.
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_EXACT = sa.Text().with_variant(sa.Numeric(), "postgresql")


def upgrade() -> None:
    """Creates the two tables."""
    op.create_table(
        "limit_budgets",
        sa.Column("id", _TEXT, nullable=False),
        sa.Column("namespace", _TEXT, nullable=False),
        sa.Column("customer_id", _TEXT, nullable=False),
        sa.Column("feature_key", _TEXT, nullable=False),
        sa.Column("scope", sa.JSON, nullable=False),
        sa.Column("scope_key", _TEXT, nullable=False),
        sa.Column("amount", _EXACT, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("changed_at", sa.BigInteger, nullable=False),
        sa.Column("deleted_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="pk_limit_budgets"),
    )
    live = sa.text("deleted_at IS NULL")
    op.create_index(
        "uq_limit_budgets_live",
        "limit_budgets",
        ["namespace", "customer_id", "feature_key", "scope_key"],
        unique=True,
        sqlite_where=live,
        postgresql_where=live,
    )
    op.create_index("ix_limit_budgets_changed_at", "limit_budgets", ["changed_at"])
    op.create_table(
        "limit_policies",
        sa.Column("namespace", _TEXT, nullable=False),
        sa.Column("feature_key", _TEXT, nullable=False),
        sa.Column("failure_mode", _TEXT, nullable=False),
        sa.Column("open_cap", _EXACT, nullable=False),
        sa.Column("stale_after_ms", sa.BigInteger, nullable=False),
        sa.Column("changed_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("namespace", "feature_key", name="pk_limit_policies"),
    )
