-- minimum server version: 24.8
-- Rollups: sums of events by window, kept ready. All of it can be dropped and built again.
-- A segment is a partition, written once and never changed; which ones count is said in SQL.

-- Only the columns that a meter's aggregation needs are filled.
-- minute: start of the window, in minutes since the epoch, UTC. first_minute, last_minute: of counted events, after it.
-- Sixteen days stand together, so that a month of all subjects need not be read out of all the days there are.
-- subject: '' where a level is of all subjects. absent: bit n: the n-th dimension has no value.
CREATE TABLE {database}.rollup_cells {on_cluster} (
  segment UInt64,
  definition UInt64,
  level UInt8,
  subject String CODEC(ZSTD(1)),
  minute Int32 CODEC(Delta, ZSTD(1)),
  dimensions Array(LowCardinality(String)) CODEC(ZSTD(1)),
  absent UInt64 CODEC(T64, ZSTD(1)),
  first_minute UInt16 CODEC(T64, ZSTD(1)),
  last_minute UInt16 CODEC(T64, ZSTD(1)),
  events UInt64 CODEC(T64, ZSTD(1)),
  total Decimal(76, 18) CODEC(GCD, ZSTD(1)),
  least Decimal(38, 18) CODEC(GCD, ZSTD(1)),
  greatest Decimal(38, 18) CODEC(GCD, ZSTD(1)),
  latest Decimal(38, 18) CODEC(GCD, ZSTD(1)),
  latest_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
  latest_received_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
  latest_index UInt32 CODEC(ZSTD(1)),
  latest_generation UInt32 CODEC(T64, ZSTD(1)),
  latest_partition UInt16 CODEC(T64, ZSTD(1)),
  latest_offset UInt64 CODEC(T64, ZSTD(1)),
  uniques Array(UInt128) CODEC(ZSTD(1))
)
ENGINE = {engine:MergeTree}
PARTITION BY segment
ORDER BY (definition, level, intDiv(minute, 23040), subject, minute, dimensions, absent)
SETTINGS index_granularity = 8192 {durable};

-- Windows of which only cells of this segment and of later ones count: corrections changed what was summed up before.
CREATE TABLE {database}.rollup_replaced {on_cluster} (
  segment UInt64,
  definition UInt64,
  level UInt8,
  subject String CODEC(ZSTD(1)),
  minute Int32 CODEC(Delta, ZSTD(1))
)
ENGINE = {engine:MergeTree}
PARTITION BY segment
ORDER BY (definition, level, subject, minute)
SETTINGS index_granularity = 8192 {durable};
