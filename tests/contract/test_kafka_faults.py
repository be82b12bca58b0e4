"""The event log on Kafka while brokers fail: who is told what, and what is there afterwards."""

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from time import monotonic

import pytest
from confluent_kafka import KafkaError

from tests.support.event_logs import append, read_all, values_of
from tests.support.kafka import new_log
from tests.support.mock_kafka import INIT_PRODUCER_ID, PRODUCE, MockKafka
from tests.support.server import wait_until
from tollgate.core.clock import SystemClock
from tollgate.core.errors import Transient
from tollgate.local.broker import Broker
from tollgate.platform.event_log import EventLog
from tollgate.platform.kafka_client import KafkaPlace
from tollgate.platform.kafka_log import Generation, KafkaLog
from tollgate.platform.kafka_producer import AppendLimits

ACK_SECONDS = 3


@pytest.fixture
def mock() -> Iterator[MockKafka]:
    with MockKafka() as running:
        running.create_topic("mock.1", 2)
        yield running


@pytest.fixture
def log(mock: MockKafka) -> Iterator[KafkaLog]:
    with closing(_open(mock, starter_seconds=0)) as opened:
        yield opened


def _open(mock: MockKafka, starter_seconds: int) -> KafkaLog:
    place = KafkaPlace(brokers=mock.bootstrap, prefix="mock", group="mock.load")
    limits = AppendLimits(
        record_bytes_max=1 << 20,
        ack_seconds=ACK_SECONDS,
        compression="none",
        starter_seconds=starter_seconds,
    )
    generation = Generation(place=place, number=1, partitions=2)
    return KafkaLog(generation, limits, SystemClock(), 0)


@dataclass(slots=True)
class Truth:
    """What a client was told while it appended."""

    told: dict[int, bytes] = field(default_factory=dict)
    unknown: list[bytes] = field(default_factory=list)
    count: int = 0

    def append_until(self, log: EventLog, partition: int, stop: threading.Event) -> None:
        """Appends two records after two records, one submission at a time."""
        while not stop.is_set():
            values = [f"{partition}.{self.count}.{part}".encode() for part in range(2)]
            answers: queue.SimpleQueue[int | Exception] = queue.SimpleQueue()
            log.submit(partition, values, answers.put)
            answer = answers.get(timeout=60)
            self.count += 1
            stop.wait(0.01)
            if isinstance(answer, int):
                assert answer not in self.told
                self.told |= {answer - 1: values[0], answer: values[1]}
            else:
                assert isinstance(answer, Transient), answer
                self.unknown += values
                stop.wait(0.05)


