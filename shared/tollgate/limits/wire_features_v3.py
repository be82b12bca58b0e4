"""Wire models of v3: features, named as the contract names them."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, Field

from tollgate.core.errors import Fault, InvalidInput
from tollgate.core.ids import ULID_PATTERN
from tollgate.core.reading import shown
from tollgate.customers.customer import v1_name
from tollgate.limits.dimension_filter import DimensionFilter, filter_from_v3
from tollgate.limits.feature import FILTER_COUNT_MAX, Feature, FeatureInput, parse_feature
from tollgate.limits.unit_cost import (
    TOKEN_TYPES,
    UnitCost,
    members_from_unit_cost,
    parse_unit_cost,
)
from tollgate.limits.wire_features_v1 import NUMERIC
from tollgate.platform.wire import Wire, WireInstant
from tollgate.platform.wire_v3 import (
    LABELS_MAX,
    Closed,
    PageParameters,
    PaginatedMeta,
    labels_faults,
    labels_from_metadata,
    unknown_members,
)

Read = TypeVar("Read")
_ID = re.compile(ULID_PATTERN, re.IGNORECASE)
_CAPITAL = re.compile("[A-Z]")
_V1_WORD = re.compile(r"\b(provider|model|tokenType)(Property)?\b")


class ManualUnitCostBody(Closed):
    """A fixed cost of a unit (schema `BillingFeatureManualUnitCost`)."""

    type: Literal["manual"]
    amount: Annotated[str, Field(pattern=NUMERIC)]


class LlmUnitCostBody(Closed):
    """A price of tokens (schema `BillingFeatureLLMUnitCost`); of each pair exactly one is needed.

    There is no database of prices, so answers have no `pricing`; where it is sent it is left alone.
    """

    type: Literal["llm"]
    provider: str | None = None
    provider_property: str | None = None
    model: str | None = None
    model_property: str | None = None
    token_type: Annotated[str | None, Field(json_schema_extra={"enum": [*TOKEN_TYPES, None]})] = (
        None
    )
    token_type_property: str | None = None
    pricing: dict[str, Any] | None = None


UnitCostBody = Annotated[ManualUnitCostBody | LlmUnitCostBody, Field(discriminator="type")]
_COSTS: Mapping[object, type[BaseModel]] = {"manual": ManualUnitCostBody, "llm": LlmUnitCostBody}


class MeterReferenceBody(Closed):
    """The meter of a feature, and which of its usage counts (schema `FeatureMeterReference`)."""

    id: Annotated[str, Field(pattern=ULID_PATTERN)]
    filters: Annotated[
        dict[str, dict[str, Any]] | None,
        Field(
            max_length=FILTER_COUNT_MAX,
            description="Conditions on dimensions of the meter; all hold. An answer lacks those "
            "that came by v1 with an operator that has no word here; they hold all the same.",
        ),
    ] = None


class FeatureUpdateBody(Closed):
    """What of a feature may change (schema `UpdateFeatureRequest`): null takes the cost away."""

    unit_cost: UnitCostBody | None = None


class FeatureCreateBody(FeatureUpdateBody):
    """A new feature (schema `CreateFeatureRequest`)."""

    key: Annotated[str, Field(min_length=1, max_length=64, pattern="^[a-z0-9]+(?:_[a-z0-9]+)*$")]
    name: Annotated[str, Field(min_length=1, max_length=256)]
    description: Annotated[str | None, Field(max_length=1024)] = None
    labels: Annotated[dict[str, str] | None, Field(max_length=LABELS_MAX)] = None
    meter: MeterReferenceBody | None = None


def _as_sent(value: object) -> object:
    return value


# Read as plain members, so that all faults are found together, by the reader of `feature.py`.
FeatureCreateMembers = Annotated[
    dict[str, Any], BeforeValidator(_as_sent, json_schema_input_type=FeatureCreateBody)
]
FeatureUpdateMembers = Annotated[
    dict[str, Any], BeforeValidator(_as_sent, json_schema_input_type=FeatureUpdateBody)
]


class FeatureBody(Wire):
    """A feature (schema `Feature`)."""

    id: str
    name: str
    description: str | None = None
    labels: dict[str, str] | None = None
    created_at: WireInstant
    updated_at: WireInstant
    key: str
    meter: MeterReferenceBody | None = None
    unit_cost: UnitCostBody | None = None


class FeaturePageBody(Wire):
    """One page of features (schema `FeaturePagePaginatedResponse`)."""

    data: list[FeatureBody]
    meta: PaginatedMeta


_Asked = str | dict[str, Any] | None


class FeatureFilterParameters(Closed):
    """`filter[key]` and so on, each a text or `[operator]=text`."""

    meter_id: _Asked = None
    key: _Asked = None
    name: _Asked = None


class FeatureListParameters(Wire):
    """Which page of which features; none is archived."""

    page: PageParameters = PageParameters()
    sort: str = "created_at"
    filter: FeatureFilterParameters = FeatureFilterParameters()


def body_from_feature(feature: Feature) -> FeatureBody:
    """The wire's form of a feature."""
    meter = None
    if feature.meter is not None:
        filters = {name: each.in_v3() for name, each in feature.conditions.items()}
        shown = {name: dict(each) for name, each in filters.items() if each is not None}
        meter = MeterReferenceBody.model_construct(id=feature.meter.id, filters=shown or None)
    return FeatureBody.model_construct(
        id=feature.id,
        name=feature.name,
        description=feature.description,
        labels=labels_from_metadata(feature.metadata) or None,
        created_at=feature.created_at,
        updated_at=feature.updated_at,
        key=feature.key,
        meter=meter,
        unit_cost=_cost_body(feature.unit_cost),
    )


