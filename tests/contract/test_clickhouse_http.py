"""The engine behind ClickHouse's HTTP interface: what our client asks of a server, and faults."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.server import wait_until
from tollgate.core.errors import PermanentFault, Transient
from tollgate.events.rows import LEDGER_COLUMNS
from tollgate.local.clickhouse_http import ClickHouseServer
from tollgate.platform.clickhouse import DATABASE, BadRows, ClickHouse
from tollgate.platform.clickhouse_schema import migrate_clickhouse


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseServer]:
    with ClickHouseServer(tmp_path_factory.mktemp("front") / "engine") as running:
        yield running


@pytest.fixture
def clickhouse(service: ClickHouseServer) -> Iterator[ClickHouse]:
    with ClickHouse(url=service.url) as client:
        migrate_clickhouse(client)
        yield client


def ledger_row(offset: int, generation: int) -> bytes:
    return b'[%d,0,%d,"1793620800.000000","default",1793620800,1,1,0,0,0]\n' % (generation, offset)


def test_values_are_bound_whatever_they_hold(clickhouse: ClickHouse) -> None:
    for text in ("plain", 'it\'s \\ "quoted"\n\ttab', "ü \U0001f600", "'; DROP TABLE x --", ""):
        assert clickhouse.query("SELECT {text:String}, {n:UInt64}", {"text": text, "n": 7}) == [
            (text, 7)
        ]
    assert clickhouse.query("SELECT {many:Array(String)}", {"many": ["a'b", "c"]}) == [
        (["a'b", "c"],)
    ]


def test_settings_belong_to_one_query_even_if_it_fails(clickhouse: ClickHouse) -> None:
    (before,) = clickhouse.query("SELECT getSetting('max_rows_to_read')")
    with pytest.raises(Exception, match="reads or returns more than allowed"):
        clickhouse.query("SELECT sum(number) FROM numbers(10)", settings={"max_rows_to_read": 1})
    for _ in range(20):
        assert clickhouse.query("SELECT getSetting('max_rows_to_read')") == [before]


def test_inserts_are_all_or_nothing_and_say_what_is_wrong(clickhouse: ClickHouse) -> None:
    clickhouse.insert("ledger", LEDGER_COLUMNS, b"".join(ledger_row(n, 1) for n in range(1000)))
    with pytest.raises(BadRows):
        clickhouse.insert("ledger", LEDGER_COLUMNS, ledger_row(1000, 1) + b'["no",1]\n')
    assert clickhouse.query(
        f"SELECT count(), sum(stored) FROM {DATABASE}.ledger WHERE log_generation = 1"
    ) == [(1000, 1000)]
    with pytest.raises(PermanentFault):
        clickhouse.query("SELECT nothing FROM nowhere.atall")


def test_columns_come_as_arrays_in_blocks(clickhouse: ClickHouse) -> None:
    with clickhouse.client().query_np_stream(
        "SELECT number, 1 AS one FROM numbers(200000)"
    ) as blocks:
        assert sum(int(block["number"].sum()) for block in blocks) == 199_999 * 100_000


def test_many_threads_at_once_each_get_their_own_answer(clickhouse: ClickHouse) -> None:
    right: list[bool] = []

    def ask(number: int) -> None:
        answers = [clickhouse.query("SELECT {n:UInt64}", {"n": number}) for _ in range(10)]
        right.append(answers == [[(number,)]] * 10)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [True] * 24


def test_an_engine_that_is_away_is_transient_and_comes_back(tmp_path: Path) -> None:
    service = ClickHouseServer(tmp_path / "engine").start()
    with ClickHouse(url=service.url) as client:
        migrate_clickhouse(client)
        service.stop()
        with pytest.raises(Transient):
            client.query("SELECT 1")
        service.start()
        assert client.query("SELECT 1") == [(1,)]
        service.stop()
    with ClickHouse(url=service.url) as late, pytest.raises(Transient):
        late.query("SELECT 1")


def test_what_was_answered_is_there_after_kill_9(tmp_path: Path) -> None:
    """A client that keeps the truth inserts while the engine is killed, three times."""
    service = ClickHouseServer(tmp_path / "engine").start()
    answered: list[int] = []
    tried: list[int] = []
    stop = threading.Event()

    def insert() -> None:
        with ClickHouse(url=service.url) as client:
            while not stop.is_set():
                offset = len(tried)
                tried.append(offset)
                try:
                    client.insert("ledger", LEDGER_COLUMNS, ledger_row(offset, 1))
                except Transient:
                    stop.wait(0.05)
                else:
                    answered.append(offset)

    with ClickHouse(url=service.url) as client:
        migrate_clickhouse(client)
    thread = threading.Thread(target=insert)
    thread.start()
    for round_number in range(1, 4):
        wanted = 20 * round_number
        wait_until(lambda: len(answered) >= wanted, what="inserts")  # noqa: B023 -- called at once
        service.kill()
        service.start()
    stop.set()
    thread.join()
    with ClickHouse(url=service.url) as client:
        rows = client.query(f"SELECT log_offset FROM {DATABASE}.ledger FINAL ORDER BY log_offset")
    found = {row[0] for row in rows}
    assert set(answered) <= found <= set(tried)
    service.stop()
