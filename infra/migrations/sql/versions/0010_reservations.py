"""Reservations: what is held of limits, and what was settled.

Times are microseconds since the epoch. An account's row is the lock under which all is decided that
concerns it; its sums are those of its holds.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0008"

_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_EXACT = sa.Text().with_variant(sa.Numeric(), "postgresql")


def upgrade() -> None:
    """Creates the three tables."""
    op.create_table(
        "limit_accounts",
        sa.Column("id", _TEXT, nullable=False),
        sa.Column("namespace", _TEXT, nullable=False),
        sa.Column("customer_id", _TEXT, nullable=False),
        sa.Column("feature_key", _TEXT, nullable=False),
        sa.Column("scope", sa.JSON, nullable=False),
        sa.Column("held", _EXACT, nullable=False),
        sa.Column("unseen", _EXACT, nullable=False),
        sa.Column("next_expiry", sa.BigInteger),
        sa.Column("remaining", _EXACT),
        sa.Column("is_soft", sa.Boolean, nullable=False),
        sa.Column("vector", _TEXT, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("valid_until", sa.BigInteger, nullable=False),
        sa.Column("changed_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_limit_accounts"),
    )
    op.create_index("ix_limit_accounts_changed_at", "limit_accounts", ["changed_at"])
    op.create_table(
        "reservations",
        sa.Column("id", _TEXT, nullable=False),
        sa.Column("namespace", _TEXT, nullable=False),
        sa.Column("customer_id", _TEXT, nullable=False),
        sa.Column("idempotency_key", _TEXT),
        sa.Column("fingerprint", _TEXT, nullable=False),
        sa.Column("state", _TEXT, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("ended_at", sa.BigInteger),
        sa.Column("settlement", sa.JSON),
        sa.PrimaryKeyConstraint("id", name="pk_reservations"),
        sa.UniqueConstraint("namespace", "idempotency_key", name="uq_reservations_namespace"),
    )
    op.create_index("ix_reservations_customer", "reservations", ["namespace", "customer_id", "id"])
    op.create_index("ix_reservations_expires_at", "reservations", ["expires_at"])
    op.create_table(
        "reservation_holds",
        sa.Column("reservation_id", _TEXT, nullable=False),
        sa.Column("account_id", _TEXT, nullable=False),
        sa.Column("amount", _EXACT, nullable=False),
        sa.Column("state", _TEXT, nullable=False),
        sa.Column("actual", _EXACT),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("position", _TEXT),
        sa.PrimaryKeyConstraint("reservation_id", "account_id", name="pk_reservation_holds"),
    )
    op.create_index(
        "ix_reservation_holds_account",
        "reservation_holds",
        ["account_id", "state", "expires_at"],
        sqlite_where=sa.text("state <> 'gone'"),
        postgresql_where=sa.text("state <> 'gone'"),
    )
