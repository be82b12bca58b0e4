"""How dead letters ended, in SQL. Every call names the namespace first."""

from collections.abc import Callable, Iterable

import sqlalchemy as sa

from tollgate.core.errors import Conflict
from tollgate.core.times import format_instant
from tollgate.events.dead_letter import Ending, letter_name
from tollgate.events.position import Position
from tollgate.platform.sql import Database, Instant, Text, metadata

dead_letter_endings = sa.Table(
    "dead_letter_endings",
    metadata,
    sa.Column("namespace", Text, primary_key=True),
    sa.Column("letter", Text, primary_key=True),
    sa.Column("action", Text, nullable=False),
    sa.Column("reason", Text, nullable=False),
    sa.Column("actor", Text, nullable=False),
    sa.Column("ended_at", Instant, nullable=False),
    sa.Column("token", Text, nullable=False),
)
_COLUMNS = ("action", "reason", "actor", "ended_at", "token")


class DeadLetterStore:
    """The endings of every namespace's dead letters. A letter without one is open."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def endings(self, namespace: str, letters: Iterable[Position]) -> dict[Position, Ending]:
        """How each of these ended, of those that did."""
        named = {letter_name(letter): letter for letter in letters}
        c = dead_letter_endings.c
        query = sa.select(dead_letter_endings).where(
            c.namespace == namespace, c.letter.in_(sorted(named))
        )
        if not named:
            return {}
        with self._database.connect() as connection:
            rows = connection.execute(query).mappings().all()
        return {
            named[row["letter"]]: Ending(**{name: row[name] for name in _COLUMNS}) for row in rows
        }

    def end(
        self, namespace: str, letter: Position, ending: Ending, work: Callable[[], str]
    ) -> Ending:
        """Ends an open letter.

        Args:
            namespace: whose letter.
            letter: which.
            ending: how; without a token.
            work: done before the ending counts; gives the token. If the ending is lost, it may be
                done again.

        Raises:
            Conflict: it has ended already, or ends just now.
        """
        c, name = dead_letter_endings.c, letter_name(letter)
        mine = sa.and_(c.namespace == namespace, c.letter == name)
        with self._database.begin() as connection:
            before = (
                connection.execute(sa.select(dead_letter_endings).where(mine)).mappings().first()
            )
            if before is not None:
                when = format_instant(before["ended_at"])
                raise Conflict(f"dead letter {name} was {before['action']} at {when} already")
            values = {each: getattr(ending, each) for each in _COLUMNS}
            # First: whoever ends the same letter at this moment waits here, and is refused.
            connection.execute(
                dead_letter_endings.insert().values(namespace=namespace, letter=name, **values)
            )
            token = work()
            connection.execute(dead_letter_endings.update().where(mine).values(token=token))
        return Ending(**values | {"token": token})
