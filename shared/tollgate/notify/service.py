"""The service of `functions/notify`: channels, rules and events, the watch, and what follows it.

The watch is scheduled every minute: embedded by the host, else by PingSource on `POST /_/notify`.
Deliveries, and what the event log is to have, are made by a thread each when something is due, and
by a ring.
"""

import asyncio
import importlib
import logging
import threading
from collections.abc import Callable, Iterable
from datetime import datetime
from functools import partial

from prometheus_client.core import Metric

from tollgate.core.errors import TollgateError
from tollgate.notify.api_events_v1 import open_outbox
from tollgate.notify.api_rules_v1 import open_rules
from tollgate.notify.append import Appended, open_log_appender, open_log_outbox
from tollgate.notify.deliver import Deliverer
from tollgate.notify.doorbell import open_doorbell
from tollgate.notify.limit_balances import open_limit_balances
from tollgate.notify.limit_resets import open_limit_resets
from tollgate.notify.report import open_reporter
from tollgate.notify.retain import open_retention
from tollgate.notify.rule_store import WatchStore
from tollgate.notify.send import Sender
from tollgate.notify.watch import Watch
from tollgate.notify.worker import Worker
from tollgate.platform.access import Scope
from tollgate.platform.api import ApiService, Operation
from tollgate.platform.application import send_reply
from tollgate.platform.body import Receive, Send, header
from tollgate.platform.body import Scope as Request
from tollgate.platform.database import open_database
from tollgate.platform.keys import open_keys
from tollgate.platform.parts import Parts
from tollgate.platform.telemetry import counter, gauge

_log = logging.getLogger(__name__)
RING = "/_/notify"
_MODULES = (
    "tollgate.notify.api_channels_v1",
    "tollgate.notify.api_rules_v1",
    "tollgate.notify.api_events_v1",
)


def notify_operations() -> tuple[Operation, ...]:
    """All operations that the notify function serves."""
    found: list[Operation] = []
    for name in _MODULES:
        found += importlib.import_module(name).OPERATIONS
    return tuple(found)


def open_sender(parts: Parts) -> Sender:
    """Sends webhooks, by the settings."""
    return Sender(parts.clock, private_addresses=parts.settings.notify_private_addresses)


def open_watch(parts: Parts) -> Watch:
    """The watch over the balances that there are."""
    return Watch(
        parts.get(open_rules),
        WatchStore(parts.get(open_database)),
        parts.get(open_limit_balances),
        parts.get(open_limit_resets),
        parts.get(open_reporter),
        parts.clock,
    )


class NotifyService(ApiService):
    """Serves the operations; watches, delivers, and appends to the event log."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts, notify_operations())
        self._stop = threading.Event()
        self._doorbell = parts.get(open_doorbell)
        # Each waits for its own: a log that hangs holds up no webhook, no receiver the log.
        self._workers = (
            self._worker("deliver", self._deliver, lambda: parts.get(open_outbox).next_due()),
            self._worker("append", self._append, lambda: parts.get(open_log_outbox).next_due()),
        )
        self._watching: asyncio.Task[None] | None = None
        self._failures = {"watch": 0, "deliver": 0, "append": 0, "delete": 0}
        self._attempts = {"succeeded": 0, "failed": 0, "lost": 0}
        self._appended = Appended()
        self._told = 0
        self._deleted = 0
        self._waiting = {"deliver": 0, "append": 0}

    def _worker(
        self, step: str, work: Callable[[], None], next_due: Callable[[], datetime | None]
    ) -> Worker:
        clock = self._parts.clock
        tried = partial(self._try, step, work)
        return Worker(f"notify-{step}", tried, next_due, self._doorbell, clock)

    async def start(self) -> None:
        """Begins with what is due."""
        await super().start()
        for worker in self._workers:
            worker.start()

    async def stop(self) -> None:
        """Lets what is on its way arrive."""
        self._stop.set()
        if self._watching is not None:
            await self._watching
        for worker in self._workers:
            await asyncio.to_thread(worker.stop)
        await super().stop()

    async def tend(self) -> None:
        """Begins a watch, unless one goes on; does not wait for it."""
        self._begin_watch()

    def _begin_watch(self) -> "asyncio.Task[None]":
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(asyncio.to_thread(self._pass))
        return self._watching

    def _pass(self) -> None:
        self._try("watch", self._watch)
        self._try("delete", self._delete)

    def _watch(self) -> None:
        self._told += self._parts.get(open_watch).run(self._stop)
        self._doorbell.ring()

    def _delete(self) -> None:
        self._deleted += self._parts.get(open_retention).run(self._stop)

    def _deliver(self) -> None:
        outbox = self._parts.get(open_outbox)
        sender = self._parts.get(open_sender)
        counts = Deliverer(outbox, sender, self._parts.clock).deliver(self._stop)
        self._attempts["succeeded"] += counts.succeeded
        self._attempts["failed"] += counts.failed
        self._attempts["lost"] += counts.lost
        self._waiting["deliver"] = outbox.waiting()

    def _append(self) -> None:
        outbox = self._parts.get(open_log_outbox)
        try:
            self._parts.get(open_log_appender).append(self._stop, self._appended)
        finally:
            self._waiting["append"] = outbox.waiting()

    def _try(self, step: str, work: Callable[[], None]) -> None:
        try:
            work()
        except TollgateError as problem:
            self._failures[step] += 1
            extra = {"step": step, "problem": problem.detail}
            _log.warning("a step of notifications failed; it is done again", extra=extra)
        except Exception:  # noqa: BLE001 -- a step fails alone, and is tried again
            self._failures[step] += 1
            _log.exception("a step of notifications failed", extra={"step": step})

    def metrics(self) -> Iterable[Metric]:
        """What was told, sent and appended, and what waits."""
        yield counter("tollgate_notify_events", "Events that the watch wrote.", [({}, self._told)])
        yield counter(
            "tollgate_notify_events_deleted",
            "Events that were older than they are kept.",
            [({}, self._deleted)],
        )
        yield counter(
            "tollgate_notify_attempts",
            "Webhooks sent, by what came of it; lost: the lease had ended.",
            [({"outcome": name}, count) for name, count in self._attempts.items()],
        )
        yield counter(
            "tollgate_notify_log_events",
            "Events for the event log, by what came of it; refused: it can never take them.",
            [
                ({"outcome": "appended"}, self._appended.appended),
                ({"outcome": "refused"}, self._appended.refused),
            ],
        )
        yield counter(
            "tollgate_notify_failures",
            "Steps that failed; they are done again.",
            [({"step": name}, count) for name, count in self._failures.items()],
        )
        text = "Deliveries not ended when last looked at: due, on their way, or to be tried again."
        yield gauge("tollgate_notify_waiting", text, self._waiting["deliver"])
        text = "Events that the event log did not have when last looked at."
        yield gauge("tollgate_notify_log_waiting", text, self._waiting["append"])

    async def __call__(self, scope: Request, receive: Receive, send: Send) -> None:
        """An operation, or a ring: that answers when all that was due is told, sent and appended.

        Where the function is a process of its own, the ring asks for no key: a PingSource carries
        none, and a ring tells nothing and does only what is due anyway.
        """
        if scope["path"] != RING:
            await super().__call__(scope, receive, send)
            return
        if not self._parts.settings.clickhouse_url:
            keys = self._parts.get(open_keys)
            access = keys.check(header(scope, b"authorization"), self._parts.clock)
            access.require(Scope.ADMIN)
        await asyncio.shield(self._begin_watch())
        await asyncio.gather(*(asyncio.to_thread(worker.work) for worker in self._workers))
        await send_reply(send, 204, [], b"")
