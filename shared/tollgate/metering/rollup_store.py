"""The manifest of rollups in SQL: which segments of cells count, and how far they go.

Cells are written first; then one transaction names them and moves the progress of their
definitions, if that still is what the writer began from. So what a crash or a second writer leaves
is a segment that is never named. A segment dies before it is dropped, so that queries under way can
finish reading it.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from tollgate.core.clock import Clock
from tollgate.core.errors import Conflict
from tollgate.core.ids import new_number
from tollgate.events.position import Token, parse_token
from tollgate.metering.rollup import Rollups, Segment
from tollgate.platform.sql import Database, Instant, Text, metadata

definitions = sa.Table(
    "rollup_definitions",
    metadata,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("namespace", Text, nullable=False),
    sa.Column("meter_id", Text, nullable=False),
    sa.Column("digest", Text, nullable=False),
    sa.Column("vector", Text, nullable=False),
    sa.Column("ready", sa.Boolean, nullable=False),
    sa.Column("first_minute", sa.BigInteger),
    sa.Column("last_minute", sa.BigInteger),
)
sa.Index("uq_rollup_definitions_digest", definitions.c.meter_id, definitions.c.digest, unique=True)
segments = sa.Table(
    "rollup_segments",
    metadata,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("state", Text, nullable=False),
    sa.Column("sequence", sa.BigInteger, unique=True),
    sa.Column("cells", sa.BigInteger, nullable=False),
    sa.Column("replacing", sa.Boolean, nullable=False),
    sa.Column("since", Instant, nullable=False),
)
contents = sa.Table(
    "rollup_contents",
    metadata,
    sa.Column("definition", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("segment", sa.BigInteger, primary_key=True, autoincrement=False),
)
sa.Index("ix_rollup_contents_segment", contents.c.segment)
DERIVED_TABLES = (definitions.name, segments.name, contents.name)
"""What belongs to the cells of one store: never to be copied to another."""
WRITING, LIVE, DEAD = "writing", "live", "dead"
Extent = tuple[int, int]
"""First and last minute since the epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """A meter whose cells are kept.

    Attributes:
        digest: of all that decides on its cells.
        vector: as `Rollups.vector`.
    """

    id: int
    namespace: str
    meter_id: str
    digest: str
    vector: Token | None
    ready: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What a writer put into a segment.

    Attributes:
        segment: its id.
        cells: how many rows, of both tables.
        replacing: definitions of which it replaces cells of earlier segments.
        extents: of each definition that it has cells of.
    """

    segment: int
    cells: int
    replacing: frozenset[int]
    extents: Mapping[int, Extent]


# Every query asks it: to build it anew took longer than to ask it.
_ROLLUPS = (
    sa.select(
        definitions.c.id,
        definitions.c.vector,
        definitions.c.ready,
        definitions.c.first_minute,
        definitions.c.last_minute,
        segments.c.sequence,
        segments.c.id,
        segments.c.cells,
        segments.c.replacing,
    )
    .select_from(definitions)
    .outerjoin(contents, contents.c.definition == definitions.c.id)
    .outerjoin(segments, segments.c.id == contents.c.segment)
    .where(
        definitions.c.meter_id == sa.bindparam("meter"), definitions.c.digest == sa.bindparam("of")
    )
    .order_by(segments.c.sequence)
)


class RollupStore:
    """The manifest. Every change is one transaction."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def rollups(self, meter_id: str, digest: str) -> Rollups | None:
        """What is kept ready of a meter; None: it is not known here."""
        with self._database.connect() as connection:
            rows = connection.execute(_ROLLUPS, {"meter": meter_id, "of": digest}).all()
        if not rows:
            return None
        definition, vector, ready, first_minute, last_minute, *_ = rows[0]
        return Rollups(
            definition=definition,
            vector=_token(vector),
            ready=ready,
            first_minute=first_minute,
            last_minute=last_minute,
            segments=tuple(
                Segment(sequence=sequence, id=segment, cells=cells, replacing=replacing)
                for *_, sequence, segment, cells, replacing in rows
                if segment is not None
            ),
        )

    def definitions(self) -> tuple[Definition, ...]:
        """All that are kept."""
        d = definitions.c
        columns = (d.id, d.namespace, d.meter_id, d.digest, d.vector, d.ready)
        with self._database.connect() as connection:
            rows = connection.execute(sa.select(*columns).order_by(d.id)).mappings().all()
        return tuple(Definition(**{**each, "vector": _token(each["vector"])}) for each in rows)

    def live(self) -> tuple[Segment, ...]:
        """The segments that count, in order."""
        s = segments.c
        query = sa.select(s.sequence, s.id, s.cells, s.replacing).where(s.state == LIVE)
        with self._database.connect() as connection:
            rows = connection.execute(query.order_by(s.sequence)).mappings().all()
        return tuple(Segment(**each) for each in rows)

    def keep(self, wanted: Collection[tuple[str, str, str]]) -> None:
        """Adds the definitions that are missing and forgets those that are not wanted any more.

        Args:
            wanted: namespace, meter id and digest of each.
        """
        known = {(each.meter_id, each.digest): each.id for each in self.definitions()}
        missing = [each for each in wanted if each[1:] not in known]
        over = [known[key] for key in known.keys() - {each[1:] for each in wanted}]
        if not missing and not over:
            return
        rows = [
            {
                "id": new_number(),
                "namespace": namespace,
                "meter_id": meter_id,
                "digest": digest,
                "vector": "",
                "ready": False,
            }
            for namespace, meter_id, digest in missing
        ]
        with self._database.begin() as connection:
            if rows:
                connection.execute(definitions.insert(), rows)
            for each in over:
                connection.execute(contents.delete().where(contents.c.definition == each))
                connection.execute(definitions.delete().where(definitions.c.id == each))
            self._end_empty(connection)

    def _end_empty(self, connection: sa.Connection) -> None:
        """Segments without anything that counts are dead."""
        used = sa.select(contents.c.segment)
        self._end(connection, segments.c.state == LIVE, segments.c.id.not_in(used))

    def _end(self, connection: sa.Connection, *conditions: sa.ColumnElement[bool]) -> int:
        dead = {"state": DEAD, "sequence": None, "since": self._clock.now()}
        return connection.execute(segments.update().where(*conditions).values(dead)).rowcount

    def begin(self) -> int:
        """Announces a segment that will be written; gives its id."""
        number = new_number()
        row = {
            "id": number,
            "state": WRITING,
            "cells": 0,
            "replacing": False,
            "since": self._clock.now(),
        }
        with self._database.begin() as connection:
            connection.execute(segments.insert().values(row))
        return number

    def advance(
        self,
        moved: Iterable[Definition],
        vector: Token,
        written: Written | None,
        *,
        ready: bool,
    ) -> None:
        """Moves definitions to a vector and names the cells of what lies between.

        Args:
            moved: all from the same vector.
            vector: to which.
            written: None: there were no facts for them.
            ready: whether the vector is where the ledger is.

        Raises:
            Conflict: another writer moved one of them, or it is gone; nothing was changed.
        """
        every = list(moved)
        with self._database.begin() as connection:
            if written is not None:
                last = connection.scalar(sa.select(sa.func.max(segments.c.sequence))) or 0
                self._name(connection, written, last + 1)
            values: dict[str, object] = {"vector": str(vector)}
            if ready:
                values["ready"] = True
            for each in every:
                self._move(connection, each, values, written)

    def _move(
        self,
        connection: sa.Connection,
        each: Definition,
        values: Mapping[str, object],
        written: Written | None,
    ) -> None:
        c = definitions.c
        changed = dict(values)
        if written is not None and each.id in written.extents:
            first, last = written.extents[each.id]
            changed["first_minute"] = sa.case((c.first_minute < first, c.first_minute), else_=first)
            changed["last_minute"] = sa.case((c.last_minute > last, c.last_minute), else_=last)
        update = definitions.update().where(c.id == each.id, c.vector == _text(each.vector))
        if connection.execute(update.values(changed)).rowcount != 1:
            raise Conflict("rollups were built by another process meanwhile")

    def _name(self, connection: sa.Connection, written: Written, sequence: int) -> None:
        update = (
            segments.update()
            .where(segments.c.id == written.segment, segments.c.state == WRITING)
            .values(
                state=LIVE,
                sequence=sequence,
                cells=written.cells,
                replacing=bool(written.replacing),
                since=self._clock.now(),
            )
        )
        if connection.execute(update).rowcount != 1:
            raise Conflict("the segment was given up: it took too long to write")
        named = sorted(written.replacing | written.extents.keys())
        rows = [{"definition": each, "segment": written.segment} for each in named]
        if rows:
            connection.execute(contents.insert(), rows)

    def replace(self, merged: Sequence[Segment], written: Written | None) -> None:
        """Names one segment in place of several.

        Args:
            merged: neighbours in the order of their sequences.
            written: None: nothing is left of them.

        Raises:
            Conflict: another writer has replaced one of them; nothing was changed.
        """
        ids = [each.id for each in merged]
        with self._database.begin() as connection:
            inputs = segments.c.id.in_(ids)
            connection.execute(contents.delete().where(contents.c.segment.in_(ids)))
            if self._end(connection, inputs, segments.c.state == LIVE) != len(ids):
                raise Conflict("rollups were merged by another process meanwhile")
            if written is not None:
                self._name(connection, written, merged[-1].sequence)

    def give_up(self, before: datetime) -> None:
        """Ends what was announced before an instant and never named."""
        s = segments.c
        with self._database.begin() as connection:
            self._end(connection, s.state == WRITING, s.since < before)

    def dead(self, before: datetime) -> tuple[int, ...]:
        """Segments that died before an instant."""
        s = segments.c
        query = sa.select(s.id).where(s.state == DEAD, s.since < before)
        with self._database.connect() as connection:
            return tuple(connection.scalars(query))

    def forget(self, segment: int) -> None:
        """Forgets a dead segment, after it was dropped."""
        gone = segments.delete().where(segments.c.id == segment, segments.c.state == DEAD)
        with self._database.begin() as connection:
            connection.execute(gone)

    def start_over(self) -> None:
        """Forgets all progress: every cell is built anew."""
        with self._database.begin() as connection:
            connection.execute(contents.delete())
            connection.execute(definitions.delete())
            self._end(connection, segments.c.state == LIVE)

    def known(self) -> frozenset[int]:
        """Every segment that was announced and not forgotten."""
        with self._database.connect() as connection:
            return frozenset(connection.scalars(sa.select(segments.c.id)))


def _token(text: str) -> Token | None:
    return parse_token(text) if text else None


def _text(vector: Token | None) -> str:
    return "" if vector is None else str(vector)
