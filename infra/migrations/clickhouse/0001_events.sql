-- minimum server version: 24.8
-- A template. {database}, {on_cluster} and {engine:NAME} are filled in for the variant asked for:
-- plain (one server or the embedded engine) or replicated (ON CLUSTER, Replicated engines).
-- {durable} asks the plain variant to fsync every part before an insert is answered: no replica has it.

CREATE TABLE {database}.events {on_cluster} (
  namespace LowCardinality(String),
  source String CODEC(ZSTD(1)),
  id String CODEC(ZSTD(1)),
  time DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
  time_given UInt8,
  received_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
  key_hash UUID,
  type LowCardinality(String),
  subject String CODEC(ZSTD(1)),
  datacontenttype LowCardinality(String),
  dataschema String CODEC(ZSTD(1)),
  extensions String CODEC(ZSTD(1)),
  data String CODEC(ZSTD(1)),
  data_exact String CODEC(ZSTD(1)),
  log_generation UInt32,
  log_partition UInt16,
  log_offset UInt64 CODEC(Delta, ZSTD(1)),
  log_index UInt32,
  appended_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
  stored_at DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC') CODEC(Delta, ZSTD(1)),
  INDEX key_hash_filter key_hash TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = {engine:ReplacingMergeTree}
PARTITION BY toYYYYMM(appended_at)
PRIMARY KEY (namespace, type, subject, time)
ORDER BY (namespace, type, subject, time, log_generation, log_partition, log_offset, log_index)
SETTINGS index_granularity = 8192 {durable};

-- Looked up key by key: columns that are packed by the default codec alone are read twice as fast.
CREATE TABLE {database}.event_keys {on_cluster} (
  namespace LowCardinality(String),
  source String,
  id String,
  time DateTime64(6, 'UTC'),
  time_given UInt8,
  received_at DateTime64(6, 'UTC'),
  key_hash UUID,
  content_hash FixedString(16),
  log_generation UInt32,
  log_partition UInt16,
  log_offset UInt64,
  log_index UInt32,
  appended_at DateTime64(6, 'UTC')
)
ENGINE = {engine:ReplacingMergeTree}
PARTITION BY toDate(appended_at)
PRIMARY KEY key_hash
ORDER BY (key_hash, log_generation, log_partition, log_offset, log_index)
SETTINGS index_granularity = 256 {durable};

-- Filled with every insert into events, so that the loader sends each event once.
CREATE MATERIALIZED VIEW {database}.event_keys_of_events {on_cluster} TO {database}.event_keys AS
SELECT
  namespace, source, id, time, time_given, received_at, key_hash,
  MD5(concat(toString(type), '\0', subject, '\0', toString(datacontenttype), '\0', dataschema, '\0', extensions, '\0', data))
    AS content_hash,
  log_generation, log_partition, log_offset, log_index, appended_at
FROM {database}.events;

CREATE TABLE {database}.event_outcomes {on_cluster} (
  namespace LowCardinality(String),
  outcome Enum8('duplicate' = 1, 'conflict' = 2, 'dead' = 3),
  source String CODEC(ZSTD(1)),
  id String CODEC(ZSTD(1)),
  key_hash UUID,
  code LowCardinality(String),
  detail String CODEC(ZSTD(1)),
  event String CODEC(ZSTD(1)),
  first_generation UInt32,
  first_partition UInt16,
  first_offset UInt64,
  first_index UInt32,
  log_generation UInt32,
  log_partition UInt16,
  log_offset UInt64,
  log_index UInt32,
  received_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
  appended_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
  stored_at DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC') CODEC(Delta, ZSTD(1)),
  INDEX key_hash_filter key_hash TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = {engine:ReplacingMergeTree}
PARTITION BY toYYYYMM(appended_at)
ORDER BY (namespace, outcome, appended_at, log_generation, log_partition, log_offset, log_index)
SETTINGS index_granularity = 8192 {durable};

CREATE TABLE {database}.ledger {on_cluster} (
  log_generation UInt32,
  log_partition UInt16,
  log_offset UInt64 CODEC(Delta, ZSTD(1)),
  namespace LowCardinality(String),
  received_hour DateTime('UTC') CODEC(Delta, ZSTD(1)),
  accepted UInt32,
  stored UInt32,
  duplicate UInt32,
  conflict UInt32,
  dead UInt32,
  appended_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
  stored_at DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC') CODEC(Delta, ZSTD(1))
)
ENGINE = {engine:ReplacingMergeTree}
PARTITION BY toYYYYMM(appended_at)
ORDER BY (log_generation, log_partition, log_offset, namespace, received_hour)
SETTINGS index_granularity = 8192 {durable};
