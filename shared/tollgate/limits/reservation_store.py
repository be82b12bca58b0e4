"""Reservations in SQL: what waits together is decided in one transaction.

Locks are taken in one order, so no two transactions wait for each other. Whoever dies with a
transaction open leaves nothing behind; one that has committed has answered for good, and a caller
who did not hear it asks again with the same key.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import sqlalchemy as sa

from tollgate.core.clock import Clock, us_from_datetime
from tollgate.core.errors import Conflict
from tollgate.events.position import Token
from tollgate.limits.account import Account, Book
from tollgate.limits.reservation import HoldState, Reservation
from tollgate.limits.reservation_tables import (
    account_of_row,
    accounts,
    book_of_row,
    holds,
    reservations,
)
from tollgate.limits.reservation_work import (
    Ask,
    Decision,
    Outcome,
    SupplyOf,
    Work,
    read_reservations,
    unknown_reservation,
)
from tollgate.platform.sql import Database

_KNOWN_MAX = 200_000


class ReservationStore:
    """All reservations of a database. Thread-safe."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        # Which accounts a reservation has never changes.
        self._of_reservation: OrderedDict[str, tuple[Account, ...]] = OrderedDict()
        self._made: set[str] = set()

    def decide(self, asks: Sequence[Ask], supply_of: SupplyOf) -> list[Outcome]:
        """Decides asks in their order, all that can be in one transaction.

        Args:
            asks: what is asked.
            supply_of: what this process knows of an account; None: nothing. Answers at once: it is
                asked under locks.

        Returns:
            for each a decision, or why there is none. `Behind`: its supplies are out of date.

        Raises:
            Transient: SQL is away; what was decided is unknown.
        """
        try:
            return self._decide(asks, supply_of)
        except Conflict:
            # Another process took an idempotency key meanwhile: now it can be seen.
            if len(asks) == 1:
                return self._decide(asks, supply_of)
            return [outcome for each in asks for outcome in self.decide([each], supply_of)]

    def _decide(self, asks: Sequence[Ask], supply_of: SupplyOf) -> list[Outcome]:
        with self._database.begin() as connection:
            concerned = self._concerned(connection, asks)
            work = Work(connection, self._clock.now(), supply_of)
            work.lock(concerned, self._made)
            work.read(asks, concerned)
            work.expire()
            outcomes = [work.outcome(each) for each in asks]
            work.write()
        self._made.update(concerned)
        for outcome in outcomes:
            if isinstance(outcome, Decision) and outcome.reservation is not None:
                self._remember(outcome.reservation)
        return outcomes

    def _remember(self, each: Reservation) -> None:
        self._of_reservation[each.id] = tuple(hold.account for hold in each.holds)
        if len(self._of_reservation) > _KNOWN_MAX:
            self._of_reservation.popitem(last=False)
        if len(self._made) > _KNOWN_MAX:
            self._made.clear()

    def _concerned(self, connection: sa.Connection, asks: Iterable[Ask]) -> dict[str, Account]:
        """All accounts that asks concern, by id."""
        found: dict[str, Account] = {}
        unknown = []
        for ask in asks:
            if isinstance(ask, Reservation):
                found |= {hold.account.id: hold.account for hold in ask.holds}
            elif ask.id in self._of_reservation:
                found |= {each.id: each for each in self._of_reservation[ask.id]}
            else:
                unknown.append(ask.id)
        if unknown:
            rows = connection.execute(
                sa.select(accounts).where(
                    accounts.c.id.in_(
                        sa.select(holds.c.account_id).where(holds.c.reservation_id.in_(unknown))
                    )
                )
            )
            found |= {row.id: account_of_row(row) for row in rows}
        return found

    def get(self, namespace: str, reservation_id: str) -> Reservation:
        """One reservation as it is now.

        Raises:
            NotFound: there is none. Transient: SQL is away.
        """
        wanted = (reservations.c.namespace == namespace) & (reservations.c.id == reservation_id)
        with self._database.connect() as connection:
            found = read_reservations(connection, wanted)
        if not found:
            raise unknown_reservation(reservation_id)
        return found[0].seen_at(self._clock.now())

    def listed(
        self, namespace: str, customer_id: str | None, *, after: str, limit: int
    ) -> list[Reservation]:
        """Reservations in the order of their making.

        Raises:
            Transient: SQL is away.
        """
        wanted = (reservations.c.namespace == namespace) & (reservations.c.id > after)
        if customer_id is not None:
            wanted &= reservations.c.customer_id == customer_id
        with self._database.connect() as connection:
            found = read_reservations(connection, wanted, limit)
        return [each.seen_at(self._clock.now()) for each in found]

    def books(self, since_us: int) -> tuple[dict[Account, Book], int]:
        """Accounts that changed at or after an instant, and the last such instant.

        Raises:
            Transient: SQL is away.
        """
        with self._database.connect() as connection:
            rows = connection.execute(
                sa.select(accounts).where(accounts.c.changed_at >= since_us)
            ).all()
        last = max((row.changed_at for row in rows), default=since_us)
        return {account_of_row(row): book_of_row(row) for row in rows}, last

    def book(self, account: Account) -> Book:
        """What is held of one account.

        Raises:
            Transient: SQL is away.
        """
        with self._database.connect() as connection:
            row = connection.execute(
                sa.select(accounts).where(accounts.c.id == account.id)
            ).one_or_none()
        return Book() if row is None else book_of_row(row)

    def advance(self, concerned: Iterable[Account], supply_of: SupplyOf) -> None:
        """Drops settled amounts of accounts whose usage is known by now.

        Raises:
            Transient: SQL is away.
        """
        accounts_by_id = {each.id: each for each in concerned if supply_of(each) is not None}
        if not accounts_by_id:
            return
        with self._database.begin() as connection:
            work = Work(connection, self._clock.now(), supply_of)
            work.lock(accounts_by_id, self._made, look=True)
            work.expire()
            work.write()

    def sweep(self, supply_of: SupplyOf, *, limit: int = 1000) -> int:
        """Ends holds whose time is over, of accounts that nobody asks for.

        Returns:
            the number of accounts looked at.

        Raises:
            Transient: SQL is away.
        """
        now = self._clock.now()
        with self._database.begin() as connection:
            rows = connection.execute(
                sa.select(accounts)
                .where(accounts.c.next_expiry <= us_from_datetime(now))
                .order_by(accounts.c.id)
                .limit(limit)
            ).all()
            if not rows:
                return 0
            work = Work(connection, now, supply_of)
            work.lock({row.id: account_of_row(row) for row in rows}, set())
            work.expire()
            work.write()
        return len(rows)

    def prune(self, before: datetime, *, limit: int = 10_000) -> int:
        """Forgets reservations that expired before an instant and of which nothing counts.

        Returns:
            their number.

        Raises:
            Transient: SQL is away.
        """
        counting = sa.select(holds.c.reservation_id).where(holds.c.state != HoldState.GONE.value)
        with self._database.begin() as connection:
            old = (
                sa.select(reservations.c.id)
                .where(reservations.c.expires_at < before, reservations.c.id.not_in(counting))
                .limit(limit)
            )
            ids = connection.execute(old).scalars().all()
            connection.execute(sa.delete(holds).where(holds.c.reservation_id.in_(ids)))
            connection.execute(sa.delete(reservations).where(reservations.c.id.in_(ids)))
        return len(ids)

    def unplaced(self, limit: int) -> list[tuple[str, str, str, str]]:
        """Settled holds whose event's position is not known: reservation, namespace, source, id.

        Raises:
            Transient: SQL is away.
        """
        with self._database.connect() as connection:
            rows = connection.execute(
                sa.select(reservations.c.id, reservations.c.namespace, reservations.c.settlement)
                .where(
                    reservations.c.id.in_(
                        sa.select(holds.c.reservation_id).where(
                            holds.c.state == HoldState.UNSEEN.value, holds.c.position.is_(None)
                        )
                    )
                )
                .order_by(reservations.c.id.desc())
                .limit(limit)
            ).all()
        found = ((row.id, row.namespace, row.settlement) for row in rows)
        return [(a, b, it["source"], it["id"]) for a, b, it in found if it["id"]]

    def place(self, positions: Mapping[str, Token]) -> None:
        """Says where the events are that settled reservations wait for.

        Raises:
            Transient: SQL is away.
        """
        if not positions:
            return
        statement = (
            sa.update(holds)
            .where(holds.c.reservation_id == sa.bindparam("of"), holds.c.position.is_(None))
            .values(position=sa.bindparam("at"))
        )
        rows = [{"of": name, "at": str(token)} for name, token in sorted(positions.items())]
        with self._database.begin() as connection:
            connection.execute(statement, rows)
