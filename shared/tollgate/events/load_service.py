"""The loader as a function: one thread per partition in the embedded world, woken by the log."""

import asyncio
import threading
from collections.abc import Iterable

from prometheus_client.core import Metric

from tollgate.events.control import open_control
from tollgate.events.ledger import open_frontier, read_frontier, read_last_written
from tollgate.events.load import DAY_US, Loader, LoadLimits
from tollgate.platform.access import KeyIndex, Scope
from tollgate.platform.application import send_reply
from tollgate.platform.body import Receive, Send, header
from tollgate.platform.body import Scope as Request
from tollgate.platform.keys import open_keys
from tollgate.platform.parts import Parts, open_clickhouse, open_log
from tollgate.platform.telemetry import counter, gauge


def open_loaders(parts: Parts) -> list[Loader]:
    """One loader for each partition of the log."""
    settings = parts.settings
    log = parts.get(open_log)
    return [
        Loader(
            log=log,
            partition=partition,
            clickhouse=parts.get(open_clickhouse),
            frontier=parts.get(open_frontier),
            limits=LoadLimits(
                events_max=settings.load_events_max,
                wait_ms=settings.load_wait_ms,
                window_us=settings.dedupe_window_days * DAY_US,
            ),
            clock=parts.clock,
        )
        for partition in range(log.partitions)
    ]


class LoadService:
    """The service of `functions/load`."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._keys: KeyIndex = parts.get(open_keys)
        self._stop = threading.Event()
        self._was_ready = False
        self._threads: list[threading.Thread] = []
        self._loaders: list[Loader] = []

    async def start(self) -> None:
        """Starts a thread for each partition."""
        self._loaders = self._parts.get(open_loaders)
        gate = self._parts.get(open_control).gate
        log, clickhouse = self._parts.get(open_log), self._parts.get(open_clickhouse)
        if clickhouse.embedded:
            for partition in range(log.partitions):
                loaded = read_frontier(clickhouse, log.generation, partition)
                end = log.end(partition)
                if end < loaded or end < 0:
                    # The log was lost, maybe between a batch's writes: no offset is used twice.
                    written = read_last_written(clickhouse, log.generation, partition)
                    log.begin_after(partition, max(loaded, written))
        for number, loader in enumerate(self._loaders):
            loader.gate = gate
            thread = threading.Thread(
                target=loader.run, args=(self._stop,), name=f"loader-{number}", daemon=True
            )
            thread.start()
            self._threads.append(thread)

    async def stop(self) -> None:
        """Lets the batches at hand be written, then ends the threads."""
        self._stop.set()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    async def tend(self) -> None:
        """Housekeeping of the dedupe window."""
        for loader in self._loaders:
            await asyncio.to_thread(loader.tend)

    def unreadiness(self) -> str:
        """Ready once every loader knew where it stands; from then on, for good.

        A store that goes away later is told by metrics and the log: the process that also takes
        events in must stay in service, since the log keeps them meanwhile.
        """
        if self._was_ready:
            return ""
        for loader in self._loaders:
            if not loader.progress.ready and loader.progress.last_failure:
                return loader.progress.last_failure
            if not loader.progress.ready:
                return "reading the ledger"
        self._was_ready = True
        return ""

    def metrics(self) -> Iterable[Metric]:
        """Events by outcome, lag and freshness."""
        log, now = self._parts.get(open_log), self._parts.clock.now_us()
        totals: dict[str, int] = {}
        lag = late_us = failures = batches = 0
        seconds = 0.0  # tidy: allow-float -- time spent, not a quantity
        for partition, loader in enumerate(self._loaders):
            progress = loader.progress
            for name, count in progress.counts.items():
                totals[name] = totals.get(name, 0) + count
            behind = max(0, log.end(partition) - progress.frontier)
            lag += behind
            failures += progress.failures
            batches += progress.batches
            seconds += progress.seconds
            if behind and progress.loaded_through_us:
                late_us = max(late_us, now - progress.loaded_through_us)
        return (
            counter(
                "tollgate_load_events",
                "Events loaded, by what became of them.",
                [({"outcome": name}, count) for name, count in totals.items()],
            ),
            counter("tollgate_load_batches", "Batches written.", [({}, batches)]),
            counter("tollgate_load_failures", "Tries that were repeated.", [({}, failures)]),
            gauge("tollgate_load_seconds_total", "Time spent writing batches.", seconds),
            gauge("tollgate_load_lag_records", "Records in the log and not yet loaded.", lag),
            gauge(
                "tollgate_load_freshness_seconds",
                "Age of the newest loaded record while more wait; 0 when all is loaded.",
                late_us / 1_000_000,
            ),
            gauge(
                "tollgate_load_filter_bytes",
                "Memory of the filters that find known keys.",
                sum(loader.seen.size_bytes for loader in self._loaders),
            ),
        )

    async def __call__(self, scope: Request, receive: Receive, send: Send) -> None:
        """The doorbell: waking is enough, the threads read the log to its end."""
        del receive
        access = self._keys.check(header(scope, b"authorization"), self._parts.clock)
        access.require(Scope.ADMIN)
        await send_reply(send, 204, [], b"")
