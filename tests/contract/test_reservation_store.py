"""Reservations in SQL, by hand."""

from datetime import timedelta
from decimal import Decimal

import pytest

from tests.support.reservations import (
    NS,
    Desk,
    StandingClock,
    account,
    supply,
)
from tollgate.core.clock import us_from_datetime
from tollgate.core.errors import Conflict, NotFound
from tollgate.limits.account import Behind
from tollgate.limits.reservation import HoldState, Reservation, ReservationState, beyond_hold
from tollgate.limits.reservation_work import Decision
from tollgate.platform.sql import Database

TOKENS = account()


@pytest.fixture
def standing() -> StandingClock:
    return StandingClock()


@pytest.fixture
def desk(database: Database, standing: StandingClock) -> Desk:
    made = Desk(database, standing)
    made.offer(TOKENS, supply(100))
    return made


def id_of(decision: Decision) -> str:
    assert decision.reservation is not None
    return decision.reservation.id


def read(desk: Desk, decision: Decision) -> Reservation:
    return desk.store.get(NS, id_of(decision))


def test_holds_are_granted_up_to_the_limit_and_never_beyond(desk: Desk) -> None:
    first = desk.reserve({TOKENS: "60.5"})
    assert first.standings[0].book.free == Decimal("39.5")
    refused = desk.reserve({TOKENS: "39.500000000000000001"})
    assert (refused.reservation, refused.lacking) == (None, (TOKENS,))
    assert refused.standings[0].book.free == Decimal("39.5")
    desk.reserve({TOKENS: "39.5"})
    assert desk.counts(TOKENS) == (Decimal(100), 0)
    assert desk.reserve({TOKENS: "0.000000000000000001"}).lacking == (TOKENS,)


def test_one_transaction_decides_in_order(desk: Desk) -> None:
    asks = [desk.ask({TOKENS: n}) for n in (70, 40, 30, 1)]
    granted = [bool(each.reservation) for each in desk.decide(*asks)]
    assert granted == [True, False, True, False]
    assert desk.counts(TOKENS) == (Decimal(100), 0)


def test_a_soft_limit_is_granted_beyond(desk: Desk) -> None:
    desk.offer(TOKENS, supply(100, is_soft=True))
    assert desk.reserve({TOKENS: 250}).standings[0].book.free == Decimal(-150)


def test_all_accounts_or_none(desk: Desk) -> None:
    user, other = account(user="u"), account("images")
    desk.offer(user, supply(10))
    desk.offer(other, supply(3))
    refused = desk.reserve({TOKENS: 5, user: 5, other: 4})
    assert refused.lacking == (other,)
    assert [desk.counts(each) for each in (TOKENS, user, other)] == [(0, 0)] * 3
    granted = desk.reserve({TOKENS: 5, user: 5, other: 3})
    assert len(read(desk, granted).holds) == 3
    assert [desk.counts(each)[0] for each in (TOKENS, user, other)] == [5, 5, 3]
    assert desk.reserve({TOKENS: 6, user: 6}).lacking == (user,)


def test_the_same_key_is_the_same_reservation(desk: Desk, database: Database) -> None:
    ask = desk.ask({TOKENS: 5}, key="k")
    first = desk.decide(ask)[0]
    again = Desk(database, desk.clock)
    again.supplies = desk.supplies
    second, third = again.decide(again.ask({TOKENS: 5}, key="k"), again.ask({TOKENS: 5}, key="k"))
    assert id_of(first) == id_of(second) == id_of(third) == ask.id
    assert (first.is_new, second.is_new) == (True, False)
    assert desk.counts(TOKENS) == (Decimal(5), 0)
    with pytest.raises(Conflict, match="another reservation"):
        again.reserve({TOKENS: 6}, key="k")


def test_keys_of_one_transaction_are_one(desk: Desk) -> None:
    first, second = desk.decide(desk.ask({TOKENS: 5}, key="k"), desk.ask({TOKENS: 5}, key="k"))
    assert id_of(first) == id_of(second)
    assert desk.counts(TOKENS)[0] == 5


