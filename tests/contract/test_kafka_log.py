"""What the event log on Kafka promises beyond the contract of `test_event_log.py`."""

import gc
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from tests.support.event_logs import PARTITION, SetClock, append, read_all, values_of
from tests.support.kafka import log_settings, new_layouts, new_log
from tests.support.server import wait_until
from tollgate.core.clock import SystemClock
from tollgate.core.errors import PermanentFault, Transient
from tollgate.local.broker import Broker
from tollgate.platform.event_log import EventLog
from tollgate.platform.kafka_client import archive_place, kafka_place
from tollgate.platform.kafka_log import KafkaLog
from tollgate.platform.kafka_retention import RetentionWatch
from tollgate.platform.kafka_topics import Topics
from tollgate.platform.settings import Settings

HOUR_US = 3_600_000_000


@pytest.fixture
def log(broker: Broker, topic_prefix: str) -> Iterator[KafkaLog]:
    with closing(new_log(broker, topic_prefix)) as opened:
        assert isinstance(opened, KafkaLog)
        yield opened


def _delete_before(broker: Broker, log: KafkaLog, offset: int) -> None:
    """What retention does, at once."""
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    place = TopicPartition(log.topic, PARTITION, offset)
    admin.delete_records([place])[place].result(20)


def test_append_times_are_the_brokers(log: KafkaLog) -> None:
    before = SystemClock().now_us() - 1000
    append(log, b"a")
    (record,) = read_all(log)
    assert before <= record.appended_us <= SystemClock().now_us()
    assert record.appended_us % 1000 == 0


def test_releasing_frees_nothing_since_time_decides(log: KafkaLog) -> None:
    append(log, b"a", b"b")
    log.release(PARTITION, 1)
    assert (log.released(PARTITION), log.backlog_bytes()) == (-1, 0)
    assert values_of(read_all(log)) == [b"a", b"b"]


def test_what_retention_deleted_is_told_and_never_passed_over(
    broker: Broker, log: KafkaLog
) -> None:
    append(log, *[bytes([n]) for n in range(6)])
    assert [r.offset for r in log.read(PARTITION, -1, 2)] == [0, 1]
    _delete_before(broker, log, 4)
    assert (log.released(PARTITION), log.end(PARTITION)) == (3, 5)
    with pytest.raises(PermanentFault, match="deleted before they were read"):
        log.read(PARTITION, 1, 1 << 20)
    # Who knows what is gone can go on from there.
    assert [r.offset for r in log.read(PARTITION, 3, 1 << 20)] == [4, 5]


def test_a_topic_made_anew_is_told(log: KafkaLog) -> None:
    append(log, b"a", b"b")
    with pytest.raises(PermanentFault, match=r"ends at offset 1, before 7 .* made anew"):
        log.read(PARTITION, 7, 1 << 20)
    log.begin_after(PARTITION, 1)
    with pytest.raises(PermanentFault, match="Create a new generation"):
        log.begin_after(PARTITION, 7)


def test_readers_stand_where_they_like_and_each_thread_has_its_own(log: KafkaLog) -> None:
    append(log, *[b"%05d" % n * 1000 for n in range(200)])

    def read_in_steps(start: int) -> list[int]:
        found, after = [], start - 1
        while records := log.read(PARTITION, after, 12_000):
            found += [record.offset for record in records]
            after = found[-1]
        return found

    with ThreadPoolExecutor(4) as pool:
        reading = [pool.submit(read_in_steps, start) for start in (0, 50, 100, 150)]
        assert [each.result(40) for each in reading] == [
            list(range(start, 200)) for start in (0, 50, 100, 150)
        ]
    # A look back and a look ahead, in a thread that reads along.
    assert [log.read(PARTITION, after, 1)[0].offset for after in (10, 3, 198, -1)] == [
        11,
        4,
        199,
        0,
    ]


