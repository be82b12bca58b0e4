"""The loader as a function.

Embedded: a thread for every partition of the log, as long as the process runs. On Kafka: for the
partitions that the group of loaders gives to this process; it takes part for ever
(`TOLLGATE_LOAD_MODE=consume`), or from a ring of the doorbell until all is quiet (`doorbell`).
"""

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING

from prometheus_client.core import Metric

from tollgate.core.errors import PermanentFault, TollgateError
from tollgate.events.control import open_control
from tollgate.events.ledger import open_frontier, read_frontier, read_last_written
from tollgate.events.load import DAY_US, Loader
from tollgate.events.load_progress import LoadLimits
from tollgate.events.load_workers import LoadWorkers, Worker
from tollgate.platform.access import KeyIndex, Scope
from tollgate.platform.application import send_reply
from tollgate.platform.body import ClientGone, Receive, Send, header
from tollgate.platform.body import Scope as Request
from tollgate.platform.event_log import EventLog
from tollgate.platform.keys import open_keys
from tollgate.platform.parts import Parts, open_clickhouse, open_layouts, open_log
from tollgate.platform.settings import LoadMode
from tollgate.platform.telemetry import counter, gauge

if TYPE_CHECKING:
    from tollgate.events.doorbell import Doorbell
    from tollgate.platform.kafka_group import GroupMember


def open_workers(parts: Parts) -> LoadWorkers:
    """The workers of this process; none is at work yet."""
    settings, clickhouse = parts.settings, parts.get(open_clickhouse)
    limits = LoadLimits(
        events_max=settings.load_events_max,
        wait_ms=settings.load_wait_ms,
        window_us=settings.dedupe_window_days * DAY_US,
        dead_letters_max=settings.load_dead_letters_max,
    )

    def new_loader(log: EventLog, partition: int) -> Loader:
        loader = Loader(
            log=log,
            partition=partition,
            clickhouse=clickhouse,
            frontier=parts.get(open_frontier),
            limits=limits,
            clock=parts.clock,
        )
        if clickhouse.embedded:
            # A backup, which only the embedded world knows, stops all loaders at one gate.
            loader.gate = parts.get(open_control).gate
        return loader

    return LoadWorkers(parts.get(open_layouts), clickhouse, parts.get(open_frontier), new_loader)


