"""Runs a schedule: things happen, then all is calm, then what is stored must be right."""

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass

from tests.schedules.check import check
from tests.schedules.clocks import DAY_US, SECOND_US, TrueTime, WorldClock
from tests.schedules.edges import CopyLog, CopyStore
from tests.schedules.log import SimulatedRecords
from tests.schedules.options import Options, readers_of
from tests.schedules.store import SimulatedStore
from tests.schedules.turns import WAIT_STEPS
from tests.schedules.world import NewLog, NewStore, Parts, Unsettled, World
from tollgate.events.archive_chain import RECORDS, Chain

_STEPS_MAX = 6000
_CALM_STEPS_MAX = 8000
_LOADERS_MAX = 3
# In 1000 steps.
_BACK_RATE = 20
_START_RATE = 100
_SEAL_RATE = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a schedule ended.

    Attributes:
        problem: what did not hold; None: all did.
        fired: the faults, by number.
        trace: what happened.
        steps: how many were taken.
    """

    options: Options
    problem: BaseException | None
    fired: list[tuple[int, str]]
    trace: list[str]
    steps: int


class Events:
    """What happens to the world, one method each."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._ticks = random.Random(f"events {world.options.seed}")
        # Of each event its own: one that is left out changes nothing of those that follow.
        self._chance = random.Random()

    def happen(self) -> None:
        """Maybe one of them; and what is away may come back, what is dead may start."""
        world, faults = self._world, self._world.faults
        kinds = _EVENTS_OF_WINDOW if world.options.window_us else _EVENTS
        kind = self._ticks.choice(kinds)
        back, start, wake, ask = (self._ticks.randrange(1000) for _ in range(4))
        if faults.event(world.options.event_rate, kind.__name__.strip("_")):
            self._chance.seed(f"event {faults.seed} {faults.fired[-1][0]}")
            kind(self)
        if back < _BACK_RATE:
            world.around.store_away = world.around.log_away = world.around.disk_full = False
        if start < _START_RATE:
            world.start_missing()
        sleeping = [actor for actor in world.cast.actors if actor.asleep]
        if sleeping and wake < _BACK_RATE:
            sleeping[wake % len(sleeping)].asleep = False
        if world.days_due and self._is_quiet():
            world.parts.time.us += world.days_due * DAY_US
            world.days_due = 0
            if ask % 2:
                self._housekeeping_is_due()
        if ask < _BACK_RATE:
            world.probe.wanted = True
            if ask < _SEAL_RATE:
                world.start_sealing()

    def _store_goes_away(self) -> None:
        self._world.around.store_away = True

    def _log_goes_away(self) -> None:
        self._world.around.log_away = True

    def _disk_fills(self) -> None:
        self._world.around.disk_full = True

    def _copy_is_killed(self) -> None:
        if self._world.copies:
            self._world.end(self._chance.choice(self._world.copies))

    def _somebody_falls_asleep(self) -> None:
        self._chance.choice(self._world.cast.actors).asleep = True

    def _loader_is_copied(self) -> None:
        """The group gives a partition to another process; the first may not know."""
        world = self._world
        if world.parts.records.embedded:
            return
        partition = self._chance.randrange(world.parts.records.partitions)
        if sum(run.partition == partition for run in world.cast.loaders) < _LOADERS_MAX:
            world.start_loader(world.new_copy("load"), partition)

    def _loader_is_told_to_stop(self) -> None:
        loaders = self._world.cast.loaders
        several = [
            run
            for run in loaders
            if any(
                o.partition == run.partition and o is not run and not o.stop.is_set()
                for o in loaders
            )
        ]
        if several:
            self._chance.choice(several).stop.set()

    def _hours_pass(self) -> None:
        if self._is_quiet() or not self._world.options.window_us:
            self._world.parts.time.us += self._chance.randint(1, 20) * 3600 * SECOND_US

    def _day_passes(self) -> None:
        """As soon as nothing is on its way; clients begin nothing before."""
        self._world.days_due = self._chance.choice((1, 1, 2))

    def _is_quiet(self) -> bool:
        """Whether nothing is on its way to the log: no request and no producer waits for days."""
        world = self._world
        idle = all(client.idle for client in world.clients)
        return idle and not world.network.waiting and all(each.idle for each in world.cast.ingests)

    def _clock_is_set(self) -> None:
        clock, skew = self._chance.choice(self._world.clocks), self._world.options.skew_us
        clock.skew_us = self._chance.randint(-skew, skew)

    def _rows_are_merged(self) -> None:
        store = self._world.parts.store
        if isinstance(store, SimulatedStore):
            store.merge()

    def _log_expires(self) -> None:
        """Retention deletes what is loaded and archived."""
        world = self._world
        for partition in range(world.parts.records.partitions):
            through = world.loaded_through(partition)
            if world.objects is not None:
                chain = Chain(world.objects, RECORDS, world.parts.records.generation, partition)
                through = min(through, chain.look())
            world.parts.records.expire(partition, through)

    def _archiver_is_copied(self) -> None:
        world = self._world
        if world.objects is not None and not world.parts.records.embedded:
            partition = self._chance.randrange(world.parts.records.partitions)
            if sum(run.partition == partition for run in world.cast.archivers) < _LOADERS_MAX:
                world.start_archiver(world.new_copy("archive"), partition)

    def _offset_is_skipped(self) -> None:
        records = self._world.parts.records
        if isinstance(records, SimulatedRecords):
            records.skip(self._chance.randrange(records.partitions))

    def _garbage_is_appended(self) -> None:
        """What is no record is a dead letter, and holds nothing up."""
        records = self._world.parts.records
        if not self._world.around.log_away:
            records.append(self._chance.randrange(records.partitions), [b"no record"])

    def _housekeeping_is_due(self) -> None:
        """Every process tends what it loads once an hour."""
        for run in self._world.cast.loaders:
            if run.loader.progress.ready:
                self._world.start_tending(run)

    def _sealing_is_due(self) -> None:
        self._world.start_sealing()

    def _client_gives_up(self) -> None:
        self._chance.choice(self._world.clients).give_up()

    def _others_come_first(self) -> None:
        self._world.weigh(self._chance)


