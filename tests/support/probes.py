"""One or more ways to call each operation, and what shows whose data were reached."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import httpx

from tests.support.houses import HOUSES, SHARED_METER, World, mark, whole_hour
from tests.support.limit_probes import LIMITS
from tests.support.notification_probes import NOTIFICATIONS
from tests.support.probe import PLAIN, Probe, done

V3_METER = {"aggregation": "count", "event_type": "usage"}


def by_meter_id(world: World, house: str) -> Mapping[str, str]:
    return {"meterIdOrSlug": world.meter_ids[house], "meterId": world.meter_ids[house]} | MODEL


def by_spare_meter(_world: World, house: str) -> Mapping[str, str]:
    return {"meterIdOrSlug": f"spare_{house}"}


def by_spare_meter_id(world: World, house: str) -> Mapping[str, str]:
    return {"meterId": world.spare_meter_ids[house]}


def by_shared_slug(_world: World, _house: str) -> Mapping[str, str]:
    return {"meterIdOrSlug": "shared", "featureId": "shared"} | MODEL


def new_event(house: str) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": "same-post",
        "source": "shared",
        "type": "unmetered",
        "subject": mark(house),
    }


def ledger_is_own(answer: httpx.Response, house: str) -> bool:
    counts: dict[str, Any] = answer.json()["totals"]
    # same, again, late, and 3 or 4 more; written before any probe of ingest.
    return (counts["duplicate"], counts["conflict"], counts["dead"]) == (1, 1, 2) and counts[
        "stored"
    ] == 6 + HOUSES.index(house)


def by_letter(number: int) -> Callable[[World, str], Mapping[str, str]]:
    """The first record holds two of each house."""
    return lambda _world, house: {"letter": f"1-0-0-{2 * HOUSES.index(house) + number}"}


def by_customer_id(world: World, house: str) -> Mapping[str, str]:
    return {"customerIdOrKey": world.customer_ids[house], "customerId": world.customer_ids[house]}


def customer(house: str) -> dict[str, Any]:
    """The same subject in both houses."""
    return {"key": mark(house), "name": mark(house), **USAGE}


def by_feature_id(world: World, house: str) -> Mapping[str, str]:
    return {"featureId": world.feature_ids[house]}


def by_metered_feature_id(world: World, house: str) -> Mapping[str, str]:
    return {"featureId": world.metered_feature_ids[house]}


def by_entitlement(world: World, house: str) -> dict[str, str]:
    """One of a customer by their ids; the subject is the customer's key."""
    return {
        "customerIdOrKey": world.holder_ids[house],
        "customerId": world.holder_ids[house],
        "subjectIdOrKey": f"holder-of-{house}",
        "entitlementIdOrFeatureKey": world.entitlement_ids[house],
        "entitlementId": world.entitlement_ids[house],
        "featureKey": "metered",
    }


def by_spare_entitlement(world: World, house: str) -> dict[str, str]:
    spare = world.spare_entitlement_ids[house]
    return by_entitlement(world, house) | {
        "entitlementIdOrFeatureKey": spare,
        "entitlementId": spare,
    }


def by_subject(_world: World, house: str) -> Mapping[str, str]:
    return {"subjectIdOrKey": f"holder-of-{house}"}


def static_of(house: str) -> dict[str, Any]:
    """The same feature in both houses."""
    return {
        "type": "static",
        "featureKey": "metered",
        "config": "{}",
        "metadata": {"of": mark(house)},
    }


def metered_of(house: str) -> dict[str, Any]:
    return static_of(house) | {"type": "metered", "usagePeriod": {"interval": "P100Y"}}


def grant_of(house: str) -> dict[str, Any]:
    lasts = {"duration": "DAY", "count": 1}
    at = "2030-01-01T00:00:00Z"
    return {
        "amount": 1,
        "effectiveAt": at,
        "expiration": lasts,
        "metadata": {"of": mark(house)},
    }


