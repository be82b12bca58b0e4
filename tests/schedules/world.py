"""One schedule: copies, clients and what is not ours, and who of them takes the next step."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from tests.schedules.archiving import PatientLog, SimulatedObjects, new_archiver
from tests.schedules.cast import Actor, ArchiverRun, Cast, LoaderRun
from tests.schedules.clients import Client
from tests.schedules.clocks import DAY_US, TrueTime, WorldClock
from tests.schedules.edges import Copy, CopyLog, CopyStore, Edge, Network, Surroundings
from tests.schedules.faults import Faults
from tests.schedules.ingesting import CorrectionCopy, IngestCopy
from tests.schedules.log import Records
from tests.schedules.options import Options
from tests.schedules.probe import Probe
from tests.schedules.sealing import ControlPlane, new_sealer, run_sealer
from tests.schedules.store import Store
from tests.schedules.truth import Attempt, Truth
from tests.schedules.turns import Turn, TurnEvent, TurnLock
from tollgate.core.errors import TollgateError
from tollgate.events.ingest import IngestLimits
from tollgate.events.ledger import Frontier, read_frontier
from tollgate.events.load import Loader
from tollgate.events.load_progress import LoadLimits
from tollgate.events.position import Token
from tollgate.platform.clickhouse import ClickHouse

_WEIGHTS = (1, 2, 2, 5, 20)
_NETWORK_WEIGHT = 4
_STEP_US = (0, 1, 1000, 20_000)
NewStore = Callable[[Edge, Store], CopyStore]
NewLog = Callable[[Edge, Network], CopyLog]


class Unsettled(AssertionError):
    """All faults are over and something still does not come to an end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a schedule runs on, and how copies reach it.

    Attributes:
        records: keeps records.
        store: keeps rows.
        time: what passes.
        clock: of the log.
        new_store, new_log: a copy's ways to them: the ones of `edges`, or some with a defect.
        new_objects: object storage.
    """

    records: Records
    store: Store
    time: TrueTime
    clock: WorldClock
    new_store: NewStore = CopyStore
    new_log: NewLog = CopyLog
    new_objects: Callable[[], SimulatedObjects] = SimulatedObjects


class World:
    """Runs a schedule to its end."""

    def __init__(self, options: Options, parts: Parts, kept: frozenset[int] | None) -> None:
        self.options = options
        self.parts = parts
        self.around = Surroundings()
        self.faults = Faults(seed=options.seed, rate=options.fault_rate, kept=kept)
        self.truth = Truth()
        self.trace: list[str] = []
        self.days_due = 0
        self.steps = 0
        self.chance = random.Random(f"turns {options.seed}")
        self.network = Network(parts.records, self.faults, self.around)
        self.cast = Cast()
        self._copies = 0
        self.clocks: list[WorldClock] = [parts.clock]
        self.clients = [self._client(number) for number in range(options.clients)]
        self.objects = parts.new_objects() if options.archives else None
        self.control = ControlPlane() if options.seals else None
        self.probe = self._start_probe()
        self.start_missing()

    def _start_probe(self) -> Probe:
        # Whoever asks sees what is away, and nothing worse: it keeps nothing that could go wrong.
        faults = Faults(seed=self.options.seed, rate=0)
        edge = Edge(Copy(name="usage"), faults, self.around)
        store = self.parts.new_store(edge, self.parts.store)
        probe = Probe(store, self.namespaces)
        turn = self.asking = Turn("usage", probe.run)
        self._add_actor("usage", turn.step, lambda: turn.runnable, probe)
        return probe

    def _client(self, number: int) -> Client:
        client = Client(
            name=f"c{number}",
            namespace=f"ns{number % 2}-{self.options.seed}",
            chance=random.Random(f"client {number} {self.options.seed}"),
            truth=self.truth,
            time=self.parts.time,
            requests_left=self.options.requests,
            # What is on its way for a day, by clocks that differ by one, is still in the window.
            resend_us_max=(self.options.window_us or 10_000 * DAY_US) - 2 * DAY_US,
        )
        self._add_actor(
            client.name,
            lambda: client.step(self._send),
            lambda: not (client.waits or client.done or (client.idle and self.days_due)),
            client,
        )
        return client

    def _add_actor(
        self, name: str, step: Callable[[], None], runnable: Callable[[], bool], owner: object
    ) -> None:
        weight = self.chance.choice(_WEIGHTS)
        self.cast.actors.append(
            Actor(name=name, step=step, runnable=runnable, owner=owner, weight=weight)
        )

    def _clock(self) -> WorldClock:
        skew = self.options.skew_us
        self.clocks.append(WorldClock(self.parts.time, self.chance.randint(-skew, skew)))
        return self.clocks[-1]

    def new_copy(self, kind: str) -> Copy:
        self._copies += 1
        return Copy(name=f"{kind}-{self._copies}")

    def note(self, text: str) -> None:
        self.trace.append(text)

    # Copies that start

    def start_missing(self) -> None:
        """Starts what must be there and is not: each partition has a loader, ingest a copy."""
        records = self.parts.records
        wanted = 1 if records.embedded else 2
        loaded = {run.partition for run in self.cast.loaders if not run.stop.is_set()}
        missing = [p for p in range(records.partitions) if p not in loaded]
        if records.embedded:
            if not self.cast.ingests:
                copy = self.new_copy("host")
                self.start_ingest(copy)
                self.start_corrections(copy)
                self.start_loader(copy, 0)
                self.start_archiver(copy, 0)
            return
        while len(self.cast.ingests) < wanted:
            self.start_ingest(self.new_copy("ingest"))
        if not self.cast.corrections:
            self.start_corrections(self.new_copy("corrections"))
        if missing:
            copy = self.new_copy("load")
            for partition in missing:
                self.start_loader(copy, partition)

        archived = {run.partition for run in self.cast.archivers}
        for partition in range(records.partitions if self.objects is not None else 0):
            if partition not in archived:
                self.start_archiver(self.new_copy("archive"), partition)

    def start_ingest(self, copy: Copy) -> None:
        options = self.options
        limits = IngestLimits(
            event_bytes_max=1 << 20,
            batch_events_max=1000,
            record_bytes_max=options.record_bytes_max,
            pending_bytes_max=max(3000, options.record_bytes_max),
            log_bytes_max=options.log_bytes_max,
        )
        edge = Edge(copy, self.faults, self.around)
        log = self.parts.new_log(edge, self.network)
        started = IngestCopy(edge, log, self._clock(), limits)
        self.cast.ingests.append(started)
        self._add_actor(copy.name, started.loop.step, lambda: started.runnable, started)
        self.note(f"{copy.name} starts")

    def start_corrections(self, copy: Copy) -> None:
        edge = Edge(copy, self.faults, self.around)
        store = self.parts.new_store(edge, self.parts.store)
        log = self.parts.new_log(edge, self.network)
        self.cast.corrections.append(CorrectionCopy(edge, store, log, self._clock()))

    def start_loader(self, copy: Copy, partition: int) -> None:
        edge = Edge(copy, self.faults, self.around)
        store = self.parts.new_store(edge, self.parts.store)
        log = self.parts.new_log(edge, self.network)
        loader = Loader(
            log=log,
            partition=partition,
            clickhouse=store,
            frontier=Frontier(store),
            limits=LoadLimits(
                events_max=self.options.events_max,
                wait_ms=0,
                window_us=self.options.window_us,
                dead_letters_max=1000,
            ),
            clock=self._clock(),
        )
        loader.gate = cast("Any", TurnLock())
        stop = TurnEvent(lambda: self.steps)
        name = f"{copy.name} partition {partition}"
        turn = Turn(name, lambda: loader.run(stop))
        copy.turns.append(turn)
        run = LoaderRun(copy=copy, partition=partition, loader=loader, stop=stop, turn=turn)
        self.cast.loaders.append(run)
        self._add_actor(name, turn.step, lambda: turn.runnable, run)
        self.note(f"{name} starts")

    def start_archiver(self, copy: Copy, partition: int) -> None:
        if self.objects is None:
            return
        edge = Edge(copy, self.faults, self.around)
        log = PatientLog(edge, self.network)
        log.time = self.parts.time
        archiver = new_archiver(edge, log, self.objects, partition, self._clock())
        stop = TurnEvent(lambda: self.steps)
        turn = Turn(f"{copy.name} archives {partition}", lambda: archiver.run(stop))
        copy.turns.append(turn)
        run = ArchiverRun(copy=copy, partition=partition)
        self.cast.archivers.append(run)
        self._add_actor(turn.name, turn.step, lambda: turn.runnable, run)

    def start_sealing(self) -> None:
        """A run of a process that seals; another may be on its way."""
        if self.control is None:
            return
        copy = self.new_copy("seal")
        edge = Edge(copy, self.faults, self.around)
        store = self.parts.new_store(edge, self.parts.store)
        log = self.parts.new_log(edge, self.network)
        sealer = new_sealer(edge, (store, log), self.control.open(edge), self._clock())
        turn = Turn(copy.name, lambda: run_sealer(sealer, self.note))
        copy.turns.append(turn)
        self.cast.sealing.append(copy)
        self._add_actor(copy.name, turn.step, lambda: turn.runnable, copy)

    def start_tending(self, run: LoaderRun) -> None:
        """Housekeeping of a loader, in a thread of its own."""

        def tend() -> None:
            try:
                run.loader.tend()
            except TollgateError as problem:
                self.note(f"tending failed: {problem}")

        turn = Turn(f"{run.turn.name} tending", tend)
        run.copy.turns.append(turn)
        self._add_actor(turn.name, turn.step, lambda: turn.runnable, run)

    # Copies that end

    def end(self, copy: Copy) -> None:
        """A process is gone: whoever waits for it hears nothing."""
        copy.kill()
        self.note(f"{copy.name} is dead")
        cast = self.cast
        gone: list[object] = [copy, *(run for run in cast.loaders if run.copy is copy)]
        gone += [run for run in cast.archivers if run.copy is copy]
        cast.archivers = [run for run in cast.archivers if run.copy is not copy]
        if any(run.copy is copy for run in cast.loaders):
            self.parts.records.restart()
        servers: list[IngestCopy | CorrectionCopy] = [*cast.ingests, *cast.corrections]
        for asked in [each for each in servers if each.edge.copy is copy]:
            gone.append(asked)
            for heard in asked.end():
                heard(ConnectionError("simulated: connection reset"))
        cast.sealing = [each for each in cast.sealing if each is not copy]
        cast.loaders = [run for run in cast.loaders if run.copy is not copy]
        cast.ingests = [each for each in cast.ingests if each.edge.copy is not copy]
        cast.corrections = [each for each in cast.corrections if each.edge.copy is not copy]
        self.cast.actors = [each for each in self.cast.actors if each.owner not in gone]

    @property
    def copies(self) -> list[Copy]:
        """Processes that are alive."""
        found = [run.copy for run in self.cast.loaders]
        found += [each.edge.copy for each in self.cast.ingests]
        found += [each.edge.copy for each in self.cast.corrections]
        found += [run.copy for run in self.cast.archivers]
        found += self.cast.sealing
        return list({copy.name: copy for copy in found}.values())

    # Steps

    def _send(self, attempt: Attempt, heard: Callable[[Token | Exception], None]) -> bool:
        self.note(str(attempt))

        def hear(outcome: Token | Exception) -> None:
            self.note(f"request {attempt.number}: {outcome}")
            heard(outcome)

        if attempt.kind != "events":
            if not self.cast.corrections:
                return False
            asked = self.cast.corrections[0]
            turn = asked.send(attempt.kind, attempt.name, attempt.items, hear)
            self._add_actor(turn.name, turn.step, lambda: turn.runnable, asked)
            return True
        if not self.cast.ingests:
            return False
        chosen = self.chance.choice(self.cast.ingests)
        chosen.send(attempt.items, hear, at_once=self.chance.random() < 0.5)
        return True

    def step(self) -> bool:
        """One of all that can takes a step; False if nobody can."""
        # Time passes without anybody, too: who waits for a while may be the only one.
        self.steps += 1
        due = self.network.due
        ready = [each for each in self.cast.actors if not each.asleep and each.runnable()]
        weights = [actor.weight for actor in ready] + [_NETWORK_WEIGHT] * len(due)
        if not weights:
            return False
        (number,) = self.chance.choices(range(len(weights)), weights)
        self.parts.time.us += self.chance.choice(_STEP_US)
        if number < len(ready):
            ready[number].step()
        else:
            self.network.move(due[number - len(ready)])
        for copy in self.copies:
            if not copy.alive:
                self.end(copy)
        return True

    def weigh(self, chance: random.Random) -> None:
        """From now on others come first."""
        for actor in self.cast.actors:
            actor.weight = chance.choice(_WEIGHTS)

    def loaded_through(self, partition: int) -> int:
        """How far the ledger has come."""
        return read_frontier(self.plain_store(), self.parts.records.generation, partition)

    def plain_store(self, store: Store | None = None) -> ClickHouse:
        """A store, by default the schedule's, without faults and defects."""
        edge = Edge(Copy(name="checker"), Faults(seed=0, rate=0), Surroundings())
        return CopyStore(edge, store or self.parts.store)

    @property
    def namespaces(self) -> list[str]:
        """Of all clients."""
        return sorted({client.namespace for client in self.clients})

    def require_settled(self) -> None:
        """Nobody can take a step: then nobody may wait for anything.

        Raises:
            Unsettled: somebody does.
        """
        records = self.parts.records
        waiting = [client.name for client in self.clients if not client.done]
        behind = [
            partition
            for partition in range(records.partitions)
            if self.loaded_through(partition) < _last_offset(records, partition)
        ]
        if waiting or behind:
            raise Unsettled(f"clients {waiting} wait, partitions {behind} are not loaded")

    def close(self) -> None:
        """Ends all that runs."""
        for copy in self.copies:
            self.end(copy)
        self.asking.kill()
        if self.control is not None:
            self.control.close()


def _last_offset(records: Records, partition: int) -> int:
    kept = records.history[partition]
    return kept[-1].offset if kept else -1
