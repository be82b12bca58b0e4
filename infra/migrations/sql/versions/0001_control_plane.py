"""The first tables of the control plane: meters, subjects, access keys, progress of queries.

Times are microseconds since the epoch. Rows are deleted softly, so a key is unique among the live.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Creates the four tables."""
    _create_meters()
    _create_subjects()
    _create_access_keys()
    op.create_table(
        "query_progress",
        sa.Column("namespace", _TEXT, nullable=False),
        sa.Column("client_id", _TEXT, nullable=False),
        sa.Column("success", sa.BigInteger, nullable=False),
        sa.Column("failed", sa.BigInteger, nullable=False),
        sa.Column("total", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("namespace", "client_id", name="pk_query_progress"),
    )


def _create_meters() -> None:
    op.create_table(
        "meters",
        sa.Column("id", _TEXT, nullable=False),
        sa.Column("namespace", _TEXT, nullable=False),
        sa.Column("slug", _TEXT, nullable=False),
        sa.Column("name", _TEXT, nullable=False),
        sa.Column("description", _TEXT),
        sa.Column("metadata", sa.JSON, nullable=False),
        sa.Column("annotations", sa.JSON, nullable=False),
        sa.Column("aggregation", _TEXT, nullable=False),
        sa.Column("event_type", _TEXT, nullable=False),
        sa.Column("event_from", sa.BigInteger),
        sa.Column("value_property", _TEXT),
        sa.Column("group_by", sa.JSON, nullable=False),
        sa.Column("managed_by", _TEXT, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.Column("deleted_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="pk_meters"),
    )
    _create_live_index("meters", "slug")


def _create_subjects() -> None:
    op.create_table(
        "subjects",
        sa.Column("id", _TEXT, nullable=False),
        sa.Column("namespace", _TEXT, nullable=False),
        sa.Column("key", _TEXT, nullable=False),
        sa.Column("display_name", _TEXT),
        sa.Column("metadata", sa.JSON),
        sa.Column("stripe_customer_id", _TEXT),
        sa.Column("current_period_start", sa.BigInteger),
        sa.Column("current_period_end", sa.BigInteger),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.Column("deleted_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="pk_subjects"),
    )
    _create_live_index("subjects", "key")


def _create_access_keys() -> None:
    op.create_table(
        "access_keys",
        sa.Column("id", _TEXT, nullable=False),
        sa.Column("namespace", _TEXT, nullable=False),
        sa.Column("name", _TEXT, nullable=False),
        sa.Column("scopes", sa.JSON, nullable=False),
        sa.Column("secret_hash", sa.LargeBinary, nullable=False),
        sa.Column("prefix", _TEXT, nullable=False),
        sa.Column("last_four", _TEXT, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger),
        sa.Column("revoked_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="pk_access_keys"),
    )
    op.create_index("ix_access_keys_namespace", "access_keys", ["namespace"])


def _create_live_index(table: str, key: str) -> None:
    """Unique among the rows that are not deleted; a deleted row gives its key free."""
    live = sa.text("deleted_at IS NULL")
    op.create_index(
        f"uq_{table}_live_{key}",
        table,
        ["namespace", key],
        unique=True,
        sqlite_where=live,
        postgresql_where=live,
    )
