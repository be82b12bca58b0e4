"""The contract of an event log, held by every implementation of `tollgate.platform.event_log`."""

import os
import queue
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path
from time import monotonic

import pytest

from tests.support.log_process import APPENDER
from tests.support.server import ROOT, wait_until
from tollgate.core.clock import SystemClock, datetime_from_us
from tollgate.core.errors import Transient
from tollgate.platform.event_log import EventLog, StoredRecord
from tollgate.platform.sqlite_log import SqliteLog

OpenLog = Callable[[], EventLog]
PARTITION = 0


def _open_sqlite(folder: Path) -> EventLog:
    return SqliteLog(folder / "log.sqlite", SystemClock())


# A log joins the suite with one line: a name and how it is opened, again and again, on a folder.
LOGS: dict[str, Callable[[Path], EventLog]] = {"sqlite": _open_sqlite}


@pytest.fixture(params=LOGS)
def open_log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenLog]:
    opened: list[EventLog] = []

    def make() -> EventLog:
        opened.append(LOGS[request.param](tmp_path))
        return opened[-1]

    yield make
    for log in opened:
        log.close()


def append(log: EventLog, *values: bytes) -> int:
    """The last offset, once the records are on disk."""
    answers: queue.SimpleQueue[int | Exception] = queue.SimpleQueue()
    log.submit(PARTITION, values, answers.put)
    answer = answers.get(timeout=20)
    if isinstance(answer, Exception):
        raise answer
    return answer


def read_all(log: EventLog, after: int = -1) -> list[StoredRecord]:
    return log.read(PARTITION, after, 1 << 30)


def values_of(records: Sequence[StoredRecord]) -> list[bytes]:
    return [record.value for record in records]


class SetClock:
    """A clock that stands where the test puts it."""

    def __init__(self, now_us: int) -> None:
        self.us = now_us

    def now_us(self) -> int:
        return self.us

    def now(self) -> datetime:
        return datetime_from_us(self.us)


def test_a_new_log_is_empty(open_log: OpenLog) -> None:
    log = open_log()
    assert (log.end(PARTITION), log.released(PARTITION), log.backlog_bytes()) == (-1, -1, 0)
    assert read_all(log) == []
    assert not log.wait(PARTITION, -1, 0)


def test_records_come_back_in_order_from_offset_0(open_log: OpenLog) -> None:
    log = open_log()
    assert append(log, b"a", b"b") == 1
    assert append(log, b"c") == 2
    records = read_all(log)
    assert [(r.offset, r.value) for r in records] == [(0, b"a"), (1, b"b"), (2, b"c")]
    assert [r.appended_us for r in records] == sorted(r.appended_us for r in records)
    assert log.end(PARTITION) == 2


def test_submissions_of_many_threads_are_whole_and_each_answered_once(open_log: OpenLog) -> None:
    log = open_log()
    answers: queue.SimpleQueue[tuple[str, int | Exception]] = queue.SimpleQueue()

    def write(writer: int) -> None:
        for number in range(25):
            name = f"{writer}.{number}"
            values = [f"{name}.{part}".encode() for part in range(3)]

            def done(outcome: int | Exception, name: str = name) -> None:
                answers.put((name, outcome))

            log.submit(PARTITION, values, done)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ends = dict(answers.get(timeout=20) for _ in range(100))
    log.close()
    assert answers.empty()
    assert len(ends) == 100
    stored = values_of(read_all(open_log()))
    assert len(stored) == 300
    for name, end in ends.items():
        assert isinstance(end, int)
        assert stored[end - 2 : end + 1] == [f"{name}.{part}".encode() for part in range(3)]
    for writer in range(4):
        mine = [v for v in stored if v.startswith(f"{writer}.".encode())]
        assert mine == [f"{writer}.{n}.{p}".encode() for n in range(25) for p in range(3)]


def test_read_starts_after_an_offset_and_keeps_to_its_limit(open_log: OpenLog) -> None:
    log = open_log()
    append(log, *[bytes([n]) * 10 for n in range(6)])
    assert [r.offset for r in log.read(PARTITION, 2, 1 << 20)] == [3, 4, 5]
    # 10 bytes each: two fit into 29, one is given however small the limit.
    assert [r.offset for r in log.read(PARTITION, -1, 29)] == [0, 1]
    assert [r.offset for r in log.read(PARTITION, 3, 1)] == [4]
    assert log.read(PARTITION, 5, 1 << 20) == []


