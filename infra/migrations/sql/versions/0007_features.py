"""Features: what is sold, and which part of which meter counts as its usage.

Times are microseconds since the epoch. A key has one feature that is not archived: the database
holds that, whoever writes.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Creates the table."""
    op.create_table(
        "features",
        sa.Column("id", _TEXT, nullable=False),
        sa.Column("namespace", _TEXT, nullable=False),
        sa.Column("key", _TEXT, nullable=False),
        sa.Column("name", _TEXT, nullable=False),
        sa.Column("description", _TEXT),
        sa.Column("metadata", sa.JSON, nullable=False),
        sa.Column("meter_id", _TEXT),
        sa.Column("meter_slug", _TEXT),
        sa.Column("conditions", sa.JSON, nullable=False),
        sa.Column("unit_cost", sa.JSON),
        sa.Column("dimensions", sa.JSON, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.Column("archived_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="pk_features"),
    )
    live = sa.text("archived_at IS NULL")
    op.create_index(
        "uq_features_live_key",
        "features",
        ["namespace", "key"],
        unique=True,
        sqlite_where=live,
        postgresql_where=live,
    )
    op.create_index("ix_features_namespace", "features", ["namespace", "created_at", "id"])
    op.create_index("ix_features_meter", "features", ["namespace", "meter_id"])
