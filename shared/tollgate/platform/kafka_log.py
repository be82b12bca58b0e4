"""The event log on Kafka: one generation is one topic.

An acknowledgement means that every replica in sync has the record (acks=all) and that it stands
there once (idempotence). Offsets may have holes; a message without a value is a mark of the log's
own (`kafka_topics` writes it after a fence) and no record.
"""

import logging
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from tollgate.core.clock import Clock
from tollgate.core.errors import PermanentFault, Transient
from tollgate.platform.event_log import LOADER, Done, StoredRecord
from tollgate.platform.kafka_client import REQUEST_SECONDS, KafkaPlace, fault_of
from tollgate.platform.kafka_producer import Appender, AppendLimits
from tollgate.platform.kafka_reader import Reader, consumer_options, reader_options
from tollgate.platform.kafka_retention import RetentionWatch

_log = logging.getLogger(__name__)
_LOOK_BYTES = 4096
_LEADER_MOVES = (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE)
_LEADER_PAUSE_SECONDS = 0.05
_MARKS_MAX = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """Which topic.

    Attributes:
        place: of which brokers.
        number: of the generation.
        partitions: how many it has.
        is_last: whether no newer one exists, as far as is known.
        on_refused: called, from any thread, when the topic begins to refuse records.
    """

    place: KafkaPlace
    number: int
    partitions: int
    is_last: Callable[[], bool] = lambda: True
    on_refused: Callable[[], None] = lambda: None


