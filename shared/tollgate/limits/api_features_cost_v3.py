"""v3 of what a feature's usage costs: usage of its part of the meter, by its unit cost.

Costs are exact, in US dollars, and never rounded. Prices of language models are not known here:
what costs by them is answered without a cost, and says so.
"""

from dataclasses import replace
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Field

from tollgate.core.decimals import EXACT, plain_text
from tollgate.core.errors import Fault, InvalidInput, NotFound
from tollgate.events.api_position import await_position
from tollgate.events.as_of import as_of
from tollgate.limits.api_features_v1 import open_features
from tollgate.limits.feature import Feature
from tollgate.limits.unit_cost import ManualUnitCost
from tollgate.metering.api_query_v1 import tracked_query
from tollgate.metering.api_v3 import group_value, query_from_body
from tollgate.metering.attribution_reader import with_attributions
from tollgate.metering.meter import Meter
from tollgate.metering.question import MeterQuery, QueryRow
from tollgate.metering.store import MeterStore
from tollgate.metering.wire_v3 import UsageQueryBody, query_fault_in_v3_names
from tollgate.platform.access import Scope
from tollgate.platform.api import Call, Operation, Reply
from tollgate.platform.database import open_database
from tollgate.platform.filters import And, Filter
from tollgate.platform.wire import Wire, WireInstant
from tollgate.platform.wire_v3 import checked_id

_NUMERIC = r"^\-?[0-9]+(\.[0-9]+)?$"
_NO_PRICE = "the unit cost of the feature is llm, and no prices of language models are known"


class CostRowBody(Wire):
    """One quantity and what it costs (schema `FeatureCostQueryRow`)."""

    usage: Annotated[str, Field(pattern=_NUMERIC)]
    cost: Annotated[str | None, Field(pattern=_NUMERIC, description="Null: `detail` says why.")]
    currency: Literal["USD"] = "USD"
    detail: str | None = Field(default=None, exclude_if=lambda text: text is None)
    start: WireInstant = Field(alias="from")
    end: WireInstant = Field(alias="to")
    dimensions: dict[str, str]


class CostResultBody(Wire):
    """The answer (schema `FeatureCostQueryResult`)."""

    start: WireInstant | None = Field(
        default=None, alias="from", exclude_if=lambda instant: instant is None
    )
    end: WireInstant | None = Field(
        default=None, alias="to", exclude_if=lambda instant: instant is None
    )
    data: list[CostRowBody]


def query_feature_cost(call: Call) -> Reply:
    """What a feature's usage costs, archived or not; costs are exact."""
    feature, meter = _metered(call)
    body: UsageQueryBody = call.body
    asked = _of_feature(query_from_body(body), feature)
    await_position(call)
    try:
        asked = with_attributions(call, meter, asked)
        asked = replace(asked, as_of=as_of(call, body.as_of))
        answer = tracked_query(call, meter, asked, client_id=None)
    except InvalidInput as invalid:
        raise InvalidInput(tuple(map(query_fault_in_v3_names, invalid.faults))) from None
    cost = feature.unit_cost
    amount = cost.amount if isinstance(cost, ManualUnitCost) else None
    result = CostResultBody.model_construct(
        start=asked.start, end=asked.end, data=[_row(asked, row, amount) for row in answer.rows]
    )
    # Written here, because elsewhere null is left out: the contract wants a cost, if only null.
    return Reply(body=result.model_dump_json(by_alias=True).encode())


def _metered(call: Call) -> tuple[Feature, Meter]:
    """The feature that a path names, and its meter.

    Raises:
        NotFound: no such feature. InvalidInput: it has no meter or no unit cost.
    """
    feature_id = checked_id(call.path["featureId"], "featureId")
    feature = call.parts.get(open_features).by_ids(call.namespace, [feature_id]).get(feature_id)
    if feature is None:
        raise NotFound(f"there is no feature {feature_id}")
    if feature.meter is None:
        raise _refusal("meter_required", "has no meter: a static feature has no usage to price")
    if feature.unit_cost is None:
        raise _refusal("unit_cost_required", "has no unit cost; give it one by PATCH")
    meters = MeterStore(call.parts.get(open_database), call.parts.clock)
    return feature, meters.get_by_id(call.namespace, feature.meter.id)


def _of_feature(asked: MeterQuery, feature: Feature) -> MeterQuery:
    """The question about the feature's part of the meter."""
    filters: dict[str, Filter] = dict(asked.filters)
    for name, own in feature.filters.items():
        filters[name] = And(filters=(own, filters[name])) if name in filters else own
    return replace(asked, filters=filters)


def _row(asked: MeterQuery, row: QueryRow, amount: Decimal | None) -> CostRowBody:
    # 76 digits times 38: `EXACT` has room for all of them.
    cost = None if amount is None else plain_text(EXACT.multiply(row.value, amount))
    return CostRowBody.model_construct(
        usage=plain_text(row.value),
        cost=cost,
        currency="USD",
        detail=_NO_PRICE if amount is None else None,
        start=row.start,
        end=row.end,
        dimensions={name: group_value(row, name) for name in asked.group_by},
    )


def _refusal(code: str, message: str) -> InvalidInput:
    return InvalidInput((Fault(field="featureId", code=code, message=message),))


OPERATIONS: tuple[Operation, ...] = (
    Operation(
        method="POST",
        path="/api/v3/openmeter/features/{featureId}/cost/query",
        operation_id="query-feature-cost",
        summary="Query what a feature's usage costs",
        tag="Features",
        wire="v3",
        scope=Scope.READ,
        handler=query_feature_cost,
        body=UsageQueryBody,
        body_optional=True,
        response=CostResultBody,
    ),
)