class LoadService:
    """The service of `functions/load`."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._keys: KeyIndex = parts.get(open_keys)
        self._workers = parts.get(open_workers)
        self._member: GroupMember | None = None
        self._doorbell: Doorbell | None = None
        self._was_ready = False

    async def start(self) -> None:
        """Begins to load, to join the group, or to wait for a ring."""
        settings = self._parts.settings
        if not settings.log_url.startswith("kafka:"):
            if settings.load_mode is LoadMode.DOORBELL:
                raise PermanentFault("TOLLGATE_LOAD_MODE=doorbell: only for a log on Kafka")
            await asyncio.to_thread(self._load_everything)
            return
        from tollgate.platform.kafka_client import kafka_place
        from tollgate.platform.kafka_group import GroupMember

        self._member = GroupMember(kafka_place(settings), self._workers)
        frontier = self._parts.get(open_frontier)
        frontier.subscribe(self._member.commit)
        if settings.load_mode is LoadMode.DOORBELL:
            from tollgate.events.doorbell import Doorbell, Patience

            patience = Patience(
                ring_seconds=settings.load_ring_seconds, idle_seconds=settings.load_idle_seconds
            )
            self._doorbell = Doorbell(self._member, self._workers, frontier, patience)
        else:
            self._member.start()

    def _load_everything(self) -> None:
        log, clickhouse = self._parts.get(open_log), self._parts.get(open_clickhouse)
        if clickhouse.embedded:
            for partition in range(log.partitions):
                loaded = read_frontier(clickhouse, log.generation, partition)
                end = log.end(partition)
                if end < loaded or end < 0:
                    # The log was lost, maybe between a batch's writes: no offset is used twice.
                    written = read_last_written(clickhouse, log.generation, partition)
                    log.begin_after(partition, max(loaded, written))
        self._workers.assigned([(log.generation, p) for p in range(log.partitions)])

    async def stop(self) -> None:
        """Lets the batches at hand be written, gives back the partitions, ends the threads."""
        if self._doorbell is not None:
            await self._doorbell.close()
        elif self._member is not None:
            await asyncio.to_thread(self._member.stop)
        await asyncio.to_thread(self._workers.stop)

    async def tend(self) -> None:
        """Housekeeping: the dedupe window, and what is over."""
        if self._member is not None:
            for key in await asyncio.to_thread(self._workers.retire):
                self._member.commit_end(*key)
        for worker in self._workers.workers():
            if worker.loader is not None and worker.loader.progress.ready:
                await asyncio.to_thread(worker.loader.tend)

    def unreadiness(self) -> str:
        """Ready once all that is ours knew where it stands, be it nothing; from then on, for good.

        A store that goes away later is told by metrics and the log: the process that also takes
        events in must stay in service, since the log keeps them meanwhile. Who waits for a ring
        needs nothing to take it.
        """
        if self._was_ready or self._doorbell is not None:
            return ""
        if self._member is not None and not self._member.joined:
            return self._member.failure or "joining the group of loaders"
        for worker in self._workers.workers():
            if reason := worker.unreadiness():
                return reason
        self._was_ready = True
        return ""

    def metrics(self) -> Iterable[Metric]:
        """Events by outcome, lag and freshness, of what is ours; counts also of what was."""
        total, workers = self._workers.total(), self._workers.workers()
        lag, late_us = self._lag(workers)
        yield counter(
            "tollgate_load_events",
            "Events loaded, by what became of them.",
            [({"outcome": name}, count) for name, count in total.counts.items()],
        )
        yield counter("tollgate_load_corrections", "Corrections loaded.", [({}, total.corrections)])
        yield counter("tollgate_load_batches", "Batches written.", [({}, total.batches)])
        yield counter("tollgate_load_failures", "Tries that were repeated.", [({}, total.failures)])
        yield gauge("tollgate_load_seconds_total", "Time spent writing batches.", total.seconds)
        yield gauge("tollgate_load_partitions", "Partitions that are ours.", len(workers))
        yield gauge(
            "tollgate_load_partitions_waiting",
            "Partitions that are ours and not loaded yet: older generations come first, keys are"
            " read, or a try failed.",
            sum(1 for worker in workers if worker.waits),
        )
        yield gauge(
            "tollgate_load_partitions_stopped",
            "Partitions of which nothing is loaded before a person has looked; the log says why.",
            sum(1 for w in workers if w.loader is not None and w.loader.progress.stopped),
        )
        if self._member is not None:
            yield gauge(
                "tollgate_load_group_joined",
                "1 while this process takes part in the group of loaders.",
                int(self._member.joined),
            )
        yield gauge(
            "tollgate_load_lag_records", "Records of our partitions and not yet loaded.", lag
        )
        yield gauge(
            "tollgate_load_freshness_seconds",
            "Age of the newest loaded record while more wait; 0 when all is loaded.",
            late_us / 1_000_000,
        )
        yield gauge(
            "tollgate_load_filter_bytes",
            "Memory of the filters that find known keys.",
            sum(w.loader.seen.size_bytes for w in workers if w.loader is not None),
        )

    def _lag(self, workers: Iterable[Worker]) -> tuple[int, int]:
        """Records that wait, and the age in microseconds of the oldest news; 0 if unknown."""
        layouts, now = self._parts.get(open_layouts), self._parts.clock.now_us()
        lag = late_us = 0
        for worker in workers:
            if worker.loader is None:
                continue
            progress = worker.loader.progress
            if not progress.known:
                continue
            generation, partition = worker.partition
            try:
                end = layouts.open(generation).end(partition)
            except TollgateError:
                continue  # the log is away: what it holds is unknown, the other figures are not
            behind = max(0, end - progress.frontier)
            lag += behind
            if behind and progress.loaded_through_us:
                late_us = max(late_us, now - progress.loaded_through_us)
        return lag, late_us

    async def __call__(self, scope: Request, receive: Receive, send: Send) -> None:
        """A ring. Loaders that are awake need none; the doorbell answers when all is loaded.

        The doorbell asks for no key: what rings it (a Knative KafkaSource) can't carry one, and a
        ring tells nothing and does only what is due anyway.
        """
        if self._doorbell is None:
            access = self._keys.check(header(scope, b"authorization"), self._parts.clock)
            access.require(Scope.ADMIN)
        else:
            await _discard(receive)
            await self._doorbell.ring()
        await send_reply(send, 204, [], b"")


async def _discard(receive: Receive) -> None:
    """Reads a body to its end, since a record may be longer than what a connection buffers."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        if not message.get("more_body"):
            return
