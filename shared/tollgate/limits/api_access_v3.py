"""v3 of entitlements on HTTP: what one customer may use, and what many may."""

from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, urlencode

import msgspec

from tollgate.core.errors import Fault, InvalidInput, NotFound
from tollgate.customers.api_customers_v1 import open_customers
from tollgate.limits.access import Resolved, accesses, resolve, wanted_features
from tollgate.limits.api_features_v1 import open_features
from tollgate.limits.api_values import AS_OF_DOCUMENT, present_limits
from tollgate.limits.entitlement_parts import (
    open_entitled_subjects,
    open_entitlements,
    open_facts,
)
from tollgate.limits.entitlement_record import EntitlementRecord
from tollgate.limits.limit import Limit
from tollgate.limits.limit_parts import open_limits
from tollgate.limits.wire_access_v3 import (
    AccessListBody,
    AccessQueryBody,
    AccessQueryParameters,
    AccessQueryResultBody,
    CursorPageParameters,
    access_result_body,
    customer_access_body,
    unknown_customer_body,
)
from tollgate.platform.access import Scope
from tollgate.platform.api import Call, Operation, Reply
from tollgate.platform.wire_v3 import checked_id

_AFTER, _BEFORE = "page[after]", "page[before]"


async def list_access(call: Call) -> AccessListBody:
    """What a customer has a right to now, and whether it may use it."""
    asked = checked_id(call.path["customerId"], "customerId")
    now, facts = call.parts.clock.now(), call.parts.get(open_facts)
    read = partial(facts.records_of_customer, call.namespace, asked, now)
    customer_id, records = await call.parts.get(open_limits).present.on_thread(read)
    if customer_id != asked:
        raise NotFound(f"there is no customer {asked}")
    limits = await present_limits(call, records, now)
    return AccessListBody.model_construct(
        data=[
            access_result_body(each.definition, limit)
            for each, limit in zip(records, limits, strict=True)
        ]
    )


async def query_access(call: Call) -> Reply:
    """What many customers may use now, in as few queries as their meters need."""
    on_thread = call.parts.get(open_limits).present.on_thread
    asked = await on_thread(partial(_asked, call))
    limits = await present_limits(call, asked.records, asked.now)
    return await on_thread(partial(_answered, call, asked, limits))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What a question is about.

    Attributes:
        resolved: all customers that are asked for, and names that are nobody's.
        ids: of the customers of the page. links: to the pages around it.
        features: by key, whether there is one.
        records: what those customers have of these features.
        now: when that was read.
    """

    resolved: Resolved
    ids: list[str]
    links: dict[str, str | None]
    features: dict[str, bool]
    records: tuple[EntitlementRecord, ...]
    now: datetime


def _asked(call: Call) -> _Asked:
    body: AccessQueryBody = call.body
    query: AccessQueryParameters = call.query
    parts, namespace = call.parts, call.namespace
    if body.include_credits:
        message = "is not supported: there are no credits"
        fault = Fault(field="include_credits", code="unsupported", message=message)
        raise InvalidInput((fault,))
    keys = None if body.feature is None else body.feature.keys
    features = wanted_features(parts.get(open_features), namespace, keys)
    resolved = resolve(parts.get(open_entitled_subjects), namespace, body.customer.keys)
    ids, links = _page(call.target, list(resolved.names), query.page)
    now = parts.clock.now()
    facts = parts.get(open_facts)
    records = facts.records_of_customers(namespace, ids, now, list(features))
    return _Asked(
        resolved=resolved, ids=ids, links=links, features=features, records=records, now=now
    )


def _answered(call: Call, asked: _Asked, limits: tuple[Limit, ...]) -> Reply:
    parts, namespace, ids = call.parts, call.namespace, asked.ids
    found = accesses(
        {customer_id: asked.resolved.names[customer_id] for customer_id in ids},
        asked.features,
        list(zip(asked.records, limits, strict=True)),
        parts.get(open_customers).find(namespace, ids),
        parts.get(open_entitlements).last_changes(namespace, ids),
    )
    answer = {
        "data": [_dumped(customer_access_body(each)) for each in found],
        "errors": [_dumped(unknown_customer_body(name)) for name in asked.resolved.unknown],
        "meta": {"page": asked.links | {"size": call.query.page.size}},
    }
    return Reply(body=msgspec.json.encode(answer))


def _page(
    target: str, ids: list[str], page: CursorPageParameters
) -> tuple[list[str], dict[str, str | None]]:
    """The customers of a page, and URIs of the pages around it."""
    if page.after is not None and page.before is not None:
        message = "cannot be together with page[after]"
        raise InvalidInput((Fault(field=_BEFORE, code="conflicting_cursors", message=message),))
    if page.before is not None:
        shown = [each for each in ids if each < page.before][-page.size :]
    else:
        shown = [each for each in ids if page.after is None or each > page.after][: page.size]
    path, _, query = target.partition("?")
    pairs = parse_qsl(query, keep_blank_values=True)
    kept = [(name, value) for name, value in pairs if name not in (_AFTER, _BEFORE)]

    def link(*cursor: tuple[str, str]) -> str:
        wanted = [*kept, *cursor]
        return f"{path}?{urlencode(wanted)}" if wanted else path

    following = previous = None
    if shown and shown[-1] != ids[-1]:
        following = link((_AFTER, shown[-1]))
    if shown and shown[0] != ids[0]:
        previous = link((_BEFORE, shown[0]))
    return shown, {"first": link(), "next": following, "previous": previous}


def _dumped(body: Any) -> Any:
    return body.model_dump(mode="json", by_alias=True, exclude_none=True)


def _operation(method: str, path: str, operation_id: str, summary: str, **more: Any) -> Operation:
    return Operation(
        method=method,
        path=f"/api/v3/openmeter{path}",
        operation_id=operation_id,
        summary=summary,
        tag="Entitlements",
        scope=Scope.READ,
        wire="v3",
        document=AS_OF_DOCUMENT,
        **more,
    )


OPERATIONS: tuple[Operation, ...] = (
    _operation(
        "GET",
        "/customers/{customerId}/entitlement-access",
        "list-customer-entitlement-access",
        "List what a customer may use",
        handler=list_access,
        response=AccessListBody,
    ),
    _operation(
        "POST",
        "/entitlement-access/query",
        "query-entitlement-access",
        "Ask what many customers may use",
        handler=query_access,
        query=AccessQueryParameters,
        body=AccessQueryBody,
        response=AccessQueryResultBody,
    ),
)
