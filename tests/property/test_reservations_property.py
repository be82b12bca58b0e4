"""Reservations of two processes, in any order, with any losses.

Never more than the limit is granted, every hold ends, and no usage counts twice.
"""

import itertools
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory

import sqlalchemy as sa
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.support.migrated import migrated_sqlite
from tests.support.reservations import NS, Desk, StandingClock, account, supply
from tollgate.core.errors import Conflict
from tollgate.limits.account import Account, Behind
from tollgate.limits.reservation import HoldState, ReservationState
from tollgate.limits.reservation_store import ReservationStore
from tollgate.limits.reservation_tables import holds
from tollgate.limits.reservation_work import Decision, Releasing
from tollgate.platform.sql import Database

CUSTOMER, USER = account(), account(user="u")
LIMITS = {CUSTOMER: 20, USER: 12}
amounts = st.integers(1, 9)
desks = st.integers(0, 1)
_numbers = itertools.count()


class Lost(Exception):
    """The process ends before its transaction does."""


@dataclass
class Known:
    """What the client knows of one of its reservations."""

    id: str
    amount: int
    accounts: tuple[Account, ...]
    expires_in: int
    state: ReservationState = ReservationState.HELD
    actual: int = 0


def new_database(path: Path) -> Database:
    path.write_bytes(migrated_sqlite())
    return Database(f"sqlite:///{path}")


class Reservations(RuleBasedStateMachine):
    """Events have offsets in their order; each desk knows usage up to one of them."""

    @initialize()
    def begin(self) -> None:
        self.folder = TemporaryDirectory()
        self.database = new_database(Path(self.folder.name) / "control.sqlite")
        self.clock = StandingClock()
        self.second = 0
        self.events: list[tuple[int, tuple[Account, ...]]] = []
        self.mine: list[Known] = []
        self.excess = 0
        self.known = [0, 0]
        self.desks = [Desk(self.database, self.clock) for _ in range(2)]
        self.learn(0, 0)
        self.learn(1, 0)

    def teardown(self) -> None:
        if hasattr(self, "database"):
            self.database.dispose()
            self.folder.cleanup()

    def usage(self, of: Account, offset: int) -> int:
        return sum(amount for amount, accounts in self.events[:offset] if of in accounts)

    @rule(desk=desks, ahead=st.integers(0, 9))
    def learn(self, desk: int, ahead: int) -> None:
        """A desk reads usage anew, as far as it was loaded."""
        self.known[desk] = min(len(self.events), self.known[desk] + ahead)
        for of, limit in LIMITS.items():
            left = max(0, limit - self.usage(of, self.known[desk]))
            self.desks[desk].offer(of, supply(left, self.known[desk]))

    @rule(desk=desks, amount=amounts, seconds=st.integers(1, 5), both=st.booleans())
    def reserve(self, desk: int, amount: int, seconds: int, both: bool) -> None:
        of = (CUSTOMER, USER) if both else (CUSTOMER,)
        ask = self.desks[desk].ask(
            dict.fromkeys(of, amount), seconds=seconds, key=str(next(_numbers))
        )
        decision = self.desks[desk].decide(ask)[0]
        if decision.reservation is not None:
            self.mine.append(Known(ask.id, amount, of, self.second + seconds))
            again = self.desks[1 - desk].decide(ask)[0]
            assert again.reservation is not None
            assert (again.is_new, again.reservation.id) == (False, ask.id)
        else:
            free = {each.account: each.book.free for each in decision.standings}
            assert any(free[each] < amount for each in decision.lacking)

    @precondition(lambda self: self.mine)
    @rule(
        desk=desks,
        which=st.integers(0, 99),
        actual=st.integers(0, 12),
        sent=st.booleans(),
        told=st.booleans(),
    )
    def settle(self, desk: int, which: int, actual: int, sent: bool, told: bool) -> None:
        one = self.mine[which % len(self.mine)]
        offset = len(self.events) + 1
        wanted = self.desks[desk].settling(
            one.id, actual, event=one.id, at=offset if told else None
        )
        if one.state is ReservationState.RELEASED:
            self.refused(desk, wanted)
            return
        if one.state is ReservationState.SETTLED:
            if actual != one.actual:
                self.refused(desk, wanted)
            return
        self.desks[desk].decide(wanted)
        late = one.expires_in <= self.second
        self.excess += actual if late else max(0, actual - one.amount)
        one.state, one.actual = ReservationState.SETTLED, actual
        self.events.append((actual, one.accounts))
        if not told and sent:
            self.desks[desk].store.place({one.id: supply(0, offset).vector})

    def refused(self, desk: int, wanted: object) -> None:
        (outcome,) = self.desks[desk].store.decide(
            [wanted],  # type: ignore[list-item]
            self.desks[desk].supply_of,
        )
        assert isinstance(outcome, Conflict)

    @precondition(lambda self: self.mine)
    @rule(desk=desks, which=st.integers(0, 99))
    def release(self, desk: int, which: int) -> None:
        one = self.mine[which % len(self.mine)]
        wanted = Releasing(namespace=NS, id=one.id)
        if one.state is ReservationState.SETTLED:
            self.refused(desk, wanted)
            return
        self.desks[desk].decide(wanted)
        if one.state is ReservationState.HELD and one.expires_in > self.second:
            one.state = ReservationState.RELEASED
        elif one.state is ReservationState.HELD:
            one.state = ReservationState.EXPIRED

    @rule(amount=amounts)
    def use_without_asking(self, amount: int) -> None:
        self.events.append((amount, (CUSTOMER,)))
        self.excess += amount

    @rule()
    def pass_time(self) -> None:
        self.second += 1
        self.clock.move(seconds=1)

    @rule(desk=desks)
    def die_and_come_back(self, desk: int) -> None:
        """A process dies inside its transaction; another takes its place and knows nothing."""

        class Dying(ReservationStore):
            def _remember(self, each: object) -> None:
                raise AssertionError("it ended before")

        dying = Desk(self.database, self.clock)
        dying.supplies = self.desks[desk].supplies
        asked = [dying.ask({CUSTOMER: 1, USER: 1})]
        looks = 0

        def supply_of(of: Account) -> object:
            nonlocal looks
            looks += 1
            if looks == 2:
                raise Lost
            return dying.supply_of(of)

        with suppress(Lost):
            Dying(self.database, self.clock).decide(asked, supply_of)  # type: ignore[arg-type]
        self.desks[desk] = Desk(self.database, self.clock)
        self.known[desk] = 0
        self.learn(desk, 0)

    @rule(desk=desks)
    def sweep(self, desk: int) -> None:
        self.desks[desk].store.sweep(self.desks[desk].supply_of)

    @invariant()
    def never_more_than_the_limit(self) -> None:
        if not hasattr(self, "database"):
            return
        for of, limit in LIMITS.items():
            used = self.usage(of, len(self.events))
            held = sum(
                each.amount
                for each in self.mine
                if of in each.accounts
                and each.state is ReservationState.HELD
                and each.expires_in > self.second
            )
            assert used + held <= limit + self.excess

    @invariant()
    def sums_are_those_of_the_holds(self) -> None:
        if not hasattr(self, "database"):
            return
        for of in LIMITS:
            with self.database.connect() as connection:
                rows = connection.execute(
                    sa.select(holds.c.state, holds.c.amount, holds.c.actual).where(
                        holds.c.account_id == of.id
                    )
                ).all()
            held = sum((row.amount for row in rows if row.state == HoldState.HELD), Decimal(0))
            unseen = sum((row.actual for row in rows if row.state == HoldState.UNSEEN), Decimal(0))
            assert self.desks[0].counts(of) == (held, unseen)


