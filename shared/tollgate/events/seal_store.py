"""Seals in SQL.

Two that seal at once, or one that is killed anywhere: whatever is written moves on from the state
that it was decided on, in one transaction, or is not written.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from tollgate.core.errors import Conflict
from tollgate.events.position import NOTHING, vector_from_text
from tollgate.events.seal import BEGINNING, HOUR, Late, Seal, SealState
from tollgate.platform.sql import Database, Instant, Json, Text, metadata

seals = sa.Table(
    "seals",
    metadata,
    sa.Column("namespace", Text, primary_key=True),
    sa.Column("hour_from", Instant, primary_key=True),
    sa.Column("revision", sa.BigInteger, primary_key=True),
    sa.Column("hour_to", Instant, nullable=False),
    sa.Column("vector", Text, nullable=False),
    sa.Column("previous", Text, nullable=False),
    sa.Column("sealed_at", Instant, nullable=False),
    sa.Column("extended_at", Instant, nullable=True),
    sa.Column("kind", Text, nullable=False),
    sa.Column("reason", Text, nullable=False),
    sa.Column("actor", Text, nullable=False),
    sa.Column("late_events", sa.BigInteger, nullable=False),
    sa.Column("late_corrections", sa.BigInteger, nullable=False),
    sa.Column("missing", Json, nullable=False),
)
seal_states = sa.Table(
    "seal_states",
    metadata,
    sa.Column("namespace", Text, primary_key=True),
    sa.Column("sealed_through", Instant, nullable=False),
    sa.Column("vector", Text, nullable=False),
    sa.Column("sealed_at", Instant, nullable=True),
    sa.Column("accepted_at", Instant, nullable=True),
)
_HOURS_AT_ONCE = 500
_NO_STATE = SealState(sealed_through=BEGINNING, vector=NOTHING, sealed_at=None)


class SealStore:
    """Every namespace's seals."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def states(self) -> dict[str, SealState]:
        """How far every namespace is sealed that has events."""
        with self._database.connect() as connection:
            rows = connection.execute(sa.select(seal_states)).mappings().all()
        return {row["namespace"]: _state(row) for row in rows}

    def state(self, namespace: str) -> SealState:
        """How far one namespace is sealed."""
        query = sa.select(seal_states).where(seal_states.c.namespace == namespace)
        with self._database.connect() as connection:
            row = connection.execute(query).mappings().first()
        return _NO_STATE if row is None else _state(row)

    def seal(
        self,
        namespace: str,
        before: SealState,
        seal: Seal,
        late: Mapping[datetime, Late],
        *,
        idle: bool = False,
    ) -> tuple[Seal, ...]:
        """Seals hours, and gives each sealed hour that changed its next revision.

        Args:
            namespace: whose.
            before: the state that this was decided on.
            seal: the first revision of the hours from there on.
            late: what changed hours that were sealed before.
            idle: nothing came in since: the last seal may take the hours as well.

        Returns:
            what was written, in order.

        Raises:
            Conflict: another one sealed meanwhile.
        """
        forced = seal.kind == "forced"
        after = SealState(
            sealed_through=seal.end,
            vector=seal.vector,
            sealed_at=seal.sealed_at,
            accepted_at=seal.sealed_at if forced else before.accepted_at,
        )
        with self._database.begin() as connection:
            _move_state(connection, namespace, before, after)
            revisions = _revisions(connection, namespace, before, seal, late)
            extended = None
            if idle and not forced:
                extended = _extend(connection, namespace, before, seal)
            new = revisions if extended else [*revisions, seal]
            if new:
                connection.execute(seals.insert(), [_seal_values(namespace, s) for s in new])
        return tuple(sorted([*revisions, extended or seal], key=lambda s: (s.start, s.revision)))

    def list(
        self,
        namespace: str,
        *,
        start: datetime | None = None,
        end: datetime | None = None,
        revised: bool = False,
        after: tuple[datetime, int] | None = None,
        limit: int = 100,
    ) -> tuple[Seal, ...]:
        """Seals of hours in [start, end), by hour and revision.

        Args:
            namespace: whose.
            start: None is open.
            end: the same.
            revised: only revisions after the first.
            after: hour and revision of the last one before.
            limit: at most so many.
        """
        c = seals.c
        query = sa.select(seals).where(c.namespace == namespace)
        if start is not None:
            query = query.where(c.hour_to > start)
        if end is not None:
            query = query.where(c.hour_from < end)
        if revised:
            query = query.where(c.revision > 1)
        if after is not None:
            hour, revision = after
            later = sa.and_(c.hour_from == hour, c.revision > revision)
            query = query.where(sa.or_(c.hour_from > hour, later))
        query = query.order_by(c.hour_from, c.revision).limit(limit)
        with self._database.connect() as connection:
            return tuple(map(_seal, connection.execute(query).mappings()))

    def find(self, namespace: str, hour: datetime, revision: int | None = None) -> Seal | None:
        """The seal of an hour.

        Args:
            namespace: whose.
            hour: its begin.
            revision: which; None: the last.
        """
        c = seals.c
        query = (
            sa.select(seals)
            .where(c.namespace == namespace, c.hour_from <= hour, c.hour_to > hour)
            .order_by(c.revision.desc())
            .limit(1)
        )
        if revision is not None:
            query = query.where(c.revision == revision)
        with self._database.connect() as connection:
            row = connection.execute(query).mappings().first()
        return None if row is None else _seal(row)

    def count_revisions(self) -> int:
        """How many revisions after the first there are, of all namespaces."""
        query = sa.select(sa.func.count()).select_from(seals).where(seals.c.revision > 1)
        with self._database.connect() as connection:
            return int(connection.execute(query).scalar_one())