def test_a_reader_goes_with_its_thread(log: KafkaLog) -> None:
    append(log, b"a")
    reading = threading.Thread(target=lambda: log.read(PARTITION, -1, 1 << 20))
    reading.start()
    reading.join()
    gc.collect()
    assert len(log._readers) == 0
    log.read(PARTITION, -1, 1 << 20)
    assert len(log._readers) == 1
    # A look takes no reader that stays.
    looking = threading.Thread(target=lambda: log.read(PARTITION, -1, 1))
    looking.start()
    looking.join()
    gc.collect()
    assert len(log._readers) == 1


def test_large_records_come_back_whole_and_within_the_limit(log: KafkaLog) -> None:
    sizes = [1 << 20, 300, 500_000, 1 << 20, 1]
    values = [bytes([n]) * size for n, size in enumerate(sizes)]
    append(log, *values)
    found: list[bytes] = []
    after = -1
    while records := log.read(PARTITION, after, 1_600_000):
        assert len(records) == 1 or sum(len(r.value) for r in records) <= 1_600_000
        found += values_of(records)
        after = records[-1].offset
    assert found == values


@pytest.mark.parametrize("compression", ["none", "lz4", "zstd"])
def test_compression_changes_no_byte(broker: Broker, topic_prefix: str, compression: str) -> None:
    values = [b'{"tokens":%d}' % n * 1000 for n in range(20)]
    with closing(new_log(broker, topic_prefix, log_compression=compression)) as log:
        assert append(log, *values) == 19
        assert values_of(read_all(log)) == values


def test_waiting_ends_when_another_process_appends(broker: Broker, topic_prefix: str) -> None:
    with (
        closing(new_log(broker, topic_prefix)) as mine,
        closing(new_log(broker, topic_prefix)) as other,
    ):
        assert not mine.wait(PARTITION, -1, 0)
        woken: queue.SimpleQueue[bool] = queue.SimpleQueue()
        waiting = threading.Thread(target=lambda: woken.put(mine.wait(PARTITION, -1, 20)))
        waiting.start()
        append(other, b"a")
        assert woken.get(timeout=5)
        waiting.join()
        assert mine.wait(PARTITION, -1, 0)
        assert (mine.end(PARTITION), mine.end(1)) == (0, -1)


def test_closing_ends_a_wait(broker: Broker, topic_prefix: str) -> None:
    log = new_log(broker, topic_prefix)
    answers: queue.SimpleQueue[object] = queue.SimpleQueue()

    def wait() -> None:
        try:
            answers.put(log.wait(PARTITION, -1, 60))
        except Transient as problem:
            answers.put(problem)

    waiting = threading.Thread(target=wait)
    waiting.start()
    wait_until(lambda: len(log._readers), what="a reader waits")  # type: ignore[attr-defined]
    log.close()
    assert "closed" in str(answers.get(timeout=10))


# -- near deletion ---------------------------------------------------------------------------------


class _Retention:
    """A topic that keeps records for a day, and a watch that warns an hour before."""

    def __init__(self, settings: Settings) -> None:
        self.place = kafka_place(settings)
        self.clock = SetClock(SystemClock().now_us())
        self.watch = RetentionWatch(self.place, 1, self.clock, 3600)
        self.topics = Topics(self.place)
        self.consumer = Consumer(
            {"bootstrap.servers": self.place.brokers, "group.id": self.place.group}
        )

    def check(self) -> str:
        return self.watch._check({self.place.group: self.consumer}, self.topics)

    def commit(self, offset: int) -> None:
        place = TopicPartition(self.place.topic(1), PARTITION, offset)
        self.consumer.commit(offsets=[place], asynchronous=False)


@pytest.fixture
def retention(broker: Broker, topic_prefix: str) -> Iterator[_Retention]:
    made = _Retention(log_settings(broker, topic_prefix, log_retention_hours=24))
    yield made
    made.consumer.close()


