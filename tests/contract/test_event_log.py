"""The contract of an event log, held by every implementation of `tollgate.platform.event_log`.

What only one of them promises is tested in `test_segment_log.py` and `test_kafka_log.py`.
"""

import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.event_logs import PARTITION, append, read_all, values_of
from tests.support.kafka import new_log
from tollgate.core.clock import SystemClock
from tollgate.core.errors import Transient
from tollgate.platform.event_log import EventLog
from tollgate.platform.segment_log import SegmentLog

OpenLog = Callable[[], EventLog]


def _segments(request: pytest.FixtureRequest) -> OpenLog:
    folder: Path = request.getfixturevalue("tmp_path")
    return lambda: SegmentLog(folder / "log", SystemClock())


def _kafka(request: pytest.FixtureRequest) -> OpenLog:
    broker, prefix = request.getfixturevalue("broker"), request.getfixturevalue("topic_prefix")
    return lambda: new_log(broker, prefix)


# A log joins the suite with one line: a name, and how it is opened again and again.
LOGS: dict[str, Callable[[pytest.FixtureRequest], OpenLog]] = {
    "segments": _segments,
    "kafka": _kafka,
}


@pytest.fixture(params=LOGS)
def open_log(request: pytest.FixtureRequest) -> Iterator[OpenLog]:
    opened: list[EventLog] = []
    open_one = LOGS[request.param](request)

    def make() -> EventLog:
        opened.append(open_one())
        return opened[-1]

    yield make
    for log in opened:
        log.close()


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
    assert again.end(PARTITION) == 1
    assert append(again, b"c") == 2


def test_a_closed_log_says_so(open_log: OpenLog) -> None:
    log = open_log()
    log.close()
    with pytest.raises(Transient, match="closed"):
        append(log, b"a")
