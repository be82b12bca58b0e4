"""Wire models of v1: features, named as the contract names them."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from tollgate.limits.feature import Feature
from tollgate.limits.unit_cost import UnitCost, members_from_unit_cost
from tollgate.platform.wire import Wire, WireInstant

NUMERIC = r"^\-?[0-9]+(\.[0-9]+)?$"


class ManualUnitCostBody(Wire):
    """A fixed cost of a unit (schema `FeatureManualUnitCost`)."""

    type: Literal["manual"]
    amount: Annotated[
        str,
        Field(
            pattern=NUMERIC,
            description="US dollars, 0 or more: at most 20 digits before the point and 18 after "
            "it, kept as sent.",
        ),
    ]


class LlmUnitCostBody(Wire):
    """A price of tokens (schema `FeatureLLMUnitCost`); of each pair exactly one is needed."""

    type: Literal["llm"]
    provider: str | None = None
    provider_property: str | None = Field(default=None, alias="providerProperty")
    model: str | None = None
    model_property: str | None = Field(default=None, alias="modelProperty")
    token_type: str | None = Field(default=None, alias="tokenType")
    token_type_property: str | None = Field(default=None, alias="tokenTypeProperty")


UnitCostBody = Annotated[ManualUnitCostBody | LlmUnitCostBody, Field(discriminator="type")]


class FeatureCreateBody(Wire):
    """A new feature (schema `FeatureCreateInputs`). Checked by `parse_feature`."""

    key: Annotated[
        str,
        Field(
            min_length=1,
            max_length=64,
            pattern="^[a-z0-9]+(?:_[a-z0-9]+)*$",
            description="Unique among the features that are not archived. Must not look like an "
            "id.",
        ),
    ]
    name: Annotated[str, Field(min_length=1, max_length=256)]
    metadata: dict[str, str] | None = None
    meter_slug: Annotated[
        str | None,
        Field(
            alias="meterSlug",
            description="The meter whose usage counts; without one the feature is static. SUM, "
            "COUNT, UNIQUE_COUNT, LATEST and MAX can be limited.",
        ),
    ] = None
    meter_group_by_filters: Annotated[
        dict[str, str] | None,
        Field(
            alias="meterGroupByFilters",
            max_length=10,
            description="Values that dimensions of the meter must have. An answer has here those "
            "of `advancedMeterGroupByFilters` that ask for one value and no more.",
        ),
    ] = None
    advanced_filters: Annotated[
        dict[str, dict[str, Any]] | None,
        Field(
            alias="advancedMeterGroupByFilters",
            max_length=10,
            description="Conditions on dimensions of the meter; all hold. An answer lacks those "
            "that came by v3 as `exists`, which has no word here; they hold all the same.",
        ),
    ] = None
    unit_cost: UnitCostBody | None = Field(default=None, alias="unitCost")


def _as_sent(value: object) -> object:
    return value


# Read as plain members, so that all faults are found together, by the reader of `feature.py`.
FeatureCreateMembers = Annotated[
    dict[str, Any], BeforeValidator(_as_sent, json_schema_input_type=FeatureCreateBody)
]


class FeatureBody(FeatureCreateBody):
    """A feature (schema `Feature`)."""

    id: str
    created_at: WireInstant = Field(alias="createdAt")
    updated_at: WireInstant = Field(alias="updatedAt")
    archived_at: WireInstant | None = Field(default=None, alias="archivedAt")


class FeaturePageBody(Wire):
    """One page of features (schema `FeaturePaginatedResponse`)."""

    total_count: int = Field(alias="totalCount")
    page: int
    page_size: int = Field(alias="pageSize")
    items: list[FeatureBody]


FeatureListBody = list[FeatureBody] | FeaturePageBody


class FeatureListParameters(Wire):
    """Which stretch of which features: a page, or as an array `limit` of them from `offset` on."""

    meter_slug: Annotated[list[str] | None, Field(alias="meterSlug", max_length=100)] = None
    include_archived: Annotated[bool, Field(alias="includeArchived")] = False
    page: Annotated[
        int | None, Field(ge=1, description="Asks for a page instead of an array; so does a size.")
    ] = None
    page_size: Annotated[int | None, Field(ge=1, le=1000, alias="pageSize")] = None
    offset: Annotated[int, Field(ge=0)] = 0
    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    order: Literal["ASC", "DESC"] = "ASC"
    order_by: Annotated[
        Literal["id", "key", "name", "createdAt", "updatedAt"], Field(alias="orderBy")
    ] = "createdAt"


def body_from_feature(feature: Feature) -> FeatureBody:
    """The wire's form of a feature."""
    meter = feature.meter
    simple = {name: each.equal_to() for name, each in feature.conditions.items()}
    advanced = {name: each.in_v1() for name, each in feature.conditions.items()}
    return FeatureBody.model_construct(
        id=feature.id,
        key=feature.key,
        name=feature.name,
        metadata=dict(feature.metadata) or None,
        meter_slug=None if meter is None else meter.slug,
        meter_group_by_filters={k: text for k, text in simple.items() if text is not None} or None,
        advanced_filters={k: dict(each) for k, each in advanced.items() if each is not None}
        or None,
        unit_cost=_unit_cost(feature.unit_cost),
        created_at=feature.created_at,
        updated_at=feature.updated_at,
        archived_at=feature.archived_at,
    )


def _unit_cost(cost: UnitCost | None) -> ManualUnitCostBody | LlmUnitCostBody | None:
    if cost is None:
        return None
    members = members_from_unit_cost(cost)
    if members["type"] == "manual":
        return ManualUnitCostBody.model_validate(members)
    return LlmUnitCostBody.model_validate(members)
