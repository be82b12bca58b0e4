"""What the embedded event log promises beyond the contract of `test_event_log.py`."""

import os
import queue
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests.support.disks import FaultyDisk
from tests.support.event_logs import PARTITION, SetClock, append, read_all, values_of
from tests.support.log_process import APPENDER
from tests.support.server import ROOT, wait_until
from tollgate.core.clock import SystemClock
from tollgate.core.errors import Transient
from tollgate.platform.disk import Disk
from tollgate.platform.segment_log import SegmentLog
from tollgate.platform.segment_store import Sizes

OpenLog = Callable[[], SegmentLog]
SMALL = Sizes(segment_bytes=64 << 10, grown_bytes=16 << 10)


@pytest.fixture
def open_log(tmp_path: Path) -> Iterator[OpenLog]:
    opened: list[SegmentLog] = []

    def make() -> SegmentLog:
        opened.append(SegmentLog(tmp_path / "log", SystemClock(), sizes=SMALL))
        return opened[-1]

    yield make
    for log in opened:
        log.close()


def segments_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.segment"))


def release(log: SegmentLog, through: int) -> None:
    log.release(PARTITION, through)
    wait_until(lambda: log.released(PARTITION) == through, what="released")


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
    release(log, 2)
    log.close()
    again = open_log()
    assert (again.end(PARTITION), again.released(PARTITION)) == (2, 2)
    assert append(again, b"d") == 3
    assert [(r.offset, r.value) for r in read_all(again)] == [(3, b"d")]


def test_a_release_never_goes_back_nor_beyond_the_end(open_log: OpenLog) -> None:
    log = open_log()
    append(log, b"a", b"b", b"c")
    release(log, 1)
    log.release(PARTITION, 0)
    log.close()
    again = open_log()
    assert again.released(PARTITION) == 1
    again.release(PARTITION, 90)
    wait_until(lambda: again.released(PARTITION) == 2, what="released to the end")
    append(again, b"d")
    assert values_of(read_all(again)) == [b"d"]


def test_a_log_made_anew_begins_after_what_was_loaded(open_log: OpenLog) -> None:
    log = open_log()
    log.begin_after(PARTITION, 5_000_000)
    assert log.end(PARTITION) == 5_000_000
    assert append(log, b"a") == 5_000_001
    log.begin_after(PARTITION, 7)
    assert append(log, b"b") == 5_000_002
    log.begin_after(PARTITION, 5_000_010)
    assert append(log, b"c") == 5_000_011
    offsets = [5_000_001, 5_000_002, 5_000_011]
    assert [r.offset for r in read_all(log)] == offsets
    assert [r.offset for r in log.read(PARTITION, 5_000_001, 1)] == [5_000_002]
    log.close()
    again = open_log()
    assert [r.offset for r in read_all(again)] == offsets
    # Releasing a stretch that never held records takes no time.
    release(again, 5_000_000)
    assert len(read_all(again)) == 3


def test_a_skip_outlives_the_process_without_a_record_behind_it(open_log: OpenLog) -> None:
    log = open_log()
    append(log, b"a")
    log.begin_after(PARTITION, 10)
    log.begin_after(PARTITION, 20)
    log.close()
    again = open_log()
    assert again.end(PARTITION) == 20
    assert append(again, b"b") == 21
    assert values_of(read_all(again)) == [b"a", b"b"]


def test_backlog_is_counted_anew_when_opened(open_log: OpenLog) -> None:
    log = open_log()
    append(log, b"a", b"bcd")
    release(log, 0)
    log.close()
    assert open_log().backlog_bytes() == 3


def test_records_go_on_from_segment_to_segment(open_log: OpenLog) -> None:
    log = open_log()
    values = [os.urandom(1000) for _ in range(500)]
    for value in values:
        append(log, value)
    assert len(segments_of(log.path)) > 5
    assert values_of(read_all(log)) == values
    # A read goes from one into the next, within its limit.
    assert [r.offset for r in log.read(PARTITION, 4, 40_000)] == list(range(5, 45))
    log.close()
    again = open_log()
    assert values_of(read_all(again)) == values
    assert again.backlog_bytes() == 500_000


