-- minimum server version: 24.8
-- Corrections: facts of the log that void or amend events. What they replace stays where it is.

-- An amendment is a row of its own, at the position of its correction. It claims no key.
ALTER TABLE {database}.events {on_cluster} ADD COLUMN IF NOT EXISTS amendment UInt8 DEFAULT 0;

ALTER TABLE {database}.event_keys_of_events {on_cluster} MODIFY QUERY
SELECT
  namespace, source, id, time, time_given, received_at, key_hash,
  MD5(concat(toString(type), '\0', subject, '\0', toString(datacontenttype), '\0', dataschema, '\0', extensions, '\0', data))
    AS content_hash,
  log_generation, log_partition, log_offset, log_index, appended_at
FROM {database}.events
WHERE amendment = 0;

ALTER TABLE {database}.ledger {on_cluster} ADD COLUMN IF NOT EXISTS corrections UInt32 DEFAULT 0 AFTER dead;

-- One row for each correction, and one more when an event comes that a void has waited for. An event
-- of a backfill holds itself back: action hold, at the event's own position.
-- content: hash of what was asked for; target: place of the version that is addressed, if one is.
-- superseded_…: the row of events that stops counting; generation 0: none does.
-- applied_…: the position from which on it does: the correction's own, or that of the event.
CREATE TABLE {database}.event_corrections {on_cluster} (
  namespace LowCardinality(String),
  source String CODEC(ZSTD(1)),
  id String CODEC(ZSTD(1)),
  key_hash UUID,
  correction String CODEC(ZSTD(1)),
  operation LowCardinality(String),
  action Enum8('void' = 1, 'amend' = 2, 'hold' = 3),
  effect Enum8('applied' = 1, 'waiting' = 2, 'none' = 3, 'repeated' = 4, 'conflict' = 5),
  reason String CODEC(ZSTD(1)),
  actor LowCardinality(String),
  content String CODEC(ZSTD(1)),
  target String CODEC(ZSTD(1)),
  superseded_generation UInt32,
  superseded_partition UInt16,
  superseded_offset UInt64 CODEC(Delta, ZSTD(1)),
  superseded_index UInt32,
  superseded_type LowCardinality(String),
  superseded_subject String CODEC(ZSTD(1)),
  superseded_time DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
  applied_generation UInt32,
  applied_partition UInt16,
  applied_offset UInt64 CODEC(Delta, ZSTD(1)),
  applied_index UInt32,
  log_generation UInt32,
  log_partition UInt16,
  log_offset UInt64 CODEC(Delta, ZSTD(1)),
  log_index UInt32,
  received_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
  appended_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
  stored_at DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC') CODEC(Delta, ZSTD(1)),
  INDEX key_hash_filter key_hash TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = {engine:ReplacingMergeTree}
PARTITION BY toYYYYMM(appended_at)
PRIMARY KEY (namespace, superseded_type, superseded_subject, superseded_time)
ORDER BY (
  namespace, superseded_type, superseded_subject, superseded_time,
  log_generation, log_partition, log_offset, log_index,
  applied_generation, applied_partition, applied_offset, applied_index
)
SETTINGS index_granularity = 8192 {durable};

-- How far the ledger was, and since when: one row for each batch. A batch that is loaded again has a
-- second, later row, and the earlier one stays: what was known at a time can't change afterwards.
-- Not fsynced, which would cost every batch more than the rest of it: a loader that starts mends what
-- a loss of power has taken, out of the ledger.
CREATE TABLE {database}.ledger_commits {on_cluster} (
  log_generation UInt32,
  log_partition UInt16,
  log_offset UInt64 CODEC(Delta, ZSTD(1)),
  stored_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1))
)
ENGINE = {engine:ReplacingMergeTree}
ORDER BY (log_generation, log_partition, stored_at, log_offset);

CREATE MATERIALIZED VIEW {database}.ledger_commits_of_ledger {on_cluster} TO {database}.ledger_commits AS
SELECT log_generation, log_partition, max(log_offset) AS log_offset, stored_at
FROM {database}.ledger
GROUP BY log_generation, log_partition, stored_at;

INSERT INTO {database}.ledger_commits
SELECT log_generation, log_partition, max(log_offset), stored_at
FROM {database}.ledger
GROUP BY log_generation, log_partition, stored_at;
