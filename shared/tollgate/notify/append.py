"""Use case: what was told goes to the event log too, where meters, queries and the archive find it.

At least once: it is marked as appended after the log has it on disk, so a process that dies between
the two lets another append it again, under the same identity, and it counts once. Webhooks do not
wait for it, nor it for them.

What is appended may itself be metered, and reach a level that is told, and appended. Such a chain
ends: each event in it has used up a key of its rule, entitlement and usage period for good, of
which there is one for each level and one for the reset.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

from tollgate.core.errors import Fault, InvalidInput, Transient
from tollgate.events.append import append_events
from tollgate.notify.cloud_event import cloud_event
from tollgate.notify.log_outbox_store import LogOutboxStore, Unlogged
from tollgate.platform.database import open_database
from tollgate.platform.parts import Parts

_log = logging.getLogger(__name__)
EVENTS_AT_ONCE = 100
Append = Callable[[str, Sequence[bytes]], Sequence[tuple[Fault, ...]]]
"""Stores CloudEvents of a namespace, and gives the faults of each, as `append_events`."""


@dataclass(slots=True, kw_only=True)
class Appended:
    """How many events the log has now, and how many it can never take."""

    appended: int = 0
    refused: int = 0


class LogAppender:
    """One worker; any number of them may work on the same events."""

    def __init__(self, outbox: LogOutboxStore, append: Append) -> None:
        self._outbox = outbox
        self._append = append

    def append(self, stop: threading.Event, counts: Appended) -> None:
        """Appends until nothing is due, or `stop` is set. Asks for no log while nothing is.

        Args:
            stop: ends it after what is at hand.
            counts: is added to, also if it fails midway.

        Raises:
            Transient: the log or the control plane is away; what is not marked is appended later.
            PermanentFault: the log refuses; the same.
        """
        while not stop.is_set() and (due := self._outbox.claim(EVENTS_AT_ONCE)):
            by_namespace = sorted(due, key=lambda each: (each.namespace, each.id))
            for namespace, some in groupby(by_namespace, key=lambda each: each.namespace):
                self._append_some(namespace, list(some), counts)

    def _append_some(self, namespace: str, some: Sequence[Unlogged], counts: Appended) -> None:
        raws = [cloud_event(each.id, each.kind, each.created_at, each.payload) for each in some]
        try:
            outcomes = self._append(namespace, raws)
        except Transient:
            self._outbox.put_off([each.id for each in some])
            raise
        taken = [each.id for each, faults in zip(some, outcomes, strict=True) if not faults]
        self._outbox.end(taken)
        counts.appended += len(taken)
        for each, faults in zip(some, outcomes, strict=True):
            if faults:
                why = InvalidInput(faults).detail
                extra = {"event": each.id, "problem": why}
                _log.warning("the event log can't take a notification event", extra=extra)
                self._outbox.refuse(each.id, why)
                counts.refused += 1


def open_log_outbox(parts: Parts) -> LogOutboxStore:
    """What the control plane has for the log."""
    return LogOutboxStore(parts.get(open_database), parts.clock)


def open_log_appender(parts: Parts) -> LogAppender:
    """Appends to the log of the settings, which is opened when there is something for it."""

    def append(namespace: str, raws: Sequence[bytes]) -> Sequence[tuple[Fault, ...]]:
        return append_events(parts, namespace, raws)

    return LogAppender(parts.get(open_log_outbox), append)
