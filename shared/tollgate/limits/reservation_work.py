"""One transaction in which reservations are decided, under the locks of their accounts."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from tollgate.core.clock import us_from_datetime
from tollgate.core.errors import Conflict, NotFound, TollgateError
from tollgate.core.reading import shown
from tollgate.events.position import parse_token
from tollgate.limits.account import Account, Behind, Book, Supply, is_seen
from tollgate.limits.reservation import (
    Hold,
    HoldState,
    Reservation,
    ReservationState,
    Settlement,
    expire,
    release,
    reserve,
    see,
    settle,
)
from tollgate.limits.reservation_tables import (
    account_of_row,
    accounts,
    book_of_row,
    ending_of_reservation,
    hold_of_row,
    holds,
    reservation_of_row,
    reservations,
    row_of_account,
    row_of_reservation,
    rows_of_holds,
    values_of_book,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settling:
    """Asks that a reservation be settled."""

    namespace: str
    id: str
    settlement: Settlement


@dataclass(frozen=True, slots=True, kw_only=True)
class Releasing:
    """Asks that a reservation be released."""

    namespace: str
    id: str


Ask = Reservation | Settling | Releasing
"""A reservation asks to be held."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """An account after a decision."""

    account: Account
    book: Book


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What became of an ask.

    Attributes:
        reservation: as it is now; None: refused.
        lacking: accounts that did not admit their amounts; () if none.
        is_new: whether this ask made it so; False: it was so before.
        before: the reservation's state when it was asked.
        standings: the accounts that it concerns.
    """

    reservation: Reservation | None
    lacking: tuple[Account, ...] = ()
    is_new: bool = True
    before: ReservationState = ReservationState.HELD
    standings: tuple[Standing, ...] = ()


Outcome = Decision | TollgateError | Behind
SupplyOf = Callable[[Account], Supply | None]


def read_reservations(
    connection: sa.Connection, wanted: sa.ColumnElement[bool], limit: int | None = None
) -> list[Reservation]:
    """Reservations with their holds, by id."""
    rows = connection.execute(
        sa.select(reservations).where(wanted).order_by(reservations.c.id).limit(limit)
    ).all()
    if not rows:
        return []
    of: dict[str, list[Hold]] = {row.id: [] for row in rows}
    joined = sa.select(holds, accounts).join(accounts, accounts.c.id == holds.c.account_id)
    for row in connection.execute(
        joined.where(holds.c.reservation_id.in_(list(of))).order_by(holds.c.account_id)
    ):
        of[row.reservation_id].append(hold_of_row(row, account_of_row(row)))
    return [reservation_of_row(row, tuple(of[row.id])) for row in rows]


