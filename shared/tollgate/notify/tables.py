"""The tables of notifications; `infra/migrations/sql` creates them."""

import sqlalchemy as sa

from tollgate.platform.sql import Instant, Json, Text, metadata

channels = sa.Table(
    "notification_channels",
    metadata,
    sa.Column("id", Text, primary_key=True),
    sa.Column("namespace", Text, nullable=False),
    sa.Column("name", Text, nullable=False),
    sa.Column("disabled", sa.Boolean, nullable=False),
    sa.Column("disabled_reason", Text),
    sa.Column("metadata", Json, nullable=False),
    sa.Column("url", Text, nullable=False),
    sa.Column("headers", Json, nullable=False),
    sa.Column("secret", Text, nullable=False),
    sa.Column("previous_secret", Text),
    sa.Column("previous_until", Instant),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("updated_at", Instant, nullable=False),
    sa.Column("deleted_at", Instant),
)
sa.Index("ix_notification_channels_namespace", channels.c.namespace, channels.c.id)

rules = sa.Table(
    "notification_rules",
    metadata,
    sa.Column("id", Text, primary_key=True),
    sa.Column("namespace", Text, nullable=False),
    sa.Column("kind", Text, nullable=False),
    sa.Column("name", Text, nullable=False),
    sa.Column("disabled", sa.Boolean, nullable=False),
    sa.Column("metadata", Json, nullable=False),
    # [{"type", "value"}], values as texts: they keep their digits.
    sa.Column("levels", Json, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("updated_at", Instant, nullable=False),
    # What happened before it came into force is not told by a rule of resets.
    sa.Column("enabled_at", Instant, nullable=False),
    sa.Column("deleted_at", Instant),
)
sa.Index("ix_notification_rules_namespace", rules.c.namespace, rules.c.kind, rules.c.id)

rule_channels = sa.Table(
    "notification_rule_channels",
    metadata,
    sa.Column("rule_id", Text, primary_key=True),
    sa.Column("channel_id", Text, primary_key=True),
    sa.Column("place", sa.Integer, nullable=False),
)
sa.Index("ix_notification_rule_channels_channel", rule_channels.c.channel_id)

rule_features = sa.Table(
    "notification_rule_features",
    metadata,
    sa.Column("rule_id", Text, primary_key=True),
    sa.Column("feature_id", Text, primary_key=True),
    sa.Column("feature_key", Text, nullable=False),
    sa.Column("place", sa.Integer, nullable=False),
)

# The outbox: what happened, with the very bytes that are sent.
events = sa.Table(
    "notification_events",
    metadata,
    sa.Column("id", Text, primary_key=True),
    sa.Column("namespace", Text, nullable=False),
    sa.Column("kind", Text, nullable=False),
    sa.Column("rule_id", Text, nullable=False),
    # What it says once: whoever finds it again, or at the same time, writes nothing.
    sa.Column("once_key", Text, nullable=False),
    sa.Column("feature_id", Text),
    sa.Column("feature_key", Text),
    sa.Column("subject_id", Text),
    sa.Column("subject_key", Text),
    sa.Column("payload", Text, nullable=False),
    sa.Column("annotations", Json, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    # When it is to be appended to the event log next; none once the log has it, or is not to.
    sa.Column("log_due", Instant),
)
sa.Index("uq_notification_events_once_key", events.c.once_key, unique=True)
sa.Index("ix_notification_events_created_at", events.c.created_at, events.c.id)
sa.Index("ix_notification_events_namespace", events.c.namespace, events.c.created_at, events.c.id)
sa.Index(
    "ix_notification_events_log_due",
    events.c.log_due,
    sqlite_where=events.c.log_due.is_not(None),
    postgresql_where=events.c.log_due.is_not(None),
)

# What events told that are not kept any more: digests of their once keys.
told = sa.Table(
    "notification_told",
    metadata,
    sa.Column("digest", sa.LargeBinary, primary_key=True),
)

deliveries = sa.Table(
    "notification_deliveries",
    metadata,
    sa.Column("event_id", Text, primary_key=True),
    sa.Column("channel_id", Text, primary_key=True),
    sa.Column("state", Text, nullable=False),
    sa.Column("reason", Text, nullable=False),
    # Attempts since it was last asked for; `attempts` tells of those before too.
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Column("next_attempt", Instant),
    sa.Column("lease", Text),
    sa.Column("leased_until", Instant),
    sa.Column("attempts", Json, nullable=False),
    sa.Column("updated_at", Instant, nullable=False),
)
sa.Index(
    "ix_notification_deliveries_next_attempt",
    deliveries.c.next_attempt,
    sqlite_where=deliveries.c.next_attempt.is_not(None),
    postgresql_where=deliveries.c.next_attempt.is_not(None),
)
sa.Index("ix_notification_deliveries_channel", deliveries.c.channel_id)

watches = sa.Table(
    "notification_watches",
    metadata,
    sa.Column("namespace", Text, primary_key=True),
    # Rises with every change of a rule: what was looked at before it must be looked at again.
    sa.Column("generation", sa.BigInteger, nullable=False),
    sa.Column("mark", Text, nullable=False),
    # Up to when resets were reported; a change of a rule does not take it back.
    sa.Column("resets_at", Instant),
)
