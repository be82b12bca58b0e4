"""Wire models of reservations. All of them are ours."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Annotated

from pydantic import Field

from tollgate.core.decimals import EXACT, plain_text
from tollgate.limits.account import Account
from tollgate.limits.reservation import Hold, Reservation, ReservationState, beyond_hold
from tollgate.limits.reservation_work import Decision
from tollgate.limits.wire_limits import (
    FEATURES_MAX,
    AmountBody,
    AnyQuantity,
    Customer,
    ScopeBody,
)
from tollgate.platform.wire import Wire, WireInstant

_ZERO = Decimal(0)
TTL_SECONDS_MAX = 86_400
TTL_SECONDS = 60


class ReservationRequestBody(Wire):
    """Amounts to hold, all or none."""

    customer: Customer
    amounts: Annotated[list[AmountBody], Field(min_length=1, max_length=FEATURES_MAX)]
    scope: ScopeBody | None = None
    idempotency_key: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=256,
            alias="idempotencyKey",
            description="Asking again with it gives the same reservation; for something else it "
            "is a conflict.",
        ),
    ] = None
    ttl_seconds: Annotated[
        int,
        Field(
            ge=1,
            le=TTL_SECONDS_MAX,
            alias="ttlSeconds",
            description="When the holds end by themselves.",
        ),
    ] = TTL_SECONDS


class EventKeyBody(Wire):
    """The event that reports the usage."""

    source: Annotated[str, Field(min_length=1, max_length=2048)]
    id: Annotated[str, Field(min_length=1, max_length=2048)]


class SettleBody(Wire):
    """What was used in the end."""

    amounts: Annotated[
        list[AmountBody] | None,
        Field(
            max_length=FEATURES_MAX,
            description="What was used; a feature that is not named used what was held.",
        ),
    ] = None
    event: Annotated[
        EventKeyBody | None,
        Field(
            description="The usage event: once it is loaded, the settled amount leaves the "
            "balance, for the usage is in it. Without one it stays for an hour."
        ),
    ] = None
    position: Annotated[
        str | None,
        Field(
            max_length=8192,
            description="What ingest answered in `Tollgate-Position`; or send that header. "
            "Without it the event is looked for.",
        ),
    ] = None


class HoldBody(Wire):
    """What a reservation has of one limit, and what is left of that."""

    feature: str
    scope: dict[str, str] | None = None
    amount: AnyQuantity
    actual: AnyQuantity | None = None
    allowed: bool | None = None
    beyond_hold: AnyQuantity | None = Field(default=None, alias="beyondHold")
    beyond_limit: AnyQuantity | None = Field(default=None, alias="beyondLimit")
    balance: AnyQuantity | None = None
    held: AnyQuantity | None = None
    available: AnyQuantity | None = None
    position: str | None = None


class ReservationBody(Wire):
    """A reservation.

    Attributes:
        allowed: whether it is held, or was; False: nothing was.
    """

    id: str | None = None
    allowed: bool
    state: ReservationState | None = None
    customer_id: str = Field(alias="customerId")
    idempotency_key: str | None = Field(default=None, alias="idempotencyKey")
    created_at: WireInstant | None = Field(default=None, alias="createdAt")
    expires_at: WireInstant | None = Field(default=None, alias="expiresAt")
    ended_at: WireInstant | None = Field(default=None, alias="endedAt")
    settled_late: Annotated[
        bool | None,
        Field(alias="settledLate", description="It was settled after its holds had ended."),
    ] = None
    event: EventKeyBody | None = None
    holds: list[HoldBody]


class ReservationPageBody(Wire):
    """Reservations in the order of their making."""

    items: list[ReservationBody]
    next: Annotated[str | None, Field(description="Send it back as `after`.")] = None


def body_from_decision(
    decision: Decision, customer_id: str, asked: Sequence[Hold]
) -> ReservationBody:
    """What a decision says."""
    found = decision.reservation
    body = body_from_reservation(found) if found is not None else None
    if body is None:
        body = ReservationBody(
            allowed=False,
            customer_id=customer_id,
            holds=[
                HoldBody(
                    feature=hold.account.feature_key,
                    scope=dict(hold.account.scope) or None,
                    amount=hold.amount,
                    allowed=hold.account not in decision.lacking,
                )
                for hold in asked
            ],
        )
    by_account = {each.account: each.book for each in decision.standings}
    for hold, shown in zip(asked if found is None else found.holds, body.holds, strict=True):
        book = by_account.get(hold.account)
        if book is None or book.supply is None:
            continue
        shown.balance = book.supply.remaining
        shown.held = EXACT.add(book.held, book.unseen)
        shown.available = book.free
        shown.position = str(book.supply.vector)
        if hold.actual is not None:
            shown.beyond_limit = max(_ZERO, -book.free)
    if found is not None and decision.before is ReservationState.EXPIRED:
        body.settled_late = found.state is ReservationState.SETTLED or None
    return body


def body_from_reservation(found: Reservation) -> ReservationBody:
    """A reservation as it is kept."""
    settlement = found.settlement
    event = None
    if settlement is not None and settlement.event_id:
        event = EventKeyBody(source=settlement.source, id=settlement.event_id)
    return ReservationBody(
        id=found.id,
        allowed=True,
        state=found.state,
        customer_id=found.customer_id,
        idempotency_key=found.idempotency_key,
        created_at=found.created_at,
        expires_at=found.expires_at,
        ended_at=found.ended_at,
        event=event,
        holds=[
            HoldBody(
                feature=hold.account.feature_key,
                scope=dict(hold.account.scope) or None,
                amount=hold.amount,
                actual=hold.actual,
                beyond_hold=None if hold.actual is None else beyond_hold(hold),
            )
            for hold in found.holds
        ],
    )


class ReservationListParameters(Wire):
    """Which reservations."""

    customer: Annotated[str | None, Field(max_length=256, description="Id or key.")] = None
    after: Annotated[str, Field(max_length=26)] = ""
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


def _sorted(amounts: Mapping[Account, Decimal]) -> list[tuple[Account, Decimal]]:
    return sorted(amounts.items(), key=lambda pair: pair[0].id)


def accounts_text(amounts: Mapping[Account, Decimal]) -> str:
    """A fingerprint of what a reservation asks for."""
    return ";".join(f"{each.id}={plain_text(n)}" for each, n in _sorted(amounts))
