"""Events that the log does not have yet, in SQL: claimed for a while, and ended once it has them.

A claim only keeps two workers from doing the same work. Where both do it, the log has an event
twice, under one identity: it counts once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from tollgate.core.clock import Clock
from tollgate.notify.rule import Kind
from tollgate.notify.tables import events
from tollgate.platform.sql import Database

LEASE = timedelta(seconds=90)
"""Longer than the log may take to answer."""
AGAIN = timedelta(seconds=10)
"""After the log was away."""
REFUSED = "notification.log.refused"
"""Annotation of an event that the log can never take: why."""
_c = events.c


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlogged:
    """An event that is to be appended."""

    id: str
    namespace: str
    kind: Kind
    payload: str
    created_at: datetime


class LogOutboxStore:
    """What is to be appended, of every namespace."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def claim(self, count_max: int) -> tuple[Unlogged, ...]:
        """Takes events that are due, soonest first; whoever does not end them leaves them due."""
        with self._database.begin() as connection:
            now = self._clock.now()
            soonest = (
                sa.select(_c.id)
                .where(_c.log_due <= now)
                .order_by(_c.log_due, _c.id)
                .limit(count_max)
                .with_for_update(skip_locked=True)
            )
            ids = list(connection.scalars(soonest))
            connection.execute(events.update().where(_c.id.in_(ids)).values(log_due=now + LEASE))
            query = sa.select(_c.id, _c.namespace, _c.kind, _c.payload, _c.created_at)
            rows = connection.execute(query.where(_c.id.in_(ids)).order_by(_c.id))
            return tuple(
                Unlogged(
                    id=row.id,
                    namespace=row.namespace,
                    kind=Kind(row.kind),
                    payload=row.payload,
                    created_at=row.created_at,
                )
                for row in rows
            )

    def end(self, event_ids: Sequence[str]) -> None:
        """The log has them, durably."""
        self._set_due(event_ids, None)

    def put_off(self, event_ids: Sequence[str]) -> None:
        """The log was away: they are due again soon."""
        self._set_due(event_ids, self._clock.now() + AGAIN)

    def _set_due(self, event_ids: Sequence[str], due: datetime | None) -> None:
        # What another worker has ended meanwhile stays ended.
        waits = (_c.id.in_(event_ids), _c.log_due.is_not(None))
        with self._database.begin() as connection:
            connection.execute(events.update().where(*waits).values(log_due=due))

    def refuse(self, event_id: str, why: str) -> None:
        """The log can never take it; it says so, and is tried no more."""
        with self._database.begin() as connection:
            query = sa.select(_c.annotations).where(_c.id == event_id).with_for_update()
            annotations = connection.scalar(query) or {}
            write = events.update().where(_c.id == event_id)
            connection.execute(
                write.values(log_due=None, annotations={**annotations, REFUSED: why})
            )

    def next_due(self) -> datetime | None:
        """When the next is due; None: there is none."""
        query = sa.select(sa.func.min(_c.log_due)).where(_c.log_due.is_not(None))
        with self._database.connect() as connection:
            found: datetime | None = connection.scalar(query)
            return found

    def waiting(self) -> int:
        """How many the log does not have yet."""
        query = sa.select(sa.func.count()).where(_c.log_due.is_not(None))
        with self._database.connect() as connection:
            return connection.scalar(query) or 0
