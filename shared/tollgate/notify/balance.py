"""What other contexts report: a balance at an instant, a reset, a change of an invoice."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from tollgate.core.clock import us_from_datetime
from tollgate.core.decimals import plain_text
from tollgate.notify.rule import FeatureName, Kind
from tollgate.notify.threshold import Figures, Level


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """The balance of a metered entitlement at an instant of a usage period.

    Attributes:
        namespace: whose.
        entitlement_id: of the entitlement.
        feature: that it is a right to.
        customer_id: who has it.
        subject_key: a subject of the customer's.
        period_start: of the usage period, inclusive.
        period_end: of the usage period, exclusive.
        usage: of the period, up to `at`.
        total: what the period's grants give: what remains of those in force and what was used of
            all.
        balance: what remains, 0 or more.
        overage: usage that no grant covered.
        has_access: whether the feature may be used.
        at: when all of that holds.
        entitlement: as v1 of the API shows it (schema `EntitlementMetered`), as plain JSON values.
    """

    namespace: str
    entitlement_id: str
    feature: FeatureName
    customer_id: str
    subject_key: str
    period_start: datetime
    period_end: datetime
    usage: Decimal
    total: Decimal
    balance: Decimal
    overage: Decimal
    has_access: bool
    at: datetime
    entitlement: Mapping[str, object]

    @property
    def figures(self) -> Figures:
        """What levels are compared with."""
        return Figures(usage=self.usage, total=self.total, balance=self.balance)

    def once_key(self, rule_id: str, level: Level) -> str:
        """One event each: rule, entitlement, usage period, level. Ids are ULIDs, so a bar parts."""
        start = us_from_datetime(self.period_start)
        told = f"{level.type.meaning}|{plain_text(level.value)}"
        return f"level|{rule_id}|{self.entitlement_id}|{start}|{told}"

    def reset_key(self, rule_id: str) -> str:
        """One event each: rule, entitlement, usage period that begins."""
        start = us_from_datetime(self.period_start)
        return f"reset|{rule_id}|{self.entitlement_id}|{start}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EntitlementReset:
    """A usage period ended, by itself or by hand, and another began.

    Attributes:
        balance: of the period that begins, as it begins.
        happened_at: when that came about: the instant at which it began, or when it was asked for,
            which may be as of an earlier instant.
    """

    balance: Balance
    happened_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoiceChange:
    """An invoice was created or updated.

    Attributes:
        kind: `invoice.created` or `invoice.updated`.
        invoice_id: of the invoice.
        change: names this change among those of the invoice; reported again under the same name it
            tells nothing again.
        invoice: as v1 of the API shows it (schema `Invoice`), as plain JSON values.
    """

    namespace: str
    kind: Kind
    invoice_id: str
    change: str
    invoice: Mapping[str, object]

    def once_key(self, rule_id: str) -> str:
        """One event each: rule, invoice, change."""
        return f"{self.kind}|{rule_id}|{self.invoice_id}|{self.change}"
