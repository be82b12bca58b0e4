"""v3 of features on HTTP: create, list, read, change the unit cost, archive; named by id only."""

from typing import Any

from tollgate.core.errors import Fault, InvalidInput
from tollgate.limits.api_features_v1 import open_features
from tollgate.limits.feature_store import FeatureField, FeatureListing, FeatureOrder
from tollgate.limits.wire_features_v3 import (
    FeatureBody,
    FeatureCreateMembers,
    FeatureFilterParameters,
    FeatureListParameters,
    FeaturePageBody,
    FeatureUpdateMembers,
    body_from_feature,
    feature_from_members,
    in_v3_names,
    unit_cost_from_members,
)
from tollgate.platform.access import Scope
from tollgate.platform.api import Call, Operation
from tollgate.platform.filter_dialects import parse_string_field, parse_ulid_field
from tollgate.platform.filters import Filter
from tollgate.platform.wire_v3 import PageMeta, PaginatedMeta, checked_id, read_orders

_ORDERS = {each.value: each for each in FeatureOrder}
_FIELDS = {
    "meter_id": (FeatureField.METER_ID, parse_ulid_field),
    "key": (FeatureField.KEY, parse_string_field),
    "name": (FeatureField.NAME, parse_string_field),
}


def list_features(call: Call) -> FeaturePageBody:
    """One page of features that pass the filters; none is archived."""
    query: FeatureListParameters = call.query
    faults: list[Fault] = []
    filters = _filters(query.filter, faults)
    orders = read_orders(query.sort, _ORDERS, faults)
    if faults:
        raise InvalidInput(tuple(faults))
    listing = FeatureListing(
        skipped=(query.page.number - 1) * query.page.size,
        count_max=query.page.size,
        orders=orders,
        filters=filters,
    )
    found, total = call.parts.get(open_features).list(call.namespace, listing)
    page = PageMeta(number=query.page.number, size=query.page.size, total=total)
    return FeaturePageBody.model_construct(
        data=[body_from_feature(each) for each in found], meta=PaginatedMeta(page=page)
    )


def create_feature(call: Call) -> FeatureBody:
    """Makes a feature. While it is not archived its meter cannot be deleted."""
    wanted, store = feature_from_members(call.body), call.parts.get(open_features)
    return body_from_feature(in_v3_names(lambda: store.create(call.namespace, wanted)))


def get_feature(call: Call) -> FeatureBody:
    """One feature that is not archived."""
    return body_from_feature(
        call.parts.get(open_features).get_by_id(call.namespace, _feature_id(call))
    )


def update_feature(call: Call) -> FeatureBody:
    """Changes the unit cost, or takes it away."""
    change, store = unit_cost_from_members(call.body), call.parts.get(open_features)
    feature_id = _feature_id(call)
    return body_from_feature(in_v3_names(lambda: store.update(call.namespace, feature_id, change)))


def delete_feature(call: Call) -> None:
    """Archives a feature, for good; its key is free again."""
    call.parts.get(open_features).archive(call.namespace, _feature_id(call))


def _feature_id(call: Call) -> str:
    return checked_id(call.path["featureId"], "featureId")


def _filters(
    asked: FeatureFilterParameters, faults: list[Fault]
) -> tuple[tuple[FeatureField, Filter], ...]:
    found: list[tuple[FeatureField, Filter]] = []
    for name, (field, parse) in _FIELDS.items():
        raw = getattr(asked, name)
        if raw is None:
            continue
        try:
            found.append((field, parse(raw, f"filter[{name}]")))
        except InvalidInput as invalid:
            faults += invalid.faults
    return tuple(found)


def _operation(method: str, path: str, operation_id: str, summary: str, **more: Any) -> Operation:
    return Operation(
        method=method,
        path=f"/api/v3/openmeter/features{path}",
        operation_id=operation_id,
        summary=summary,
        tag="Features",
        wire="v3",
        **{"scope": Scope.READ} | more,
    )


_ONE = "/{featureId}"
OPERATIONS: tuple[Operation, ...] = (
    _operation(
        "GET",
        "",
        "list-features",
        "List features",
        handler=list_features,
        query=FeatureListParameters,
        response=FeaturePageBody,
    ),
    _operation(
        "POST",
        "",
        "create-feature",
        "Create a feature",
        handler=create_feature,
        body=FeatureCreateMembers,
        response=FeatureBody,
        status=201,
        scope=Scope.ADMIN,
    ),
    _operation(
        "GET",
        _ONE,
        "get-feature",
        "Get a feature",
        handler=get_feature,
        response=FeatureBody,
        failures=(410,),
    ),
    _operation(
        "PATCH",
        _ONE,
        "update-feature",
        "Change a feature's unit cost",
        handler=update_feature,
        body=FeatureUpdateMembers,
        response=FeatureBody,
        scope=Scope.ADMIN,
    ),
    _operation(
        "DELETE",
        _ONE,
        "delete-feature",
        "Archive a feature",
        handler=delete_feature,
        status=204,
        scope=Scope.ADMIN,
    ),
)
