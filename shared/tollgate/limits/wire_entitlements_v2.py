"""Wire models of v2: entitlements, grants and values of customers, and how to ask for them."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from tollgate.limits.entitlement_record import EntitlementKind, EntitlementRecord, GrantRecord
from tollgate.limits.limit import Limit
from tollgate.limits.reset import Reset
from tollgate.limits.wire_entitlement_inputs import ExpirationBody
from tollgate.limits.wire_entitlements import (
    EntitlementBody,
    RecurringPeriodBody,
    ValueBody,
    entitlement_members,
    recurring_period_body,
    value_members,
)
from tollgate.metering.window import WindowSize
from tollgate.platform.exact import ExactNumber
from tollgate.platform.wire import Wire, WireInstant

PAGE_SIZE = 100
_Name = Annotated[str, Field(max_length=256)]
Names = Annotated[list[_Name] | None, Field(max_length=100)]


class IssuedBody(Wire):
    """What is granted anew in each period (schema `IssueAfterReset`)."""

    amount: ExactNumber
    priority: int


class EntitlementV2Body(EntitlementBody):
    """An entitlement of a customer (schema `EntitlementV2`)."""

    customer_id: str = Field(alias="customerId")
    customer_key: str | None = Field(default=None, alias="customerKey")
    issue: IssuedBody | None = None


class EntitlementV2PageBody(Wire):
    """One page of entitlements (schema `EntitlementV2PaginatedResponse`)."""

    total_count: int = Field(alias="totalCount")
    page: int
    page_size: int = Field(alias="pageSize")
    items: list[EntitlementV2Body]


class GrantV2Body(Wire):
    """A grant (schema `EntitlementGrantV2`)."""

    id: str
    entitlement_id: str = Field(alias="entitlementId")
    amount: ExactNumber
    priority: int
    effective_at: WireInstant = Field(alias="effectiveAt")
    min_rollover: ExactNumber = Field(alias="minRolloverAmount")
    max_rollover: ExactNumber = Field(alias="maxRolloverAmount")
    expiration: ExpirationBody | None = None
    expires_at: WireInstant | None = Field(default=None, alias="expiresAt")
    recurrence: RecurringPeriodBody | None = None
    next_recurrence: WireInstant | None = Field(default=None, alias="nextRecurrence")
    voided_at: WireInstant | None = Field(default=None, alias="voidedAt")
    metadata: dict[str, str] | None = None
    annotations: dict[str, Any] | None = None
    created_at: WireInstant = Field(alias="createdAt")
    updated_at: WireInstant = Field(alias="updatedAt")
    deleted_at: WireInstant | None = Field(default=None, alias="deletedAt")


class GrantV2PageBody(Wire):
    """One page of grants (schema `GrantV2PaginatedResponse`)."""

    total_count: int = Field(alias="totalCount")
    page: int
    page_size: int = Field(alias="pageSize")
    items: list[GrantV2Body]


class ValueV2Body(ValueBody):
    """A decision (schema `EntitlementValueV2`)."""

    grant_balances: dict[str, ExactNumber] | None = Field(default=None, alias="grantBalances")


class PageParameters(Wire):
    """Which stretch: a page, or else `limit` from `offset` on."""

    page: Annotated[int | None, Field(ge=1)] = None
    page_size: Annotated[int | None, Field(ge=1, le=1000, alias="pageSize")] = None
    offset: Annotated[int, Field(ge=0)] = 0
    limit: Annotated[int, Field(ge=1, le=1000)] = PAGE_SIZE
    order: Literal["ASC", "DESC"] = "ASC"

    @property
    def is_paged(self) -> bool:
        """Whether a page is asked for."""
        return self.page is not None or self.page_size is not None

    @property
    def skipped(self) -> int:
        """How many come before."""
        return ((self.page or 1) - 1) * self.count_max if self.is_paged else self.offset

    @property
    def count_max(self) -> int:
        """How many are wanted."""
        return self.page_size or PAGE_SIZE if self.is_paged else self.limit

    def page_of(self, items: list[Any], total: int) -> dict[str, Any]:
        """What a page has, by the names of its model."""
        number = self.skipped // self.count_max + 1
        size = {"page": number, "page_size": self.count_max}
        return {"items": items, "total_count": total} | size


class EntitlementOrderParameters(PageParameters):
    """How entitlements are sorted."""

    order_by: Annotated[Literal["createdAt", "updatedAt"], Field(alias="orderBy")] = "createdAt"


class CustomerEntitlementsParameters(EntitlementOrderParameters):
    """Which entitlements of a customer."""

    include_deleted: Annotated[bool, Field(alias="includeDeleted")] = False


class EntitlementsV2Parameters(EntitlementOrderParameters):
    """Which entitlements; features and customers by id or key."""

    feature: Names = None
    customer_keys: Annotated[Names, Field(alias="customerKeys")] = None
    customer_ids: Annotated[Names, Field(alias="customerIds")] = None
    entitlement_type: Annotated[
        list[EntitlementKind] | None, Field(alias="entitlementType", max_length=10)
    ] = None
    exclude_inactive: Annotated[bool, Field(alias="excludeInactive")] = False


class GrantOrderParameters(PageParameters):
    """How grants are sorted; those of deleted entitlements are deleted."""

    order_by: Annotated[Literal["id", "createdAt", "updatedAt"], Field(alias="orderBy")] = (
        "updatedAt"
    )
    include_deleted: Annotated[bool, Field(alias="includeDeleted")] = False


class GrantsV2Parameters(GrantOrderParameters):
    """Which grants; features and customers by id or key."""

    feature: Names = None
    customer: Names = None


class ValueParameters(Wire):
    """At which instant; now if there is none."""

    time: WireInstant | None = None


class HistoryParameters(Wire):
    """Which stretch of the history; from the last reset on, up to now."""

    start: Annotated[WireInstant | None, Field(alias="from")] = None
    end: Annotated[WireInstant | None, Field(alias="to")] = None
    window_size: Annotated[WindowSize, Field(alias="windowSize")]
    window_time_zone: Annotated[str, Field(alias="windowTimeZone")] = "UTC"


class VoidParameters(Wire):
    """From which instant of the current usage period on; now if there is none."""

    at: WireInstant | None = None


def entitlement_v2_body(
    record: EntitlementRecord, resets: tuple[Reset, ...], now: datetime
) -> EntitlementV2Body:
    """The wire's form of an entitlement."""
    members = entitlement_members(record, resets, now)
    issue = None
    if members.get("issue_after_reset") is not None:
        issue = IssuedBody.model_construct(
            amount=members["issue_after_reset"], priority=members["issue_priority"]
        )
    return EntitlementV2Body.model_construct(
        **members,
        issue=issue,
        customer_id=record.definition.customer_id,
        customer_key=record.customer_key,
    )