Reservations.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestReservations = Reservations.TestCase


def test_every_hold_ends_and_nothing_is_left(tmp_path: Path) -> None:
    """After all time is over, all usage known: what is free is the limit less the usage."""
    database, clock = new_database(tmp_path / "control.sqlite"), StandingClock()
    desk = Desk(database, clock)
    desk.offer(CUSTOMER, supply(20))
    granted = [desk.reserve({CUSTOMER: 5}).reservation for _ in range(4)]
    ids = [each.id for each in granted if each is not None]
    desk.settle(ids[0], 3, at=1)
    desk.settle(ids[1], 7, at=2)
    desk.release(ids[2])
    clock.move(minutes=1)
    desk.offer(CUSTOMER, supply(10, 2))
    assert desk.reserve({CUSTOMER: 11}).lacking == (CUSTOMER,)
    assert desk.counts(CUSTOMER) == (0, 0)
    assert desk.reserve({CUSTOMER: 10}).reservation is not None
    database.dispose()


def test_behind_is_an_outcome_of_its_own(tmp_path: Path) -> None:
    database, clock = new_database(tmp_path / "control.sqlite"), StandingClock()
    desk = Desk(database, clock)
    desk.offer(CUSTOMER, supply(20, valid_until_us=clock.now_us()))
    outcomes = desk.store.decide([desk.ask({CUSTOMER: 1}), desk.ask({USER: 1})], desk.supply_of)
    assert [type(each) for each in outcomes] == [Behind, Behind]
    desk.offer(USER, supply(20))
    outcomes = desk.store.decide([desk.ask({CUSTOMER: 1}), desk.ask({USER: 1})], desk.supply_of)
    assert [type(each) for each in outcomes] == [Behind, Decision]
    database.dispose()
