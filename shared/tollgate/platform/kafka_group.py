"""Who loads, or archives, which partition: membership of a Kafka consumer group, no more.

The partitions of all generations are shared out among the members (cooperative: who keeps a
partition never stops for the sake of others). What is assigned is paused at once and never resumed:
records are read elsewhere, by readers without a group. Offsets are committed here after the ledger
was written, so that lag can be seen (KEDA scales by it) and nothing unloaded is deleted; no reader
ever starts from them.

Membership says who should load, not who may: a member that was thought dead may go on writing for
a while, and that changes nothing, since every row follows from record and position.
"""

import logging
import re
import threading
from collections.abc import Sequence
from typing import Protocol

from confluent_kafka import (
    OFFSET_END,
    Consumer,
    KafkaError,
    KafkaException,
    TopicPartition,
)

from tollgate.platform.kafka_client import REQUEST_SECONDS, KafkaPlace, fault_of

_log = logging.getLogger(__name__)
Partition = tuple[int, int]
"""A generation of the log and a partition of it."""
_POLL_SECONDS = 0.1
_BACKOFF_SECONDS_FIRST = 0.2
_BACKOFF_SECONDS_MAX = 5.0
_NEW_TOPICS_MS = 2_000
_SESSION_MS = 10_000
# A member hears with its next heartbeat that another one has come.
_HEARTBEAT_MS = 300
_CLOSE_SECONDS = 15
# Commits that another member's work has overtaken, or that are repeated after the next assignment.
_OVERTAKEN = frozenset(
    (
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.FENCED_INSTANCE_ID,
    )
)


class Owner(Protocol):
    """Who works on what is assigned. Called by the group's one thread."""

    def assigned(self, partitions: Sequence[Partition]) -> None:
        """These are ours from now on."""
        ...

    def revoked(self, partitions: Sequence[Partition]) -> None:
        """These go to another member once this returns, which it does within seconds."""
        ...

    def lost(self, partitions: Sequence[Partition]) -> None:
        """These are another member's already."""
        ...