def test_a_settlement_waits_for_its_usage_and_then_leaves(desk: Desk) -> None:
    granted = desk.reserve({TOKENS: 60})
    settled = desk.settle(id_of(granted), 20, at=7)
    assert desk.counts(TOKENS) == (0, Decimal(20))
    assert settled.standings[0].book.free == 80
    # The usage is not there yet: what it took stays taken.
    desk.offer(TOKENS, supply(100, 6))
    assert desk.reserve({TOKENS: 81}).lacking
    # Now it is: the supply has it, and it counts once.
    desk.offer(TOKENS, supply(80, 7))
    assert desk.reserve({TOKENS: 81}).lacking
    assert desk.counts(TOKENS) == (0, 0)
    assert not desk.reserve({TOKENS: 80}).lacking
    hold = read(desk, settled).holds[0]
    assert (hold.amount, hold.actual) == (Decimal(60), Decimal(20))
    assert hold.state is HoldState.GONE


def test_usage_that_is_there_before_it_is_settled_counts_once(desk: Desk) -> None:
    granted = desk.reserve({TOKENS: 60})
    desk.offer(TOKENS, supply(80, 7))
    desk.settle(id_of(granted), 20, at=7)
    assert desk.counts(TOKENS) == (0, 0)


def test_a_settlement_beyond_its_hold_and_the_limit_is_said(desk: Desk) -> None:
    granted = desk.reserve({TOKENS: 60})
    desk.reserve({TOKENS: 30})
    settled = desk.settle(id_of(granted), 75, at=7)
    assert settled.reservation is not None
    assert beyond_hold(settled.reservation.holds[0]) == 15
    assert settled.standings[0].book.free == -5
    assert desk.reserve({TOKENS: 1}).lacking


def test_without_an_actual_amount_the_hold_is_what_was_used(desk: Desk) -> None:
    desk.settle(id_of(desk.reserve({TOKENS: 60})), at=7)
    assert desk.counts(TOKENS) == (0, 60)


def test_settled_twice_counts_once(desk: Desk) -> None:
    granted = id_of(desk.reserve({TOKENS: 60}))
    first, second = desk.decide(desk.settling(granted, 20), desk.settling(granted, 20))
    assert (first.is_new, second.is_new) == (True, False)
    assert desk.counts(TOKENS) == (0, 20)
    with pytest.raises(Conflict, match="settled already"):
        desk.settle(granted, 21)
    with pytest.raises(Conflict, match="settled already"):
        desk.settle(granted, 20, event="other")
    with pytest.raises(Conflict, match="can't be released"):
        desk.release(granted)


def test_released_holds_are_free_again(desk: Desk) -> None:
    granted = id_of(desk.reserve({TOKENS: 60}))
    assert desk.release(granted).is_new
    assert not desk.release(granted).is_new
    assert desk.counts(TOKENS) == (0, 0)
    with pytest.raises(Conflict, match="released"):
        desk.settle(granted, 1)


def test_a_hold_ends_by_its_time(desk: Desk, standing: StandingClock) -> None:
    first = desk.reserve({TOKENS: 60}, seconds=10)
    desk.reserve({TOKENS: 30}, seconds=30)
    assert desk.reserve({TOKENS: 20}).lacking
    standing.move(seconds=10)
    assert read(desk, first).state is ReservationState.EXPIRED
    assert not desk.reserve({TOKENS: 20}).lacking
    assert desk.counts(TOKENS) == (50, 0)
    standing.move(seconds=20)
    assert desk.store.sweep(desk.supply_of) == 1
    assert desk.counts(TOKENS) == (20, 0)
    assert desk.store.sweep(desk.supply_of) == 0


def test_a_settlement_that_comes_after_the_end_still_counts(
    desk: Desk, standing: StandingClock
) -> None:
    granted = id_of(desk.reserve({TOKENS: 60}, seconds=10))
    standing.move(seconds=11)
    desk.reserve({TOKENS: 100})
    settled = desk.settle(granted, 25, at=7)
    assert settled.before is ReservationState.EXPIRED
    assert desk.counts(TOKENS) == (100, 25)
    assert settled.standings[0].book.free == -25


def test_an_event_that_never_comes_is_not_waited_for_for_ever(
    desk: Desk, standing: StandingClock
) -> None:
    desk.settle(id_of(desk.reserve({TOKENS: 60})), 25)
    standing.move(hours=1)
    desk.offer(TOKENS, supply(100, 9))
    assert desk.reserve({TOKENS: 101}).lacking
    assert desk.counts(TOKENS) == (0, 0)


