"""Use case: notification events that are old go, with their deliveries; what was told is known on.

A usage period may be as long as a century, and a late event comes to a period of any age. So of an
event that goes a digest of its once key stays, for good: nothing is told a second time.
"""

import threading
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from tollgate.core.clock import Clock
from tollgate.notify.new_event import is_key_of_test, key_digest
from tollgate.notify.tables import deliveries, events, told
from tollgate.platform.database import open_database
from tollgate.platform.parts import Parts
from tollgate.platform.sql import Database

EVENTS_AT_ONCE = 500
EVENTS_AT_A_RUN_MAX = 10_000
_c = events.c


class Retention:
    """One worker; any number of them may work at once."""

    def __init__(self, database: Database, clock: Clock, kept: timedelta | None) -> None:
        """Takes how long events are kept; None: for ever."""
        self._database = database
        self._clock = clock
        self._kept = kept

    def run(self, stop: threading.Event) -> int:
        """Deletes what is older, a bounded part of it; gives how many events.

        An event stays as long as a delivery of it has not ended, or the event log lacks it.
        """
        if self._kept is None:
            return 0
        before, count = self._clock.now() - self._kept, 0
        while not stop.is_set() and count < EVENTS_AT_A_RUN_MAX:
            with self._database.begin() as connection:
                deleted = _delete(connection, before)
            if not deleted:
                break
            count += deleted
        return count


def _delete(connection: sa.Connection, before: datetime) -> int:
    d = deliveries.c
    waits = sa.exists().where(d.event_id == _c.id, d.next_attempt.is_not(None))
    query = (
        sa.select(_c.id, _c.once_key)
        .where(_c.created_at < before, _c.log_due.is_(None), sa.not_(waits))
        .order_by(_c.created_at, _c.id)
        .limit(EVENTS_AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    found = {row.id: row.once_key for row in connection.execute(query)}
    # Whoever asks for an event again holds its row: what was asked for until we had it is seen now.
    asked = sa.select(d.event_id).where(d.event_id.in_(found), d.next_attempt.is_not(None))
    for event_id in connection.scalars(asked):
        found.pop(event_id, None)
    rows = [{"digest": key_digest(key)} for key in found.values() if not is_key_of_test(key)]
    if rows:
        insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
        connection.execute(insert(told).on_conflict_do_nothing(), rows)
    connection.execute(deliveries.delete().where(d.event_id.in_(found)))
    connection.execute(events.delete().where(_c.id.in_(found)))
    return len(found)


def open_retention(parts: Parts) -> Retention:
    """The retention of the settings."""
    days = parts.settings.notify_retention_days
    kept = timedelta(days=days) if days else None
    return Retention(parts.get(open_database), parts.clock, kept)