def know_namespaces(connection: sa.Connection, names: Iterable[str]) -> None:
    """Namespaces that have events: they are sealed from now on."""
    known = connection.execute(sa.select(seal_states.c.namespace)).scalars()
    new = [_state_values(name, _NO_STATE) for name in sorted({*names}.difference(known))]
    if new:
        connection.execute(seal_states.insert(), new)


def _state_values(namespace: str, state: SealState) -> dict[str, object]:
    return {
        "namespace": namespace,
        "sealed_through": state.sealed_through,
        "vector": str(state.vector),
        "sealed_at": state.sealed_at,
        "accepted_at": state.accepted_at,
    }


def _state(row: Mapping[Any, Any]) -> SealState:
    return SealState(
        sealed_through=row["sealed_through"],
        vector=vector_from_text(row["vector"]),
        sealed_at=row["sealed_at"],
        accepted_at=row["accepted_at"],
    )


def _move_state(
    connection: sa.Connection, namespace: str, before: SealState, after: SealState
) -> None:
    c = seal_states.c
    values = _state_values(namespace, after)
    moved = connection.execute(
        seal_states.update()
        .where(
            c.namespace == namespace,
            c.sealed_through == before.sealed_through,
            c.vector == str(before.vector),
        )
        .values(values)
    )
    if moved.rowcount == 1:
        return
    known = sa.select(c.namespace).where(c.namespace == namespace)
    if before != _NO_STATE or connection.execute(known).first() is not None:
        raise Conflict(f"{namespace} is sealed by another run at this moment")
    # Who inserts it at the same moment makes this fail: a Conflict as well.
    connection.execute(seal_states.insert().values(values))


def _revisions(
    connection: sa.Connection,
    namespace: str,
    before: SealState,
    seal: Seal,
    late: Mapping[datetime, Late],
) -> list[Seal]:
    c, hours = seals.c, sorted(late)
    last: dict[datetime, int] = {}
    for first in range(0, len(hours), _HOURS_AT_ONCE):
        query = (
            sa.select(c.hour_from, sa.func.max(c.revision))
            .where(
                c.namespace == namespace,
                c.revision > 1,
                c.hour_from.in_(hours[first : first + _HOURS_AT_ONCE]),
            )
            .group_by(c.hour_from)
        )
        last |= {row[0]: row[1] for row in connection.execute(query)}
    return [
        replace(
            seal,
            start=hour,
            end=hour + HOUR,
            revision=last.get(hour, 1) + 1,
            previous=before.vector,
            late_events=late[hour].events,
            late_corrections=late[hour].corrections,
        )
        for hour in hours
    ]


def _extend(
    connection: sa.Connection, namespace: str, before: SealState, seal: Seal
) -> Seal | None:
    """Lets the last scheduled seal take the hours; None if there is none."""
    c = seals.c
    last = sa.and_(
        c.namespace == namespace,
        c.revision == 1,
        c.hour_to == before.sealed_through,
        c.kind == "scheduled",
    )
    connection.execute(
        seals.update().where(last).values(hour_to=seal.end, extended_at=seal.sealed_at)
    )
    mine = sa.and_(c.namespace == namespace, c.revision == 1, c.hour_to == seal.end)
    row = connection.execute(sa.select(seals).where(mine)).mappings().first()
    return None if row is None else _seal(row)


def _seal_values(namespace: str, seal: Seal) -> dict[str, object]:
    return {
        "namespace": namespace,
        "hour_from": seal.start,
        "hour_to": seal.end,
        "revision": seal.revision,
        "vector": str(seal.vector),
        "previous": "" if seal.previous is None else str(seal.previous),
        "missing": list(seal.missing),
    } | {name: getattr(seal, name) for name in _SAME}


_SAME = (
    *("sealed_at", "extended_at", "kind", "reason", "actor"),
    *("late_events", "late_corrections"),
)


def _seal(row: Mapping[Any, Any]) -> Seal:
    return Seal(
        start=row["hour_from"],
        end=row["hour_to"],
        revision=row["revision"],
        vector=vector_from_text(row["vector"]),
        previous=vector_from_text(row["previous"]) if row["previous"] else None,
        missing=tuple(row["missing"]),
        **{name: row[name] for name in _SAME},
    )