_EVENTS: tuple[Callable[[Events], None], ...] = tuple(
    method
    for name, method in vars(Events).items()
    if name.startswith("_") and not name.startswith(("__", "_is_"))
)
# Where keys are forgotten, time and housekeeping are what matters.
_EVENTS_OF_WINDOW = (
    *_EVENTS,
    *(Events._day_passes, Events._housekeeping_is_due, Events._copy_is_killed) * 6,
)


class _Defects(logging.Handler):
    """Errors that the product catches, tells, and repeats: no dependency raises them."""

    def __init__(self) -> None:
        super().__init__()
        self._found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1] is not None:
            self._found.append(f"{record.getMessage()}: {record.exc_info[1]!r}")

    def require_none(self) -> None:
        assert not self._found, self._found


def run_schedule(options: Options, parts: Parts, kept: frozenset[int] | None = None) -> Outcome:
    """Runs a schedule and checks what is stored at its end."""
    world = World(options, parts, kept)
    events = Events(world)
    problem: BaseException | None = None
    steps = 0
    defects = _Defects()
    logging.getLogger("tollgate").addHandler(defects)
    try:
        while steps < _STEPS_MAX and not all(client.done for client in world.clients):
            steps += 1
            events.happen()
            world.step()
        steps += calm(world)
        seal_all(world)
        check(world)
        defects.require_none()
    except Exception as found:  # noqa: BLE001 -- whatever it is, the schedule has found it
        problem = found
    finally:
        logging.getLogger("tollgate").removeHandler(defects)
        world.close()
    return Outcome(
        options=options,
        problem=problem,
        fired=world.faults.fired,
        trace=world.trace,
        steps=steps,
    )


def calm(world: World) -> int:
    """Everything is there, nothing fails, who slept wakes up; gives the steps until all is done.

    Raises:
        Unsettled: that never comes.
    """
    world.note("all is calm from here on")
    world.faults.calm = True
    world.days_due = 0
    world.around.store_away = world.around.log_away = world.around.disk_full = False
    for actor in world.cast.actors:
        actor.asleep = False
    idle = 0
    for step in range(_CALM_STEPS_MAX):
        world.start_missing()
        idle = 0 if world.step() else idle + 1
        if idle > WAIT_STEPS:
            world.require_settled()
            return step
    failures = {r.loader.progress.last_failure for r in world.cast.loaders}
    raise Unsettled(f"not settled after {_CALM_STEPS_MAX} steps: {failures}")


def seal_all(world: World) -> None:
    """All hours of events are over, by whatever clock they were sealed before: one more run."""
    world.parts.time.us += 2 * DAY_US
    world.start_sealing()
    idle = 0
    while idle <= WAIT_STEPS:
        idle = 0 if world.step() else idle + 1


def simulated_parts(
    options: Options, *, new_store: NewStore = CopyStore, new_log: NewLog = CopyLog
) -> Parts:
    """Simulators of a log and a store."""
    time = TrueTime()
    clock = WorldClock(time)
    records = SimulatedRecords(
        generation=1,
        partitions=options.partitions,
        clock=clock,
        embedded=options.embedded,
        readers=readers_of(options),
    )
    return Parts(
        records=records,
        store=SimulatedStore(clock),
        time=time,
        clock=clock,
        new_store=new_store,
        new_log=new_log,
    )