def test_a_position_that_is_found_later(desk: Desk) -> None:
    granted = id_of(desk.reserve({TOKENS: 60}))
    desk.settle(granted, 25, event="late")
    assert desk.store.unplaced(10) == [(granted, NS, "gateway", "late")]
    desk.store.place({granted: supply(0, 3).vector})
    assert desk.store.unplaced(10) == []
    desk.offer(TOKENS, supply(75, 3))
    desk.reserve({TOKENS: 100})
    assert desk.counts(TOKENS) == (0, 0)


def test_usage_that_was_known_before_anybody_found_its_event(desk: Desk) -> None:
    granted = id_of(desk.reserve({TOKENS: 60}))
    desk.settle(granted, 25, event="late")
    desk.offer(TOKENS, supply(75, 3))
    desk.store.advance([TOKENS], desk.supply_of)
    assert desk.counts(TOKENS) == (0, 25)
    desk.store.place({granted: supply(0, 3).vector})
    desk.store.advance([TOKENS, account("unknown")], desk.supply_of)
    assert desk.counts(TOKENS) == (0, 0)


def test_two_that_know_differently_decide_by_the_later(desk: Desk, database: Database) -> None:
    ahead, behind = desk, Desk(database, desk.clock)
    ahead.offer(TOKENS, supply(30, 9))
    behind.offer(TOKENS, supply(100, 5))
    assert not ahead.reserve({TOKENS: 10}).lacking
    refused = behind.reserve({TOKENS: 21})
    assert refused.lacking
    assert refused.standings[0].book.free == 20
    # A settled amount whose usage only the later one has does not come back.
    granted = id_of(behind.reserve({TOKENS: 5}))
    behind.settle(granted, 5, at=8)
    assert ahead.reserve({TOKENS: 21}).lacking
    assert desk.counts(TOKENS) == (10, 0)


def test_who_is_out_of_date_decides_nothing(
    desk: Desk, database: Database, standing: StandingClock
) -> None:
    other = Desk(database, standing)
    desk.offer(TOKENS, supply(100, 5, version=2))
    desk.reserve({TOKENS: 1})
    other.offer(TOKENS, supply(1000, 9))
    with pytest.raises(Behind):
        other.reserve({TOKENS: 1})
    until = us_from_datetime(standing.now() + timedelta(seconds=5))
    desk.offer(TOKENS, supply(100, 6, version=2, valid_until_us=until))
    desk.reserve({TOKENS: 1})
    standing.move(seconds=5)
    with pytest.raises(Behind):
        desk.reserve({TOKENS: 1})
    # After a reset less usage may be known of, but not by one who has seen less.
    other.offer(TOKENS, supply(1000, 5, version=2))
    with pytest.raises(Behind):
        other.reserve({TOKENS: 1})
    other.offer(TOKENS, supply(1000, 6, version=2))
    assert not other.reserve({TOKENS: 998}).lacking


def test_what_nobody_has_is_not_found(desk: Desk) -> None:
    for ask in (desk.settling("no"), desk.settling("01ARZ3NDEKTSV4RRFFQ69G5FAV")):
        with pytest.raises(NotFound):
            desk.decide(ask)
    with pytest.raises(NotFound):
        desk.store.get("other", id_of(desk.reserve({TOKENS: 1})))
    with pytest.raises(NotFound):
        desk.release("no")


def test_lists_pages_and_forgets(desk: Desk, standing: StandingClock) -> None:
    made = [id_of(desk.reserve({TOKENS: 1}, seconds=10)) for _ in range(3)]
    assert [each.id for each in desk.store.listed(NS, "c1", after="", limit=2)] == made[:2]
    assert [each.id for each in desk.store.listed(NS, None, after=made[1], limit=9)] == made[2:]
    assert desk.store.listed(NS, "other", after="", limit=9) == []
    desk.settle(made[0], 1, at=3)
    standing.move(minutes=1)
    desk.store.sweep(desk.supply_of)
    # What counts still is kept.
    assert desk.store.prune(standing.now()) == 2
    assert [each.id for each in desk.store.listed(NS, None, after="", limit=9)] == made[:1]


def test_books_that_changed(desk: Desk, standing: StandingClock) -> None:
    desk.reserve({TOKENS: 5})
    found, last = desk.store.books(0)
    assert found[TOKENS].held == 5
    standing.move(seconds=1)
    assert desk.reserve({TOKENS: 500}).lacking
    assert desk.store.books(last + 1) == ({}, last + 1)
    desk.reserve({TOKENS: 6})
    assert desk.store.books(last + 1)[0][TOKENS].held == 11
