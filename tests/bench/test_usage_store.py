"""The stored usage is what the loader would have left: figures taken on it are worth as much."""

import json
from collections.abc import Iterator
from decimal import Decimal

import pytest

from tests.bench.usage_queries import QUESTIONS, Question, answer_of_product, answer_of_raw
from tests.bench.usage_store import (
    NUMBERED_TYPES,
    RAW_TABLE,
    TEXT_TYPES,
    Usage,
    bytes_by_column,
    bytes_by_table,
    store_raw,
    store_usage,
)
from tests.support.faults import question_all
from tollgate.events.dedupe import DAY_US
from tollgate.local.clickhouse_http import ClickHouseServer
from tollgate.platform.clickhouse import DATABASE, ClickHouse
from tollgate.platform.clickhouse_schema import migrate_clickhouse

USAGE = Usage(events=20_050, length_us=35 * DAY_US)
"""A last record that is not full."""


@pytest.fixture(scope="module")
def clickhouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouse]:
    # Of its own: other tests' events must not be among these.
    with (
        ClickHouseServer(tmp_path_factory.mktemp("usage") / "engine") as server,
        ClickHouse(url=server.url) as opened,
    ):
        migrate_clickhouse(opened)
        store_usage(opened, USAGE)
        store_raw(opened)
        yield opened


def test_every_event_has_its_key_and_the_ledger_balances(clickhouse: ClickHouse) -> None:
    found = question_all(clickhouse)
    assert found["events"] == found["keys"] == found["ledger"]["stored"] == USAGE.events
    for name in ("repeated_keys", "keys_without_event", "events_without_key"):
        assert found[name] == 0
    assert found["records_out_of_balance"] == found["records_miscounted"] == 0


def test_times_are_in_the_period_and_appending_follows_them(clickhouse: ClickHouse) -> None:
    ((earliest, latest, wrong, days, late, subjects),) = clickhouse.query(
        "SELECT toUnixTimestamp64Micro(min(time)), toUnixTimestamp64Micro(max(appended_at)),"
        " countIf(NOT (time < received_at AND received_at < appended_at AND"
        " appended_at < stored_at)), uniqExact(toDate(appended_at)),"
        f" countIf(appended_at > time + 60), uniqExact(subject) FROM {DATABASE}.events"
    )
    assert USAGE.start_us <= earliest < latest < USAGE.start_us + USAGE.length_us
    # The first event of all may be appended within its first milliseconds.
    assert wrong <= 100
    assert days == USAGE.length_us // DAY_US
    assert USAGE.events // 100 < late < USAGE.events // 30
    assert subjects > 5000


def test_every_type_has_its_values(clickhouse: ClickHouse) -> None:
    rows = clickhouse.query(f"SELECT type, count(), any(data) FROM {DATABASE}.events GROUP BY type")
    assert {row[0] for row in rows} == {*NUMBERED_TYPES, *TEXT_TYPES}
    for kind, count, text in rows:
        assert count > USAGE.events // 8
        data = json.loads(text)
        assert len(data) == 5
        value = data["tokens"] if kind in NUMBERED_TYPES else Decimal(data["value"])
        assert value >= 0


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.name)
def test_product_and_raw_table_give_the_same_answer(
    clickhouse: ClickHouse, question: Question
) -> None:
    answer = answer_of_product(clickhouse, question)
    assert answer
    assert answer == answer_of_raw(clickhouse, question)


def test_bytes_are_those_of_the_tables(clickhouse: ClickHouse) -> None:
    tables = bytes_by_table(clickhouse)
    assert tables[f"{DATABASE}.events"] > sum(bytes_by_column(clickhouse, "events").values())
    assert tables[RAW_TABLE] > 20 * USAGE.events
