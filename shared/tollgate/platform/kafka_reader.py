"""Reading one partition from a place of one's choice: a consumer without a group's assignment."""

import logging
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from tollgate.core.errors import PermanentFault, Transient
from tollgate.platform.event_log import StoredRecord
from tollgate.platform.kafka_client import AWAY, OFFSET_GONE, REQUEST_SECONDS, Options, fault_of

_log = logging.getLogger(__name__)
_SLICE_SECONDS = 0.2
_TAKE_MAX = 1000
_PREFETCH_KBYTES = 32 << 10
_FETCH_BYTES = 8 << 20
_FETCH_BYTES_MIN = 256 << 10
_FETCH_WAIT_MS = 50


def consumer_options(options: Options, group: str) -> Options:
    """Of a consumer that never joins its group. The name only says whose rights it has."""
    return options | {
        "group.id": group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
    }


def reader_options(options: Options, group: str) -> Options:
    """Of a consumer that reads fast and holds little."""
    return consumer_options(options, group) | {
        "check.crcs": True,
        "isolation.level": "read_uncommitted",
        "queued.max.messages.kbytes": _PREFETCH_KBYTES,
        "fetch.message.max.bytes": _FETCH_BYTES,
        # A fetch for every small record took a third of the broker's time: twenty a second suffice.
        "fetch.min.bytes": _FETCH_BYTES_MIN,
        "fetch.wait.max.ms": _FETCH_WAIT_MS,
        # By default a second passes after the queue was full.
        "fetch.queue.backoff.ms": 5,
        "fetch.error.backoff.ms": 100,
    }


class Reader:
    """One consumer at one place. `lock` is held by whoever uses it."""

    def __init__(self, options: Options, topic: str, partition: int) -> None:
        self.lock = threading.Lock()
        self._consumer = Consumer(options, logger=_log)
        self._topic = topic
        self._partition = partition
        self._held: deque[Message] = deque()
        # Nothing but marks of the log's own stands between these two offsets.
        self._after = -1
        self._next = -1
        self._size = 1024
        self._open = True

    def move_to(self, after: int) -> None:
        """Makes the record after `after` the next one, unless it is already."""
        if self._after <= after < self._next:
            return
        self._held.clear()
        try:
            self._consumer.assign([TopicPartition(self._topic, self._partition, after + 1)])
        except KafkaException as problem:
            raise fault_of(problem) from problem
        self._after, self._next = after, after + 1

    def read(self, bytes_max: int, end: Callable[[], int]) -> list[StoredRecord]:
        """The next records, at least one if there is one.

        Args:
            bytes_max: stops before the record that would pass it.
            end: tells the partition's last offset; asked only when nothing is at hand.

        Raises:
            Transient: the broker is away.
            PermanentFault: the next records are gone, or the partition is not the one it was.
        """
        records: list[StoredRecord] = []
        size = 0
        while True:
            if not self._held:
                room = (bytes_max - size) // self._size
                self._take(max(1, min(_TAKE_MAX, room)), 0)
            if not self._held and not records and not self._await_first(end):
                return records
            if not self._held:
                return records
            while self._held:
                message = self._held[0]
                value = message.value()
                if value:
                    size += len(value)
                    if records and size > bytes_max:
                        return records
                    self._size = len(value)
                    offset = message.offset() or 0
                    appended_us = message.timestamp()[1] * 1000
                    records.append(
                        StoredRecord(offset=offset, appended_us=appended_us, value=value)
                    )
                    self._after = offset
                self._held.popleft()
                self._next = (message.offset() or 0) + 1

    def _await_first(self, end: Callable[[], int]) -> bool:
        """Whether there is a message now: what is there is waited for."""
        last = end()
        if last < self._after:
            raise PermanentFault(
                f"topic {self._topic}, partition {self._partition} ends at offset {last}, before"
                f" {self._after} that was read already: it was made anew or cut off. Create a new"
                " generation (python -m tollgate.platform.setup --new-generation)"
            )
        if last < self._next:
            return False
        self._take(1, REQUEST_SECONDS)
        if not self._held:
            raise Transient(
                f"topic {self._topic}, partition {self._partition}: offset {self._next} is there,"
                f" but was not given within {REQUEST_SECONDS} s"
            )
        return True

    def wait(self, seconds: float) -> bool:  # tidy: allow-float -- a wait
        """Waits for a message, a little at a time so that a close need not wait."""
        if not self._held:
            self._take(1, min(seconds, _SLICE_SECONDS))
        return bool(self._held)

    def _take(self, count: int, seconds: float) -> None:  # tidy: allow-float -- a wait
        if not self._open:
            raise Transient("the event log is closed")
        until = monotonic() + seconds
        while not self._held:
            left = max(0, until - monotonic())
            try:
                messages = self._consumer.consume(count, left)
            except KafkaException as problem:
                raise fault_of(problem) from problem
            for message in messages:
                error = message.error()
                if error is None:
                    self._held.append(message)
                elif error.code() not in AWAY:
                    self._fail(error)
            if not messages or not left:
                return

    def _fail(self, problem: KafkaError) -> None:
        # Where it stands is unknown now: the next read places it anew.
        self._after, self._next = -1, -1
        self._held.clear()
        if problem.code() in OFFSET_GONE:
            raise PermanentFault(
                f"topic {self._topic}, partition {self._partition}: records were deleted before"
                f" they were read ({problem.str()})"
            )
        raise fault_of(problem)

    def close(self) -> None:
        """Lets go of the connection."""
        with self.lock:
            if self._open:
                self._open = False
                self._held.clear()
                self._consumer.close()
