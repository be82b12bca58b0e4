"""How dead letters ended: sent again or discarded, by whom and why."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Creates the table."""
    op.create_table(
        "dead_letter_endings",
        sa.Column("namespace", _TEXT, nullable=False),
        sa.Column("letter", _TEXT, nullable=False),
        sa.Column("action", _TEXT, nullable=False),
        sa.Column("reason", _TEXT, nullable=False),
        sa.Column("actor", _TEXT, nullable=False),
        sa.Column("ended_at", sa.BigInteger, nullable=False),
        sa.Column("token", _TEXT, nullable=False),
        sa.PrimaryKeyConstraint("namespace", "letter", name="pk_dead_letter_endings"),
    )
