"""The real parts: the engine in this process, and segment files on disk.

Clocks, faults and turns are the schedule's. Copies share one engine and one set of files, as they
would share a server and a broker; what a fault of theirs does to the parts themselves (a torn
write, a killed server) is for the end-to-end tests.
"""

import queue
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from tests.schedules.clocks import TrueTime, WorldClock
from tests.schedules.options import Options, readers_of
from tests.schedules.runner import NewParts
from tests.schedules.schema import schema
from tests.schedules.store import Rows, SimulatedStore
from tests.schedules.world import Parts
from tollgate.platform.clickhouse import DATABASE, ClickHouse
from tollgate.platform.clickhouse_schema import migrate_clickhouse
from tollgate.platform.disk import Disk
from tollgate.platform.event_log import StoredRecord
from tollgate.platform.segment_log import SegmentLog
from tollgate.platform.segment_state import new_state, write_state

Result = TypeVar("Result")
_ALL_BYTES = 1 << 30


class RealStore:
    """The real engine. One thread makes all calls: each thread of its own has a client to open."""

    def __init__(self, clickhouse: ClickHouse) -> None:
        self._clickhouse = clickhouse
        self._caller = ThreadPoolExecutor(1, "engine")
        self._call(lambda: migrate_clickhouse(clickhouse))

    def _call(self, work: Callable[[], Result]) -> Result:
        return self._caller.submit(work).result()

    def query(
        self,
        sql: str,
        parameters: Mapping[str, object],
        settings: Mapping[str, object] | None = None,
    ) -> Rows:
        return self._call(lambda: self._clickhouse.query(sql, parameters, settings))

    def command(self, sql: str, parameters: Mapping[str, object]) -> None:
        self._call(lambda: self._clickhouse.command(sql, parameters))

    def insert(self, table: str, columns: Sequence[str], rows: bytes) -> None:
        self._call(lambda: self._clickhouse.insert(table, columns, rows))

    def numbers(self, sql: str, parameters: Mapping[str, object]) -> npt.NDArray[np.uint64]:
        def read() -> list[npt.NDArray[np.uint64]]:
            client = self._clickhouse.client()
            with client.query_np_stream(sql, parameters=dict(parameters)) as blocks:
                return [np.asarray(block, np.uint64).reshape(-1) for block in blocks]

        return np.concatenate([np.zeros(0, np.uint64), *self._call(read)])

    def clear(self) -> None:
        """Empties all tables."""
        for table in [name for name, each in schema().tables.items() if each.keeps]:
            self.command(f"TRUNCATE TABLE {DATABASE}.{table}", {})

    def close(self) -> None:
        """Closes the engine."""
        self._call(self._clickhouse.close)
        self._caller.shutdown()


class MirroredStore:
    """The simulator and the real engine side by side: an answer that differs is a fault of ours."""

    def __init__(self, simulated: SimulatedStore, real: RealStore) -> None:
        self._simulated = simulated
        self._real = real
        self.answers = 0

    def query(
        self,
        sql: str,
        parameters: Mapping[str, object],
        settings: Mapping[str, object] | None = None,
    ) -> Rows:
        found = self._simulated.query(sql, parameters)
        expected = self._real.query(sql, parameters, settings)
        self.answers += 1
        assert _alike(found) == _alike(expected), (sql, parameters, found, expected)
        return expected

    def command(self, sql: str, parameters: Mapping[str, object]) -> None:
        self._simulated.command(sql, parameters)
        self._real.command(sql, parameters)

    def insert(self, table: str, columns: Sequence[str], rows: bytes) -> None:
        self._simulated.insert(table, columns, rows)
        self._real.insert(table, columns, rows)

    def numbers(self, sql: str, parameters: Mapping[str, object]) -> npt.NDArray[np.uint64]:
        found = self._simulated.numbers(sql, parameters)
        expected = self._real.numbers(sql, parameters)
        self.answers += 1
        assert sorted(found.tolist()) == sorted(expected.tolist()), (sql, parameters)
        return expected


def _alike(rows: Rows) -> list[tuple[object, ...]]:
    return sorted((tuple(row) for row in rows), key=repr)


class RealRecords:
    """Segment files: one log for each partition, which is all that one of them can have.

    As on a broker, unless embedded: nothing is given back when it is loaded.
    """

    def __init__(self, folder: Path, options: Options, clock: WorldClock) -> None:
        self.embedded = options.embedded
        self._logs = []
        self._history: list[list[StoredRecord]] = []
        for partition in range(options.partitions):
            path = folder / f"partition-{partition}"
            path.mkdir(parents=True)
            write_state(path, new_state(generation=1), Disk())
            self._logs.append(SegmentLog(path, clock, readers=readers_of(options)))
            self._history.append([])

    @property
    def generation(self) -> int:
        return self._logs[0].generation

    @property
    def partitions(self) -> int:
        return len(self._logs)

    @property
    def history(self) -> Sequence[Sequence[StoredRecord]]:
        return self._history

    def append(self, partition: int, values: Sequence[bytes]) -> int:
        log, kept = self._logs[partition], self._history[partition]
        answers: queue.SimpleQueue[int | Exception] = queue.SimpleQueue()
        log.submit(0, values, answers.put)
        answer = answers.get()
        if isinstance(answer, Exception):
            raise answer
        # Before anybody may load and release them.
        kept += log.read(0, kept[-1].offset if kept else -1, _ALL_BYTES)
        return answer

    def read(self, partition: int, after: int, bytes_max: int) -> list[StoredRecord]:
        return self._logs[partition].read(0, after, bytes_max)

    def end(self, partition: int) -> int:
        return self._logs[partition].end(0)

    def released(self, partition: int) -> int:
        return self._logs[partition].released(0)

    def release(self, partition: int, through: int, reader: str) -> None:
        if self.embedded:
            self._logs[partition].release(0, through, reader)

    def restart(self) -> None:
        """Nothing: the files are not opened again."""

    def expire(self, partition: int, through: int) -> None:
        """Nothing: files are kept until they are released."""

    def backlog_bytes(self) -> int:
        return self._logs[0].backlog_bytes() if self.embedded else 0

    def close(self) -> None:
        """Closes the files."""
        for log in self._logs:
            log.close()


@contextmanager
def real_parts(folder: Path | None = None, *, mirrored: bool = False) -> Iterator[NewParts]:
    """What makes real parts: all schedules share the engine, each has its own log.

    Args:
        folder: for the engine's data and the logs; None: a temporary one.
        mirrored: the simulated store answers, too, and both must agree.
    """
    with tempfile.TemporaryDirectory(prefix="schedules-") as temporary:
        place = folder or Path(temporary)
        store = RealStore(ClickHouse(path=place / "engine"))
        if mirrored:
            store.command("SYSTEM STOP MERGES", {})
        opened: list[RealRecords] = []

        def new_parts(options: Options) -> Parts:
            while opened:
                opened.pop().close()
            store.clear()
            time = TrueTime()
            clock = WorldClock(time)
            logs = Path(tempfile.mkdtemp(dir=place))
            opened.append(RealRecords(logs, options, clock))
            return Parts(
                records=opened[-1],
                store=MirroredStore(SimulatedStore(clock), store) if mirrored else store,
                time=time,
                clock=clock,
            )

        try:
            yield new_parts
        finally:
            for records in opened:
                records.close()
            store.close()
