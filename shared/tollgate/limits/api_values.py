"""Values of entitlements on HTTP: whether features may be used, and what remains, now or once."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from tollgate.core.errors import NotFound
from tollgate.core.times import format_instant
from tollgate.events.api_position import await_position
from tollgate.events.position import HEADER, parse_token
from tollgate.limits.entitlement import MeteredEntitlement
from tollgate.limits.entitlement_parts import (
    limits_of,
    looks_like_id,
    named_known,
    open_entitled_subjects,
    open_facts,
    value_of,
)
from tollgate.limits.entitlement_record import EntitlementRecord
from tollgate.limits.limit import Limit
from tollgate.limits.limit_parts import open_limits
from tollgate.limits.wire_entitlements import ValueBody, value_body
from tollgate.limits.wire_entitlements_v1 import AccessBody
from tollgate.limits.wire_entitlements_v2 import ValueParameters, ValueV2Body, value_v2_body
from tollgate.platform.access import Scope
from tollgate.platform.api import Call, Operation, Reply
from tollgate.platform.exact import exact_reply

AS_OF_HEADER = "tollgate-usage-as-of"
AS_OF_DOCUMENT: Mapping[str, Any] = {
    "responses": {
        "200": {
            "headers": {
                "Tollgate-Usage-As-Of": {
                    "description": "Where a metered entitlement is in the answer: usage that was "
                    "loaded before this instant is in it. Less than a second ago, mostly.",
                    "schema": {"type": "string", "format": "date-time"},
                }
            }
        }
    }
}
"""Laid over the operations that say so."""
_CUSTOMER, _NAME, _FEATURE = "customerIdOrKey", "entitlementIdOrFeatureKey", "featureKey"
_SUBJECT = "subjectIdOrKey"


async def present_limits(
    call: Call, records: Sequence[EntitlementRecord], now: datetime
) -> tuple[Limit, ...]:
    """The decisions for entitlements, with the usage that the call's position token asks for.

    Args:
        call: the request; its answer says up to when usage is known.
        records: as they are in SQL.
        now: when they were read.
    """
    present, text = call.parts.get(open_limits).present, call.headers.get(HEADER.lower())
    position = None
    if text is not None and any(isinstance(it.definition, MeteredEntitlement) for it in records):
        await present.on_thread(partial(await_position, call))
        position = parse_token(text)
    wait_ms = call.parts.settings.position_wait_ms
    found = await present.limits(records, now, position, wait_ms)
    if found.known_at is not None:
        call.answer_headers[AS_OF_HEADER] = format_instant(found.known_at)
    return found.limits


async def get_customer_access(call: Call) -> Reply:
    """All that a customer has a right to now, by the feature's key, with what remains."""
    now = call.parts.clock.now()
    read = partial(
        call.parts.get(open_facts).records_of_customer, call.namespace, call.path[_CUSTOMER], now
    )
    _, records = await call.parts.get(open_limits).present.on_thread(read)
    limits = await present_limits(call, records, now)
    values = {
        each.definition.feature_key: value_body(limit)
        for each, limit in zip(records, limits, strict=True)
    }
    return exact_reply(AccessBody.model_construct(entitlements=values))


async def get_customer_value(call: Call) -> Reply:
    """Whether a customer may use a feature; without a right to it: no."""
    return exact_reply(value_body(await _customer_value(call, call.path[_FEATURE])))


async def get_value_v2(call: Call) -> Reply:
    """Whether a feature may be used, and what remains; without a right to it: no."""
    return exact_reply(value_v2_body(await _customer_value(call, call.path[_NAME])))


async def get_subject_value(call: Call) -> Reply:
    """Whether a subject's customer may use a feature, and what remains."""
    name = call.path[_NAME]
    customer = await call.parts.get(open_limits).present.on_thread(
        partial(_customer_of_subject, call)
    )
    if call.query.time is not None:
        return exact_reply(value_body(await _then(call, partial(_evaluated, call, customer, name))))
    customer_id, records, now = await _named(call, customer, name)
    if not records:
        raise NotFound(f"the customer {customer_id} has no entitlement {name}")
    return exact_reply(value_body((await present_limits(call, records[:1], now))[0]))


async def _customer_value(call: Call, name: str) -> Limit:
    customer, at = call.path[_CUSTOMER], call.query.time
    if at is not None:
        return await _then(call, partial(value_of, call, customer, name, at))
    customer_id, records, now = await _named(call, customer, name)
    if records:
        return (await present_limits(call, records[:1], now))[0]
    if looks_like_id(name):
        raise NotFound(f"the customer {customer_id} has no entitlement {name}")
    return Limit(has_access=False)


async def _named(
    call: Call, customer: str, name: str
) -> tuple[str, tuple[EntitlementRecord, ...], datetime]:
    """A customer's id, its entitlement of an id or to a feature, and when it was read."""
    now, facts = call.parts.clock.now(), call.parts.get(open_facts)
    read = partial(facts.records_of_customer, call.namespace, customer, now, [name])
    return (*await call.parts.get(open_limits).present.on_thread(read), now)


async def _then(call: Call, evaluate: Callable[[], Limit]) -> Limit:
    """The decision of an instant that was asked for: never from memory."""
    found = await call.parts.get(open_limits).present.on_thread(evaluate)
    if found.balance is not None:
        call.answer_headers[AS_OF_HEADER] = format_instant(call.parts.clock.now())
    return found


def _evaluated(call: Call, customer: str, name: str) -> Limit:
    at = call.query.time
    return limits_of(call, (named_known(call, customer, name, at),), at)[0]


def _customer_of_subject(call: Call) -> str:
    subjects = call.parts.get(open_entitled_subjects)
    return subjects.customer(call.namespace, subjects.key(call.namespace, call.path[_SUBJECT]))


def _operation(path: str, operation_id: str, summary: str, **more: Any) -> Operation:
    return Operation(
        method="GET",
        path=path,
        operation_id=operation_id,
        summary=summary,
        tag="Entitlements",
        scope=Scope.READ,
        document=AS_OF_DOCUMENT,
        **more,
    )


_OF_CUSTOMER = f"/api/v1/customers/{{{_CUSTOMER}}}"
OPERATIONS: tuple[Operation, ...] = (
    _operation(
        f"{_OF_CUSTOMER}/access",
        "getCustomerAccess",
        "Get all that a customer may use",
        handler=get_customer_access,
        response=AccessBody,
    ),
    _operation(
        f"{_OF_CUSTOMER}/entitlements/{{{_FEATURE}}}/value",
        "getCustomerEntitlementValue",
        "Ask whether a customer may use a feature",
        handler=get_customer_value,
        query=ValueParameters,
        response=ValueBody,
    ),
    _operation(
        f"/api/v1/subjects/{{{_SUBJECT}}}/entitlements/{{{_NAME}}}/value",
        "getEntitlementValue",
        "Ask whether a feature may be used",
        handler=get_subject_value,
        query=ValueParameters,
        response=ValueBody,
    ),
    _operation(
        f"/api/v2/customers/{{{_CUSTOMER}}}/entitlements/{{{_NAME}}}/value",
        "getCustomerEntitlementValueV2",
        "Ask whether a feature may be used",
        handler=get_value_v2,
        query=ValueParameters,
        response=ValueV2Body,
    ),
)