class KafkaLog:
    """An `EventLog` on a topic. Any number of processes append and read; nothing is opened yet."""

    def __init__(
        self, generation: Generation, limits: AppendLimits, clock: Clock, margin_seconds: int
    ) -> None:
        self._place = generation.place
        self._topic = generation.place.topic(generation.number)
        self._generation = generation
        self._appender = Appender(
            generation.place.options(), self._topic, generation.partitions, limits
        )
        self._appender.on_refused = generation.on_refused
        self._retention = RetentionWatch(generation.place, generation.number, clock, margin_seconds)
        self._own = threading.local()
        # A reader goes with the thread that it belongs to.
        self._readers: weakref.WeakSet[Reader] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._asker: Consumer | None = None
        self._final_ends: dict[int, int] = {}
        self._closed = threading.Event()

    @property
    def generation(self) -> int:
        """Number of the layout."""
        return self._generation.number

    @property
    def partitions(self) -> int:
        """How many partitions the topic has."""
        return self._generation.partitions

    @property
    def topic(self) -> str:
        """Name of the topic."""
        return self._topic

    @property
    def refused(self) -> bool:
        """Whether the topic refused a record: a newer generation takes them, or will soon."""
        return self._appender.refused

    @property
    def restarts(self) -> int:
        """How often the producer broke down and was made anew."""
        return self._appender.restarts

    def submit(self, partition: int, values: Sequence[bytes], done: Done) -> None:
        """See `EventLog.submit`. Never blocks."""
        self._appender.submit(partition, values, done)

    def read(self, partition: int, after: int, bytes_max: int) -> list[StoredRecord]:
        """See `EventLog.read`."""
        reader = self._own_reader(partition)
        if reader is None and bytes_max <= _LOOK_BYTES:
            # Who only looks must not be left with a reader that fetches ahead.
            reader = self._new_reader(partition)
            try:
                return self._read(reader, partition, after, bytes_max)
            finally:
                reader.close()
        return self._read(reader or self._keep_reader(partition), partition, after, bytes_max)

    def _read(
        self, reader: Reader, partition: int, after: int, bytes_max: int
    ) -> list[StoredRecord]:
        with reader.lock:
            reader.move_to(after)
            return reader.read(bytes_max, lambda: self.end(partition))

    def wait(
        self, partition: int, after: int, seconds: float
    ) -> bool:  # tidy: allow-float -- a wait
        """See `EventLog.wait`."""
        if self._appender.end_known(partition) > after:
            return True
        if seconds <= 0:
            return self.end(partition) > after
        until = monotonic() + seconds
        reader = self._own_reader(partition) or self._keep_reader(partition)
        while (left := until - monotonic()) > 0:
            with reader.lock:
                reader.move_to(after)
                if reader.wait(left):
                    return True
        return False

    def end(self, partition: int) -> int:
        """See `EventLog.end`: as far as all replicas in sync have the records."""
        if (known := self._final_ends.get(partition)) is not None:
            return known
        # Asked first: what is read after that is final if a newer generation existed by then.
        final = not self._generation.is_last()
        low, high = self._watermarks(partition)
        if not final:
            return high - 1
        end = self._final_ends[partition] = self._last_record(partition, low, high)
        return end

    def _last_record(self, partition: int, low: int, high: int) -> int:
        """Offset of the last record before `high` that is no mark."""
        after = max(low, high - _MARKS_MAX) - 1
        found = after
        reader = self._new_reader(partition)
        try:
            with reader.lock:
                reader.move_to(after)
                while records := reader.read(1 << 20, lambda: high - 1):
                    found = records[-1].offset
        finally:
            reader.close()
        return found

    def released(self, partition: int) -> int:
        """See `EventLog.released`: what retention has deleted."""
        return self._watermarks(partition)[0] - 1

    def release(self, partition: int, through: int, reader: str = LOADER) -> None:
        """See `EventLog.release`. Nothing: time alone decides, and a group's commit shows lag."""

    def begin_after(self, partition: int, offset: int) -> None:
        """See `EventLog.begin_after`. Kafka counts offsets by itself."""
        if self.end(partition) < offset:
            raise PermanentFault(
                f"topic {self._topic}, partition {partition} ends before offset {offset}, up to"
                " which the ledger has events: the topic was made anew. Create a new generation"
                " (python -m tollgate.platform.setup --new-generation)"
            )

    def backlog_bytes(self) -> int:
        """See `EventLog.backlog_bytes`."""
        return 0

    def refusal(self) -> str:
        """See `EventLog.refusal`: the oldest unloaded record comes near deletion."""
        return self._retention.refusal()

    def close(self) -> None:
        """See `EventLog.close`."""
        with self._lock:
            self._closed.set()
            asker, self._asker = self._asker, None
            readers = list(self._readers)
        self._retention.close()
        self._appender.close()
        for reader in readers:
            reader.close()
        if asker is not None:
            asker.close()

    def _own_reader(self, partition: int) -> Reader | None:
        readers: dict[int, Reader] | None = getattr(self._own, "readers", None)
        return readers.get(partition) if readers else None

    def _keep_reader(self, partition: int) -> Reader:
        reader = self._new_reader(partition)
        readers = self._own.__dict__.setdefault("readers", {})
        readers[partition] = reader
        return reader

    def _new_reader(self, partition: int) -> Reader:
        options = reader_options(self._place.options(), self._place.group)
        with self._lock:
            if self._closed.is_set():
                raise Transient("the event log is closed")
            reader = Reader(options, self._topic, partition)
            self._readers.add(reader)
        return reader

    def _watermarks(self, partition: int) -> tuple[int, int]:
        """First offset and the one after the last, as the partition's leader says."""
        with self._lock:
            if self._closed.is_set():
                raise Transient("the event log is closed")
            if self._asker is None:
                options = consumer_options(self._place.options(), self._place.group)
                self._asker = Consumer(options, logger=_log)
            asker = self._asker
        at, until = TopicPartition(self._topic, partition), monotonic() + REQUEST_SECONDS
        while True:
            try:
                found = asker.get_watermark_offsets(at, timeout=REQUEST_SECONDS)
            except KafkaException as problem:
                # A topic that is new, or whose leader moves, has one within moments.
                moves = problem.args[0].code() in _LEADER_MOVES
                if not moves or monotonic() >= until or self._closed.wait(_LEADER_PAUSE_SECONDS):
                    raise fault_of(problem) from problem
            else:
                if found is None:
                    raise Transient("the event log can't be asked for its end: no answer in time")
                low, high = found
                return low, high
