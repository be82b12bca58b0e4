"""How far the ledger was counted again, and what did not balance, in SQL."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from tollgate.core.clock import datetime_from_us, us_from_datetime
from tollgate.core.errors import Conflict
from tollgate.events.imbalance import EVERYBODY, Difference, Imbalance, Slice
from tollgate.events.position import NOTHING, Token, vector_from_text
from tollgate.events.seal_store import know_namespaces
from tollgate.platform.sql import Database, Instant, Json, Text, metadata

recounts = sa.Table(
    "recounts",
    metadata,
    sa.Column("name", Text, primary_key=True),
    sa.Column("vector", Text, nullable=False),
)
imbalances = sa.Table(
    "imbalances",
    metadata,
    sa.Column("namespace", Text, primary_key=True),
    sa.Column("hour", Instant, primary_key=True),
    sa.Column("generation", sa.BigInteger, primary_key=True),
    sa.Column("partition", sa.BigInteger, primary_key=True),
    sa.Column("offset_after", sa.BigInteger, primary_key=True),
    sa.Column("offset_through", sa.BigInteger, nullable=False),
    sa.Column("appended_since", Instant, nullable=False),
    sa.Column("appended_until", Instant, nullable=False),
    sa.Column("differences", Json, nullable=False),
    sa.Column("found_at", Instant, nullable=False),
)
_LEDGER = "ledger"


class RecountStore:
    """The recount of all namespaces: it moves on from where it was saved, or not at all."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def recounted(self) -> Token:
        """The vector up to which the ledger was counted again."""
        with self._database.connect() as connection:
            return _recounted(connection)

    def save_recount(
        self,
        before: Token,
        through: Token,
        found: Sequence[Imbalance],
        namespaces: Iterable[str] = (),
    ) -> None:
        """Moves the recount on, and keeps what was found.

        Args:
            before: where it was.
            through: where it is now.
            found: what does not balance in between.
            namespaces: whose events stand in between; unknown ones are known from now on.

        Raises:
            Conflict: another one moved it meanwhile.
        """
        with self._database.begin() as connection:
            if before == NOTHING and _recounted(connection) == NOTHING:
                connection.execute(recounts.delete())
                connection.execute(recounts.insert().values(name=_LEDGER, vector=str(through)))
            else:
                moved = connection.execute(
                    recounts.update()
                    .where(recounts.c.name == _LEDGER, recounts.c.vector == str(before))
                    .values(vector=str(through))
                )
                if moved.rowcount != 1:
                    raise Conflict("another run counts the ledger at this moment")
            _add_imbalances(connection, found)
            names = {name for name in namespaces if name}
            if names:
                know_namespaces(connection, names)

    def replace_imbalances(self, part: Slice, found: Sequence[Imbalance]) -> None:
        """What a slice looks like now; what was off before keeps the time it was found."""
        c = imbalances.c
        of_slice = sa.and_(
            c.generation == part.generation,
            c.partition == part.partition,
            c.offset_after == part.after,
        )
        with self._database.begin() as connection:
            rows = connection.execute(sa.select(imbalances).where(of_slice)).mappings()
            before = {(each.namespace, each.hour): each.found_at for each in map(_imbalance, rows)}
            connection.execute(imbalances.delete().where(of_slice))
            kept = [
                replace(each, found_at=before.get((each.namespace, each.hour), each.found_at))
                for each in found
            ]
            _add_imbalances(connection, kept)

    def imbalances(self, namespace: str | None = None) -> tuple[Imbalance, ...]:
        """What does not balance, oldest first.

        Args:
            namespace: whose, besides what concerns everybody; None: all.
        """
        query = sa.select(imbalances).order_by(
            *(imbalances.c[n] for n in ("hour", "namespace", "generation", "partition")),
            imbalances.c.offset_after,
        )
        if namespace is not None:
            query = query.where(imbalances.c.namespace.in_((namespace, EVERYBODY)))
        with self._database.connect() as connection:
            return tuple(map(_imbalance, connection.execute(query).mappings()))


def _recounted(connection: sa.Connection) -> Token:
    query = sa.select(recounts.c.vector).where(recounts.c.name == _LEDGER)
    text = connection.execute(query).scalar()
    return NOTHING if text is None else vector_from_text(text)


def _add_imbalances(connection: sa.Connection, found: Sequence[Imbalance]) -> None:
    if not found:
        return
    rows = [
        {
            "namespace": each.namespace,
            "hour": each.hour,
            "generation": each.part.generation,
            "partition": each.part.partition,
            "offset_after": each.part.after,
            "offset_through": each.part.through,
            "appended_since": datetime_from_us(each.part.since_us),
            "appended_until": datetime_from_us(each.part.until_us),
            "differences": [[d.what, d.expected, d.found] for d in each.differences],
            "found_at": each.found_at,
        }
        for each in found
    ]
    connection.execute(imbalances.insert(), rows)


def _imbalance(row: Mapping[Any, Any]) -> Imbalance:
    part = Slice(
        generation=row["generation"],
        partition=row["partition"],
        after=row["offset_after"],
        through=row["offset_through"],
        since_us=us_from_datetime(row["appended_since"]),
        until_us=us_from_datetime(row["appended_until"]),
    )
    return Imbalance(
        namespace=row["namespace"],
        hour=row["hour"],
        part=part,
        differences=tuple(
            Difference(what=what, expected=expected, found=found)
            for what, expected, found in row["differences"]
        ),
        found_at=row["found_at"],
    )
