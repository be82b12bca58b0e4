"""The generations of the log on Kafka, as a process uses them."""

import logging
import threading
from collections.abc import Callable

from confluent_kafka import Producer

from tollgate.core.clock import Clock
from tollgate.core.errors import PermanentFault, TollgateError, Transient
from tollgate.platform.event_log import EventLog
from tollgate.platform.kafka_client import RECORD_ROOM_BYTES, kafka_place
from tollgate.platform.kafka_log import Generation, KafkaLog
from tollgate.platform.kafka_producer import AppendLimits
from tollgate.platform.kafka_topics import Needs, Topics, generations_of
from tollgate.platform.settings import Settings

_log = logging.getLogger(__name__)
_LOOK_SECONDS = 5
_LOOK_SECONDS_URGENT = 0.25


class KafkaLayouts:
    """`Layouts` on topics `<prefix>.<number>`. Thread-safe; asks nothing before it must."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        """Reads the settings.

        Raises:
            InvalidInput: they name no log.
        """
        self._place = kafka_place(settings)
        self._clock = clock
        self._margin_seconds = settings.log_retention_margin_seconds
        self._limits = AppendLimits(
            record_bytes_max=settings.record_bytes_max + RECORD_ROOM_BYTES,
            ack_seconds=settings.log_ack_seconds,
            compression=settings.log_compression,
        )
        self._needs = Needs(
            record_bytes_max=settings.record_bytes_max, development=settings.log_development
        )
        self._lock = threading.Lock()
        self._opening = threading.Lock()
        self._client: Producer | None = None
        self._logs: dict[int, KafkaLog] = {}
        self._found: dict[int, int] = {}
        self._listeners: list[Callable[[int], None]] = []
        self._stopped = False
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def generations(self) -> list[int]:
        """See `Layouts.generations`."""
        return list(self._look())

    def newest(self) -> int:
        """See `Layouts.newest`."""
        found = self._look()
        if not found:
            raise PermanentFault(
                f"there is no topic {self._place.topic(1)}: run python -m tollgate.platform.setup"
            )
        return max(found)

    def open(self, generation: int) -> EventLog:
        """See `Layouts.open`."""
        with self._opening:
            if generation not in self._logs:
                partitions = self._found.get(generation) or self._look().get(generation)
                if not partitions:
                    raise PermanentFault(f"there is no topic {self._place.topic(generation)}")
                self._logs[generation] = KafkaLog(
                    Generation(
                        place=self._place,
                        number=generation,
                        partitions=partitions,
                        is_last=lambda: generation >= max(self._found, default=0),
                        on_refused=self._wake.set,
                    ),
                    self._limits,
                    self._clock,
                    self._margin_seconds,
                )
            return self._logs[generation]

    def verify(self, generation: int) -> None:
        """See `Layouts.verify`."""
        topics = Topics(self._place)
        if topics.is_fenced(generation):
            raise Transient("the layout of the event log is changing")
        if faults := topics.faults(generation, self._needs):
            raise PermanentFault("; ".join(faults))

    def watch(self, listener: Callable[[int], None]) -> None:
        """See `Layouts.watch`. Looks every few seconds, and often while a log refuses records."""
        with self._lock:
            self._listeners.append(listener)
            if self._thread is None and not self._stopped:
                self._thread = threading.Thread(target=self._run, name="log-layouts", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Closes every log that was opened."""
        self._stopped = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(2 * _LOOK_SECONDS)
        for log in self._logs.values():
            log.close()

    def _look(self) -> dict[int, int]:
        """Asks the brokers: number and partitions of every generation."""
        with self._lock:
            if self._client is None:
                self._client = Producer(self._place.options(), logger=_log)
            client = self._client
        found = generations_of(client, self._place)
        with self._lock:
            # What was seen stays: a broker that has just started may not know of all yet.
            self._found |= found
            return dict(sorted(self._found.items()))

    def _run(self) -> None:
        told = max(self._found, default=0)
        while not self._stopped:
            # Woken as soon as a log refuses records: somebody waits for the next generation.
            self._wake.wait(self._pause())
            self._wake.clear()
            if self._stopped:
                return
            try:
                newest = max(self._look(), default=0)
            except TollgateError as problem:
                _log.info("the log's layouts can't be seen", extra={"problem": str(problem)})
                continue
            if newest > told:
                told = newest
                with self._lock:
                    listeners = tuple(self._listeners)
                for listener in listeners:
                    listener(newest)

    def _pause(self) -> float:  # tidy: allow-float -- a wait
        newest = self._logs.get(max(self._found, default=0))
        # Nothing was found yet, or what was found is closed: somebody waits for the next.
        return _LOOK_SECONDS_URGENT if newest is None or newest.refused else _LOOK_SECONDS
