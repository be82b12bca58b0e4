"""Seals and their revisions, how far the ledger was counted again, and what does not balance."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Creates the tables."""
    op.create_table(
        "seals",
        sa.Column("namespace", _TEXT, nullable=False),
        sa.Column("hour_from", sa.BigInteger, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("hour_to", sa.BigInteger, nullable=False),
        sa.Column("vector", _TEXT, nullable=False),
        sa.Column("previous", _TEXT, nullable=False),
        sa.Column("sealed_at", sa.BigInteger, nullable=False),
        sa.Column("extended_at", sa.BigInteger, nullable=True),
        sa.Column("kind", _TEXT, nullable=False),
        sa.Column("reason", _TEXT, nullable=False),
        sa.Column("actor", _TEXT, nullable=False),
        sa.Column("late_events", sa.BigInteger, nullable=False),
        sa.Column("late_corrections", sa.BigInteger, nullable=False),
        sa.Column("missing", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("namespace", "hour_from", "revision", name="pk_seals"),
    )
    op.create_table(
        "seal_states",
        sa.Column("namespace", _TEXT, nullable=False),
        sa.Column("sealed_through", sa.BigInteger, nullable=False),
        sa.Column("vector", _TEXT, nullable=False),
        sa.Column("sealed_at", sa.BigInteger, nullable=True),
        sa.Column("accepted_at", sa.BigInteger, nullable=True),
        sa.PrimaryKeyConstraint("namespace", name="pk_seal_states"),
    )
    op.create_table(
        "recounts",
        sa.Column("name", _TEXT, nullable=False),
        sa.Column("vector", _TEXT, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_recounts"),
    )
    op.create_table(
        "imbalances",
        sa.Column("namespace", _TEXT, nullable=False),
        sa.Column("hour", sa.BigInteger, nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("partition", sa.BigInteger, nullable=False),
        sa.Column("offset_after", sa.BigInteger, nullable=False),
        sa.Column("offset_through", sa.BigInteger, nullable=False),
        sa.Column("appended_since", sa.BigInteger, nullable=False),
        sa.Column("appended_until", sa.BigInteger, nullable=False),
        sa.Column("differences", sa.JSON, nullable=False),
        sa.Column("found_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint(
            "namespace", "hour", "generation", "partition", "offset_after", name="pk_imbalances"
        ),
    )