def test_wait_ends_when_a_record_arrives(open_log: OpenLog) -> None:
    log = open_log()
    append(log, b"a")
    assert log.wait(PARTITION, -1, 0)
    woken: queue.SimpleQueue[bool] = queue.SimpleQueue()
    waiting = threading.Thread(target=lambda: woken.put(log.wait(PARTITION, 0, 20)))
    waiting.start()
    append(log, b"b")
    assert woken.get(timeout=5)
    waiting.join()
    assert not log.wait(PARTITION, 1, 0)


def test_all_of_it_is_there_after_reopening(open_log: OpenLog) -> None:
    log = open_log()
    append(log, b"a", b"b")
    before = read_all(log)
    log.close()
    again = open_log()
    assert read_all(again) == before
    assert (again.end(PARTITION), again.backlog_bytes()) == (1, 2)
    assert append(again, b"c") == 2


def test_a_closed_log_says_so(open_log: OpenLog) -> None:
    log = open_log()
    log.close()
    with pytest.raises(Transient, match="closed"):
        append(log, b"a")


def test_backlog_counts_what_is_not_released(open_log: OpenLog) -> None:
    log = open_log()
    append(log, b"x" * 1000, b"y" * 500)
    append(log, b"z" * 30)
    assert log.backlog_bytes() == 1530
    log.release(PARTITION, 0)
    wait_until(lambda: log.backlog_bytes() == 530, what="first record released")
    assert log.released(PARTITION) == 0
    assert values_of(read_all(log)) == [b"y" * 500, b"z" * 30]
    log.release(PARTITION, 2)
    wait_until(lambda: log.backlog_bytes() == 0, what="all released")
    assert (log.released(PARTITION), log.end(PARTITION)) == (2, 2)


def test_offsets_are_not_used_again_when_all_was_released(open_log: OpenLog) -> None:
    log = open_log()
    assert append(log, b"a", b"b", b"c") == 2
    log.release(PARTITION, 2)
    wait_until(lambda: log.released(PARTITION) == 2, what="released")
    log.close()
    again = open_log()
    assert (again.end(PARTITION), again.released(PARTITION)) == (2, 2)
    assert append(again, b"d") == 3
    assert [(r.offset, r.value) for r in read_all(again)] == [(3, b"d")]


def test_a_release_never_goes_back(open_log: OpenLog) -> None:
    log = open_log()
    append(log, b"a", b"b", b"c")
    log.release(PARTITION, 1)
    log.release(PARTITION, 0)
    wait_until(lambda: log.released(PARTITION) == 1, what="released")
    assert values_of(read_all(log)) == [b"c"]


def test_a_log_made_anew_begins_after_what_was_loaded(open_log: OpenLog) -> None:
    log = open_log()
    log.begin_after(PARTITION, 5_000_000)
    assert log.end(PARTITION) == 5_000_000
    assert append(log, b"a") == 5_000_001
    log.begin_after(PARTITION, 7)
    assert append(log, b"b") == 5_000_002
    assert [r.offset for r in read_all(log)] == [5_000_001, 5_000_002]
    # Releasing a stretch that never held records takes no time.
    log.release(PARTITION, 5_000_000)
    wait_until(lambda: log.released(PARTITION) == 5_000_000, 5, "released")
    assert len(read_all(log)) == 2


# -- what is particular to the SQLite file ---------------------------------------------------------


def _size(path: Path) -> int:
    return sum(p.stat().st_size for p in path.parent.glob(path.name + "*"))


