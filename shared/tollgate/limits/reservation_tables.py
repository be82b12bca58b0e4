"""The tables of reservations, and their rows as values."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from tollgate.core.clock import datetime_from_us, us_from_datetime
from tollgate.core.decimals import plain_text
from tollgate.events.position import parse_token, vector_from_text
from tollgate.limits.account import Account, Book, Supply
from tollgate.limits.reservation import (
    Hold,
    HoldState,
    Reservation,
    ReservationState,
    Settlement,
)
from tollgate.platform.sql import Exact, Instant, Json, Text, metadata

accounts = sa.Table(
    "limit_accounts",
    metadata,
    sa.Column("id", Text, primary_key=True),
    sa.Column("namespace", Text, nullable=False),
    sa.Column("customer_id", Text, nullable=False),
    sa.Column("feature_key", Text, nullable=False),
    sa.Column("scope", Json, nullable=False),
    sa.Column("held", Exact, nullable=False),
    sa.Column("unseen", Exact, nullable=False),
    # No hold of the account ends before; NULL: it has none.
    sa.Column("next_expiry", sa.BigInteger),
    sa.Column("remaining", Exact),
    sa.Column("is_soft", sa.Boolean, nullable=False),
    sa.Column("vector", Text, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("valid_until", sa.BigInteger, nullable=False),
    sa.Column("changed_at", sa.BigInteger, nullable=False),
)
sa.Index("ix_limit_accounts_changed_at", accounts.c.changed_at)
reservations = sa.Table(
    "reservations",
    metadata,
    sa.Column("id", Text, primary_key=True),
    sa.Column("namespace", Text, nullable=False),
    sa.Column("customer_id", Text, nullable=False),
    sa.Column("idempotency_key", Text),
    sa.Column("fingerprint", Text, nullable=False),
    sa.Column("state", Text, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("expires_at", Instant, nullable=False),
    sa.Column("ended_at", Instant),
    sa.Column("settlement", Json),
    sa.UniqueConstraint("namespace", "idempotency_key", name="uq_reservations_namespace"),
)
_c = reservations.c
sa.Index("ix_reservations_customer", _c.namespace, _c.customer_id, _c.id)
sa.Index("ix_reservations_expires_at", _c.expires_at)
holds = sa.Table(
    "reservation_holds",
    metadata,
    sa.Column("reservation_id", Text, primary_key=True),
    sa.Column("account_id", Text, primary_key=True),
    sa.Column("amount", Exact, nullable=False),
    sa.Column("state", Text, nullable=False),
    sa.Column("actual", Exact),
    # Of what is unseen: when it is no longer waited for.
    sa.Column("expires_at", Instant, nullable=False),
    sa.Column("position", Text),
)
_LIVE = holds.c.state != HoldState.GONE.value
sa.Index(
    "ix_reservation_holds_account",
    holds.c.account_id,
    holds.c.state,
    holds.c.expires_at,
    sqlite_where=_LIVE,
    postgresql_where=_LIVE,
)


def row_of_account(account: Account) -> dict[str, object]:
    """The row of an account that nobody has used."""
    return {
        "id": account.id,
        "namespace": account.namespace,
        "customer_id": account.customer_id,
        "feature_key": account.feature_key,
        "scope": [list(pair) for pair in account.scope],
        "held": Decimal(0),
        "unseen": Decimal(0),
        "is_soft": False,
        "vector": "",
        "version": 0,
        "valid_until": 0,
        "changed_at": 0,
    }


def account_of_row(row: sa.Row[Any]) -> Account:
    """Whose row it is."""
    return Account(
        namespace=row.namespace,
        customer_id=row.customer_id,
        feature_key=row.feature_key,
        scope=tuple((name, value) for name, value in row.scope),
    )


def book_of_row(row: sa.Row[Any]) -> Book:
    """An account's state."""
    supply = None
    if row.remaining is not None:
        supply = Supply(
            remaining=row.remaining,
            is_soft=row.is_soft,
            vector=vector_from_text(row.vector),
            version=row.version,
            valid_until_us=row.valid_until,
        )
    return Book(held=row.held, unseen=row.unseen, supply=supply)


def values_of_book(book: Book) -> dict[str, object]:
    """What of an account's row its state is."""
    assert book.supply is not None
    return {
        "held": book.held,
        "unseen": book.unseen,
        "remaining": book.supply.remaining,
        "is_soft": book.supply.is_soft,
        "vector": str(book.supply.vector),
        "version": book.supply.version,
        "valid_until": book.supply.valid_until_us,
    }


def row_of_reservation(each: Reservation) -> dict[str, object]:
    """A reservation without its holds."""
    return {
        "id": each.id,
        "namespace": each.namespace,
        "customer_id": each.customer_id,
        "idempotency_key": each.idempotency_key,
        "fingerprint": each.fingerprint,
        "created_at": each.created_at,
        "expires_at": each.expires_at,
        **ending_of_reservation(each),
    }


def ending_of_reservation(each: Reservation) -> dict[str, object]:
    """What of a reservation's row may change."""
    settlement = each.settlement
    return {
        "state": each.state.value,
        "ended_at": each.ended_at,
        "settlement": None if settlement is None else _members_of_settlement(settlement),
    }


def rows_of_holds(each: Reservation) -> list[dict[str, object]]:
    """A reservation's holds."""
    settlement, expires_at, position = each.settlement, each.expires_at, None
    if settlement is not None:
        expires_at = settlement.unseen_until
        position = None if settlement.position is None else str(settlement.position)
    return [
        {
            "reservation_id": each.id,
            "account_id": hold.account.id,
            "amount": hold.amount,
            "state": hold.state.value,
            "actual": hold.actual,
            "expires_at": expires_at,
            "position": position,
        }
        for hold in each.holds
    ]


def hold_of_row(row: sa.Row[Any], account: Account) -> Hold:
    """A hold of a known account."""
    return Hold(account=account, amount=row.amount, state=HoldState(row.state), actual=row.actual)


def reservation_of_row(row: sa.Row[Any], its_holds: tuple[Hold, ...]) -> Reservation:
    """A reservation with its holds."""
    settlement = row.settlement
    return Reservation(
        id=row.id,
        namespace=row.namespace,
        customer_id=row.customer_id,
        idempotency_key=row.idempotency_key,
        fingerprint=row.fingerprint,
        state=ReservationState(row.state),
        created_at=row.created_at,
        expires_at=row.expires_at,
        holds=its_holds,
        ended_at=row.ended_at,
        settlement=None if settlement is None else _settlement_of_members(settlement),
    )


def _members_of_settlement(each: Settlement) -> dict[str, object]:
    return {
        "actual": {name: plain_text(amount) for name, amount in each.actual.items()},
        "source": each.source,
        "id": each.event_id,
        "position": None if each.position is None else str(each.position),
        "settledAt": us_from_datetime(each.settled_at),
        "unseenUntil": us_from_datetime(each.unseen_until),
    }


def _settlement_of_members(members: Mapping[str, Any]) -> Settlement:
    position = members["position"]
    return Settlement(
        actual={name: Decimal(amount) for name, amount in members["actual"].items()},
        source=members["source"],
        event_id=members["id"],
        position=None if position is None else parse_token(position),
        settled_at=datetime_from_us(members["settledAt"]),
        unseen_until=datetime_from_us(members["unseenUntil"]),
    )