class GroupMember:
    """One member. Joins on `start`, leaves on `stop`, and can do both again.

    Attributes:
        failure: what the group met last; "" once it has said what is ours.
        records_seen: records that were fetched all the same: none.
    """

    def __init__(self, place: KafkaPlace, owner: Owner) -> None:
        self._place = place
        self._owner = owner
        self._lock = threading.Lock()
        self._owned: set[Partition] = set()
        self._pending: dict[Partition, int] = {}
        self._sent: dict[Partition, int] = {}
        self._finished: set[Partition] = set()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._joined = False
        self.failure = ""
        self.records_seen = 0

    @property
    def joined(self) -> bool:
        """Whether the group has said what is ours, be it nothing."""
        return self._joined

    @property
    def owned(self) -> frozenset[Partition]:
        """What is assigned to this member."""
        with self._lock:
            return frozenset(self._owned)

    def start(self) -> None:
        """Begins to join; answers come to the owner. Without effect on a member that runs."""
        if self._thread is None:
            self._stop = threading.Event()
            self._thread = threading.Thread(
                target=self._run, args=(self._stop,), name=self._place.group, daemon=True
            )
            self._thread.start()

    def stop(self) -> None:
        """Gives everything back (the owner is told first) and leaves. Takes bounded time."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._stop.set()
            thread.join(_CLOSE_SECONDS)
            if thread.is_alive():
                _log.warning("the group was left without a word: no broker answers")

    def commit(self, generation: int, partition: int, offset: int) -> None:
        """Notes that the ledger has everything up to an offset. Returns at once, from any thread.

        What is not ours is left to its owner.
        """
        with self._lock:
            key = (generation, partition)
            if key in self._owned:
                self._pending[key] = max(offset, self._pending.get(key, -1))

    def commit_end(self, generation: int, partition: int) -> None:
        """Notes that a closed generation's partition is loaded to its end. Returns at once.

        Behind the last record stand marks of the log's own. Committing past them says that there is
        no lag: else a loader would be kept awake for ever.
        """
        with self._lock:
            if (generation, partition) in self._owned:
                self._finished.add((generation, partition))

    def _run(self, stop: threading.Event) -> None:
        pause = _BACKOFF_SECONDS_FIRST
        while not stop.is_set():
            try:
                self._take_part(stop)
            except KafkaException as problem:
                # A fatal error ends a client for good; the next one joins anew.
                self.failure = str(problem)
                _log.warning("left the group", extra={"problem": repr(problem)})
                stop.wait(pause)
                pause = min(pause * 2, _BACKOFF_SECONDS_MAX)
            else:
                pause = _BACKOFF_SECONDS_FIRST

    def _take_part(self, stop: threading.Event) -> None:
        consumer = Consumer(
            {
                **self._place.options(),
                "group.id": self._place.group,
                "partition.assignment.strategy": "cooperative-sticky",
                "session.timeout.ms": _SESSION_MS,
                "heartbeat.interval.ms": _HEARTBEAT_MS,
                "topic.metadata.refresh.interval.ms": _NEW_TOPICS_MS,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                # Nothing is ever fetched from here.
                "auto.offset.reset": "latest",
                "queued.min.messages": 1,
                "on_commit": self._committed,
            },
            logger=_log,
        )
        try:
            consumer.subscribe(
                [f"^{re.escape(self._place.prefix)}\\.[0-9]+$"],
                on_assign=self._on_assign,
                on_revoke=self._on_revoke,
                on_lost=self._on_lost,
            )
            while not stop.is_set():
                message = consumer.poll(_POLL_SECONDS)
                if message is not None:
                    self._heed(message.error())
                self._commit_ends(consumer)
                self._commit_pending(consumer)
        finally:
            self._joined = False
            consumer.close()
            # A client that broke down may have said nothing: its partitions are not ours any more.
            if left := self._forget(self.owned):
                self._owner.lost(left)

    def _heed(self, problem: KafkaError | None) -> None:
        if problem is None:
            self.records_seen += 1
            return
        self.failure = str(problem)
        if problem.fatal():
            raise KafkaException(problem)
        _log.info("the group", extra={"problem": str(problem)})

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        for each in partitions:
            each.offset = OFFSET_END
        consumer.incremental_assign(partitions)
        consumer.pause(partitions)
        keys = self._keys(partitions)
        with self._lock:
            self._owned.update(keys)
        self._joined, self.failure = True, ""
        if keys:
            self._owner.assigned(keys)

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        keys = self._keys(partitions)
        if keys:
            self._owner.revoked(keys)
            self._commit_pending(consumer)
            self._forget(keys)
        consumer.incremental_unassign(partitions)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._joined = False
        if keys := self._forget(self._keys(partitions)):
            self._owner.lost(keys)
        consumer.incremental_unassign(partitions)

    def _forget(self, keys: Sequence[Partition] | frozenset[Partition]) -> list[Partition]:
        with self._lock:
            found = [key for key in keys if key in self._owned]
            self._owned.difference_update(found)
            for key in found:
                self._pending.pop(key, None)
                self._sent.pop(key, None)
        return found

    def _keys(self, partitions: Sequence[TopicPartition]) -> list[Partition]:
        return [
            (generation, each.partition)
            for each in partitions
            if (generation := self._place.generation_of(each.topic)) is not None
        ]

    def _commit_ends(self, consumer: Consumer) -> None:
        with self._lock:
            finished, self._finished = self._finished, set()
        for generation, partition in finished:
            end = TopicPartition(self._place.topic(generation), partition)
            try:
                found = consumer.get_watermark_offsets(end, timeout=REQUEST_SECONDS)
            except KafkaException as problem:
                # It is noted again before long.
                _log.info("a topic's end is unknown", extra={"problem": str(fault_of(problem))})
                return
            if found is not None:
                self.commit(generation, partition, found[1] - 1)

    def _commit_pending(self, consumer: Consumer) -> None:
        with self._lock:
            pending, self._pending = self._pending, {}
            self._sent |= pending
        if not pending:
            return
        try:
            consumer.commit(
                offsets=[
                    TopicPartition(self._place.topic(generation), partition, offset + 1)
                    for (generation, partition), offset in pending.items()
                ],
                asynchronous=True,
            )
        except KafkaException as problem:
            # Nothing depends on it but the lag that others see: what comes next is committed then.
            _log.warning("commit failed", extra={"problem": repr(problem)})

    def _committed(self, problem: KafkaError | None, partitions: list[TopicPartition]) -> None:
        for each in partitions:
            fault = problem or each.error
            if fault is None:
                continue
            if fault.code() not in _OVERTAKEN:
                _log.warning("commit failed", extra={"problem": str(fault), "topic": each.topic})
            for key in self._keys([each]):
                # Kept for the next try, unless a later one is on its way.
                if self._sent.get(key) == each.offset - 1:
                    self.commit(*key, each.offset - 1)