def feature_from_members(members: Mapping[str, object]) -> FeatureInput:
    """A new feature from what a client sent.

    Raises:
        InvalidInput: every fault, under v3's names.
    """
    faults = unknown_members(members, FeatureCreateBody) + labels_faults(members.get("labels"))
    faults += _cost_faults(members.get("unit_cost"))
    meter_id, conditions = _meter(members.get("meter"), faults)
    raw = {name: members.get(name) for name in ("key", "name", "description")} | {
        "metadata": members.get("labels"),
        "unitCost": _in_v1_spelling(members.get("unit_cost")),
    }
    found = in_v3_names(lambda: parse_feature(raw), faults)
    return replace(found, meter_id=meter_id, conditions=conditions)


def unit_cost_from_members(members: Mapping[str, object]) -> Callable[[Feature], UnitCost | None]:
    """What an update makes of a feature's unit cost; what is left out stays.

    Raises:
        InvalidInput: every fault, under v3's names.
    """
    faults = unknown_members(members, FeatureUpdateBody) + _cost_faults(members.get("unit_cost"))

    def read() -> UnitCost | None:
        found: list[Fault] = []
        cost = parse_unit_cost(_in_v1_spelling(members.get("unit_cost")), "unitCost", found)
        if found:
            raise InvalidInput(tuple(found))
        return cost

    wanted = in_v3_names(read, faults)
    return lambda stored: wanted if "unit_cost" in members else stored.unit_cost


def in_v3_names(read: Callable[[], Read], faults: list[Fault] | None = None) -> Read:
    """What `read` gives; its faults get v3's names.

    Args:
        read: may raise InvalidInput under v1's names.
        faults: found already, under v3's names: with any there is no answer, and a fault of the
            same member is not said twice.

    Raises:
        InvalidInput: every fault.
    """
    before = tuple(faults or ())
    try:
        found = read()
    except InvalidInput as invalid:
        own = {fault.field for fault in before}
        more = map(_in_v3_names, invalid.faults)
        raise InvalidInput((*before, *(each for each in more if each.field not in own))) from None
    if before:
        raise InvalidInput(before)
    return found


def _in_v3_names(fault: Fault) -> Fault:
    head, dot, rest = fault.field.partition(".")
    message = fault.message
    match head:
        case "metadata":
            field = f"labels{dot}{rest}"
        case "meterSlug":
            field = "meter" if fault.code == "not_limitable" else "meter.id"
        case "advancedMeterGroupByFilters":
            field = f"meter.filters{dot}{rest}"
        case "unitCost":
            field = f"unit_cost{dot}{_snake(rest)}"
            message = _V1_WORD.sub(lambda word: _snake(word[0]), message)
        case _:
            field = fault.field
    return replace(fault, field=field, message=message)


def _meter(value: object, faults: list[Fault]) -> tuple[str | None, dict[str, DimensionFilter]]:
    """The id of a meter, and conditions on its dimensions."""
    if value is None:
        return None, {}
    if not isinstance(value, Mapping):
        faults.append(Fault(field="meter", code="not_an_object", message="must be an object"))
        return None, {}
    faults += unknown_members(value, MeterReferenceBody, "meter.")
    meter_id = value.get("id")
    if meter_id is None:
        faults.append(Fault(field="meter.id", code="required", message="is required"))
    elif not isinstance(meter_id, str) or not _ID.fullmatch(meter_id):
        message = "must be a ULID: 26 digits and letters"
        faults.append(Fault(field="meter.id", code="invalid_ulid", message=message))
    else:
        return meter_id.upper(), _conditions(value.get("filters"), faults)
    return None, _conditions(value.get("filters"), faults)


def _conditions(value: object, faults: list[Fault]) -> dict[str, DimensionFilter]:
    place = "meter.filters"
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        faults.append(Fault(field=place, code="not_an_object", message="must be an object"))
        return {}
    if len(value) > FILTER_COUNT_MAX:
        message = f"has more than {FILTER_COUNT_MAX} entries"
        faults.append(Fault(field=place, code="too_many", message=message))
        return {}
    found: dict[str, DimensionFilter] = {}
    for name, sent in value.items():
        try:
            found[name] = filter_from_v3(sent, f"{place}.{shown(name)}")
        except InvalidInput as invalid:
            faults += invalid.faults
    return found


def _cost_faults(cost: object) -> list[Fault]:
    """Members of a unit cost that v3 does not know."""
    if not isinstance(cost, Mapping):
        return []
    kind = cost.get("type")
    model = _COSTS.get(kind) if isinstance(kind, str) else None
    return [] if model is None else unknown_members(cost, model, "unit_cost.")


def _in_v1_spelling(cost: object) -> object:
    if not isinstance(cost, Mapping):
        return cost
    return {v1_name(name): value for name, value in cost.items()}


def _snake(name: str) -> str:
    return _CAPITAL.sub(lambda letter: "_" + letter[0].lower(), name)


def _cost_body(cost: UnitCost | None) -> ManualUnitCostBody | LlmUnitCostBody | None:
    if cost is None:
        return None
    members = {_snake(name): text for name, text in members_from_unit_cost(cost).items()}
    if members["type"] == "manual":
        return ManualUnitCostBody.model_validate(members)
    return LlmUnitCostBody.model_validate(members)
