"""Entitlements: what a customer may use, the grants and resets of the metered ones.

Times are microseconds since the epoch. Of a customer's entitlements to one feature only one is open
at a time: the database holds that, whoever writes.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_EXACT = sa.Text().with_variant(sa.Numeric(), "postgresql")


def upgrade() -> None:
    """Creates the three tables."""
    _create_entitlements()
    _create_facts()


def _create_entitlements() -> None:
    op.create_table(
        "entitlements",
        sa.Column("id", _TEXT, nullable=False),
        sa.Column("namespace", _TEXT, nullable=False),
        sa.Column("customer_id", _TEXT, nullable=False),
        sa.Column("feature_id", _TEXT, nullable=False),
        sa.Column("feature_key", _TEXT, nullable=False),
        sa.Column("kind", _TEXT, nullable=False),
        sa.Column("metadata", sa.JSON, nullable=False),
        sa.Column("annotations", sa.JSON, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.Column("deleted_at", sa.BigInteger),
        sa.Column("active_from", sa.BigInteger, nullable=False),
        sa.Column("active_to", sa.BigInteger),
        sa.Column("usage_period_interval", _TEXT),
        sa.Column("usage_period_anchor", sa.BigInteger),
        sa.Column("zone", _TEXT, nullable=False),
        sa.Column("measure_usage_from", sa.BigInteger),
        sa.Column("is_soft_limit", sa.Boolean, nullable=False),
        sa.Column("issue_amount", _EXACT),
        sa.Column("issue_priority", sa.Integer),
        sa.Column("preserve_overage_at_reset", sa.Boolean, nullable=False),
        sa.Column("config", _TEXT),
        sa.Column("supersedes", _TEXT),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("changed_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_entitlements"),
    )
    is_open = sa.text("active_to IS NULL")
    op.create_index(
        "uq_entitlements_open",
        "entitlements",
        ["namespace", "customer_id", "feature_key"],
        unique=True,
        sqlite_where=is_open,
        postgresql_where=is_open,
    )
    op.create_index(
        "ix_entitlements_customer", "entitlements", ["namespace", "customer_id", "feature_key"]
    )
    op.create_index("ix_entitlements_created", "entitlements", ["namespace", "created_at", "id"])
    op.create_index("ix_entitlements_changed", "entitlements", ["namespace", "changed_at", "id"])
    op.create_index("ix_entitlements_feature", "entitlements", ["namespace", "feature_id"])


def _create_facts() -> None:
    op.create_table(
        "grants",
        sa.Column("id", _TEXT, nullable=False),
        sa.Column("namespace", _TEXT, nullable=False),
        sa.Column("entitlement_id", _TEXT, nullable=False),
        sa.Column("amount", _EXACT, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("effective_at", sa.BigInteger, nullable=False),
        sa.Column("expiration_unit", _TEXT),
        sa.Column("expiration_count", sa.Integer),
        sa.Column("recurrence_interval", _TEXT),
        sa.Column("recurrence_anchor", sa.BigInteger),
        sa.Column("zone", _TEXT, nullable=False),
        sa.Column("min_rollover", _EXACT, nullable=False),
        sa.Column("max_rollover", _EXACT, nullable=False),
        sa.Column("metadata", sa.JSON, nullable=False),
        sa.Column("annotations", sa.JSON, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.Column("voided_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="pk_grants"),
    )
    op.create_index("ix_grants_entitlement", "grants", ["entitlement_id", "created_at", "id"])
    op.create_index("ix_grants_created", "grants", ["namespace", "created_at", "id"])
    op.create_table(
        "resets",
        sa.Column("id", _TEXT, nullable=False),
        sa.Column("namespace", _TEXT, nullable=False),
        sa.Column("entitlement_id", _TEXT, nullable=False),
        sa.Column("effective_at", sa.BigInteger, nullable=False),
        sa.Column("retain_anchor", sa.Boolean, nullable=False),
        sa.Column("preserve_overage", sa.Boolean),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_resets"),
    )
    op.create_index("ix_resets_entitlement", "resets", ["entitlement_id", "effective_at"])
