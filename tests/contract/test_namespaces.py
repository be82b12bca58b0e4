"""Two namespaces never see each other's data, on every operation: one that is not probed fails."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.support.houses import EVENT, HOUSES, SHARED_METER, World, mark, other
from tollgate.console.document import api_operations
from tollgate.events.operations import OPERATIONS as INGEST_OPERATIONS
from tollgate.platform.access import Scope
from tollgate.platform.api import Operation
from tollgate.platform.functions import BY_NAME

OPERATIONS = {o.operation_id: o for o in (*api_operations(), *INGEST_OPERATIONS)}
V3_METER = {"aggregation": "count", "event_type": "usage"}


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One way to call an operation, and what shows that it reached the caller's own data.

    Attributes:
        path: path parameters that name a thing of a house; {}: none is named.
        query, body: of the request, by the house whose thing is named.
        naming: a body that names other things of the asker.
        own: whether an answer shows the house's own data; by default it has its mark.
        ends: the thing named is gone after it; tried last.
    """

    path: Callable[[World, str], Mapping[str, str]] | None = None
    query: Callable[[str], Mapping[str, Any]] = lambda _house: {}
    body: Callable[[str], Any] | None = None
    naming: Callable[[World, str], Any] | None = None
    own: Callable[[httpx.Response, str], bool] = lambda answer, house: mark(house) in answer.text
    ends: bool = False


def done(answer: httpx.Response, _house: str) -> bool:
    return answer.is_success


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


def by_notification(word: str = "") -> Callable[[World, str], Mapping[str, str]]:
    """Channel, rule and event of a house, or the spare ones."""

    def named(world: World, house: str) -> Mapping[str, str]:
        ids = world.notification_ids[house]
        return {
            "channelId": ids[f"{word}channel"],
            "ruleId": ids[f"{word}rule"],
            "eventId": ids["event"],
        }

    return named


def notification_channel(house: str) -> dict[str, Any]:
    return {"type": "WEBHOOK", "name": mark(house), "url": "https://hooks.invalid/"}


def notification_rule(world: World, house: str) -> dict[str, Any]:
    channel = world.notification_ids[house]["channel"]
    return {"type": "invoice.created", "name": mark(house), "channels": [channel]}


def by_backfill(_world: World, house: str) -> Mapping[str, str]:
    return {"name": f"backfill-{house}"}


USAGE = {"usageAttribution": {"subjectKeys": ["same"]}}
NO_USAGE: Mapping[str, Any] = {"usageAttribution": {"subjectKeys": []}}
NO_EVENT = {"action": "void", "source": "nowhere", "reason": "none"}
NO_EVENTS = {"filter": {"source": "nowhere"}}
MODEL = {"groupByKey": "model"}
MODEL_GROUP = {"groupBy": {"model": "$.model"}}
GROUPED = {"groupBy": ["model"]}
HISTORY = {"from": "2020-01-01T00:00:00Z"}
PLAIN = Probe()
METER = (Probe(path=by_meter_id), Probe(path=by_shared_slug))
PROBES: Mapping[str, Sequence[Probe]] = {
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
    "listNotificationChannels": (PLAIN,),
    "getNotificationChannel": (Probe(path=by_notification()),),
    "listNotificationRules": (PLAIN,),
    "getNotificationRule": (Probe(path=by_notification()),),
    "listNotificationEvents": (PLAIN,),
    "getNotificationEvent": (Probe(path=by_notification()),),
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
    "upsert-customer": (Probe(path=by_customer_id, body=lambda h: {"name": mark(h)}),),
    "createFeature": (Probe(body=lambda h: {"key": "made", "name": mark(h)}),),
    "create-feature": (Probe(body=lambda h: {"key": "made_v3", "name": mark(h)}),),
    "update-feature": (Probe(path=by_feature_id, body=lambda _h: {"unit_cost": None}),),
    "createNotificationChannel": (Probe(body=notification_channel),),
    "updateNotificationChannel": (Probe(path=by_notification(), body=notification_channel),),
    "createNotificationRule": (Probe(naming=notification_rule),),
    "updateNotificationRule": (Probe(path=by_notification(), naming=notification_rule),),
    "testNotificationRule": (Probe(path=by_notification()),),
    "resendNotificationEvent": (Probe(path=by_notification(), own=done),),
    "upsertSubject": (Probe(body=lambda h: [{"key": "made", "displayName": mark(h)}]),),
    "createAccessKey": (Probe(body=lambda h: {"scopes": ["read"], "name": mark(h)}),),
    "ingestEvents": (Probe(body=new_event, own=done),),
    "ingest-metering-events": (Probe(body=new_event, own=done),),
    "replayDeadLetter": (Probe(path=by_letter(0), body=lambda h: {"reason": mark(h)}),),
    "forceSeal": (Probe(body=lambda h: {"through": "2021-01-01T00:00:00Z", "reason": mark(h)}),),
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
    "deleteNotificationRule": (Probe(path=by_notification("spare_"), own=done, ends=True),),
    "deleteNotificationChannel": (Probe(path=by_notification("spare_"), own=done, ends=True),),
    "deleteSubject": (
        Probe(path=lambda _w, h: {"subjectIdOrKey": f"spare-{h}"}, own=done, ends=True),
    ),
    "revokeAccessKey": (Probe(path=lambda w, h: {"id": w.key_ids[h]}, own=done, ends=True),),
}


