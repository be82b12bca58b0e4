"""Customers, and which subjects' usage is theirs, from when to when.

Times are microseconds since the epoch. A subject belongs to one customer at a time, and only one
attribution of it begins with the beginning of time: the database holds both, whoever writes.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Creates the two tables."""
    op.create_table(
        "customers",
        sa.Column("id", _TEXT, nullable=False),
        sa.Column("namespace", _TEXT, nullable=False),
        sa.Column("key", _TEXT),
        sa.Column("name", _TEXT, nullable=False),
        sa.Column("description", _TEXT),
        sa.Column("metadata", sa.JSON, nullable=False),
        sa.Column("annotations", sa.JSON, nullable=False),
        sa.Column("primary_email", _TEXT),
        sa.Column("currency", _TEXT),
        sa.Column("billing_address", sa.JSON),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.Column("deleted_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="pk_customers"),
    )
    _create_unique("customers", "live_key", "key", "deleted_at IS NULL")
    op.create_index("ix_customers_namespace", "customers", ["namespace", "name", "id"])
    op.create_table(
        "attributions",
        sa.Column("id", _TEXT, nullable=False),
        sa.Column("namespace", _TEXT, nullable=False),
        sa.Column("customer_id", _TEXT, nullable=False),
        sa.Column("subject_key", _TEXT, nullable=False),
        sa.Column("origin", _TEXT, nullable=False),
        sa.Column("begins_at", sa.BigInteger),
        sa.Column("ends_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="pk_attributions"),
    )
    _create_unique("attributions", "open", "subject_key", "ends_at IS NULL")
    _create_unique("attributions", "first", "subject_key", "begins_at IS NULL")
    op.create_index("ix_attributions_subject", "attributions", ["namespace", "subject_key"])
    op.create_index("ix_attributions_customer", "attributions", ["namespace", "customer_id"])


def _create_unique(table: str, name: str, column: str, where: str) -> None:
    op.create_index(
        f"uq_{table}_{name}",
        table,
        ["namespace", column],
        unique=True,
        sqlite_where=sa.text(where),
        postgresql_where=sa.text(where),
    )
