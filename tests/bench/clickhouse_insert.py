"""The bare insert: prepared rows handed to an embedded ClickHouse again and again, nothing else.

A process of its own, because an embedded engine allows one data path per process. Prints one JSON
object. The table has the columns of the product's events table but no dedupe, no keys, no ledger
and no fsync: no loader on this engine can be faster than this.
"""

import argparse
import json
import random
import time

import clickhouse_connect
from clickhouse_connect.driver.client import Client

_COLUMNS = """
    namespace LowCardinality(String), source LowCardinality(String), id String,
    type LowCardinality(String), subject String, time DateTime64(6, 'UTC'),
    received_at DateTime64(6, 'UTC'), stored_at DateTime64(6, 'UTC') DEFAULT now64(6),
    datacontenttype LowCardinality(String), dataschema LowCardinality(String),
    extensions String, data String, data_exact String,
    key_hash FixedString(32), content_hash UInt64,
    generation UInt16, partition UInt16, offset UInt64, `index` UInt32
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
            "received_at": "2026-11-23 11:00:00.000000",
            "datacontenttype": "application/json",
            "data": json.dumps(data, separators=(",", ":")),
            "key_hash": f"{shuffle.getrandbits(128):032x}",
            "content_hash": shuffle.getrandbits(64),
            "generation": 1,
            "partition": index % 2,
            "offset": index // 100,
            "index": index % 100,
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