class Work:
    """One transaction."""

    def __init__(self, connection: sa.Connection, now: datetime, supply_of: SupplyOf) -> None:
        self._connection = connection
        self._now = now
        self._now_us = us_from_datetime(now)
        self._supply_of = supply_of
        self._accounts: dict[str, Account] = {}
        self._books: dict[str, Book] = {}
        self._next: dict[str, int | None] = {}
        self._behind: set[str] = set()
        self._found: dict[str, Reservation] = {}
        self._by_key: dict[tuple[str, str], str] = {}
        self._new: set[str] = set()
        self._changed: set[str] = set()
        self._before: dict[str, dict[str, object]] = {}

    def lock(self, concerned: Mapping[str, Account], made: set[str], *, look: bool = False) -> None:
        """Locks the accounts, and takes the supplies that are newer than what they have.

        Args:
            concerned: which accounts, by id.
            made: those that have a row.
            look: whether settled amounts are looked at where usage is known no further than before:
                it may be known meanwhile where their events are.
        """
        if not concerned:
            return
        missing = [row_of_account(each) for key, each in concerned.items() if key not in made]
        if missing:
            is_postgres = self._connection.dialect.name == "postgresql"
            insert = (postgresql.insert if is_postgres else sqlite.insert)(accounts)
            missing.sort(key=lambda row: str(row["id"]))
            self._connection.execute(insert.on_conflict_do_nothing(), missing)
        rows = self._connection.execute(
            sa.select(accounts)
            .where(accounts.c.id.in_(sorted(concerned)))
            .order_by(accounts.c.id)
            .with_for_update()
        ).all()
        moved = []
        for row in rows:
            book = book_of_row(row)
            self._accounts[row.id], self._books[row.id] = concerned[row.id], book
            self._next[row.id] = row.next_expiry
            if book.supply is not None:
                self._before[row.id] = self._values(row.id)
            offered = self._supply_of(concerned[row.id])
            try:
                if offered is not None:
                    is_newer = look or str(offered.vector) != row.vector
                    if book.admit(offered, self._now_us) and is_newer:
                        moved.append(row.id)
                elif book.supply is None or book.supply.valid_until_us <= self._now_us:
                    self._behind.add(row.id)
            except Behind:
                self._behind.add(row.id)
        self._see(moved)

    def _see(self, moved: Sequence[str]) -> None:
        """Drops settled amounts whose usage the supplies have, or that come no more."""
        moved = [each for each in moved if self._books[each].unseen]
        if not moved:
            return
        rows = self._connection.execute(
            sa.select(holds).where(
                holds.c.account_id.in_(moved), holds.c.state == HoldState.UNSEEN.value
            )
        ).all()
        gone = []
        for row in rows:
            supply = self._books[row.account_id].supply
            assert supply is not None
            position = None if row.position is None else parse_token(row.position)
            if is_seen(position, supply) or row.expires_at <= self._now:
                see(hold_of_row(row, self._accounts[row.account_id]), self._books)
                gone.append({"of": row.reservation_id, "at": row.account_id})
        self._forget(gone)

    def expire(self) -> None:
        """Gives back holds whose time is over."""
        due = [key for key, at in self._next.items() if at is not None and at <= self._now_us]
        if not due:
            return
        held = (holds.c.account_id.in_(due)) & (holds.c.state == HoldState.HELD.value)
        gone = []
        for row in self._connection.execute(
            sa.select(holds).where(held, holds.c.expires_at <= self._now)
        ):
            expire(hold_of_row(row, self._accounts[row.account_id]), self._books)
            gone.append({"of": row.reservation_id, "at": row.account_id})
        self._forget(gone)
        left = self._connection.execute(
            sa.select(holds.c.account_id, sa.func.min(holds.c.expires_at))
            .where(held)
            .group_by(holds.c.account_id)
        )
        self._next |= dict.fromkeys(due)
        self._next |= {row[0]: us_from_datetime(row[1]) for row in left}

    def _forget(self, gone: list[dict[str, str]]) -> None:
        if not gone:
            return
        dead = {(each["of"], each["at"]) for each in gone}
        for key, found in list(self._found.items()):
            if any((key, hold.account.id) in dead for hold in found.holds):
                self._found[key] = replace(
                    found,
                    holds=tuple(
                        replace(hold, state=HoldState.GONE)
                        if (key, hold.account.id) in dead
                        else hold
                        for hold in found.holds
                    ),
                )
        self._connection.execute(
            sa.update(holds)
            .where(
                holds.c.reservation_id == sa.bindparam("of"),
                holds.c.account_id == sa.bindparam("at"),
            )
            .values(state=HoldState.GONE.value),
            gone,
        )

    def read(self, asks: Iterable[Ask], concerned: Mapping[str, Account]) -> None:
        """Reads the reservations that asks name, now that nobody else may change them."""
        ids = sorted({ask.id for ask in asks if not isinstance(ask, Reservation)})
        keys = sorted(
            {
                (ask.namespace, ask.idempotency_key)
                for ask in asks
                if isinstance(ask, Reservation) and ask.idempotency_key is not None
            }
        )
        if not concerned or not (ids or keys):
            return
        named = sa.tuple_(reservations.c.namespace, reservations.c.idempotency_key).in_(keys)
        wanted = [reservations.c.id.in_(ids)] if ids else []
        wanted += [named] if keys else []
        for found in read_reservations(self._connection, sa.or_(*wanted)):
            self._found[found.id] = found
            if found.idempotency_key is not None:
                self._by_key[found.namespace, found.idempotency_key] = found.id

    def outcome(self, ask: Ask) -> Outcome:
        """Decides one ask; what went before in this transaction counts."""
        try:
            if isinstance(ask, Reservation):
                return self._reserve(ask)
            return self._end(ask)
        except (TollgateError, Behind) as refused:
            return refused

    def _reserve(self, ask: Reservation) -> Decision:
        if ask.idempotency_key is not None:
            known = self._by_key.get((ask.namespace, ask.idempotency_key))
            if known is not None:
                found = self._found[known].seen_at(self._now)
                if found.fingerprint != ask.fingerprint:
                    raise Conflict("the idempotency key was used for another reservation")
                return self._decided(found, is_new=False)
        if any(hold.account.id in self._behind for hold in ask.holds):
            raise Behind
        lacking = reserve(ask, self._books)
        if lacking:
            return self._decided(None, lacking=lacking, concerned=ask.holds)
        self._found[ask.id] = ask
        self._new.add(ask.id)
        if ask.idempotency_key is not None:
            self._by_key[ask.namespace, ask.idempotency_key] = ask.id
        expiry = us_from_datetime(ask.expires_at)
        for hold in ask.holds:
            soonest = self._next[hold.account.id]
            self._next[hold.account.id] = expiry if soonest is None else min(soonest, expiry)
        return self._decided(ask)

    def _end(self, ask: Settling | Releasing) -> Decision:
        found = self._found.get(ask.id)
        if found is None or found.namespace != ask.namespace:
            raise unknown_reservation(ask.id)
        before = found.seen_at(self._now).state
        if isinstance(ask, Settling):
            if any(self._books[hold.account.id].supply is None for hold in found.holds):
                raise Behind
            ended = settle(found, ask.settlement, self._books)
        else:
            ended = release(found, self._now, self._books)
        is_new = ended is not found
        if is_new:
            self._found[ask.id] = ended
            self._changed.add(ask.id)
        return self._decided(ended, is_new=is_new, before=before)

    def _decided(
        self,
        found: Reservation | None,
        *,
        lacking: tuple[Account, ...] = (),
        is_new: bool = True,
        before: ReservationState = ReservationState.HELD,
        concerned: tuple[Hold, ...] = (),
    ) -> Decision:
        standings = (
            Standing(account=hold.account, book=replace(self._books[hold.account.id]))
            for hold in (concerned if found is None else found.holds)
            if hold.account.id in self._books
        )
        return Decision(
            reservation=found,
            lacking=lacking,
            is_new=is_new,
            before=before,
            standings=tuple(standings),
        )

    def _values(self, key: str) -> dict[str, object]:
        return {"next_expiry": self._next[key], **values_of_book(self._books[key])}

    def write(self) -> None:
        """Writes all that was decided."""
        new = [self._found[key] for key in sorted(self._new)]
        changed = [self._found[key] for key in sorted(self._changed - self._new)]
        execute = self._connection.execute
        if new:
            execute(sa.insert(reservations), [row_of_reservation(each) for each in new])
            execute(sa.insert(holds), [row for each in new for row in rows_of_holds(each)])
        if changed:
            execute(
                sa.update(reservations)
                .where(reservations.c.id == sa.bindparam("of"))
                .values({name: sa.bindparam(name) for name in ending_of_reservation(changed[0])}),
                [{"of": each.id, **ending_of_reservation(each)} for each in changed],
            )
            execute(
                sa.update(holds)
                .where(
                    holds.c.reservation_id == sa.bindparam("of"),
                    holds.c.account_id == sa.bindparam("in_account"),
                )
                .values({name: sa.bindparam(name) for name in _ENDING}),
                [
                    {
                        "of": row["reservation_id"],
                        "in_account": row["account_id"],
                        **{name: row[name] for name in _ENDING},
                    }
                    for each in changed
                    for row in rows_of_holds(each)
                ],
            )
        rows: list[dict[str, object]] = [
            {"of": key, "changed_at": self._now_us, **values}
            for key, book in self._books.items()
            if book.supply is not None and (values := self._values(key)) != self._before.get(key)
        ]
        if rows:
            execute(
                sa.update(accounts)
                .where(accounts.c.id == sa.bindparam("of"))
                .values({name: sa.bindparam(name) for name in rows[0] if name != "of"}),
                rows,
            )


_ENDING = ("state", "actual", "expires_at", "position")


def unknown_reservation(reservation_id: str) -> NotFound:
    """What is answered of a reservation that is not there."""
    return NotFound(f"there is no reservation {shown(reservation_id)!r}")