def test_a_submission_larger_than_a_segment_is_taken_whole(open_log: OpenLog) -> None:
    log = open_log()
    values = [os.urandom(1000) for _ in range(1500)]
    assert append(log, b"before") == 0
    assert append(log, *values) == 1500
    assert append(log, b"behind") == 1501
    log.close()
    assert values_of(read_all(open_log())) == [b"before", *values, b"behind"]


def test_space_is_given_back_and_files_are_used_again(open_log: OpenLog) -> None:
    log = open_log()
    for round_ in range(3):
        for _ in range(300):
            append(log, os.urandom(1000))
        release(log, 300 * round_ + 299)
        wait_until(lambda: len(segments_of(log.path)) == 1, what="segments given back")
        size = sum(path.stat().st_size for path in log.path.iterdir())
        assert size < 3 * SMALL.segment_bytes
    assert (log.path / "spare").stat().st_size == SMALL.segment_bytes
    last = append(log, b"next")
    assert values_of(log.read(PARTITION, last - 1, 1)) == [b"next"]


def test_append_time_never_falls(tmp_path: Path) -> None:
    clock = SetClock(5_000_000)
    with closing(SegmentLog(tmp_path / "log", clock)) as log:
        append(log, b"a")
        clock.us = 1_000_000
        append(log, b"b")
        release(log, 1)
    with closing(SegmentLog(tmp_path / "log", clock)) as log:
        append(log, b"c")
        clock.us = 6_000_000
        log.begin_after(PARTITION, 9)
        append(log, b"d")
        assert [r.appended_us for r in read_all(log)] == [5_000_000, 6_000_000]


def test_one_process_owns_the_folder(open_log: OpenLog) -> None:
    log = open_log()
    with pytest.raises(Transient, match="another process uses the event log"):
        open_log()
    assert append(log, b"a") == 0
    log.close()
    assert open_log().end(PARTITION) == 0


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


@pytest.mark.parametrize("after", [1, 7, 400])
def test_what_was_acknowledged_outlives_kill_9(tmp_path: Path, after: int) -> None:
    path = tmp_path / "log"
    writer = _appender(path, "w", 1_000_000)
    told = []
    for acknowledged in _acknowledged(writer):
        told.append(acknowledged)
        if len(told) == after:
            os.kill(writer.pid, signal.SIGKILL)
    assert writer.wait(20) == -signal.SIGKILL
    assert len(told) >= after
    with closing(SegmentLog(path, SystemClock())) as log:
        stored = {r.offset: r.value.decode() for r in read_all(log)}
        assert [stored.get(offset) for offset, _ in told] == [value for _, value in told]
        assert sorted(stored) == list(range(len(stored)))
        assert append(log, b"next") == len(stored)


def _fill(log: SegmentLog) -> list[int]:
    """Appends until the log refuses; the offsets that it told."""
    told: list[int] = []
    with suppress(Transient):
        while len(told) < 1000:
            told += [append(log, os.urandom(100_000))]
    return told


def test_a_full_disk_refuses_and_recovers(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    path = tmp_path / "log"
    sizes = Sizes(segment_bytes=8 << 20, grown_bytes=4 << 20)
    try:
        with closing(SegmentLog(path, SystemClock(), sizes=sizes)) as log:
            # A bound on file size does to a write what a full disk does, and binds root as well.
            resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, before[1]))
            told = _fill(log)
            assert 5 < len(told) < 25
            backlog = log.backlog_bytes()
            with pytest.raises(Transient, match=r"No space left|File too large"):
                append(log, os.urandom(100_000))
            assert [r.offset for r in read_all(log)] == told
            assert log.backlog_bytes() == backlog == 100_000 * len(told)
            # A smaller one may still find room, and goes where the refused one was.
            assert append(log, b"small") == len(told)
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            assert append(log, b"room again") == len(told) + 1
        with closing(SegmentLog(path, SystemClock(), sizes=sizes)) as log:
            assert [r.offset for r in read_all(log)] == [*told, len(told), len(told) + 1]
            assert values_of(read_all(log))[-2:] == [b"small", b"room again"]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