FAULTS: dict[str, tuple[Callable[[Broker], object], Callable[[Broker], object]]] = {
    "SIGSTOP": (Broker.suspend, Broker.resume),
    "SIGKILL": (Broker.kill, Broker.start),
    "restart": (Broker.stop, Broker.start),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_was_acknowledged_is_where_it_was_said_to_be(
    new_broker: Callable[..., Broker], fault: str
) -> None:
    begin, end = FAULTS[fault]
    broker = new_broker().start()
    stop = threading.Event()
    truths = [Truth(), Truth()]
    with closing(new_log(broker, "faults", log_ack_seconds=ACK_SECONDS)) as log:
        threads = [
            threading.Thread(target=truth.append_until, args=(log, partition, stop))
            for partition, truth in enumerate(truths)
        ]
        for thread in threads:
            thread.start()
        for _ in range(2):
            _wait_for_more(lambda: [len(t.told) for t in truths], 100, "appends acknowledged")
            begin(broker)
            _wait_for_more(lambda: [len(t.unknown) for t in truths], 0, "appends unknown")
            end(broker)
        _wait_for_more(lambda: [len(t.told) for t in truths], 0, "appends acknowledged again")
        stop.set()
        for thread in threads:
            thread.join()
        for partition, truth in enumerate(truths):
            records = read_all(log, partition=partition)
            stored = {record.offset: record.value for record in records}
            assert {offset: stored.get(offset) for offset in truth.told} == truth.told
            # What was not acknowledged is there once or not at all; nothing else is there.
            others = [v for offset, v in stored.items() if offset not in truth.told]
            assert len(set(others)) == len(others)
            assert set(others) <= set(truth.unknown)


def _wait_for_more(counts: Callable[[], list[int]], more: int, what: str) -> None:
    before = counts()
    wait_until(
        lambda: all(now > was + more for now, was in zip(counts(), before, strict=True)), 40, what
    )


def test_a_broker_that_is_away_is_told_in_time_and_takes_bounded_memory(
    mock: MockKafka, log: KafkaLog
) -> None:
    append(log, b"before")
    mock.go_away()
    answers: queue.SimpleQueue[int | Exception] = queue.SimpleQueue()
    megabyte = b"x" * 1_000_000
    began = monotonic()
    for _ in range(200):
        log.submit(0, [megabyte], answers.put)
    # What found no room was answered at once.
    refused = answers.qsize()
    assert 60 < refused < 80
    assert monotonic() - began < ACK_SECONDS
    outcomes = [answers.get(timeout=ACK_SECONDS + 5) for _ in range(200)]
    assert all(isinstance(outcome, Transient) for outcome in outcomes)
    assert monotonic() - began < ACK_SECONDS + 3
    mock.come_back()
    wait_until(lambda: _takes(log), what="the log takes records again")


def _takes(log: EventLog) -> bool:
    try:
        append(log, b"after")
    except Transient:
        return False
    return True


def test_a_producer_that_broke_down_is_made_anew(mock: MockKafka, log: KafkaLog) -> None:
    assert append(log, b"before") == 0
    mock.fail_next(PRODUCE, KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER)
    with pytest.raises(Transient, match="did not acknowledge"):
        append(log, b"lost")
    wait_until(lambda: log.restarts == 1, what="the break noticed")
    assert append(log, b"after") == 1
    assert log.restarts == 1
    assert values_of(read_all(log)) == [b"before", b"after"]


def test_a_producer_that_may_not_begin_is_tried_again(mock: MockKafka, log: KafkaLog) -> None:
    mock.fail_next(INIT_PRODUCER_ID, KafkaError.CLUSTER_AUTHORIZATION_FAILED)
    with pytest.raises(Transient):
        append(log, b"lost")
    wait_until(lambda: _takes(log), what="the next producer begins")
    assert log.restarts == 1


@pytest.mark.parametrize(
    "error",
    [
        KafkaError.NOT_ENOUGH_REPLICAS,
        KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.KAFKA_STORAGE_ERROR,
    ],
)
def test_what_may_pass_is_tried_again_within_the_time(
    mock: MockKafka, log: KafkaLog, error: int
) -> None:
    append(log, b"before")
    mock.fail_next(PRODUCE, error, error)
    # One record: the mock checks no sequence, so two might change places there.
    end = append(log, b"after")
    assert {r.offset: r.value for r in read_all(log)}[end] == b"after"
    assert log.restarts == 0


@pytest.mark.parametrize(
    "error",
    [
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError.UNKNOWN,
        KafkaError.INVALID_RECORD,
    ],
)
def test_a_refusal_is_answered_and_the_next_append_stands_where_it_says(
    mock: MockKafka, log: KafkaLog, error: int
) -> None:
    append(log, b"before")
    mock.fail_next(PRODUCE, error)
    with pytest.raises(Transient):
        append(log, b"refused")
    end = append(log, b"after")
    assert {r.offset: r.value for r in read_all(log)}[end] == b"after"


def test_a_topic_that_is_forbidden_is_asked_again(mock: MockKafka, log: KafkaLog) -> None:
    append(log, b"before")
    mock.fail_next(PRODUCE, KafkaError.TOPIC_AUTHORIZATION_FAILED)
    with pytest.raises(Transient, match="authorization"):
        append(log, b"refused")
    wait_until(lambda: _takes(log), what="the log takes records again")
    assert log.restarts == 0


def test_a_record_too_large_for_the_topic_says_that_the_layout_changes(
    mock: MockKafka, log: KafkaLog
) -> None:
    append(log, b"before")
    assert not log.refused
    mock.fail_next(PRODUCE, KafkaError.MSG_SIZE_TOO_LARGE)
    with pytest.raises(Transient, match="layout of the event log is changing"):
        append(log, b"refused")
    assert log.refused
    append(log, b"after")
    assert not log.refused


def test_a_log_that_is_away_can_not_be_read_and_then_can(mock: MockKafka, log: KafkaLog) -> None:
    append(log, b"a")
    mock.go_away()
    with pytest.raises(Transient):
        log.end(0)
    with pytest.raises(Transient):
        log.read(0, -1, 1 << 20)
    assert not log.wait(0, 0, 0.1)
    mock.come_back()
    wait_until(lambda: _reads(log), what="the log is read again")


def _reads(log: EventLog) -> bool:
    try:
        return values_of(log.read(0, -1, 1 << 20)) == [b"a"]
    except Transient:
        return False


def test_closing_answers_what_is_on_its_way(mock: MockKafka, log: KafkaLog) -> None:
    append(log, b"before")
    mock.go_away()
    answers: queue.SimpleQueue[int | Exception] = queue.SimpleQueue()
    log.submit(0, [b"late"], answers.put)
    log.close()
    assert isinstance(answers.get(timeout=1), Transient)
    log.submit(0, [b"later"], answers.put)
    assert "closed" in str(answers.get(timeout=1))


# -- the first second ------------------------------------------------------------------------------


def test_the_first_record_does_not_wait_for_a_producer_id(mock: MockKafka) -> None:
    with closing(_open(mock, starter_seconds=1)) as log:
        began = monotonic()
        assert append(log, b"first") == 0
        assert monotonic() - began < 0.4  # an idempotent producer alone: 0.5 s and more


def test_nothing_of_the_first_second_is_sent_twice(mock: MockKafka) -> None:
    with closing(_open(mock, starter_seconds=1)) as log:
        append(log, b"first")
        # Stored, and answered with an error: who sends again by itself stores it twice.
        mock.fail_next(PRODUCE, KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND)
        with pytest.raises(Transient):
            append(log, b"second")
        append(log, b"third")
        assert values_of(read_all(log)).count(b"second") <= 1
        assert log.restarts == 0


def test_the_first_producer_hands_over_in_order(mock: MockKafka) -> None:
    with closing(_open(mock, starter_seconds=1)) as log:
        written: list[bytes] = []
        until = monotonic() + 1.5
        while monotonic() < until:
            written += [b"%d.%d" % (len(written), part) for part in range(2)]
            assert append(log, *written[-2:]) == len(written) - 1
        # From here on the idempotent one writes: what may pass is tried again.
        mock.fail_next(PRODUCE, KafkaError.NOT_LEADER_FOR_PARTITION)
        written.append(b"last")
        assert append(log, b"last") == len(written) - 1
        stored = values_of(read_all(log))
        assert stored == written[-len(stored) :]  # the mock forgets the oldest
        assert len(stored) > 10
