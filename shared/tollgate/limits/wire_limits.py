"""Wire models of checks, and what all wire models of limits share. All of them are ours.

Quantities are taken as numbers or texts, and given as texts with all their digits.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Annotated

from pydantic import BeforeValidator, Field, PlainSerializer

from tollgate.core.decimals import plain_text
from tollgate.limits.check import Verdict
from tollgate.limits.limit_rule import SCOPE_COUNT_MAX, FailureMode
from tollgate.platform.wire import Wire, WireInstant

_ZERO = Decimal(0)
FEATURES_MAX = 20


def _read_quantity(value: object) -> object:
    if isinstance(value, bool):
        return None  # no number, whatever Python says
    # The text of a double is the shortest that names it: what the sender wrote.
    return repr(value) if isinstance(value, float) else value  # tidy: allow-float -- as JSON has it


Quantity = Annotated[
    Decimal,
    Field(ge=0, max_digits=38, decimal_places=18),
    BeforeValidator(_read_quantity, json_schema_input_type=int | str),
    PlainSerializer(plain_text, return_type=str),
]
"""0 or more; at most 20 digits before the point and 18 after it."""
AnyQuantity = Annotated[Decimal, PlainSerializer(plain_text, return_type=str)]
ScopeBody = Annotated[
    dict[str, str],
    Field(
        max_length=SCOPE_COUNT_MAX,
        description="Values of dimensions of the feature's meter, such as a project and a user: "
        "budgets for them have to be passed too.",
    ),
]
Customer = Annotated[str, Field(min_length=1, max_length=256, description="Id or key.")]


class AmountBody(Wire):
    """So much of a feature."""

    feature: Annotated[str, Field(min_length=1, max_length=64, description="Key.")]
    amount: Quantity


class CheckAmountBody(Wire):
    """A feature that is to be used."""

    feature: Annotated[str, Field(min_length=1, max_length=64, description="Key.")]
    amount: Annotated[
        Quantity | None,
        Field(description="Allowed if so much is left; without it, if anything is."),
    ] = None


class CheckBody(Wire):
    """What a customer wants to use."""

    customer: Customer
    features: Annotated[list[CheckAmountBody], Field(min_length=1, max_length=FEATURES_MAX)]
    scope: ScopeBody | None = None


class BoundBody(Wire):
    """How far usage can go beyond a limit.

    Attributes:
        granted: more than is available is never granted by reservations, but so much.
        unknown_since: usage that was loaded after this instant is not in the figures.
    """

    granted: AnyQuantity
    unknown_since: WireInstant | None = Field(default=None, alias="unknownSince")


class PeriodBody(Wire):
    """A usage period, [from, to)."""

    start: WireInstant = Field(alias="from")
    end: WireInstant = Field(alias="to")


class LimitBody(Wire):
    """A verdict of one limit: the customer's of a feature, or a budget within it."""

    feature: str
    scope: dict[str, str] | None = None
    type: str | None = None
    allowed: bool
    reason: str | None = None
    config: str | None = None
    soft_limit: bool | None = Field(default=None, alias="softLimit")
    total: AnyQuantity | None = None
    balance: AnyQuantity | None = None
    held: AnyQuantity | None = None
    available: AnyQuantity | None = None
    usage: AnyQuantity | None = None
    overage: AnyQuantity | None = None
    period: PeriodBody | None = None
    resets_at: WireInstant | None = Field(default=None, alias="resetsAt")
    usage_as_of: WireInstant | None = Field(default=None, alias="usageAsOf")
    position: str | None = None
    bound: BoundBody | None = None
    failure_mode: FailureMode | None = Field(default=None, alias="failureMode")


class CheckAnswerBody(Wire):
    """Whether all of it is allowed, and what each limit says."""

    allowed: bool
    customer_id: str = Field(alias="customerId")
    limits: list[LimitBody]


def limit_from_verdict(found: Verdict) -> LimitBody:
    """What a verdict says."""
    balance = found.balance
    body = LimitBody(
        feature=found.account.feature_key,
        scope=dict(found.account.scope) or None,
        type=found.kind,
        allowed=found.allowed,
        reason=found.reason or None,
        config=found.config,
        failure_mode=found.failure_mode,
    )
    if balance is None:
        return body
    body.soft_limit = found.is_soft
    body.total = balance.total_available
    body.balance = balance.remaining
    body.held = found.held
    body.available = found.available
    body.usage = balance.usage
    body.overage = balance.overage
    body.period = PeriodBody(start=balance.last_reset, end=balance.next_reset)
    body.resets_at = balance.next_reset
    body.usage_as_of = found.known_at
    body.position = None if not found.vector else str(found.vector)
    body.bound = BoundBody(granted=found.open_cap, unknown_since=found.known_at)
    return body


def rate_limit_headers(verdicts: Sequence[Verdict], now: datetime) -> dict[str, str]:
    """What gateways read, of the metered limit with the least left."""
    metered = [each for each in verdicts if each.balance is not None]
    if not metered:
        return {}
    least = min(metered, key=lambda each: (each.allowed, each.available))
    assert least.balance is not None
    resets = max(0, -(-(least.balance.next_reset - now) // timedelta(seconds=1)))
    found = {
        "x-ratelimit-limit": plain_text(least.balance.total_available),
        "x-ratelimit-remaining": plain_text(max(_ZERO, least.available)),
        "x-ratelimit-reset": str(resets),
    }
    if not least.allowed:
        found["retry-after"] = str(resets)
    return found
