"""Wire models of budgets and policies. All of them are ours."""

from datetime import timedelta
from decimal import Decimal
from typing import Annotated

from pydantic import Field

from tollgate.limits.limit_rule import SCOPE_COUNT_MAX, Budget, FailureMode, Policy
from tollgate.limits.wire_limits import AnyQuantity, Customer, Quantity
from tollgate.platform.wire import Wire, WireInstant

_ZERO = Decimal(0)


class BudgetRequestBody(Wire):
    """A new budget."""

    customer: Customer
    feature: Annotated[str, Field(min_length=1, max_length=64, description="Key.")]
    scope: Annotated[
        dict[str, str],
        Field(
            min_length=1,
            max_length=SCOPE_COUNT_MAX,
            description="Values of dimensions; `*` gives each value a budget of its own.",
        ),
    ]
    amount: Annotated[Quantity, Field(description="In each usage period of the entitlement.")]


class BudgetBody(Wire):
    """A budget."""

    id: str
    customer_id: str = Field(alias="customerId")
    feature: str
    scope: dict[str, str]
    amount: AnyQuantity
    created_at: WireInstant = Field(alias="createdAt")


class BudgetPageBody(Wire):
    """Budgets in the order of their making."""

    items: list[BudgetBody]
    next: Annotated[str | None, Field(description="Send it back as `after`.")] = None


def body_from_budget(found: Budget) -> BudgetBody:
    """A budget as it is kept."""
    return BudgetBody(
        id=found.id,
        customer_id=found.customer_id,
        feature=found.feature_key,
        scope=dict(found.scope),
        amount=found.amount,
        created_at=found.created_at,
    )


class PolicyBody(Wire):
    """What the limits of a feature decide while usage is not known well enough."""

    failure_mode: Annotated[
        FailureMode,
        Field(
            alias="failureMode",
            description="closed: nothing is allowed; open: `openCap` beyond what was known; "
            "last_known: what was known last.",
        ),
    ]
    open_cap: Annotated[Quantity, Field(alias="openCap")] = _ZERO
    stale_after_seconds: Annotated[int, Field(ge=1, le=3600, alias="staleAfterSeconds")] = 10

    def policy(self) -> Policy:
        """The same as a value."""
        return Policy(
            failure_mode=self.failure_mode,
            open_cap=self.open_cap,
            stale_after=timedelta(seconds=self.stale_after_seconds),
        )


def body_from_policy(found: Policy) -> PolicyBody:
    """A policy as it is kept."""
    return PolicyBody(
        failure_mode=found.failure_mode,
        open_cap=found.open_cap,
        stale_after_seconds=found.stale_after // timedelta(seconds=1),
    )
