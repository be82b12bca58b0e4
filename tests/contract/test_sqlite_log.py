"""What the SQLite event log promises beyond the contract of `test_event_log.py`."""

import os
import queue
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from time import monotonic

import pytest

from tests.support.event_logs import PARTITION, SetClock, append, read_all, values_of
from tests.support.log_process import APPENDER
from tests.support.server import ROOT, wait_until
from tollgate.core.clock import SystemClock
from tollgate.core.errors import Transient
from tollgate.platform.sqlite_log import SqliteLog

OpenLog = Callable[[], SqliteLog]


@pytest.fixture
def open_log(tmp_path: Path) -> Iterator[OpenLog]:
    opened: list[SqliteLog] = []

    def make() -> SqliteLog:
        opened.append(SqliteLog(tmp_path / "log.sqlite", SystemClock()))
        return opened[-1]

    yield make
    for log in opened:
        log.close()


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
    wait_until(lambda: log.released(PARTITION) == 5_000_000, what="released")
    assert len(read_all(log)) == 2


def test_sqlite_counts_its_backlog_anew_when_opened(open_log: OpenLog) -> None:
    log = open_log()
    append(log, b"a", b"b")
    log.close()
    assert open_log().backlog_bytes() == 2


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
