"""Reservations on a real database, with supplies that a test sets."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from tollgate.core.clock import Clock, us_from_datetime
from tollgate.core.ids import new_ulid
from tollgate.events.position import Token
from tollgate.limits.account import Account, Supply, scope_from_mapping
from tollgate.limits.reservation import Hold, Reservation, ReservationState, Settlement
from tollgate.limits.reservation_store import ReservationStore
from tollgate.limits.reservation_work import Ask, Decision, Releasing, Settling
from tollgate.platform.sql import Database

NS = "acme"
START = datetime(2026, 11, 1, 12, tzinfo=UTC)
NEVER_US = us_from_datetime(datetime(2100, 1, 1, tzinfo=UTC))


class StandingClock:
    """Stands until it is moved."""

    def __init__(self) -> None:
        self.instant = START

    def now(self) -> datetime:
        return self.instant

    def now_us(self) -> int:
        return us_from_datetime(self.instant)

    def move(self, **duration: int) -> None:
        self.instant += timedelta(**duration)


def account(feature: str = "tokens", customer: str = "c1", **scope: str) -> Account:
    return Account(
        namespace=NS,
        customer_id=customer,
        feature_key=feature,
        scope=scope_from_mapping(scope),
    )


def token(offset: int) -> Token:
    return Token(generation=1, offsets={0: offset})


def supply(remaining: int | str, offset: int = 0, **changes: Any) -> Supply:
    made = Supply(
        remaining=Decimal(remaining),
        is_soft=False,
        vector=token(offset),
        version=1,
        valid_until_us=NEVER_US,
    )
    return replace(made, **changes)


class Desk:
    """One process that decides, by supplies of its own."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self.clock = clock
        self.store = ReservationStore(database, clock)
        self.supplies: dict[str, Supply] = {}

    def supply_of(self, of: Account) -> Supply | None:
        return self.supplies.get(of.id)

    def offer(self, of: Account, what: Supply) -> None:
        self.supplies[of.id] = what

    def ask(
        self,
        amounts: Mapping[Account, int | str],
        *,
        key: str | None = None,
        seconds: int = 60,
    ) -> Reservation:
        """A reservation that asks to be held."""
        now = self.clock.now()
        return Reservation(
            id=new_ulid(),
            namespace=NS,
            customer_id="c1",
            idempotency_key=key,
            fingerprint=str(sorted((each.id, str(n)) for each, n in amounts.items())),
            state=ReservationState.HELD,
            created_at=now,
            expires_at=now + timedelta(seconds=seconds),
            holds=tuple(Hold(account=each, amount=Decimal(n)) for each, n in amounts.items()),
        )

    def settling(
        self,
        reservation_id: str,
        actual: int | str | None = None,
        *,
        event: str = "e",
        at: int | None = None,
        feature: str = "tokens",
    ) -> Settling:
        now = self.clock.now()
        return Settling(
            namespace=NS,
            id=reservation_id,
            settlement=Settlement(
                actual={} if actual is None else {feature: Decimal(actual)},
                source="gateway",
                event_id=event,
                position=None if at is None else token(at),
                settled_at=now,
                unseen_until=now + timedelta(hours=1),
            ),
        )

    def decide(self, *asks: Ask) -> list[Decision]:
        """Decides all in one transaction; a refusal of any raises."""
        found = []
        for outcome in self.store.decide(asks, self.supply_of):
            if not isinstance(outcome, Decision):
                raise outcome
            found.append(outcome)
        return found

    def reserve(self, amounts: Mapping[Account, int | str], **more: Any) -> Decision:
        return self.decide(self.ask(amounts, **more))[0]

    def settle(self, reservation_id: str, *arguments: Any, **more: Any) -> Decision:
        wanted = self.settling(reservation_id, *arguments, **more)
        return self.decide(wanted)[0]

    def release(self, reservation_id: str) -> Decision:
        return self.decide(Releasing(namespace=NS, id=reservation_id))[0]

    def counts(self, of: Account) -> tuple[Any, Any]:
        """What is held, and settled and unseen."""
        book = self.store.book(of)
        return book.held, book.unseen