def says_access(answer: httpx.Response, _house: str) -> bool:
    return "hasAccess" in answer.text or "has_access" in answer.text


def one_may(answer: httpx.Response, house: str) -> bool:
    """Of the two that were asked for the house has one."""
    return mark(house) in answer.text and len(answer.json()["data"]) == 1


def by_backfill(_world: World, house: str) -> Mapping[str, str]:
    return {"name": f"backfill-{house}"}


USAGE = {"usageAttribution": {"subjectKeys": ["same"]}}
NO_USAGE: Mapping[str, Any] = {"usageAttribution": {"subjectKeys": []}}
NO_EVENT = {"action": "void", "source": "nowhere", "reason": "none"}
NO_EVENTS = {"filter": {"source": "nowhere"}}
MODEL = {"groupByKey": "model"}
METERED = {"entitlementIdOrFeatureKey": "metered"}
HOLDERS = {"customer": {"keys": [f"holder-of-{each}" for each in HOUSES]}}
METERED_ID = {"entitlementId": "metered"}
MODEL_GROUP = {"groupBy": {"model": "$.model"}}
GROUPED = {"groupBy": ["model"]}
HISTORY = {"from": "2020-01-01T00:00:00Z"}
METER = (Probe(path=by_meter_id), Probe(path=by_shared_slug))
PROBES: Mapping[str, Sequence[Probe]] = {
    **LIMITS,
    **NOTIFICATIONS,
    "getLedger": (Probe(own=ledger_is_own),),
    "getProgress": (Probe(path=lambda _w, h: {"id": f"client-{h}"}, own=done),),
    "getEventBySourceAndId": (
        Probe(query=lambda _h: {"source": "shared", "id": "same"}),
        Probe(query=lambda h: {"source": "shared", "id": f"again-{mark(h)}"}),
        Probe(query=lambda h: {"source": "broken", "id": mark(h)}),
    ),
    "listMeters": (PLAIN,),
    "list-meters": (PLAIN,),
    "getMeter": METER,
    "get-meter": (Probe(path=by_meter_id),),
    "queryMeter": tuple(
        Probe(path=p, query=lambda _h: GROUPED) for p in (by_meter_id, by_shared_slug)
    ),
    "queryMeterPost": tuple(
        Probe(path=p, body=lambda _h: GROUPED) for p in (by_meter_id, by_shared_slug)
    ),
    "query-meter": (Probe(path=by_meter_id, body=lambda _h: {"group_by_dimensions": ["model"]}),),
    "listMeterSubjects": METER,
    "listMeterGroupByValues": METER,
    "listEvents": (PLAIN, Probe(query=lambda h: {"subject": mark(h)})),
    "listEventsV2": (PLAIN,),
    "list-metering-events": (PLAIN,),
    "listDuplicates": (PLAIN,),
    "listConflicts": (PLAIN,),
    "listDeadLetters": (PLAIN,),
    "getDeadLetter": (Probe(path=by_letter(0)),),
    "getDebugMetrics": (PLAIN,),
    "listSeals": (PLAIN,),
    "listAdjustments": (Probe(query=lambda _h: {"meter": "shared"}),),
    "listSubjects": (PLAIN,),
    "getSubject": (
        Probe(path=lambda _w, h: {"subjectIdOrKey": mark(h)}),
        Probe(path=lambda w, h: {"subjectIdOrKey": w.subject_ids[h]}),
    ),
    "listCustomers": (PLAIN, Probe(query=lambda h: {"subject": mark(h)})),
    "list-customers": (PLAIN,),
    "listCustomerSubjects": (Probe(path=by_customer_id),),
    "getCustomer": (
        Probe(path=by_customer_id),
        Probe(path=lambda _w, h: {"customerIdOrKey": mark(h)}),
    ),
    "get-customer": (Probe(path=by_customer_id),),
    "listFeatures": (PLAIN, Probe(query=lambda _h: {"page": 1})),
    "list-features": (PLAIN,),
    "getFeature": (Probe(path=by_feature_id), Probe(path=by_shared_slug)),
    "query-feature-cost": (
        Probe(path=by_metered_feature_id, body=lambda _h: {"group_by_dimensions": ["model"]}),
    ),
    "get-feature": (Probe(path=by_feature_id),),
    "listAccessKeys": (PLAIN, Probe(query=lambda h: {"namespace": h})),
    # Writes: the same names in both houses.
    "createMeter": (Probe(body=lambda h: SHARED_METER | {"slug": "made", "name": mark(h)}),),
    "create-meter": (Probe(body=lambda h: V3_METER | {"key": "made_v3", "name": mark(h)}),),
    "updateMeter": (
        Probe(path=by_meter_id, body=lambda h: {"name": mark(h), **MODEL_GROUP}),
        Probe(path=by_shared_slug, body=lambda h: {"name": mark(h), **MODEL_GROUP}),
    ),
    "update-meter": (
        Probe(
            path=by_meter_id,
            body=lambda h: {"name": mark(h), "dimensions": MODEL_GROUP["groupBy"]},
        ),
    ),
    "createCustomer": (Probe(body=lambda h: customer(h) | {"key": "made", **NO_USAGE}),),
    "create-customer": (Probe(body=lambda h: {"key": "made_v3", "name": mark(h)}),),
    "updateCustomer": (Probe(path=by_customer_id, body=customer),),
    "addCustomerSubjects": (
        Probe(path=by_customer_id, body=lambda h: {"subjects": [mark(h)], "reason": mark(h)}),
    ),
    "upsert-customer": (Probe(path=by_customer_id, body=lambda h: {"name": mark(h)}),),
    "createFeature": (Probe(body=lambda h: {"key": "made", "name": mark(h)}),),
    "create-feature": (Probe(body=lambda h: {"key": "made_v3", "name": mark(h)}),),
    "update-feature": (Probe(path=by_feature_id, body=lambda _h: {"unit_cost": None}),),
    "upsertSubject": (Probe(body=lambda h: [{"key": "made", "displayName": mark(h)}]),),
    "createAccessKey": (Probe(body=lambda h: {"scopes": ["read"], "name": mark(h)}),),
    "ingestEvents": (Probe(body=new_event, own=done),),
    "ingest-metering-events": (Probe(body=new_event, own=done),),
    "replayDeadLetter": (Probe(path=by_letter(0), body=lambda h: {"reason": mark(h)}),),
    "forceSeal": (Probe(body=lambda h: {"through": whole_hour(ago=0), "reason": mark(h)}),),
    "discardDeadLetter": (Probe(path=by_letter(1), body=lambda h: {"reason": mark(h)}),),
    "correctEvents": (Probe(body=lambda h: {"corrections": [NO_EVENT | {"id": mark(h)}]}),),
    "listCorrections": (PLAIN, Probe(query=lambda _h: {"source": "shared", "id": "gone"})),
    "voidEventsInBulk": (
        Probe(body=lambda h: NO_EVENTS | {"name": "bulk", "reason": mark(h), "confirm": 0}),
    ),
    "openBackfill": (Probe(body=lambda h: NO_EVENTS | {"name": "made", "reason": mark(h)}),),
    "listBackfills": (PLAIN,),
    "getBackfill": (Probe(path=by_backfill),),
    "closeBackfill": (Probe(path=by_backfill, body=lambda _h: {"confirm": 0}),),
    "revertBackfill": (Probe(path=by_backfill, body=lambda h: {"reason": mark(h)}),),
    "listEntitlementsV2": (PLAIN, Probe(query=lambda h: {"customerKeys": f"holder-of-{h}"})),
    "listEntitlements": (PLAIN, Probe(query=lambda h: {"subject": f"holder-of-{h}"})),
    "listGrantsV2": (PLAIN, Probe(query=lambda h: {"customer": f"holder-of-{h}"})),
    "listGrants": (PLAIN, Probe(query=lambda h: {"subject": f"holder-of-{h}"})),
    "getEntitlementByIdV2": (Probe(path=by_entitlement),),
    "getEntitlementById": (Probe(path=by_entitlement),),
    "listCustomerEntitlementsV2": (Probe(path=by_entitlement),),
    "listSubjectEntitlements": (Probe(path=by_subject, names=True),),
    "getCustomerEntitlementV2": (Probe(path=by_entitlement),),
    "getEntitlement": (Probe(path=by_entitlement),),
    "listCustomerEntitlementGrantsV2": (Probe(path=by_entitlement),),
    "listEntitlementGrants": (Probe(path=by_entitlement),),
    "getCustomerEntitlementValueV2": (Probe(path=by_entitlement, own=says_access),),
    "getEntitlementValue": (Probe(path=by_entitlement, own=says_access),),
    "getCustomerEntitlementValue": (Probe(path=by_entitlement, own=says_access),),
    "getCustomerAccess": (Probe(path=by_entitlement, own=says_access),),
    "list-customer-entitlement-access": (Probe(path=by_entitlement, own=says_access),),
    "query-entitlement-access": (Probe(body=lambda _h: HOLDERS, own=one_may),),
    "getCustomerEntitlementHistoryV2": (
        Probe(path=by_entitlement, query=lambda _h: {"windowSize": "DAY"}, own=done),
    ),
    "getEntitlementHistory": (
        Probe(path=by_entitlement, query=lambda _h: {"windowSize": "DAY"}, own=done),
    ),
    "createCustomerEntitlementGrantV2": (Probe(path=by_entitlement, body=grant_of),),
    "createGrant": (Probe(path=by_entitlement, body=grant_of),),
    "resetCustomerEntitlementUsageV2": (Probe(path=by_entitlement, body=lambda _h: {}, own=done),),
    "resetEntitlementUsage": (Probe(path=by_entitlement, body=lambda _h: {}, own=done),),
    "voidGrant": (Probe(path=lambda w, h: {"grantId": w.grant_ids[h]}, own=done),),
    "overrideCustomerEntitlementV2": (
        Probe(path=lambda w, h: by_entitlement(w, h) | METERED, body=metered_of),
    ),
    "overrideEntitlement": (
        Probe(path=lambda w, h: by_entitlement(w, h) | METERED, body=static_of),
    ),
    "createCustomerEntitlementV2": (
        Probe(path=by_entitlement, body=lambda h: static_of(h) | {"featureKey": "shared"}),
    ),
    "createEntitlement": (
        Probe(path=lambda _w, h: {"subjectIdOrKey": f"new-{h}"}, body=static_of, names=True),
    ),
    "deleteCustomerEntitlementV2": (Probe(path=by_spare_entitlement, own=done, ends=True),),
    "deleteEntitlement": (
        Probe(path=lambda w, h: by_entitlement(w, h) | METERED_ID, own=done, ends=True),
    ),
    "deleteMeter": (Probe(path=by_spare_meter, own=done, ends=True),),
    "delete-meter": (Probe(path=by_meter_id, own=done, ends=True),),
    "deleteCustomer": (Probe(path=by_customer_id, own=done, ends=True),),
    "delete-customer": (
        Probe(path=lambda w, h: {"customerId": w.spare_customer_ids[h]}, own=done, ends=True),
    ),
    "deleteFeature": (Probe(path=by_feature_id, own=done, ends=True),),
    "delete-feature": (
        Probe(path=lambda w, h: {"featureId": w.spare_feature_ids[h]}, own=done, ends=True),
    ),
    "deleteSubject": (
        Probe(path=lambda _w, h: {"subjectIdOrKey": f"spare-{h}"}, own=done, ends=True),
    ),
    "revokeAccessKey": (Probe(path=lambda w, h: {"id": w.key_ids[h]}, own=done, ends=True),),
}
