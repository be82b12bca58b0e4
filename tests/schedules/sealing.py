"""Copies that recount and seal, on a control plane that they share, and what their seals must say.

A bill reads sealed hours: of each hour what counts as of its last revision. Once all is sealed,
that must be all that counts, each event in one hour.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import sqlalchemy as sa

from tests.schedules.clocks import WorldClock
from tests.schedules.edges import READ, WRITE, CopyLog, CopyStore, Edge
from tests.schedules.probe import Counted
from tests.schedules.reference import Reckoning, reckon
from tests.schedules.turns import pause
from tests.support.migrated import migrated_sqlite
from tollgate.core.clock import datetime_from_us
from tollgate.core.errors import Transient
from tollgate.events.ledger import Frontier, Partition, read_frontiers_after
from tollgate.events.recount_store import RecountStore
from tollgate.events.seal import Seal
from tollgate.events.seal_run import Sealer
from tollgate.events.seal_store import SealStore
from tollgate.platform.event_log import OneLayout, StoredRecord
from tollgate.platform.sql import Database

LATENESS = timedelta(hours=1)
_LOOKS = 20
_SLICE_EVENTS = 3
_SEALS_MAX = 100_000
# Every commit waits for the disk; what is in memory is there at once, and no power is lost here.
_MEMORY = Path("/dev/shm")


class ControlPlane:
    """A file that all copies of a schedule open."""

    def __init__(self) -> None:
        memory = _MEMORY if _MEMORY.is_dir() else None
        self._folder = tempfile.TemporaryDirectory(prefix="schedule-", dir=memory)
        path = Path(self._folder.name) / "control.sqlite"
        path.write_bytes(migrated_sqlite())
        self.url = f"sqlite:///{path}"
        self._opened: list[Database] = []
        self.plain = self._keep(Database(self.url))

    def open(self, edge: Edge) -> "CopyDatabase":
        """As one copy has it."""
        made = CopyDatabase(edge, self.url)
        self._keep(made)
        return made

    def _keep(self, database: Database) -> Database:
        self._opened.append(database)
        return database

    def close(self) -> None:
        """Deletes it."""
        for database in self._opened:
            database.dispose()
        self._folder.cleanup()


class CopyDatabase(Database):
    """The control plane as one copy has it: a transaction fails, or its answer is lost."""

    def __init__(self, edge: Edge, url: str) -> None:
        super().__init__(url)
        self._edge = edge

    @contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        fault = self._edge.enter("transaction", WRITE)
        with super().begin() as connection:
            yield connection
        self._edge.leave("transaction", fault)

    @contextmanager
    def connect(self) -> Iterator[sa.Connection]:
        self._edge.enter("select", READ)
        with super().connect() as connection:
            yield connection


class LookingFrontier(Frontier):
    """Looks at the ledger between turns, where the product's waits for time to pass."""

    def __init__(self, store: CopyStore) -> None:
        super().__init__(store)
        self._store = store

    def reach(self, wanted: Mapping[Partition, int], milliseconds: int) -> bool:
        for _ in range(_LOOKS):
            found = read_frontiers_after(self._store, dict.fromkeys(wanted))
            if all(found.get(key, -1) >= offset for key, offset in wanted.items()):
                return True
            pause()
        return False


def new_sealer(
    edge: Edge, parts: tuple[CopyStore, CopyLog], database: Database, clock: WorldClock
) -> Sealer:
    """The sealer of one process."""
    store, log = parts
    return Sealer(
        clickhouse=store,
        layouts=OneLayout(log),
        frontier=LookingFrontier(store),
        store=SealStore(database),
        recounts=RecountStore(database),
        clock=clock,
        lateness=LATENESS,
        gapless=log.records.embedded,
        slice_events_max=_SLICE_EVENTS,
    )


def run_sealer(sealer: Sealer, note: Callable[[str], None]) -> None:
    """A run; if a store is away, the next one does it."""
    try:
        run = sealer.run()
    except Transient as problem:
        note(f"sealing failed: {problem}")
        return
    note(f"sealed through {run.through:%d %H:%M}: {run.problem or dict(run.blocked) or 'all'}")


def wrong_seals(
    database: Database, history: Sequence[Sequence[StoredRecord]], window_us: int
) -> Iterator[str]:
    """What does not balance, and where a bill of sealed hours differs from what counts."""
    for imbalance in RecountStore(database).imbalances():
        yield f"the ledger does not balance: {imbalance}"
    final, store = reckon(history, window_us), SealStore(database)
    then: dict[str, Reckoning] = {}
    candidates, last = dict(final.times), dict[str, list[Seal]]()
    for namespace in store.states():
        # By hour and revision: of those that cover an hour the last one is its last revision.
        last[namespace] = list(store.list(namespace, limit=_SEALS_MAX))
        last[namespace].sort(key=lambda seal: seal.revision)
        for vector in {str(seal.vector): seal.vector for seal in last[namespace]}.values():
            if str(vector) not in then:
                then[str(vector)] = reckon(history, window_us, vector.offsets)
            candidates |= then[str(vector)].times
    billed: Counted = {}
    for (namespace, place), time_us in candidates.items():
        at = datetime_from_us(time_us)
        covering = [seal for seal in last.get(namespace, ()) if seal.start <= at < seal.end]
        if covering and (counted := then[str(covering[-1].vector)].counting.get(place)):
            billed[place] = counted
    for place in billed.keys() ^ final.counting.keys():
        yield f"{place}: billed {billed.get(place)}, counts {final.counting.get(place)}"
