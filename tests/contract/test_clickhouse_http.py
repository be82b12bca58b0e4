"""The engine behind ClickHouse's HTTP interface: what our client asks of a server, and faults."""

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import monotonic

import pytest

from tests.support.server import wait_until
from tollgate.core.errors import PermanentFault, Transient
from tollgate.events.rows import LEDGER_COLUMNS
from tollgate.local.clickhouse_http import ClickHouseServer
from tollgate.platform.clickhouse import DATABASE, BadRows, ClickHouse
from tollgate.platform.clickhouse_schema import migrate_clickhouse

BATCH = 2000


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
    counts = b"1,1,0,0,0,0"
    head = b'%d,0,%d,"1793620800.000000","default",1793620800' % (generation, offset)
    return b"[%b,%b]\n" % (head, counts)


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
    """Known within a second, by clients that had reached it and by those that had not."""
    service = ClickHouseServer(tmp_path / "engine").start()
    with ClickHouse(url=service.url) as client, ClickHouse(url=service.url) as late:
        migrate_clickhouse(client)
        for end in (service.stop, service.kill):
            end()
            began = monotonic()
            for away in (client, late):
                with pytest.raises(Transient):
                    away.query("SELECT 1")
                with pytest.raises(Transient):
                    away.insert("ledger", LEDGER_COLUMNS, ledger_row(1, 1))
                with pytest.raises(Transient):
                    away.command("SELECT 1")
            assert monotonic() - began < 1
            service.start()
            client.insert("ledger", LEDGER_COLUMNS, ledger_row(1, 1))
            assert client.query(f"SELECT count() FROM {DATABASE}.ledger FINAL") == [(1,)]
    service.stop()


def test_a_network_that_swallows_everything_is_transient_soon() -> None:
    """A listener whose queue is full does not answer a connection at all."""
    with socket.socket() as deaf, socket.socket() as first, socket.socket() as second:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for filling in (first, second):
            filling.setblocking(False)
            filling.connect_ex(deaf.getsockname())
        began = monotonic()
        with (
            ClickHouse(url=f"http://127.0.0.1:{deaf.getsockname()[1]}") as client,
            pytest.raises(Transient),
        ):
            client.query("SELECT 1")
        assert monotonic() - began < 5


def test_a_frozen_server_is_transient_once_it_was_silent_too_long(tmp_path: Path) -> None:
    with (
        ClickHouseServer(tmp_path / "engine") as service,
        ClickHouse(url=f"{service.url}?send_receive_timeout=1") as client,
    ):
        wait_until(lambda: _answers(client), what="it answers")
        service.suspend()
        with pytest.raises(Transient):
            client.query("SELECT 1")
        service.resume()
        # On a busy machine its first answer may take longer than the second that this client waits.
        wait_until(lambda: _answers(client), what="it answers again")


def _answers(client: ClickHouse) -> bool:
    try:
        return client.query("SELECT 2") == [(2,)]
    except Transient:
        return False


def test_a_server_told_to_end_answers_what_it_has_begun(tmp_path: Path) -> None:
    service = ClickHouseServer(tmp_path / "engine").start()
    answers: list[Sequence[Sequence[object]]] = []

    def ask() -> None:
        answers.append(client.query("SELECT 7, sleep(2)"))

    with ClickHouse(url=service.url) as client, ClickHouse(url=service.url) as other:
        thread = threading.Thread(target=ask)
        thread.start()
        wait_until(lambda: len(other.query("SHOW PROCESSLIST")) > 1, what="the query runs")
        service.stop()
        thread.join()
    assert answers == [[(7, 0)]]


class Truth:
    """A client that inserts batch after batch and knows which of them were answered."""

    def __init__(self, url: str, number: int, stop: threading.Event) -> None:
        self.tried: set[int] = set()
        self.answered: set[int] = set()
        self._url = url
        self._number = number
        self._stop = stop
        self.thread = threading.Thread(target=self._insert)
        self.thread.start()

    def _insert(self) -> None:
        with ClickHouse(url=self._url) as client:
            while not self._stop.is_set():
                batch = len(self.tried) * 10 + self._number
                rows = b"".join(b'[%d,%d,"%0200d"]\n' % (batch, row, row) for row in range(BATCH))
                self.tried.add(batch)
                try:
                    client.insert("truth", ("batch", "row", "text"), rows)
                except Transient:
                    self._stop.wait(0.02)
                else:
                    self.answered.add(batch)


def test_what_was_answered_is_there_whole_after_kill_9(tmp_path: Path) -> None:
    """Three clients that keep the truth insert while the server is killed, four times."""
    service = ClickHouseServer(tmp_path / "engine").start()
    with ClickHouse(url=service.url) as client:
        migrate_clickhouse(client)
        client.command(
            f"CREATE TABLE {DATABASE}.truth (batch UInt64, row UInt32, text String)"
            " ENGINE = ReplacingMergeTree ORDER BY (batch, row)"
            " SETTINGS fsync_after_insert = 1, fsync_part_directory = 1"
        )
    stop = threading.Event()
    clients = [Truth(service.url, number, stop) for number in range(3)]
    for _ in range(4):
        before = [len(truth.answered) for truth in clients]
        wait_until(
            lambda: all(  # called at once
                len(truth.answered) >= count + 5
                for truth, count in zip(clients, before, strict=True)  # noqa: B023
            ),
            what="inserts answered",
        )
        service.kill()
        began = monotonic()
        service.start()
        assert monotonic() - began < 10
    stop.set()
    for truth in clients:
        truth.thread.join()
    with ClickHouse(url=service.url) as client:
        rows = client.query(
            f"SELECT batch, count() FROM {DATABASE}.truth FINAL GROUP BY batch ORDER BY batch"
        )
    service.stop()
    assert {count for _, count in rows} == {BATCH}
    found = {batch for batch, _ in rows}
    assert set().union(*(t.answered for t in clients)) <= found
    assert found <= set().union(*(t.tried for t in clients))
    # Closed in good order, the folder opens in this process too: nothing else holds it.
    with ClickHouseServer(service.path) as again, ClickHouse(url=again.url) as client:
        assert client.query(f"SELECT uniqExact(batch) FROM {DATABASE}.truth") == [(len(found),)]


def test_a_server_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path;"
        " from tollgate.local.clickhouse_http import ClickHouseServer;"
        " print(ClickHouseServer(Path(sys.argv[1])).start().pid, flush=True);"
        " os.kill(os.getpid(), 9)"
    )
    started = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "engine")],
        capture_output=True,
        check=False,
    )
    pid = int(started.stdout)
    wait_until(lambda: not _alive(pid), what="the server's end")
    with ClickHouseServer(tmp_path / "engine"):
        # Its folder is free again.
        pass


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
