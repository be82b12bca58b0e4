"""Notifications: channels, rules, events, deliveries, and how far balances are watched.

Times are microseconds since the epoch. An event has a key of what it tells, which is unique: of all
that find the same, one writes it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Creates the seven tables."""
    op.create_table(
        "notification_channels",
        sa.Column("id", _TEXT, nullable=False),
        sa.Column("namespace", _TEXT, nullable=False),
        sa.Column("name", _TEXT, nullable=False),
        sa.Column("disabled", sa.Boolean, nullable=False),
        sa.Column("disabled_reason", _TEXT),
        sa.Column("metadata", sa.JSON, nullable=False),
        sa.Column("url", _TEXT, nullable=False),
        sa.Column("headers", sa.JSON, nullable=False),
        sa.Column("secret", _TEXT, nullable=False),
        sa.Column("previous_secret", _TEXT),
        sa.Column("previous_until", sa.BigInteger),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.Column("deleted_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="pk_notification_channels"),
    )
    _create_index("channels", "namespace", ["namespace", "id"])
    _create_rules()
    _create_outbox()
    op.create_table(
        "notification_watches",
        sa.Column("namespace", _TEXT, nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("mark", _TEXT, nullable=False),
        sa.PrimaryKeyConstraint("namespace", name="pk_notification_watches"),
    )


def _create_rules() -> None:
    op.create_table(
        "notification_rules",
        sa.Column("id", _TEXT, nullable=False),
        sa.Column("namespace", _TEXT, nullable=False),
        sa.Column("kind", _TEXT, nullable=False),
        sa.Column("name", _TEXT, nullable=False),
        sa.Column("disabled", sa.Boolean, nullable=False),
        sa.Column("metadata", sa.JSON, nullable=False),
        sa.Column("levels", sa.JSON, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.Column("deleted_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="pk_notification_rules"),
    )
    _create_index("rules", "namespace", ["namespace", "kind", "id"])
    op.create_table(
        "notification_rule_channels",
        sa.Column("rule_id", _TEXT, nullable=False),
        sa.Column("channel_id", _TEXT, nullable=False),
        sa.Column("place", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("rule_id", "channel_id", name="pk_notification_rule_channels"),
    )
    _create_index("rule_channels", "channel", ["channel_id"])
    op.create_table(
        "notification_rule_features",
        sa.Column("rule_id", _TEXT, nullable=False),
        sa.Column("feature_id", _TEXT, nullable=False),
        sa.Column("feature_key", _TEXT, nullable=False),
        sa.Column("place", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("rule_id", "feature_id", name="pk_notification_rule_features"),
    )


def _create_outbox() -> None:
    op.create_table(
        "notification_events",
        sa.Column("id", _TEXT, nullable=False),
        sa.Column("namespace", _TEXT, nullable=False),
        sa.Column("kind", _TEXT, nullable=False),
        sa.Column("rule_id", _TEXT, nullable=False),
        sa.Column("once_key", _TEXT, nullable=False),
        sa.Column("feature_id", _TEXT),
        sa.Column("feature_key", _TEXT),
        sa.Column("subject_id", _TEXT),
        sa.Column("subject_key", _TEXT),
        sa.Column("payload", _TEXT, nullable=False),
        sa.Column("annotations", sa.JSON, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_notification_events"),
    )
    op.create_index(
        "uq_notification_events_once_key", "notification_events", ["once_key"], unique=True
    )
    _create_index("events", "namespace", ["namespace", "created_at", "id"])
    op.create_table(
        "notification_deliveries",
        sa.Column("event_id", _TEXT, nullable=False),
        sa.Column("channel_id", _TEXT, nullable=False),
        sa.Column("state", _TEXT, nullable=False),
        sa.Column("reason", _TEXT, nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("next_attempt", sa.BigInteger),
        sa.Column("lease", _TEXT),
        sa.Column("leased_until", sa.BigInteger),
        sa.Column("attempts", sa.JSON, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("event_id", "channel_id", name="pk_notification_deliveries"),
    )
    is_due = sa.text("next_attempt IS NOT NULL")
    op.create_index(
        "ix_notification_deliveries_next_attempt",
        "notification_deliveries",
        ["next_attempt"],
        sqlite_where=is_due,
        postgresql_where=is_due,
    )
    _create_index("deliveries", "channel", ["channel_id"])


def _create_index(table: str, name: str, columns: list[str]) -> None:
    op.create_index(f"ix_notification_{table}_{name}", f"notification_{table}", columns)
