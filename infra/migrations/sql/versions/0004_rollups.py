"""The manifest of rollups: definitions and their progress, segments, what is in which."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Creates the three tables."""
    op.create_table(
        "rollup_definitions",
        sa.Column("id", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("namespace", _TEXT, nullable=False),
        sa.Column("meter_id", _TEXT, nullable=False),
        sa.Column("digest", _TEXT, nullable=False),
        sa.Column("vector", _TEXT, nullable=False),
        sa.Column("ready", sa.Boolean, nullable=False),
        sa.Column("first_minute", sa.BigInteger),
        sa.Column("last_minute", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="pk_rollup_definitions"),
    )
    op.create_index(
        "uq_rollup_definitions_digest", "rollup_definitions", ["meter_id", "digest"], unique=True
    )
    op.create_table(
        "rollup_segments",
        sa.Column("id", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("state", _TEXT, nullable=False),
        sa.Column("sequence", sa.BigInteger),
        sa.Column("cells", sa.BigInteger, nullable=False),
        sa.Column("replacing", sa.Boolean, nullable=False),
        sa.Column("since", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_rollup_segments"),
        sa.UniqueConstraint("sequence", name="uq_rollup_segments_sequence"),
    )
    op.create_table(
        "rollup_contents",
        sa.Column("definition", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("segment", sa.BigInteger, nullable=False, autoincrement=False),
        sa.PrimaryKeyConstraint("definition", "segment", name="pk_rollup_contents"),
    )
    op.create_index("ix_rollup_contents_segment", "rollup_contents", ["segment"])