def ask(world: World, operation: Operation, probe: Probe, asker: str, named: str) -> httpx.Response:
    """The asker's request, about a thing of the house named."""
    path = operation.path
    for name, value in (probe.path(world, named) if probe.path else {}).items():
        path = path.replace(f"{{{name}}}", value)
    scope = "ingest" if operation.scope is Scope.INGEST else "admin"
    more: dict[str, Any] = {"params": probe.query(named)}
    body = probe.body(asker) if probe.body else None
    body = probe.naming(world, asker) if probe.naming else body
    if body is not None:
        more["content"] = json.dumps(body)
        more["headers"] = {"Content-Type": EVENT if scope == "ingest" else "application/json"}
    return world.call(operation.method, path, world.keys[asker, scope], **more)


def sees_only_its_own(world: World, operation: Operation, probe: Probe, asker: str) -> None:
    answer = ask(world, operation, probe, asker, asker)
    assert answer.is_success, answer.text
    assert probe.own(answer, asker), answer.text
    assert mark(other(asker)) not in answer.text


def sees_nothing_of_the_other(world: World, operation: Operation, probe: Probe, asker: str) -> None:
    """Names a thing of the other house: there is none for the asker, or its own of that name."""
    named = other(asker)
    if probe.path is None and not probe.query(named):
        return  # It names nothing, so it is the request of `sees_only_its_own`.
    answer = ask(world, operation, probe, asker, named)
    if probe.path not in (None, by_shared_slug):
        assert answer.status_code == 404, answer.text
    elif answer.is_success:
        assert mark(named) not in answer.text
    else:
        assert answer.status_code in (403, 404), answer.text


def test_every_operation_is_probed() -> None:
    # What only operators may ask for is about all namespaces; `test_scopes.py` keeps others out.
    for_operators = {n for n, o in OPERATIONS.items() if o.scope is Scope.OPERATOR}
    assert PROBES.keys() == OPERATIONS.keys() - for_operators
    served = {(o.method, o.path) for o in INGEST_OPERATIONS}
    assert set(BY_NAME["ingest"].routes) == served


@pytest.mark.parametrize("operation_id", [n for n, ps in PROBES.items() if not ps[0].ends])
def test_neither_house_sees_the_other(world: World, operation_id: str) -> None:
    operation = OPERATIONS[operation_id]
    for probe in PROBES[operation_id]:
        for house in HOUSES:
            sees_nothing_of_the_other(world, operation, probe, house)
            sees_only_its_own(world, operation, probe, house)


@pytest.mark.parametrize("operation_id", [n for n, ps in PROBES.items() if ps[0].ends])
def test_neither_house_ends_what_the_other_has(world: World, operation_id: str) -> None:
    operation = OPERATIONS[operation_id]
    for probe in PROBES[operation_id]:
        for house in HOUSES:
            answer = ask(world, operation, probe, other(house), house)
            assert answer.status_code == 404, answer.text
            # It is still there: its owner can end it.
            assert ask(world, operation, probe, house, house).status_code == 204


def test_records_of_nobody_are_for_operators(world: World) -> None:
    for path in ("dead-letters", "conflicts", "duplicates", "ledger"):
        query = {"unattributed": "true"}
        for house in HOUSES:
            answer = world.call("GET", f"/api/v1/{path}", world.keys[house, "admin"], params=query)
            assert answer.status_code == 403
        answer = world.call("GET", f"/api/v1/{path}", world.operator, params=query)
        assert answer.status_code == 200
        assert "mark-of" not in answer.text
