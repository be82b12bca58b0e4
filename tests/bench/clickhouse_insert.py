"""The bare insert: prepared rows handed to an embedded ClickHouse again and again, nothing else.

A process of its own, because an embedded engine allows one data path per process. Prints one JSON
object. The table has the columns of the product's events table but no dedupe, no keys, no ledger,
no index and no fsync: no loader on this engine can be faster than this.
"""

import argparse
import json
import random
import time
import uuid

import clickhouse_connect
from clickhouse_connect.driver.client import Client

_COLUMNS = """
    namespace LowCardinality(String),
    source String CODEC(ZSTD(1)), id String CODEC(ZSTD(1)),
    time DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)), time_given UInt8,
    received_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)), key_hash UUID,
    type LowCardinality(String), subject String CODEC(ZSTD(1)),
    datacontenttype LowCardinality(String), dataschema String CODEC(ZSTD(1)),
    extensions String CODEC(ZSTD(1)), data String CODEC(ZSTD(1)), data_exact String CODEC(ZSTD(1)),
    log_generation UInt32, log_partition UInt16, log_offset UInt64 CODEC(Delta, ZSTD(1)),
    log_index UInt32, appended_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    stored_at DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC') CODEC(Delta, ZSTD(1))
"""
_ROWS_PER_BLOCK = 50_000


def make_block() -> bytes:
    """Return one block of rows as NDJSON, about 600 bytes each, the same in every run."""
    shuffle = random.Random(11)
    lines = []
    for index in range(_ROWS_PER_BLOCK):
        data = {
            "tokens": shuffle.randrange(1, 4000),
            "model": shuffle.choice(("small", "medium", "large", "embedding")),
            "route": "/v1/chat/completions",
            "region": shuffle.choice(("eu-central", "us-east", "us-west")),
            "duration_ms": shuffle.randrange(5, 9000),
        }
        row = {
            "namespace": "default",
            "source": f"bench/gateway-{shuffle.randrange(8)}",
            "id": f"insert-{shuffle.randrange(10**12):012d}-{index:05d}",
            "type": "bench.request",
            "subject": f"customer-{shuffle.randrange(2000):05d}",
            "time": f"2026-11-23 10:{index % 60:02d}:00.{shuffle.randrange(10**6):06d}",
            "time_given": 1,
            "received_at": "2026-11-23 11:00:00.000000",
            "datacontenttype": "application/json",
            "data": json.dumps(data, separators=(",", ":")),
            "key_hash": str(uuid.UUID(int=shuffle.getrandbits(128))),
            "log_generation": 1,
            "log_partition": index % 2,
            "log_offset": index // 100,
            "log_index": index % 100,
            "appended_at": "2026-11-23 11:00:00.000000",
        }
        lines.append(json.dumps(row, separators=(",", ":")))
    return "\n".join(lines).encode()


def open_table(folder: str) -> Client:
    """Create the table under `folder` and return the client."""
    client = clickhouse_connect.get_client(interface="chdb", path=folder)
    client.command(
        f"CREATE TABLE events ({_COLUMNS}) ENGINE = MergeTree "
        "ORDER BY (namespace, type, subject, time)"
    )
    return client


def measure(client: Client, block: bytes, seconds: float) -> dict[str, float]:
    """Insert the block for `seconds` and count the rows against what the table says."""
    client.raw_insert("events", insert_block=block, fmt="JSONEachRow")
    inserted = 0
    started = time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds:
        client.raw_insert("events", insert_block=block, fmt="JSONEachRow")
        inserted += _ROWS_PER_BLOCK
    stored = int(client.query("SELECT count() FROM events").result_rows[0][0])
    if stored != inserted + _ROWS_PER_BLOCK:
        raise RuntimeError(f"inserted {inserted + _ROWS_PER_BLOCK} rows, the table has {stored}")
    return {"rows": inserted, "seconds": elapsed, "rows_per_second": inserted / elapsed}


def main() -> None:
    """Measure once and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", required=True, help="empty folder for the engine")
    parser.add_argument("--seconds", type=float, default=3)
    arguments = parser.parse_args()
    client = open_table(arguments.folder)
    print(json.dumps(measure(client, make_block(), arguments.seconds)))
    client.close()


if __name__ == "__main__":
    main()
