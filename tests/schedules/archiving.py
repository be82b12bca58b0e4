"""Copies that archive, a simulator of object storage, and what the archive must hold in the end.

All records, each once; and loaded from there into a store that is empty, they must give the same.
"""

import threading
from collections.abc import Iterator, Sequence

from tests.schedules.clocks import SECOND_US, TrueTime, WorldClock
from tests.schedules.edges import READ, WRITE, CopyLog, Edge
from tests.schedules.reference import facts_of
from tollgate.core.errors import NotFound
from tollgate.events.archive import ArchiveLimits, Archiver
from tollgate.events.archive_chain import RECORDS, Chain
from tollgate.events.archive_log import ArchiveLog
from tollgate.events.ledger import Frontier
from tollgate.events.load import Loader
from tollgate.events.load_progress import LoadLimits
from tollgate.platform.clickhouse import ClickHouse
from tollgate.platform.event_log import StoredRecord

_EVENTS_MAX = 5
_SLOT_US = 3600 * SECOND_US


class SimulatedObjects:
    """Object storage in memory."""

    place = "memory"

    def __init__(self) -> None:
        self._objects: dict[str, bytes] = {}

    def put(self, name: str, data: bytes) -> bool:
        if name in self._objects:
            return False
        self._objects[name] = data
        return True

    def get(self, name: str) -> bytes:
        if name not in self._objects:
            raise NotFound(f"there is no object {name}")
        return self._objects[name]

    def exists(self, name: str) -> bool:
        return name in self._objects

    def names(self, prefix: str, after: str = "") -> Iterator[str]:
        return iter(sorted(n for n in self._objects if n.startswith(prefix) and n > after))

    def close(self) -> None:
        """Nothing is held."""


class CopyObjects:
    """Object storage as one copy has it."""

    def __init__(self, edge: Edge, objects: SimulatedObjects) -> None:
        self._edge = edge
        self._objects = objects
        self.place = objects.place

    def put(self, name: str, data: bytes) -> bool:
        return self._edge.call("put", lambda: self._objects.put(name, data), WRITE)

    def get(self, name: str) -> bytes:
        return self._edge.call("get", lambda: self._objects.get(name), READ)

    def exists(self, name: str) -> bool:
        return self._edge.call("exists", lambda: self._objects.exists(name), READ)

    def names(self, prefix: str, after: str = "") -> Iterator[str]:
        return self._edge.call("names", lambda: self._objects.names(prefix, after), READ)

    def close(self) -> None:
        """Nothing is held."""


class PatientLog(CopyLog):
    """A log that is waited for only so long: a file also ends because time is over."""

    time: TrueTime

    def wait(
        self, partition: int, after: int, seconds: float
    ) -> bool:  # tidy: allow-float -- a wait
        until = self.time.us + int(seconds * SECOND_US)
        return self.wait_until(partition, after, lambda: self.time.us >= until)


def new_archiver(
    edge: Edge, log: PatientLog, objects: SimulatedObjects, partition: int, clock: WorldClock
) -> Archiver:
    """The archiver of a partition in one process."""
    return Archiver(
        log=log,
        partition=partition,
        objects=CopyObjects(edge, objects),
        limits=ArchiveLimits(events_max=_EVENTS_MAX, slot_us=_SLOT_US),
        clock=clock,
    )


def wrong_archive(
    objects: SimulatedObjects, generation: int, history: Sequence[Sequence[StoredRecord]]
) -> Iterator[str]:
    """Where the archive differs from the log."""
    log = open_archive(objects, generation, len(history))
    for partition, records in enumerate(history):
        found: list[StoredRecord] = []
        while more := log.read(partition, found[-1].offset if found else -1, 1 << 20):
            found += more
        for had, archived in zip(records, found, strict=False):
            same = (had.offset, had.appended_us) == (archived.offset, archived.appended_us)
            if not same or facts_of(partition, had) != facts_of(partition, archived):
                yield f"partition {partition}, offset {had.offset} is archived otherwise"
        if len(found) != len(records):
            yield f"partition {partition}: {len(found)} of {len(records)} records are archived"
    log.close()


def open_archive(objects: SimulatedObjects, generation: int, partitions: int) -> ArchiveLog:
    """The archive as a log."""
    entries = {
        partition: list(Chain(objects, RECORDS, generation, partition).entries())
        for partition in range(partitions)
    }
    return ArchiveLog(objects, generation, {p: of_one for p, of_one in entries.items() if of_one})


def replay(log: ArchiveLog, store: ClickHouse, window_us: int, clock: WorldClock) -> None:
    """Loads an archive into a store."""
    over = threading.Event()
    over.set()
    for partition in range(log.partitions):
        loader = Loader(
            log=log,
            partition=partition,
            clickhouse=store,
            frontier=Frontier(store),
            limits=LoadLimits(
                events_max=100, wait_ms=0, window_us=window_us, dead_letters_max=1_000_000
            ),
            clock=clock,
        )
        loader.prepare()
        while records := loader.gather(over):
            loader.load(records)