def test_sqlite_gives_space_back_when_idle(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    with closing(SqliteLog(path, SystemClock())) as log:
        for _ in range(4):
            append(log, *[os.urandom(100_000) for _ in range(10)])
        assert _size(path) > 4_000_000
        log.release(0, 39)
        wait_until(lambda: _size(path) < 200_000, what="space given back")
        assert append(log, b"next") == 40


def test_sqlite_append_time_never_falls(tmp_path: Path) -> None:
    early, late = SetClock(1_000_000), SetClock(5_000_000)
    with (
        closing(SqliteLog(tmp_path / "log.sqlite", late)) as one,
        closing(SqliteLog(tmp_path / "log.sqlite", early)) as other,
    ):
        append(one, b"a")
        append(other, b"b")
        late.us = 2_000_000
        append(one, b"c")
        early.us = 6_000_000
        append(other, b"d")
        assert [r.appended_us for r in read_all(one)] == [
            5_000_000,
            5_000_000,
            5_000_000,
            6_000_000,
        ]


def test_sqlite_appends_go_on_while_a_reader_holds_a_snapshot(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    with closing(SqliteLog(path, SystemClock())) as log, closing(sqlite3.connect(path)) as reader:
        append(log, b"a")
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM records").fetchone() == (1,)
        # More than a checkpoint's worth, while the snapshot holds the write-ahead log.
        answers: queue.SimpleQueue[int | Exception] = queue.SimpleQueue()
        for _ in range(40):
            log.submit(0, [os.urandom(1 << 20)], answers.put)
        assert [answers.get(timeout=20) for _ in range(40)] == list(range(1, 41))
        slowest, until = 0.0, monotonic() + 1.3  # two rounds of the checkpoint thread
        while (began := monotonic()) < until:
            append(log, b"b")
            slowest = max(slowest, monotonic() - began)
        assert slowest < 1
        assert reader.execute("SELECT count(*) FROM records").fetchone() == (1,)


def _appender(path: Path, name: str, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", APPENDER, str(path), name, str(count)],
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(ROOT / "shared")},
    )


def _acknowledged(process: subprocess.Popen[str]) -> Iterator[tuple[int, str]]:
    assert process.stdout is not None
    for line in process.stdout:
        if line.endswith("\n"):  # a line cut off by the kill acknowledges nothing
            offset, value = line.split()
            yield int(offset), value


def test_sqlite_two_processes_append_to_one_file(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    with closing(SqliteLog(path, SystemClock())) as log:
        writers = [_appender(path, name, 50) for name in ("one", "two")]
        told = dict(pair for writer in writers for pair in _acknowledged(writer))
        assert [writer.wait(20) for writer in writers] == [0, 0]
        records = read_all(log)
        assert [r.offset for r in records] == list(range(100))
        assert {r.offset: r.value.decode() for r in records} == told
        assert log.end(0) == 99
        size = sum(len(r.value) for r in records)
        wait_until(lambda: log.backlog_bytes() == size, what="others' records counted")
        assert append(log, b"mine") == 100


@pytest.mark.parametrize("after", [1, 7, 40])
def test_sqlite_keeps_what_it_acknowledged_before_kill_9(tmp_path: Path, after: int) -> None:
    path = tmp_path / "log.sqlite"
    writer = _appender(path, "w", 1_000_000)
    told = []
    for acknowledged in _acknowledged(writer):
        told.append(acknowledged)
        if len(told) == after:
            os.kill(writer.pid, signal.SIGKILL)
    assert writer.wait(20) == -signal.SIGKILL
    assert len(told) >= after
    with closing(SqliteLog(path, SystemClock())) as log:
        stored = {r.offset: r.value.decode() for r in read_all(log)}
        assert [stored.get(offset) for offset, _ in told] == [value for _, value in told]
        assert sorted(stored) == list(range(len(stored)))
        assert append(log, b"next") == len(stored)


def _fill(log: SqliteLog) -> list[int]:
    """Appends until the log refuses; the offsets that it told."""
    told: list[int] = []
    with suppress(Transient):
        while len(told) < 1000:
            told += [append(log, os.urandom(100_000))]
    return told


def test_sqlite_on_a_full_disk_refuses_and_recovers(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with closing(SqliteLog(path, SystemClock())) as log:
            # A bound on file size does to a write what a full disk does, and binds root as well.
            resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, before[1]))
            told = _fill(log)
            assert 5 < len(told) < 25
            with pytest.raises(Transient, match=r"disk is full|disk I/O error"):
                append(log, os.urandom(100_000))
            assert [r.offset for r in read_all(log)] == told
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            assert append(log, b"room again") == len(told)
            assert [r.offset for r in read_all(log)] == [*told, len(told)]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_sqlite_copy_is_whole_while_appends_go_on(tmp_path: Path) -> None:
    with closing(SqliteLog(tmp_path / "log.sqlite", SystemClock())) as log:
        append(log, *[f"{n}".encode() for n in range(100)])
        answers: queue.SimpleQueue[int | Exception] = queue.SimpleQueue()
        for n in range(100, 200):
            log.submit(0, [f"{n}".encode()], answers.put)
        log.copy_to(tmp_path / "copy.sqlite")
        assert [answers.get(timeout=20) for _ in range(100)] == list(range(100, 200))
    with closing(SqliteLog(tmp_path / "copy.sqlite", SystemClock())) as copy:
        values = values_of(read_all(copy))
        assert len(values) >= 100
        assert values == [f"{n}".encode() for n in range(len(values))]
        assert append(copy, b"next") == len(values)
