"""Does retention come near a record that is still needed? Asked in the background."""

import logging
import threading
from collections.abc import Mapping

from confluent_kafka import Consumer, KafkaException, TopicPartition

from tollgate.core.clock import Clock
from tollgate.core.errors import TollgateError
from tollgate.platform.kafka_client import REQUEST_SECONDS, KafkaPlace
from tollgate.platform.kafka_reader import Reader, consumer_options, reader_options
from tollgate.platform.kafka_topics import Topics

_log = logging.getLogger(__name__)
_CHECK_SECONDS = 10


class RetentionWatch:
    """Keeps an answer for one generation and those before it. Begins with the first question.

    A record is needed while a watched group has not committed past it: loaders commit after the
    ledger, archivers after the manifest. A group that never committed needs everything.
    """

    def __init__(
        self, place: KafkaPlace, generation: int, clock: Clock, margin_seconds: int
    ) -> None:
        self._place = place
        self._generation = generation
        self._clock = clock
        self._margin_ms = margin_seconds * 1000
        self._refusal = ""
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def refusal(self) -> str:
        """The latest answer; "" until there is one, and while the broker can't be asked."""
        if self._thread is None:
            self._begin()
        return self._refusal

    def close(self) -> None:
        """Ends the thread."""
        self._stop.set()
        thread = self._thread
        if thread is not None:
            thread.join(2 * REQUEST_SECONDS)

    def _begin(self) -> None:
        with self._lock:
            if self._thread is None and not self._stop.is_set():
                self._thread = threading.Thread(target=self._run, name="log-retention", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        consumers = {
            group: Consumer(consumer_options(self._place.options(), group), logger=_log)
            for group in self._place.watched
        }
        topics = Topics(self._place)
        try:
            while True:
                try:
                    refusal = self._check(consumers, topics)
                except (KafkaException, TollgateError) as problem:
                    # Appends fail by themselves while the broker is away.
                    _log.info("retention was not checked", extra={"problem": str(problem)})
                else:
                    if refusal and not self._refusal:
                        _log.error("no events are taken", extra={"reason": refusal})
                    self._refusal = refusal
                if self._stop.wait(_CHECK_SECONDS):
                    return
        finally:
            for consumer in consumers.values():
                consumer.close()

    def _check(self, consumers: Mapping[str, Consumer], topics: Topics) -> str:
        asker = next(iter(consumers.values()))
        for generation, partitions in topics.generations().items():
            if generation > self._generation:
                continue
            topic = self._place.topic(generation)
            kept_ms = int(topics.settings(generation)["retention.ms"])
            if kept_ms < 0:
                continue
            since_ms = self._clock.now_us() // 1000 - kept_ms + self._margin_ms
            places = [TopicPartition(topic, p) for p in range(partitions)]
            # Before the times are asked for: what is appended in between is young, not old.
            ends = [
                asker.get_watermark_offsets(at, timeout=REQUEST_SECONDS) or (0, 0) for at in places
            ]
            wanted = [TopicPartition(topic, p, since_ms) for p in range(partitions)]
            safe = asker.offsets_for_times(wanted, timeout=REQUEST_SECONDS)
            for group, consumer in consumers.items():
                passed = consumer.committed(places, timeout=REQUEST_SECONDS)
                for old, done, (low, high) in zip(safe, passed, ends, strict=True):
                    until = high if old.offset < 0 else old.offset
                    first = max(low, done.offset)
                    if first < until and self._has_record(old, first, until):
                        deed, who = self._role(group)
                        return (
                            f"events that are not {deed} yet come near deletion: topic {topic},"
                            f" partition {old.partition} keeps records for {kept_ms // 1000} s;"
                            f" start {who}, or raise the topic's retention.ms"
                        )
        return ""

    def _role(self, group: str) -> tuple[str, str]:
        return ("loaded", "loaders") if group == self._place.group else ("archived", "archivers")

    def _has_record(self, at: TopicPartition, first: int, until: int) -> bool:
        """Whether any of the offsets from `first` is a record: marks need no loading."""
        reader = Reader(
            reader_options(self._place.options(), self._place.group), at.topic, at.partition
        )
        try:
            with reader.lock:
                reader.move_to(first - 1)
                found = reader.read(1, lambda: until - 1)
        finally:
            reader.close()
        return bool(found) and found[0].offset < until
