"""Appending to one topic: an idempotent producer and the thread that hears its answers."""

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from tollgate.core.errors import Transient
from tollgate.platform.event_log import Done
from tollgate.platform.kafka_client import FATAL, Options, note

_log = logging.getLogger(__name__)
_POLL_SECONDS = 0.2
_QUEUE_KBYTES = 128 << 10
_STARTER = {"enable.idempotence": False, "message.send.max.retries": 0, "max.in.flight": 1}
_REFUSED = (
    "the layout of the event log is changing; what of this request was stored is unknown, and "
    "sending it again is exact"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AppendLimits:
    """How records are appended.

    Attributes:
        record_bytes_max: one record, with what Kafka adds to it.
        ack_seconds: how long an append may take.
        compression: of a request's records: none, lz4, zstd.
        starter_seconds: how long a producer of its own takes the first records; 0: none does.
    """

    record_bytes_max: int
    ack_seconds: int
    compression: str
    starter_seconds: int = 1


def producer_options(options: Options, limits: AppendLimits) -> Options:
    """What makes an acknowledgement mean: stored once, in order, on every replica in sync."""
    return options | {
        "acks": "all",
        "enable.idempotence": True,
        "linger.ms": 0,
        "delivery.timeout.ms": limits.ack_seconds * 1000,
        "request.timeout.ms": limits.ack_seconds * 1000,
        "message.max.bytes": limits.record_bytes_max,
        "batch.size": limits.record_bytes_max,
        "compression.type": limits.compression,
        # Bounded memory while the broker is away; what finds no room is answered at once.
        "queue.buffering.max.kbytes": _QUEUE_KBYTES,
    }


class Appender:
    """Appends to the partitions of one topic. Thread-safe; opens nothing before its first use."""

    def __init__(self, options: Options, topic: str, partitions: int, limits: AppendLimits) -> None:
        self.on_refused: Callable[[], None] = lambda: None
        """Called from the polling thread when the topic begins to refuse records."""
        self._options = producer_options(options, limits)
        self._topic = topic
        self._limits = limits
        self._order = [threading.Lock() for _ in range(partitions)]
        self._making = threading.Lock()
        self._client: _Client | None = None
        self._ends = [-1] * partitions
        self._closed = False
        self.refused = False
        """Whether the topic refuses records: it is fenced, a newer generation takes them."""
        self.restarts = 0
        """How often a producer broke down and was made anew."""

    def submit(self, partition: int, values: Sequence[bytes], done: Done) -> None:
        """See `EventLog.submit`. Never blocks."""
        client = self._client or self._new_client()
        if client is None:
            done(Transient("the event log is closed"))
            return
        topic = self._topic
        # Records of one submission stand side by side.
        with self._order[partition]:
            starter = client.starter
            if starter is not None:
                if (counted := starter.take(partition, done)) is not None:
                    done, client = counted, starter.client
                elif starter.is_done:
                    # Its thread lets go of it last: closing its connections takes a while.
                    client.starter = None
                    starter.client.retire()
            pending = _Pending(self, client, partition, len(values), done)
            try:
                produce = client.producer.produce
                for value in values:
                    produce(topic, value, None, partition, pending)
                return
            except BufferError:
                reason = "too much waits for the event log"
            except KafkaException as problem:
                error = problem.args[0]
                reason = str(error)
                if error.fatal():
                    self.broke(client, error)
        pending.give_up(reason)

    def end_known(self, partition: int) -> int:
        """The last offset that was acknowledged here, -1 before the first."""
        return self._ends[partition]

    def acknowledged(self, partition: int, offset: int) -> bool:
        """Notes the last offset of a submission; False if it can't be its place.

        A partition answers in the order of its offsets.
        """
        if offset <= self._ends[partition]:
            return False
        self._ends[partition] = offset
        self.refused = False
        return True

    def was_refused(self) -> None:
        """Notes that the topic takes no records."""
        if not self.refused:
            self.refused = True
            self.on_refused()

    def broke(self, client: "_Client", error: KafkaError) -> None:
        """Lets a producer go that will send nothing more; the next submission makes another."""
        with self._making:
            if self._client is not client:
                return
            self._client = None
            self.restarts += 1
        _log.error("the producer broke down and is made anew", extra={"problem": str(error)})
        client.retire()

    def close(self) -> None:
        """Waits for what was submitted, as long as an append may take."""
        with self._making:
            self._closed = True
            client, self._client = self._client, None
        if client is not None:
            client.close(self._limits.ack_seconds)

    def _new_client(self) -> "_Client | None":
        with self._making:
            if self._client is None and not self._closed:
                client = _Client(self, self._options)
                if self._limits.starter_seconds:
                    first = _Client(self, self._options | _STARTER)
                    client.starter = _Starter(first, self._order, self._limits.starter_seconds)
                self._client = client
            return self._client


class _Client:
    """A producer, and the thread that runs its callbacks."""

    def __init__(self, owner: Appender, options: Options) -> None:
        self._owner = owner
        self._ending = False
        self.starter: _Starter | None = None
        """Takes the records of the first second."""
        self.producer = Producer(options | {"error_cb": self._heed}, logger=_log)
        self._thread = threading.Thread(target=self._poll, name="log-acks", daemon=True)
        self._thread.start()

    def retire(self) -> None:
        """Answers all that is on its way as unknown, in the background."""
        # Read once: a submission may let go of it meanwhile.
        if (starter := self.starter) is not None:
            starter.client.retire()
        self.producer.purge(blocking=False)
        self._ending = True

    def close(self, seconds: int) -> None:
        """Waits for answers, then answers the rest as unknown."""
        if (starter := self.starter) is not None:
            starter.client.close(seconds)
        with suppress(KafkaException):
            self.producer.flush(seconds)
        self.retire()
        self._thread.join(seconds)

    def _poll(self) -> None:
        producer = self.producer
        poll = producer.poll
        while not self._ending or len(producer):
            try:
                poll(_POLL_SECONDS)
            except KafkaException as problem:
                # What breaks a producer is raised here and not given to its callback.
                self._owner.broke(self, problem.args[0])

    def _heed(self, problem: KafkaError) -> None:
        if problem.fatal() or problem.code() == FATAL:
            self._owner.broke(self, problem)
        else:
            note(problem)


class _Starter:
    """A second producer for the first second: the idempotent one asks who it is half a second late.

    librdkafka asks for a producer id when it is made, finds no connection yet, and asks again 500
    ms later, which would be more than half of a cold start. This one has no id and never sends
    anything twice, so it can't store a record twice either. A partition moves over once nothing of
    it is on its way here: order is kept.
    """

    def __init__(self, client: _Client, order: Sequence[threading.Lock], seconds: int) -> None:
        self.client = client
        self._order = order
        self._until = monotonic() + seconds
        self._open = dict.fromkeys(range(len(order)), 0)

    @property
    def is_done(self) -> bool:
        """Whether every partition has moved over."""
        return not self._open

    def take(self, partition: int, done: Done) -> Done | None:
        """What to call in place of `done`; None if the partition has moved over.

        Called with the partition's lock held.
        """
        count = self._open.get(partition)
        if count is None:
            return None
        if count == 0 and monotonic() >= self._until:
            del self._open[partition]
            return None
        self._open[partition] = count + 1

        def answered(outcome: int | Exception) -> None:
            with self._order[partition]:
                self._open[partition] -= 1
            done(outcome)

        return answered


class _Pending:
    """One submission: counts its records' answers."""

    __slots__ = (
        "_client",
        "_count",
        "_done",
        "_first",
        "_last",
        "_left",
        "_owner",
        "_partition",
        "_problem",
    )

    def __init__(
        self, owner: Appender, client: _Client, partition: int, count: int, done: Done
    ) -> None:
        self._owner = owner
        self._client = client
        self._partition = partition
        self._count = self._left = count
        self._done: Done | None = done
        self._first = self._last = -1
        self._problem: KafkaError | None = None

    def __call__(self, problem: KafkaError | None, message: Message) -> None:
        """A record's answer, from the polling thread."""
        if problem is not None:
            self._problem = problem
        else:
            offset = message.offset()
            self._last = -1 if offset is None else offset
            if self._left == self._count:
                self._first = self._last
        self._left -= 1
        if self._left == 0:
            self._finish()

    def _finish(self) -> None:
        done, self._done = self._done, None
        if done is None:
            return
        problem, owner = self._problem, self._owner
        if problem is None:
            first, last = self._first, self._last
            # For a repeated batch that it knows only to have, a broker gives -1 as the first place.
            in_place = first >= 0 and last - first == self._count - 1
            if in_place and owner.acknowledged(self._partition, last):
                done(last)
            else:
                done(Transient("the event log has the records but can't say where"))
        elif problem.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            owner.was_refused()
            done(Transient(_REFUSED))
        else:
            if problem.fatal() or problem.code() == FATAL:
                owner.broke(self._client, problem)
            done(Transient(f"the event log did not acknowledge: {problem.str()}"))

    def give_up(self, reason: str) -> None:
        """Answers at once; records queued before may still be stored."""
        done, self._done = self._done, None
        if done is not None:
            done(Transient(f"the event log takes nothing now: {reason}"))