@pytest.mark.parametrize("keeps", [0, 60, 10_000])
def test_after_a_failed_write_another_file_takes_what_follows(tmp_path: Path, keeps: int) -> None:
    """What a disk failed to sync the page cache shows all the same: nothing is built upon it."""
    path, disk = tmp_path / "log", FaultyDisk()
    with closing(SegmentLog(path, SystemClock(), disk=disk)) as log:
        append(log, b"a")
        disk.keeps, disk.refusal = keeps, OSError(5, "Input/output error")
        with pytest.raises(Transient, match="Input/output error"):
            append(log, b"lost" * 30, b"lost too")
        assert (log.end(PARTITION), log.backlog_bytes()) == (0, 1)
        # Nor is it if that other file can't be begun at once.
        disk.keeps, disk.refusal = 0, OSError(28, "No space left on device")
        with pytest.raises(Transient, match="No space"):
            append(log, b"lost")
        assert append(log, b"b") == 1
        assert values_of(read_all(log)) == [b"a", b"b"]
        assert len(segments_of(path)) == 2
    with closing(SegmentLog(path, SystemClock())) as log:
        assert values_of(read_all(log)) == [b"a", b"b"]
        assert append(log, b"c") == 2


def test_a_submission_does_not_wait_for_a_slow_disk(tmp_path: Path) -> None:
    disk = FaultyDisk()
    answers: queue.SimpleQueue[int | Exception] = queue.SimpleQueue()
    with closing(SegmentLog(tmp_path / "log", SystemClock(), disk=disk)) as log:
        append(log, b"a")
        disk.open.clear()
        for _ in range(3):
            log.submit(PARTITION, [b"b"], answers.put)
        # All three are in the log's hands, and none on disk.
        assert answers.empty()
        assert log.end(PARTITION) == 0
        disk.open.set()
        assert [answers.get(timeout=20) for _ in range(3)] == [1, 2, 3]


def test_without_durable_writes_in_one_call_the_file_is_synced(tmp_path: Path) -> None:
    disk = Disk(in_one_call=False)
    with closing(SegmentLog(tmp_path / "log", SystemClock(), disk=disk)) as log:
        assert append(log, b"a", b"b") == 1
    with closing(SegmentLog(tmp_path / "log", SystemClock())) as log:
        assert values_of(read_all(log)) == [b"a", b"b"]


def test_a_copy_is_whole_while_appends_go_on(tmp_path: Path) -> None:
    with closing(SegmentLog(tmp_path / "log", SystemClock(), sizes=SMALL)) as log:
        append(log, *[f"{n}".encode() for n in range(100)])
        release(log, 49)
        answers: queue.SimpleQueue[int | Exception] = queue.SimpleQueue()
        for n in range(100, 1100):
            log.submit(0, [f"{n}".encode()], answers.put)
        log.copy_to(tmp_path / "copy")
        log.release(PARTITION, 500)
        assert [answers.get(timeout=20) for _ in range(1000)] == list(range(100, 1100))
    with closing(SegmentLog(tmp_path / "copy", SystemClock())) as copy:
        values = values_of(read_all(copy))
        assert len(values) >= 50
        assert values == [f"{n}".encode() for n in range(50, 50 + len(values))]
        assert copy.released(PARTITION) == 49
        assert append(copy, b"next") == 50 + len(values)


def test_a_reader_is_not_held_up_by_what_is_given_back(open_log: OpenLog) -> None:
    """What it reads is whole, from before the release or from behind it."""
    log = open_log()
    values = [b"%06d" % n * 100 for n in range(2000)]
    for start in range(0, 2000, 20):
        append(log, *values[start : start + 20])
    after, read = -1, 0
    while after < 1999:
        for record in log.read(PARTITION, after, 20_000):
            assert record.value == values[record.offset]
            assert record.offset > after
            after, read = record.offset, read + 1
        log.release(PARTITION, after)
    assert read == 2000
    wait_until(lambda: log.backlog_bytes() == 0, what="all released")
