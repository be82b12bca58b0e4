"""Wire models of v1: channels and rules, named as the contract names them."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from tollgate.notify.channel import WEBHOOK, Channel
from tollgate.notify.payload import members_of_level
from tollgate.notify.rule import Kind, Rule
from tollgate.notify.signature import FORM
from tollgate.platform.exact import ExactNumber
from tollgate.platform.wire import Wire, WireInstant

ULID = "^[0-7][0-9A-HJKMNP-TV-Za-hjkmnp-tv-z]{25}$"
FEATURE = f"^[a-z0-9]+(?:_[a-z0-9]+)*$|{ULID}"
Id = Annotated[str, Field(pattern=ULID)]
_Name = Annotated[str, Field(min_length=1, max_length=256)]


def _as_sent(value: object) -> object:
    return value


class ChannelWriteBody(Wire):
    """A channel as it should be (`NotificationChannelWebhookCreateRequest`).

    Checked by `parse_channel`.
    """

    type: Literal["WEBHOOK"]
    name: _Name
    disabled: bool = False
    metadata: dict[str, str] | None = None
    url: Annotated[
        str,
        Field(
            max_length=2048,
            description="http or https, of a public address. Redirects are not followed.",
        ),
    ]
    custom_headers: Annotated[
        dict[str, str] | None,
        Field(alias="customHeaders", max_length=32, description="Shown to admins only."),
    ] = None
    signing_secret: Annotated[
        str | None,
        Field(
            alias="signingSecret",
            pattern=FORM,
            description="Signs by Standard Webhooks. Left out: one is made, or stays. After a "
            "change the one before signs too, for a day. Shown to admins only.",
        ),
    ] = None


ChannelMembers = Annotated[
    dict[str, Any], BeforeValidator(_as_sent, json_schema_input_type=ChannelWriteBody)
]


class ChannelBody(ChannelWriteBody):
    """A channel (schema `NotificationChannelWebhook`)."""

    id: Id
    annotations: dict[str, Any] | None = None
    created_at: WireInstant = Field(alias="createdAt")
    updated_at: WireInstant = Field(alias="updatedAt")
    deleted_at: WireInstant | None = Field(default=None, alias="deletedAt")


class ChannelPageBody(Wire):
    """One page of channels (schema `NotificationChannelPaginatedResponse`)."""

    total_count: int = Field(alias="totalCount")
    page: int
    page_size: int = Field(alias="pageSize")
    items: list[ChannelBody]


class ThresholdBody(Wire):
    """A level (schema `NotificationRuleBalanceThresholdValue`)."""

    value: ExactNumber
    type: Literal["PERCENT", "NUMBER", "balance_value", "usage_percentage", "usage_value"]


class RuleWriteBody(Wire):
    """A rule as it should be (`NotificationRuleCreateRequest`). Checked by `parse_rule`."""

    type: Literal[
        "entitlements.balance.threshold", "entitlements.reset", "invoice.created", "invoice.updated"
    ]
    name: _Name
    disabled: bool = False
    metadata: dict[str, str] | None = None
    thresholds: Annotated[
        list[ThresholdBody] | None,
        Field(
            min_length=1,
            max_length=10,
            description="Of balance thresholds, and needed there. Each level is told once per"
            " entitlement and usage period.",
        ),
    ] = None
    channels: Annotated[list[Id], Field(min_length=1, max_length=32)]
    features: Annotated[
        list[Annotated[str, Field(pattern=FEATURE)]] | None,
        Field(
            min_length=1,
            max_length=100,
            description="Ids or keys; of rules about entitlements. Left out: all features.",
        ),
    ] = None


RuleMembers = Annotated[
    dict[str, Any], BeforeValidator(_as_sent, json_schema_input_type=RuleWriteBody)
]


class ChannelMetaBody(Wire):
    """A channel by its id (schema `NotificationChannelMeta`)."""

    id: Id
    type: Literal["WEBHOOK"]


class FeatureMetaBody(Wire):
    """A feature by its names (schema `FeatureMeta`)."""

    id: Id
    key: str


class RuleBody(Wire):
    """A rule (schema `NotificationRule`)."""

    id: Id
    type: Literal[
        "entitlements.balance.threshold", "entitlements.reset", "invoice.created", "invoice.updated"
    ]
    name: _Name
    disabled: bool = False
    metadata: dict[str, str] | None = None
    annotations: dict[str, Any] | None = None
    thresholds: list[ThresholdBody] | None = None
    channels: list[ChannelMetaBody]
    features: list[FeatureMetaBody] | None = None
    created_at: WireInstant = Field(alias="createdAt")
    updated_at: WireInstant = Field(alias="updatedAt")
    deleted_at: WireInstant | None = Field(default=None, alias="deletedAt")


class RulePageBody(Wire):
    """One page of rules (schema `NotificationRulePaginatedResponse`)."""

    total_count: int = Field(alias="totalCount")
    page: int
    page_size: int = Field(alias="pageSize")
    items: list[RuleBody]


class PageParameters(Wire):
    """Which page, and in which order."""

    page: Annotated[int, Field(ge=1)] = 1
    page_size: Annotated[int, Field(ge=1, le=1000, alias="pageSize")] = 100
    order: Literal["ASC", "DESC"] = "ASC"


class ChannelListParameters(PageParameters):
    """Which page of which channels."""

    order_by: Annotated[Literal["id", "type", "createdAt", "updatedAt"], Field(alias="orderBy")] = (
        "id"
    )
    include_deleted: Annotated[bool, Field(alias="includeDeleted")] = False
    include_disabled: Annotated[bool, Field(alias="includeDisabled")] = False


class RuleListParameters(ChannelListParameters):
    """Which page of which rules."""

    feature: Annotated[list[str] | None, Field(max_length=100)] = None
    channel: Annotated[list[str] | None, Field(max_length=100)] = None


def body_from_channel(channel: Channel, *, with_secrets: bool) -> ChannelBody:
    """The wire's form of a channel.

    Args:
        channel: as it is stored.
        with_secrets: whether whoever asks may see what opens doors: headers often hold keys.
    """
    why = channel.disabled_reason
    return ChannelBody.model_construct(
        id=channel.id,
        type="WEBHOOK",
        name=channel.name,
        disabled=channel.disabled,
        metadata=dict(channel.metadata) or None,
        annotations=None if why is None else {"disabled.reason": why},
        url=channel.url,
        custom_headers=(dict(channel.headers) or None) if with_secrets else None,
        signing_secret=channel.secret if with_secrets else None,
        created_at=channel.created_at,
        updated_at=channel.updated_at,
        deleted_at=channel.deleted_at,
    )


def members_of_channel_meta(channel_id: str) -> dict[str, object]:
    """A channel by its id."""
    return {"id": channel_id, "type": WEBHOOK}


def members_from_rule(rule: Rule) -> dict[str, object]:
    """The wire's form of a rule, for `json_bytes`."""
    members: dict[str, object] = {
        "id": rule.id,
        "type": rule.kind.value,
        "name": rule.name,
        "disabled": rule.disabled,
        "channels": [members_of_channel_meta(each) for each in rule.channels],
        "createdAt": rule.created_at,
        "updatedAt": rule.updated_at,
    }
    if rule.metadata:
        members["metadata"] = rule.metadata
    if rule.kind is Kind.BALANCE_THRESHOLD:
        members["thresholds"] = [members_of_level(each) for each in rule.levels]
    if rule.features:
        members["features"] = [{"id": each.id, "key": each.key} for each in rule.features]
    if rule.deleted_at is not None:
        members["deletedAt"] = rule.deleted_at
    return members
