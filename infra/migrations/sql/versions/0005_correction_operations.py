"""Corrections in bulk and backfills: what each is about, and how far it has come."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Creates the table."""
    op.create_table(
        "correction_operations",
        sa.Column("namespace", _TEXT, nullable=False),
        sa.Column("name", _TEXT, nullable=False),
        sa.Column("kind", _TEXT, nullable=False),
        sa.Column("state", _TEXT, nullable=False),
        sa.Column("reason", _TEXT, nullable=False),
        sa.Column("actor", _TEXT, nullable=False),
        sa.Column("filter", sa.JSON, nullable=False),
        sa.Column("vector", _TEXT, nullable=False),
        sa.Column("step", _TEXT, nullable=False),
        sa.Column("cursor", _TEXT, nullable=False),
        sa.Column("total", sa.BigInteger, nullable=False),
        sa.Column("done", sa.BigInteger, nullable=False),
        sa.Column("written", _TEXT, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("closed_at", sa.BigInteger, nullable=True),
        sa.Column("reverted_at", sa.BigInteger, nullable=True),
        sa.Column("revert_reason", _TEXT, nullable=False),
        sa.Column("revert_actor", _TEXT, nullable=False),
        sa.PrimaryKeyConstraint("namespace", "name", name="pk_correction_operations"),
    )
