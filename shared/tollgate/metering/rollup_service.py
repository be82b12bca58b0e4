"""The service of `functions/rollup`: what follows the loader, in steps.

Scheduled every minute: embedded by the host, else by PingSource on `POST /_/rollup`. A run that is
still going on is not begun again; two processes at once do no harm.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable
from datetime import timedelta
from time import monotonic

from prometheus_client.core import GaugeMetricFamily, Metric

from tollgate.core.errors import TollgateError
from tollgate.events.seal_schedule import recount_and_seal, seal_metrics
from tollgate.metering.meter_reader import open_meters
from tollgate.metering.roll_up import RollUp, RollupLimits, if_alone
from tollgate.metering.rollup_reader import open_rollup_store
from tollgate.platform.access import KeyIndex, Scope
from tollgate.platform.application import send_reply
from tollgate.platform.body import Receive, Send, header
from tollgate.platform.body import Scope as Request
from tollgate.platform.keys import open_keys
from tollgate.platform.parts import Parts, open_clickhouse
from tollgate.platform.telemetry import counter, gauge

_log = logging.getLogger(__name__)
_GRACE = timedelta(minutes=10)
Step = Callable[[Parts, threading.Event], None]


def seal(parts: Parts, stop: threading.Event) -> None:
    """Counts the ledger again and seals what is due."""
    del stop
    recount_and_seal(parts)


def build(parts: Parts, stop: threading.Event) -> None:
    """Brings rollups to where the ledger is."""
    if_alone(lambda: parts.get(open_roll_up).build(stop))


def merge(parts: Parts, stop: threading.Event) -> None:
    """Keeps segments few, and drops those that nobody reads."""
    if_alone(lambda: parts.get(open_roll_up).compact(stop))
    parts.get(open_roll_up).drop()


STEPS: tuple[Step, ...] = (seal, build, merge)
"""What a run does, in this order; a step that fails does not hold up those after it."""
_NAMES = tuple(step.__name__ for step in STEPS)


def open_roll_up(parts: Parts) -> RollUp:
    """What builds rollups in this process."""
    settings = parts.settings
    limits = RollupLimits(grace=_GRACE + timedelta(seconds=settings.query_seconds_max))
    return RollUp(
        parts.get(open_clickhouse),
        parts.get(open_rollup_store),
        parts.get(open_meters).live_of_all,
        parts.clock,
        limits,
    )


class RollupService:
    """Runs the steps on a thread of its own."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._keys: KeyIndex = parts.get(open_keys)
        self._stop = threading.Event()
        self._running: asyncio.Task[None] | None = None
        self._runs = 0
        self._failures = dict.fromkeys(_NAMES, 0)
        self._succeeded_us: dict[str, int] = {}
        self._seconds: float = 0  # tidy: allow-float -- time that runs took

    async def start(self) -> None:
        """Opens nothing: the first run does."""

    async def stop(self) -> None:
        """Lets the statement at hand end."""
        self._stop.set()
        if self._running is not None:
            await self._running

    async def tend(self) -> None:
        """Begins a run, unless one goes on; does not wait for it."""
        self._begin()

    def _begin(self) -> "asyncio.Task[None]":
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(asyncio.to_thread(self._run))
        return self._running

    def _run(self) -> None:
        began = monotonic()
        for step in STEPS:
            if self._stop.is_set():
                break
            try:
                step(self._parts, self._stop)
            except TollgateError as problem:
                self._failures[step.__name__] += 1
                extra = {"step": step.__name__, "problem": problem.detail}
                _log.warning("a step of the rollup run failed; the next run does it", extra=extra)
            except Exception:  # noqa: BLE001 -- a step fails alone, and is tried again
                self._failures[step.__name__] += 1
                _log.exception("a step of the rollup run failed", extra={"step": step.__name__})
            else:
                self._succeeded_us[step.__name__] = self._parts.clock.now_us()
        self._runs += 1
        self._seconds += monotonic() - began

    def unreadiness(self) -> str:
        """Always ready: what is away now may be there when a run is due."""
        return ""

    def metrics(self) -> Iterable[Metric]:
        """Runs, and what seals say."""
        yield counter("tollgate_rollup_runs", "Runs that ended.", [({}, self._runs)])
        yield counter(
            "tollgate_rollup_failures",
            "Steps that failed; later runs do them.",
            [({"step": name}, count) for name, count in self._failures.items()],
        )
        family = GaugeMetricFamily(
            "tollgate_rollup_last_success",
            "When a step last succeeded, in seconds since 1970: an age of minutes is for an alert.",
            labels=["step"],
        )
        for name, at_us in self._succeeded_us.items():
            family.add_metric([name], at_us // 1_000_000)
        yield family
        yield gauge("tollgate_rollup_seconds_total", "Time spent in runs.", self._seconds)
        yield from seal_metrics(self._parts)

    async def __call__(self, scope: Request, receive: Receive, send: Send) -> None:
        """A ring: answers when the run has ended.

        Where the function is a process of its own, the ring asks for no key: a PingSource carries
        none, and a ring tells nothing and does only what is due anyway.
        """
        del receive
        if self._parts.get(open_clickhouse).embedded:
            access = self._keys.check(header(scope, b"authorization"), self._parts.clock)
            access.require(Scope.ADMIN)
        await asyncio.shield(self._begin())
        await send_reply(send, 204, [], b"")