def grant_members(record: GrantRecord, now: datetime) -> dict[str, Any]:
    """What grants of both versions have, by their names."""
    grant = record.grant
    recurrence = grant.recurrence and recurring_period_body(grant.recurrence)
    expiration = grant.expiration and ExpirationBody.model_construct(
        duration=grant.expiration.duration, count=grant.expiration.count
    )
    return {
        "id": grant.id,
        "entitlement_id": record.entitlement_id,
        "amount": grant.amount,
        "priority": grant.priority,
        "effective_at": grant.effective_at,
        "min_rollover": grant.min_rollover,
        "max_rollover": grant.max_rollover,
        "expiration": expiration,
        "expires_at": grant.expires_at,
        "recurrence": recurrence,
        "next_recurrence": grant.next_recurrence(now),
        "voided_at": grant.voided_at,
        "metadata": dict(grant.metadata) or None,
        "created_at": grant.created_at,
        "updated_at": record.updated_at,
        "deleted_at": record.deleted_at,
    }


def grant_v2_body(record: GrantRecord, now: datetime) -> GrantV2Body:
    """The wire's form of a grant."""
    return GrantV2Body.model_construct(
        **grant_members(record, now), annotations=dict(record.annotations) or None
    )


def value_v2_body(limit: Limit) -> ValueV2Body:
    """The wire's form of a decision."""
    by_grant = None if limit.balance is None else dict(limit.balance.by_grant)
    return ValueV2Body.model_construct(**value_members(limit), grant_balances=by_grant)
