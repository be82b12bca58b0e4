"""The service of `functions/limits`: whether a customer may use features, and what is held."""

import importlib
import logging
import threading
from collections.abc import Callable, Iterable
from datetime import timedelta
from time import monotonic

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from tollgate.core.errors import TollgateError
from tollgate.events.position import Token
from tollgate.events.stored_events import Key, find_events
from tollgate.limits.api_gateway import gateway_request
from tollgate.limits.limit_parts import Limits, open_limits
from tollgate.platform.api import ApiService, Operation
from tollgate.platform.body import Receive, Send
from tollgate.platform.body import Scope as Request
from tollgate.platform.parts import Parts

_MODULES = (
    "tollgate.limits.api_limits",
    "tollgate.limits.api_gateway",
    "tollgate.limits.api_values",
    "tollgate.limits.api_access_v3",
)
_log = logging.getLogger(__name__)
_PAUSE_SECONDS = 0.4
_SWEEP_EVERY = 5
_PRUNE_EVERY = 1000
RESERVATIONS_KEPT = timedelta(days=7)
"""After its end a reservation, and what its idempotency key stands for, can be read so long."""
_UNPLACED_MAX = 5000


def limits_operations() -> tuple[Operation, ...]:
    """All operations that the limits function serves."""
    found: list[Operation] = []
    for name in _MODULES:
        found += importlib.import_module(name).OPERATIONS
    return tuple(found)


class LimitsService(ApiService):
    """Serves the operations, and keeps what they are answered from up to date."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts, limits_operations())
        self._limits: Limits = parts.get(open_limits)
        self._following = Following(self._limits)

    async def start(self) -> None:
        """Starts the threads that decide and follow."""
        await super().start()
        self._limits.reserving.start()
        self._following.start()

    async def stop(self) -> None:
        """Decides what waits, and ends."""
        await super().stop()
        self._following.stop()
        self._limits.reserving.stop()
        self._limits.checking.stop()
        self._limits.present.stop()

    async def __call__(self, scope: Request, receive: Receive, send: Send) -> None:
        """As any API; what a gateway asks about comes with the path of the request it is about."""
        await super().__call__(gateway_request(scope), receive, send)

    def metrics(self) -> Iterable[Metric]:
        """How many limits are in memory, and how old the last look at usage is."""
        yield GaugeMetricFamily(
            "tollgate_limits_in_memory",
            "Limits that are kept in memory.",
            value=len(self._limits.projection),
        )
        present = self._limits.present
        answered = CounterMetricFamily(
            "tollgate_limits_values",
            "Balances of entitlements that were asked for now, by where they were taken from.",
            labels=["source"],
        )
        answered.add_metric(["memory"], present.from_memory)
        answered.add_metric(["stores"], present.from_stores)
        yield answered
        known_at = self._limits.projection.known_at
        if known_at is not None:
            age = self._parts.clock.now() - known_at
            yield GaugeMetricFamily(
                "tollgate_limits_usage_age_seconds",
                "How long ago usage was last looked at; it is while anybody asks for a limit.",
                value=age.total_seconds(),
            )


class Following:
    """Two threads: one follows usage and definitions, the other what processes decide.

    The second asks SQL alone: a usage store that hangs holds up none of it.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=steps, name=name, daemon=True)
            for name, steps in (
                ("limits-usage", (self._usage, self._settled)),
                ("limits-holds", (self._held, self._ended)),
            )
        ]
        self._rounds = 0

    def start(self) -> None:
        """Starts them."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ends them."""
        self._stop.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _run(self, *steps: Callable[[], None]) -> None:
        while not self._stop.wait(_PAUSE_SECONDS):
            began = monotonic()
            for step in steps:
                try:
                    step()
                except TollgateError as away:
                    _log.warning("limits are not known up to now: %s", away.detail)
                except Exception:  # noqa: BLE001 -- what is known stays; the next may go well
                    _log.exception("limits could not be followed")
            if monotonic() - began > 5:
                _log.warning("following limits took %.1f s", monotonic() - began)

    def _usage(self) -> None:
        if self._limits.projection.is_followed:
            self._limits.projection.tick()

    def _settled(self) -> None:
        """Drops settled amounts whose usage has come; finds where it is, if nobody said."""
        unseen = self._limits.holds.unseen()
        if not unseen:
            return
        store = self._limits.reservations
        store.advance(unseen, self._limits.projection.supply_of)
        unplaced = store.unplaced(_UNPLACED_MAX)
        if not unplaced:
            return
        wanted: dict[Key, list[str]] = {}
        for reservation, namespace, source, event_id in unplaced:
            wanted.setdefault((namespace, source, event_id), []).append(reservation)
        found: dict[str, Token] = {}
        for position, event in sorted(find_events(self._limits.clickhouse, wanted).items()):
            generation, partition, offset, _ = position
            for reservation in wanted[event.key]:
                token = Token(generation=generation, offsets={partition: offset})
                found.setdefault(reservation, token)
        store.place(found)

    def _held(self) -> None:
        self._limits.holds.follow()

    def _ended(self) -> None:
        self._rounds += 1
        reservations = self._limits.reservations
        if self._rounds % _SWEEP_EVERY == 0:
            reservations.sweep(self._limits.projection.supply_of)
        if self._rounds % _PRUNE_EVERY == 0:
            reservations.prune(self._limits.clock.now() - RESERVATIONS_KEPT)
