"""A store of before holds the same after the migrations that made an event smaller."""

from pathlib import Path

import numpy as np
import pytest

from tests.support.loading import NOON_US
from tollgate.events.batch import Batch, open_batch
from tollgate.events.claims import digest_of, key_of
from tollgate.events.dedupe import DAY_US, numbers_of
from tollgate.events.event import Arrival, Attributes, encode
from tollgate.events.record import Group, encode_record
from tollgate.events.rows import EVENT_COLUMNS, event_rows
from tollgate.events.stored_events import find_events
from tollgate.local.clickhouse_http import ClickHouseServer
from tollgate.platform import clickhouse_schema
from tollgate.platform.clickhouse import DATABASE, ClickHouse
from tollgate.platform.event_log import StoredRecord

DAYS = 120
"""More days than one insert may have partitions, unless it says so."""


def events_of_before() -> list[Batch]:
    """An event on each of many days; some without a time, one with hostile texts."""
    arrival = Arrival(namespace="n", received_us=NOON_US, event_bytes_max=1 << 20)
    batches = []
    for day in range(DAYS):
        attributes = Attributes(
            id=f"e{day} 'quoted' \u2028" if day == 7 else f"e{day}",
            source="s",
            type="t",
            subject="u",
            time_us=NOON_US + day if day % 2 else None,
            datacontenttype="",
            dataschema="",
            extensions="",
        )
        value = encode_record(
            [Group("n", NOON_US, [encode(attributes, b'{"x":"\\u00fc"}', arrival)])]
        )
        appended = NOON_US + day * DAY_US
        record = StoredRecord(offset=day, appended_us=appended, value=value)
        batches.append(open_batch(1, 0, [record]))
    return batches


def test_keys_of_before_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    migrations = clickhouse_schema.read_migrations()
    before = [migration.name for migration in migrations].index("storage")
    batches = events_of_before()
    with (
        ClickHouseServer(tmp_path / "engine") as server,
        ClickHouse(url=server.url) as clickhouse,
    ):
        monkeypatch.setattr(clickhouse_schema, "read_migrations", lambda: migrations[:before])
        clickhouse_schema.migrate_clickhouse(clickhouse)
        rows = [row for b in batches for row in event_rows(b, np.ones(len(b), np.bool_))]
        # An insert over many months is refused unless it says so; a loader never makes one.
        for start in range(0, len(rows), 3):
            clickhouse.insert("events", EVENT_COLUMNS, b"".join(rows[start : start + 3]))
        monkeypatch.undo()
        # As if the process had ended between the last statement and the note that it is done.
        for statement in clickhouse_schema.render(migrations[before].template, durable=True):
            clickhouse.command(statement)
        assert clickhouse_schema.migrate_clickhouse(clickhouse) == len(migrations) - before
        assert clickhouse_schema.migrate_clickhouse(clickhouse) == 0
        keys = clickhouse.query(
            "SELECT key, digest, log_generation, log_partition, log_offset, log_index,"
            f" toUInt16(appended_on) FROM {DATABASE}.event_keys FINAL ORDER BY log_offset"
        )
        assert [tuple(row) for row in keys] == [
            (
                *(numbers_of(batch.keys).tolist()[0], digest_of(batch.line(0))),
                *(1, 0, day, 0, NOON_US // DAY_US + day),
            )
            for day, batch in enumerate(batches)
        ]
        wanted = [key_of(batch.line(0)) for batch in batches]
        found = find_events(clickhouse, wanted)
        assert {place[2]: event.key for place, event in found.items()} == dict(enumerate(wanted))
