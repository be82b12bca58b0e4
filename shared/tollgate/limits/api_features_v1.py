"""v1 of features on HTTP: create, list, read, archive."""

from typing import Any

from tollgate.limits.feature import parse_feature
from tollgate.limits.feature_store import FeatureListing, FeatureOrder, FeatureStore
from tollgate.limits.wire_features_v1 import (
    FeatureBody,
    FeatureCreateMembers,
    FeatureListBody,
    FeatureListParameters,
    FeaturePageBody,
    body_from_feature,
)
from tollgate.platform.access import Scope
from tollgate.platform.api import Call, Operation
from tollgate.platform.database import open_database
from tollgate.platform.parts import Parts

_PAGE_SIZE = 100
_ORDERS = {
    "id": FeatureOrder.ID,
    "key": FeatureOrder.KEY,
    "name": FeatureOrder.NAME,
    "createdAt": FeatureOrder.CREATED_AT,
    "updatedAt": FeatureOrder.UPDATED_AT,
}


def open_features(parts: Parts) -> FeatureStore:
    """The features of the control plane."""
    return FeatureStore(parts.get(open_database), parts.clock)


def list_features(call: Call) -> list[FeatureBody] | FeaturePageBody:
    """Features, as a bare array; as a page if `page` or `pageSize` is given."""
    query: FeatureListParameters = call.query
    is_paged = query.page is not None or query.page_size is not None
    page, size = query.page or 1, query.page_size or _PAGE_SIZE
    listing = FeatureListing(
        skipped=(page - 1) * size if is_paged else query.offset,
        count_max=size if is_paged else query.limit,
        orders=((_ORDERS[query.order_by], query.order == "DESC"),),
        include_archived=query.include_archived,
        meter_slugs=tuple(query.meter_slug or ()),
    )
    found, total = call.parts.get(open_features).list(call.namespace, listing)
    bodies = [body_from_feature(each) for each in found]
    if not is_paged:
        return bodies
    return FeaturePageBody.model_construct(
        total_count=total, page=page, page_size=size, items=bodies
    )


def create_feature(call: Call) -> FeatureBody:
    """Makes a feature. While it is not archived its meter cannot be deleted."""
    wanted = parse_feature(call.body)
    return body_from_feature(call.parts.get(open_features).create(call.namespace, wanted))


def get_feature(call: Call) -> FeatureBody:
    """One feature by id, archived or not, or by the key that it has."""
    return body_from_feature(
        call.parts.get(open_features).get(call.namespace, call.path["featureId"])
    )


def delete_feature(call: Call) -> None:
    """Archives a feature, for good; its key is free again."""
    call.parts.get(open_features).archive(call.namespace, call.path["featureId"])


def _operation(method: str, path: str, operation_id: str, summary: str, **more: Any) -> Operation:
    return Operation(
        method=method,
        path=f"/api/v1/features{path}",
        operation_id=operation_id,
        summary=summary,
        tag="Features",
        **{"scope": Scope.READ} | more,
    )


OPERATIONS: tuple[Operation, ...] = (
    _operation(
        "GET",
        "",
        "listFeatures",
        "List features",
        handler=list_features,
        query=FeatureListParameters,
        response=FeatureListBody,
    ),
    _operation(
        "POST",
        "",
        "createFeature",
        "Create a feature",
        handler=create_feature,
        body=FeatureCreateMembers,
        response=FeatureBody,
        status=201,
        scope=Scope.ADMIN,
    ),
    _operation(
        "GET",
        "/{featureId}",
        "getFeature",
        "Get a feature",
        handler=get_feature,
        response=FeatureBody,
    ),
    _operation(
        "DELETE",
        "/{featureId}",
        "deleteFeature",
        "Archive a feature",
        handler=delete_feature,
        status=204,
        scope=Scope.ADMIN,
    ),
)
