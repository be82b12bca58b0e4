"""Stored usage: many millions of events as the loader would have left them, made inside the engine.

Every value is a function of the event's number, so two folders of one size hold the same. Times are
exact to the microsecond and ids are random: nothing here is easier to store than what is sent.

The same events stand once more in a table as OpenMeter makes its own (`openmeter.om_events` of its
`event_query.go`): plain, without codecs, ordered by the hour.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tollgate.events.dedupe import DAY_US
from tollgate.platform.clickhouse import DATABASE, ClickHouse

NAMESPACE: Final = "default"
NUMBERED_TYPES: Final = ("chat.completion", "embedding", "image.generation")
"""Events that carry `tokens`, a number."""
TEXT_TYPES: Final = ("storage.snapshot", "network.egress")
"""Events that carry `value`, a decimal with four digits after the point, as text."""
SUBJECTS: Final = 10_000
MODELS: Final = tuple(f"model-{size}" for size in ("xs", "s", "m", "l", "xl", "xxl", "lite", "pro"))
REGIONS: Final = ("eu-central-1", "us-east-1", "us-west-2", "ap-south-1")
FIRST_DAY: Final = 20_605
"""2026-06-01, in days since 1970."""
DAYS: Final = 90
EVENTS_PER_RECORD: Final = 100
GENERATION: Final = 1
PARTITIONS: Final = 2
RAW_TABLE: Final = "openmeter.om_events"

_ROUTES: Final = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/images")
_TIERS: Final = ("free", "pro", "enterprise")
_ROWS_PER_INSERT: Final = 2_000_000
_RAW_TABLE_SQL: Final = f"""
CREATE TABLE IF NOT EXISTS {RAW_TABLE} (
  namespace String, id String, type LowCardinality(String), subject String, source String,
  time DateTime, data String, ingested_at DateTime, stored_at DateTime,
  INDEX om_events_stored_at stored_at TYPE minmax GRANULARITY 4,
  store_row_id String)
ENGINE = MergeTree
PARTITION BY toYYYYMM(time)
ORDER BY (namespace, type, subject, toStartOfHour(time))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Which events are made.

    Attributes:
        events: how many.
        start_us: no event is earlier, nor appended earlier.
        length_us: the last record is appended before this much later.
        late_us: one event in fifty comes up to this much after it happened, the others within 5 s.
    """

    events: int
    start_us: int = FIRST_DAY * DAY_US
    length_us: int = DAYS * DAY_US
    late_us: int = DAY_US

    @property
    def records(self) -> int:
        """Records of the log that hold them."""
        return -(-self.events // EVENTS_PER_RECORD)

    @property
    def spacing_us(self) -> int:
        """From one record to the next, on average."""
        return self.length_us // self.records

    def first_of_day(self, day: int) -> int:
        """The first event appended on a day of the period, 0 is the first; or the end of all."""
        record = -(-day * DAY_US // self.spacing_us)
        return min(record * EVENTS_PER_RECORD, self.events)


def _texts(values: tuple[str, ...]) -> str:
    return "[" + ", ".join(f"'{value}'" for value in values) + "]"


def _picked(values: tuple[str, ...], number: str) -> str:
    return f"{_texts(values)}[1 + {number} % {len(values)}]"


_NUMBERED: Final = (
    f"""concat('{{"tokens":', toString(1 + a % 4000), ',"model":"', {_picked(MODELS, "b")},"""
    f"""'","region":"', {_picked(REGIONS, "intDiv(b, 8)")}, '","route":"',"""
    f"""{_picked(_ROUTES, "intDiv(b, 32)")}, '","duration_ms":', toString(5 + c % 9000), '}}')"""
)
_TEXTUAL: Final = (
    f"""concat('{{"value":"', toString(toDecimal64(a % 100000000, 0) / 10000), '","model":"',"""
    f"""{_picked(MODELS, "b")}, '","region":"', {_picked(REGIONS, "intDiv(b, 8)")}, '","tier":"',"""
    f"""{_picked(_TIERS, "intDiv(b, 32)")}, '","host":"node-', toString(c % 64), '"}}')"""
)
_TYPES: Final = NUMBERED_TYPES + TEXT_TYPES
# Few customers make most events: the first hundredth of them a tenth.
_SUBJECT: Final = (
    "concat('customer-', leftPad(toString(toUInt32(floor("
    f"{SUBJECTS} * pow((e % 1000000) / 1000000, 2)))), 5, '0'))"
)
_LATE: Final = "if(d % 50 = 0, intDiv(d, 50) % {late:UInt64}, intDiv(d, 50) % 5000000)"
_ID: Final = "toString(reinterpret(sipHash128(number, 'id'), 'UUID'))"
_RECORD: Final = f"intDiv(number, {EVENTS_PER_RECORD})"
_APPENDED: Final = (
    "toInt64({start:UInt64} + record * {spacing:UInt64}"
    " + cityHash64(record, 'at') % {spacing:UInt64})"
)
_RECEIVED: Final = "appended - 300 - toInt64(cityHash64(record, 'by') % 3000)"
_NUMBERS: Final = (
    f"SELECT number, {_RECORD} AS record, {_APPENDED} AS appended,"
    f" {_RECEIVED} AS received,"
    " cityHash64(number, 1) AS a, cityHash64(number, 2) AS b, cityHash64(number, 3) AS c,"
    " cityHash64(number, 4) AS d, cityHash64(number, 5) AS e, cityHash64(number, 6) AS f"
    " FROM numbers({first:UInt64}, {count:UInt64})"
)


def _instant(microseconds: str) -> str:
    return f"fromUnixTimestamp64Micro({microseconds}, 'UTC')"


_POSITION: Final = (
    f"{GENERATION} AS log_generation, toUInt16(record % {PARTITIONS}) AS log_partition,"
    f" intDiv(record, {PARTITIONS}) AS log_offset, number % {EVENTS_PER_RECORD} AS log_index"
)
_EVENTS: Final = (
    f"SELECT '{NAMESPACE}' AS namespace, concat('bench/gateway-', toString(f % 8)) AS source,"
    f" {_ID} AS id,"
    f" {_instant(f'greatest(toInt64({{start:UInt64}}), received - 1000 - toInt64({_LATE}))')}"
    f" AS time, 1 AS time_given, {_instant('received')} AS received_at,"
    f" {_texts(_TYPES)}[1 + intDiv(f, 8) % {len(_TYPES)}] AS type, {_SUBJECT} AS subject,"
    " 'application/json' AS datacontenttype,"
    f" if(intDiv(f, 8) % {len(_TYPES)} < {len(NUMBERED_TYPES)}, {_NUMBERED}, {_TEXTUAL}) AS data,"
    f" {_POSITION}, {_instant('appended')} AS appended_at,"
    # Records that are loaded together are stored at one time, to the millisecond.
    f" {_instant('intDiv(appended, 500000) * 500000 + 517000')} AS stored_at FROM ({_NUMBERS})"
)
_EVENT_COLUMNS: Final = (
    "namespace, source, id, time, time_given, received_at, type, subject, datacontenttype, data,"
    " log_generation, log_partition, log_offset, log_index, appended_at, stored_at"
)
_KEYS: Final = (
    "SELECT sipHash64(number, 'key') AS key, sipHash64(number, 'digest') AS digest,"
    f" {_POSITION}, toDate({_instant('appended')}) AS appended_on FROM ({_NUMBERS})"
)
_LEDGER: Final = (
    f"SELECT log_generation, log_partition, log_offset, '{NAMESPACE}',"
    f" toStartOfHour({_instant('any(received)')}), count(), count(), 0, 0, 0,"
    f" {_instant('any(appended)')}, {_instant('any(intDiv(appended, 500000) * 500000 + 517000)')}"
    f" FROM (SELECT {_POSITION}, received, appended FROM ({_NUMBERS}))"
    " GROUP BY log_generation, log_partition, log_offset"
)
_LEDGER_COLUMNS: Final = (
    "log_generation, log_partition, log_offset, namespace, received_hour, accepted, stored,"
    " duplicate, conflict, dead, appended_at, stored_at"
)


def store_usage(clickhouse: ClickHouse, usage: Usage) -> None:
    """Write the events, their keys and the ledger, day of appending after day."""
    days = -(-usage.length_us // DAY_US)
    for day in range(days):
        first, end = usage.first_of_day(day), usage.first_of_day(day + 1)
        for start in range(first, end, _ROWS_PER_INSERT):
            _insert(clickhouse, usage, start, min(end, start + _ROWS_PER_INSERT))


def store_late(clickhouse: ClickHouse, usage: Usage) -> None:
    """Write one more event, in a record after all others; its time is before the period's end."""
    first = usage.records * EVENTS_PER_RECORD
    _insert(clickhouse, usage, first, first + 1)


