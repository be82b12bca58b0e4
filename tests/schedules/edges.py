"""Where a copy of a function meets what is not ours: each call may be interrupted here, or fail."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import OperationalError

from tests.schedules.faults import Fault, Faults
from tests.schedules.log import Records
from tests.schedules.store import VIEWS, SimulatedStore, Store
from tests.schedules.turns import Crash, Turn, current_turn, pause
from tollgate.core.errors import Transient
from tollgate.platform.clickhouse import ClickHouse
from tollgate.platform.event_log import LOADER, Done, StoredRecord

Result = TypeVar("Result")
READ = (Fault.LOST, Fault.CRASH_BEFORE)
WRITE = (Fault.LOST, Fault.UNKNOWN, Fault.CRASH_BEFORE, Fault.CRASH_AFTER)
_TWO_PARTS = (*WRITE, Fault.PART, Fault.REST)
_APPEND = (Fault.LOST, Fault.UNKNOWN, Fault.PART)
_APPEND_FAR = (*_APPEND, Fault.LATE, Fault.TWICE)


@dataclass(slots=True, kw_only=True)
class Surroundings:
    """What of the world is away just now."""

    store_away: bool = False
    log_away: bool = False
    disk_full: bool = False


@dataclass(slots=True, kw_only=True)
class Copy:
    """A process: it is alive until it crashes, and nothing of it remains then.

    Attributes:
        name: for the trace.
        alive: whether it runs.
        turns: its threads.
    """

    name: str
    alive: bool = True
    turns: list[Turn] = field(default_factory=list)

    def kill(self) -> None:
        """Ends it wherever it stands."""
        self.alive = False
        for turn in self.turns:
            turn.kill()


class Edge:
    """All calls that leave one copy."""

    def __init__(self, copy: Copy, faults: Faults, around: Surroundings) -> None:
        self.copy = copy
        self.faults = faults
        self.around = around

    def call(
        self,
        what: str,
        effect: Callable[[], Result],
        kinds: Sequence[Fault],
        parts: Mapping[Fault, Callable[[], object]] | None = None,
    ) -> Result:
        """Gives the turn back, then does `effect`, or what a fault makes of it.

        Raises:
            Transient: the dependency fails. Crash: the copy ends here.
        """
        fault = self.enter(what, kinds)
        if parts and fault is not None and fault in parts:
            parts[fault]()
            raise Transient(f"simulated: {what} failed halfway")
        result = effect()
        self.leave(what, fault)
        return result

    def enter(self, what: str, kinds: Sequence[Fault]) -> Fault | None:
        """What comes before a call; gives the fault that comes with or after it."""
        pause()
        if not self.copy.alive:
            raise Crash
        fault = self.faults.draw(self.copy.name, what, kinds)
        if fault is Fault.CRASH_BEFORE:
            self._end()
        if fault is Fault.LOST:
            raise Transient(f"simulated: {what} failed")
        return fault

    def leave(self, what: str, fault: Fault | None) -> None:
        """What comes after a call that was done."""
        if fault is Fault.CRASH_AFTER:
            self._end()
        if fault is Fault.UNKNOWN:
            raise Transient(f"simulated: no answer to {what}")

    def _end(self) -> None:
        self.copy.alive = False
        raise Crash


class CopyStore(ClickHouse):
    """ClickHouse as one copy has it."""

    def __init__(self, edge: Edge, store: Store) -> None:
        super().__init__()
        self.edge = edge
        self.store = store

    def query(
        self,
        sql: str,
        parameters: Mapping[str, object] | None = None,
        settings: Mapping[str, object] | None = None,
    ) -> Sequence[Sequence[Any]]:
        def effect() -> Sequence[Sequence[Any]]:
            self._require_here()
            return self.store.query(sql, parameters or {}, settings)

        return self.edge.call("query", effect, READ)

    def command(self, sql: str, parameters: Mapping[str, object] | None = None) -> None:
        def effect() -> None:
            self._require_here()
            self.store.command(sql, parameters or {})

        self.edge.call("command", effect, WRITE)

    def insert(self, table: str, columns: Sequence[str], rows: bytes) -> None:
        def effect() -> None:
            self._require_here()
            self._require_room()
            self.write(table, columns, rows)

        kinds = _TWO_PARTS if table in VIEWS else WRITE
        self.edge.call(f"insert into {table}", effect, kinds, self._parts(table, columns, rows))

    def write(self, table: str, columns: Sequence[str], rows: bytes) -> None:
        """The insert itself."""
        self.store.insert(table, columns, rows)

    def _parts(
        self, table: str, columns: Sequence[str], rows: bytes
    ) -> Mapping[Fault, Callable[[], object]]:
        """An insert and what views make of it are not one step."""
        store = self.store
        if not isinstance(store, SimulatedStore):
            # The real engine can't be told to do a part: all of it, or nothing.
            return {
                Fault.PART: lambda: store.insert(table, columns, rows),
                Fault.REST: lambda: None,
            }

        return {
            Fault.PART: lambda: store.insert_one(table, columns, rows, 0),
            Fault.REST: lambda: store.insert_one(table, columns, rows, -1),
        }

    def client(self) -> Client:
        return cast("Client", self)

    @contextmanager
    def query_np_stream(
        self, sql: str, parameters: Mapping[str, object], settings: Mapping[str, object]
    ) -> Iterator[Any]:
        """Part of the client's face that `rebuild` uses."""
        del settings
        # A thread of the loader's own may ask: it has no turns, and the copy can't end in it.
        kinds = READ if current_turn() else (Fault.LOST,)

        def effect() -> Any:
            self._require_here()
            return self.numbers_of(self.store.numbers(sql, parameters))

        try:
            numbers = self.edge.call("keys", effect, kinds)
        except Transient as problem:
            raise OperationalError(str(problem)) from problem
        yield [numbers[:3], numbers[3:]]

    def numbers_of(self, found: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        """An answer of keys, on its way to the loader."""
        return found

    def _require_here(self) -> None:
        if self.edge.around.store_away:
            raise Transient("simulated: ClickHouse is away")

    def _require_room(self) -> None:
        if self.edge.around.disk_full:
            raise Transient("simulated: ClickHouse has no space left")


@dataclass(slots=True, kw_only=True, eq=False)
class Submission:
    """Records on their way to the log."""

    copy: Copy
    partition: int
    values: Sequence[bytes]
    done: Done
    answer: int | Exception | None = None
    late: bool = False


class Network:
    """Between copies and the log: submissions of a copy to a partition arrive in order."""

    def __init__(self, records: Records, faults: Faults, around: Surroundings) -> None:
        self.records = records
        self._faults = faults
        self._around = around
        self.waiting: list[Submission] = []

    def send(self, submission: Submission) -> None:
        self.waiting.append(submission)

    @property
    def due(self) -> list[Submission]:
        """Those that may arrive, or be answered, next."""
        found: dict[tuple[str, int, bool], Submission] = {}
        for each in self.waiting:
            found.setdefault((each.copy.name, each.partition, each.late), each)
        return list(found.values())

    def move(self, submission: Submission) -> None:
        """One step: the records arrive, or their answer does."""
        if submission.answer is not None:
            self.waiting.remove(submission)
            submission.done(submission.answer)
            return
        if submission.late:
            self.waiting.remove(submission)
            self.records.append(submission.partition, submission.values)
            return
        submission.answer = self._arrive(submission)

    def _arrive(self, submission: Submission) -> int | Exception:
        partition, values = submission.partition, submission.values
        if self._around.log_away or self._around.disk_full:
            return Transient("simulated: the log is away or full")
        kinds = _APPEND if self.records.embedded else _APPEND_FAR
        fault = self._faults.draw(submission.copy.name, f"append to {partition}", kinds)
        if fault is Fault.LATE:
            self.waiting.append(
                Submission(
                    copy=submission.copy,
                    partition=partition,
                    values=values,
                    done=submission.done,
                    late=True,
                )
            )
        if fault is Fault.LOST or fault is Fault.LATE:
            return Transient("simulated: the append failed")
        if fault is Fault.PART:
            values = values[: len(values) // 2]
        if not values:
            return Transient("simulated: the append failed")
        last = self.records.append(partition, values)
        if fault is Fault.TWICE:
            last = self.records.append(partition, values)
        if fault is Fault.UNKNOWN or fault is Fault.PART:
            return Transient("simulated: no answer to the append")
        return last


class CopyLog:
    """An `EventLog` as one copy has it."""

    def __init__(self, edge: Edge, network: Network) -> None:
        self.edge = edge
        self.network = network
        self.records = network.records

    @property
    def generation(self) -> int:
        return self.records.generation

    @property
    def partitions(self) -> int:
        return self.records.partitions

    def submit(self, partition: int, values: Sequence[bytes], done: Done) -> None:
        answers: list[int | Exception] = []
        turn = current_turn()
        self.network.send(
            Submission(
                copy=self.edge.copy,
                partition=partition,
                values=list(values),
                done=done if turn is None else answers.append,
            )
        )
        if turn is not None:
            # A thread would wait for the answer, a loop goes on.
            pause(lambda: bool(answers))
            done(answers[0])

    def read(self, partition: int, after: int, bytes_max: int) -> list[StoredRecord]:
        def effect() -> list[StoredRecord]:
            self._require_here()
            return self.records.read(partition, after, bytes_max)

        return self.edge.call("read", effect, READ)

    def wait(
        self, partition: int, after: int, seconds: float
    ) -> bool:  # tidy: allow-float -- a wait
        return self.wait_until(partition, after, lambda: False)

    def wait_until(self, partition: int, after: int, over: Callable[[], bool]) -> bool:
        """Waits for a record, or for the end of the wait; whether a record is there."""
        history = self.records.history[partition]
        pause(lambda: over() or (bool(history) and history[-1].offset > after))
        return bool(history) and history[-1].offset > after

    def end(self, partition: int) -> int:
        return self.edge.call("end", lambda: self.records.end(partition), READ)

    def released(self, partition: int) -> int:
        return self.edge.call("released", lambda: self.records.released(partition), READ)

    def release(self, partition: int, through: int, reader: str = LOADER) -> None:
        kinds = (Fault.CRASH_BEFORE, Fault.CRASH_AFTER)
        self.edge.call("release", lambda: self.records.release(partition, through, reader), kinds)

    def begin_after(self, partition: int, offset: int) -> None:
        raise AssertionError("no log is lost here")

    def backlog_bytes(self) -> int:
        return self.records.backlog_bytes()

    def refusal(self) -> str:
        return ""

    def close(self) -> None:
        """Nothing is held."""

    def _require_here(self) -> None:
        if self.edge.around.log_away:
            raise Transient("simulated: the log is away")
