"""Wire models of v1: entitlements and grants of subjects, and how to ask for them."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from tollgate.limits.entitlement_record import EntitlementKind, EntitlementRecord, GrantRecord
from tollgate.limits.grant import EXPIRATION_COUNT_MAX, ExpirationUnit
from tollgate.limits.reset import Reset
from tollgate.limits.wire_entitlement_inputs import ExpirationBody
from tollgate.limits.wire_entitlements import EntitlementBody, ValueBody, entitlement_members
from tollgate.limits.wire_entitlements_v2 import (
    EntitlementOrderParameters,
    GrantOrderParameters,
    GrantV2Body,
    Names,
    grant_members,
)
from tollgate.platform.wire import Wire

_NEVER = ExpirationBody(duration=ExpirationUnit.YEAR, count=EXPIRATION_COUNT_MAX)


class SubjectEntitlementBody(EntitlementBody):
    """An entitlement (schema `Entitlement`) of the customer whose the subject is."""

    subject_key: str = Field(alias="subjectKey")


class EntitlementPageBody(Wire):
    """One page of entitlements (schema `EntitlementPaginatedResponse`)."""

    total_count: int = Field(alias="totalCount")
    page: int
    page_size: int = Field(alias="pageSize")
    items: list[SubjectEntitlementBody]


class GrantBody(GrantV2Body):
    """A grant (schema `EntitlementGrant`)."""

    expiration: Annotated[
        ExpirationBody,
        Field(description="A thousand years, without `expiresAt`: it does not expire."),
    ]


class GrantPageBody(Wire):
    """One page of grants (schema `GrantPaginatedResponse`)."""

    total_count: int = Field(alias="totalCount")
    page: int
    page_size: int = Field(alias="pageSize")
    items: list[GrantBody]


class AccessBody(Wire):
    """All that a customer has a right to (schema `CustomerAccess`), by the feature's key."""

    entitlements: dict[str, ValueBody]


EntitlementListBody = list[SubjectEntitlementBody] | EntitlementPageBody
GrantListBody = list[GrantBody] | GrantPageBody


class EntitlementsParameters(EntitlementOrderParameters):
    """Which entitlements: an array, or a page if `page` or `pageSize` is given."""

    feature: Names = None
    subject: Names = None
    entitlement_type: Annotated[
        list[EntitlementKind] | None, Field(alias="entitlementType", max_length=10)
    ] = None
    exclude_inactive: Annotated[bool, Field(alias="excludeInactive")] = False


class GrantsParameters(GrantOrderParameters):
    """Which grants: an array, or a page if `page` or `pageSize` is given."""

    feature: Names = None
    subject: Names = None


class SubjectEntitlementsParameters(Wire):
    """Which entitlements of a subject."""

    include_deleted: Annotated[bool, Field(alias="includeDeleted")] = False


class SubjectGrantsParameters(Wire):
    """Which grants of an entitlement."""

    include_deleted: Annotated[bool, Field(alias="includeDeleted")] = False
    order_by: Annotated[Literal["id", "createdAt", "updatedAt"], Field(alias="orderBy")] = (
        "updatedAt"
    )


def subject_entitlement_body(
    record: EntitlementRecord, resets: tuple[Reset, ...], now: datetime, subject_key: str
) -> SubjectEntitlementBody:
    """The wire's form of an entitlement."""
    members = entitlement_members(record, resets, now)
    return SubjectEntitlementBody.model_construct(**members, subject_key=subject_key)


def grant_body(record: GrantRecord, now: datetime) -> GrantBody:
    """The wire's form of a grant."""
    members = grant_members(record, now)
    members["expiration"] = members["expiration"] or _NEVER
    return GrantBody.model_construct(**members, annotations=dict(record.annotations) or None)