def _day_log(broker: Broker, prefix: str) -> EventLog:
    return new_log(broker, prefix, log_retention_hours=24)


def test_events_are_refused_before_the_oldest_unloaded_record_is_deleted(
    broker: Broker, topic_prefix: str, retention: _Retention
) -> None:
    with closing(_day_log(broker, topic_prefix)) as log:
        assert retention.check() == ""
        append(log, b"a", b"b")
        appended_us = read_all(log)[-1].appended_us
        # No loader ever committed: all of it waits.
        retention.clock.us = appended_us + 23 * HOUR_US - 60_000_000
        assert retention.check() == ""
        retention.clock.us = appended_us + 23 * HOUR_US + 60_000_000
        assert "partition 0 keeps records for 86400 s" in retention.check()
        retention.commit(1)
        assert "come near deletion" in retention.check()
        retention.commit(2)
        assert retention.check() == ""


def test_a_record_that_is_loaded_and_not_archived_is_kept_too(
    broker: Broker, topic_prefix: str
) -> None:
    settings = log_settings(
        broker, topic_prefix, log_retention_hours=24, objects_url="file:///nowhere"
    )
    loading, archiving = _Retention(settings), _Retention(settings)
    archiving.consumer.close()
    with closing(_day_log(broker, topic_prefix)) as log:
        place = archive_place(settings)
        archiving.consumer = Consumer({"bootstrap.servers": place.brokers, "group.id": place.group})
        consumers = {loading.place.group: loading.consumer, place.group: archiving.consumer}
        assert tuple(consumers) == loading.place.watched
        append(log, b"a")
        loading.clock.us = read_all(log)[-1].appended_us + 24 * HOUR_US
        assert "not loaded yet" in loading.watch._check(consumers, loading.topics)
        loading.commit(1)
        assert "start archivers" in loading.watch._check(consumers, loading.topics)
        archiving.commit(1)
        assert loading.watch._check(consumers, loading.topics) == ""
    loading.consumer.close()
    archiving.consumer.close()


def test_a_record_that_comes_while_an_empty_log_is_asked_about_is_young(
    broker: Broker, topic_prefix: str, retention: _Retention
) -> None:
    with closing(_day_log(broker, topic_prefix)) as log:

        class Meanwhile(Consumer):
            def offsets_for_times(self, *wanted: Any, **options: Any) -> list[TopicPartition]:
                found: list[TopicPartition] = super().offsets_for_times(*wanted, **options)
                append(log, b"a")
                return found

        retention.consumer.close()
        retention.consumer = Meanwhile(
            {"bootstrap.servers": retention.place.brokers, "group.id": retention.place.group}
        )
        assert retention.check() == ""
        assert len(read_all(log)) == 1


def test_older_generations_count_and_their_marks_do_not(
    broker: Broker, topic_prefix: str, retention: _Retention
) -> None:
    settings = log_settings(broker, topic_prefix, log_retention_hours=24)
    with closing(_day_log(broker, topic_prefix)) as log:
        append(log, b"a")
    retention.topics.fence(1)
    retention.topics.create(2, settings)
    newest = RetentionWatch(retention.place, 2, retention.clock, 3600)
    retention.clock.us += 25 * HOUR_US
    assert retention.place.topic(1) in newest._check(
        {retention.place.group: retention.consumer}, retention.topics
    )
    retention.commit(1)
    assert newest._check({retention.place.group: retention.consumer}, retention.topics) == ""


def test_a_refusal_is_found_in_the_background(broker: Broker, topic_prefix: str) -> None:
    # A margin as long as the retention: whatever is not loaded is near its end.
    margin = {"log_retention_hours": 1, "log_retention_margin_seconds": 3600 + 60}
    with closing(new_layouts(log_settings(broker, topic_prefix, **margin))) as layouts:
        log = layouts.open(1)
        append(log, b"a")
        wait_until(log.refusal, 20, "the refusal")
        assert "start loaders" in log.refusal()