def _insert(clickhouse: ClickHouse, usage: Usage, first: int, end: int) -> None:
    values = {
        "start": usage.start_us,
        "spacing": usage.spacing_us,
        "late": usage.late_us,
        "first": first,
        "count": end - first,
    }
    settings = " SETTINGS optimize_on_insert = 0, max_insert_block_size = 2000000"
    for table, columns, select in (
        ("events", f" ({_EVENT_COLUMNS})", _EVENTS),
        ("event_keys", "", _KEYS),
        ("ledger", f" ({_LEDGER_COLUMNS})", _LEDGER),
    ):
        clickhouse.command(f"INSERT INTO {DATABASE}.{table}{columns} {select}{settings}", values)


def store_raw(clickhouse: ClickHouse) -> None:
    """Write the events of `events` into the table that is ordered as OpenMeter orders its own."""
    clickhouse.command(f"CREATE DATABASE IF NOT EXISTS {RAW_TABLE.partition('.')[0]}")
    clickhouse.command(_RAW_TABLE_SQL)
    months = clickhouse.query(
        f"SELECT DISTINCT _partition_id FROM {DATABASE}.events ORDER BY _partition_id"
    )
    for (month,) in months:
        clickhouse.command(
            f"INSERT INTO {RAW_TABLE} SELECT namespace, id, type, subject, source, time, data,"
            f" received_at, stored_at, '' FROM {DATABASE}.events"
            " WHERE _partition_id = {month:String}",
            {"month": month},
        )


def merge(clickhouse: ClickHouse, table: str) -> None:
    """Merge every partition of a table into one part, as days without writes would."""
    clickhouse.command(f"OPTIMIZE TABLE {table} FINAL")


def bytes_by_table(clickhouse: ClickHouse) -> Mapping[str, int]:
    """Return bytes on disk, marks and indices included, by table (with its database)."""
    rows = clickhouse.query(
        "SELECT concat(database, '.', table) AS name, sum(bytes_on_disk) FROM system.parts"
        " WHERE active AND database != 'system' GROUP BY name ORDER BY name"
    )
    return {str(name): int(size) for name, size in rows}


def bytes_by_column(clickhouse: ClickHouse, table: str) -> Mapping[str, int]:
    """Return packed bytes of each column of a table of the product, the largest first."""
    rows = clickhouse.query(
        "SELECT column, sum(column_data_compressed_bytes) AS size FROM system.parts_columns"
        " WHERE active AND database = {database:String} AND table = {table:String}"
        " GROUP BY column ORDER BY size DESC",
        {"database": DATABASE, "table": table},
    )
    return {str(name): int(size) for name, size in rows}
