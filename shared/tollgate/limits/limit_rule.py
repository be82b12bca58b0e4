"""Rules of a limit beyond its entitlement: budgets within it, and what it does without usage.

A budget is a part of a customer's limit: so much for usage whose dimensions have these values. A
value `*` gives each value a budget of its own. Budgets of fewer dimensions hold those of more: a
reservation has to pass all that it falls into.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum

from tollgate.core.errors import Fault, InvalidInput
from tollgate.limits.account import Scope, scope_from_mapping

EACH = "*"
SCOPE_COUNT_MAX = 5
VALUE_LENGTH_MAX = 1024
STALE_AFTER_MAX = timedelta(hours=1)


class FailureMode(StrEnum):
    """What is decided while usage is not known well enough.

    CLOSED: nothing is allowed. OPEN: so much is allowed by each process, as a cap says. LAST_KNOWN:
    by the balance that was known last, less what was allowed since.
    """

    CLOSED = "closed"
    OPEN = "open"
    LAST_KNOWN = "last_known"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How a feature's limits fail.

    Attributes:
        open_cap: what each process allows in all while it fails open; 0 or more.
        stale_after: usage that was read longer ago is not known well enough.

    Raises:
        InvalidInput: out of bounds.
    """

    failure_mode: FailureMode = FailureMode.CLOSED
    open_cap: Decimal = Decimal(0)
    stale_after: timedelta = timedelta(seconds=10)

    def __post_init__(self) -> None:
        if not self.open_cap.is_finite() or self.open_cap < 0:
            raise _refused("openCap", "must be 0 or more")
        if not timedelta(seconds=1) <= self.stale_after <= STALE_AFTER_MAX:
            raise _refused("staleAfterSeconds", "must be between 1 and 3600")


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """So much of a customer's limit for a part of its usage.

    Attributes:
        scope: values of dimensions, by name; `*`: each value has a budget of its own.
        amount: in each usage period of the entitlement; 0 or more.

    Raises:
        InvalidInput: out of bounds.
    """

    id: str
    namespace: str
    customer_id: str
    feature_key: str
    scope: Scope
    amount: Decimal
    created_at: datetime

    def __post_init__(self) -> None:
        if not self.amount.is_finite() or self.amount < 0:
            raise _refused("amount", "must be 0 or more")
        check_scope(self.scope)
        if not self.scope:
            raise _refused("scope", "must name a dimension of the feature's meter")

    def account_scope(self, asked: Mapping[str, str]) -> Scope | None:
        """The scope of the account that usage of these dimensions falls into; None: into none."""
        if any(name not in asked or value not in (EACH, asked[name]) for name, value in self.scope):
            return None
        return scope_from_mapping({name: asked[name] for name, _ in self.scope})


def budgets_of(budgets: Iterable[Budget], asked: Mapping[str, str]) -> dict[Scope, Budget]:
    """The budgets that usage falls into, by account scope; of two for one scope the closer one."""
    found: dict[Scope, Budget] = {}
    for budget in budgets:
        scope = budget.account_scope(asked)
        if scope is None:
            continue
        other = found.get(scope)
        if other is None or _wildcards(budget) < _wildcards(other):
            found[scope] = budget
    return found


def _wildcards(budget: Budget) -> tuple[int, str]:
    return sum(value == EACH for _, value in budget.scope), budget.id


def check_scope(scope: Scope) -> None:
    """Checks the form of a scope.

    Raises:
        InvalidInput: too many dimensions, or a value too long.
    """
    if len(scope) > SCOPE_COUNT_MAX:
        raise _refused("scope", f"has more than {SCOPE_COUNT_MAX} dimensions")
    if any(len(value) > VALUE_LENGTH_MAX for _, value in scope):
        raise _refused("scope", f"has a value of more than {VALUE_LENGTH_MAX} characters")


def _refused(name: str, message: str) -> InvalidInput:
    return InvalidInput((Fault(field=name, code="out_of_bounds", message=message),))
