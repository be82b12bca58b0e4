"""Reservations: amounts that are held before usage happens, and settled by what did happen.

A reservation holds amounts of several accounts, all or none. It ends once: settled, released, or by
its time. A settlement is never refused for its size: the usage has happened. What it took beyond
its hold, or beyond the limit, is said.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from tollgate.core.errors import Conflict
from tollgate.events.position import Token
from tollgate.limits.account import Account, Book, is_seen

_ZERO = Decimal(0)


class ReservationState(StrEnum):
    """Where a reservation is in its life."""

    HELD = "held"
    SETTLED = "settled"
    RELEASED = "released"
    EXPIRED = "expired"


class HoldState(StrEnum):
    """What of a hold counts in its account."""

    HELD = "held"
    UNSEEN = "unseen"
    GONE = "gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """What a reservation has of one account.

    Attributes:
        amount: held.
        state: what of it counts.
        actual: settled; None: it was not.
    """

    account: Account
    amount: Decimal
    state: HoldState = HoldState.HELD
    actual: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """What a reservation was settled with.

    Attributes:
        actual: by feature; a feature that is not named used what was held.
        source, event_id: of the event that reports the usage; "" for none: the amount stays until
            `unseen_until`.
        position: where that event is in the log; None: not known.
        settled_at: when.
        unseen_until: an event that has not come by then is no longer waited for.
    """

    actual: Mapping[str, Decimal]
    source: str
    event_id: str
    position: Token | None
    settled_at: datetime
    unseen_until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """Amounts that are held together.

    Attributes:
        idempotency_key: the caller's name for it; None: none.
        fingerprint: of what was asked for: the same key for something else is a conflict.
        expires_at: when it ends by itself.
        ended_at: when it did; None: it has not.
        settlement: how; None: it was not settled.
    """

    id: str
    namespace: str
    customer_id: str
    idempotency_key: str | None
    fingerprint: str
    state: ReservationState
    created_at: datetime
    expires_at: datetime
    holds: tuple[Hold, ...]
    ended_at: datetime | None = None
    settlement: Settlement | None = None

    def seen_at(self, now: datetime) -> "Reservation":
        """As it is at an instant: by its time it ends by itself."""
        if self.state is ReservationState.HELD and self.expires_at <= now:
            return replace(self, state=ReservationState.EXPIRED, ended_at=self.expires_at)
        return self


Books = Mapping[str, Book]
"""By the account's id."""


def reserve(wanted: Reservation, books: Books) -> tuple[Account, ...]:
    """Holds all amounts, or none.

    Returns:
        the accounts that do not admit theirs; () if all is held now.
    """
    lacking = tuple(
        hold.account for hold in wanted.holds if not books[hold.account.id].admits(hold.amount)
    )
    if not lacking:
        for hold in wanted.holds:
            books[hold.account.id].hold(hold.amount)
    return lacking


def expire(hold: Hold, books: Books) -> Hold:
    """Gives back a hold whose time has come."""
    assert hold.state is HoldState.HELD
    books[hold.account.id].hold(-hold.amount)
    return replace(hold, state=HoldState.GONE)


def see(hold: Hold, books: Books) -> Hold:
    """The usage of a settled hold is in the account's supply, or no longer waited for."""
    assert hold.state is HoldState.UNSEEN
    assert hold.actual is not None
    books[hold.account.id].settle(-hold.actual)
    return replace(hold, state=HoldState.GONE)


def settle(found: Reservation, settlement: Settlement, books: Books) -> Reservation:
    """Ends a reservation by what was used, also one whose time was over.

    Raises:
        Conflict: it was released, or settled with something else.
    """
    if found.state is ReservationState.RELEASED:
        raise Conflict("the reservation was released: it can't be settled any more")
    if found.settlement is not None:
        mine, theirs = settlement, found.settlement
        told = (mine.source, mine.event_id), _amounts(found, mine)
        if told == ((theirs.source, theirs.event_id), _amounts(found, theirs)):
            return found
        raise Conflict("the reservation was settled already, with another amount or event")
    holds = []
    for hold in found.holds:
        book = books[hold.account.id]
        actual = settlement.actual.get(hold.account.feature_key, hold.amount)
        if hold.state is HoldState.HELD:
            book.hold(-hold.amount)
        assert book.supply is not None
        state = HoldState.GONE
        if actual and not is_seen(settlement.position, book.supply):
            book.settle(actual)
            state = HoldState.UNSEEN
        holds.append(replace(hold, state=state, actual=actual))
    return replace(
        found,
        state=ReservationState.SETTLED,
        holds=tuple(holds),
        ended_at=settlement.settled_at,
        settlement=settlement,
    )


def release(found: Reservation, now: datetime, books: Books) -> Reservation:
    """Ends a reservation without usage. One that has ended so, or by its time, stays as it is.

    Raises:
        Conflict: it was settled.
    """
    if found.state is ReservationState.SETTLED:
        raise Conflict("the reservation was settled: it can't be released any more")
    if found.state is not ReservationState.HELD:
        return found
    holds = tuple(
        expire(hold, books) if hold.state is HoldState.HELD else hold for hold in found.holds
    )
    if found.expires_at <= now:
        ended_at, state = found.expires_at, ReservationState.EXPIRED
    else:
        ended_at, state = now, ReservationState.RELEASED
    return replace(found, state=state, ended_at=ended_at, holds=holds)


def beyond_hold(hold: Hold) -> Decimal:
    """How much more a hold was settled with than it held."""
    return max(_ZERO, (hold.actual or _ZERO) - hold.amount)


def _amounts(found: Reservation, settlement: Settlement) -> dict[str, Decimal]:
    return {
        hold.account.feature_key: settlement.actual.get(hold.account.feature_key, hold.amount)
        for hold in found.holds
    }
