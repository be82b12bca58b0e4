"""A product with two houses (namespaces) in it, both furnished, and keys of each scope in both.

Both hold events of the same sources, ids and types, and meters of the same slugs. What one holds
carries its mark, so whatever leaks shows in the text of an answer.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import httpx
import pytest

from tests.support.server import Server
from tollgate.core.clock import SystemClock
from tollgate.events.event import Arrival, decode_envelopes, encode_all
from tollgate.events.record import Encoded, Group, encode_record
from tollgate.platform.segment_log import SegmentLog

HOUSES = ("alpha", "beta")
EVENT = "application/cloudevents+json"
SHARED_METER = {
    "slug": "shared",
    "eventType": "usage",
    "aggregation": "SUM",
    "valueProperty": "$.tokens",
    "groupBy": {"model": "$.model"},
}
LATENESS = {"TOLLGATE_SEAL_LATENESS_SECONDS": "86400"}
UNIT_COST = {"type": "manual", "amount": "0.5"}


def mark(house: str) -> str:
    return f"mark-of-{house}"


def whole_hour(*, ago: int) -> str:
    """The last one, or one before it. The product by itself has sealed neither: see `LATENESS`."""
    hour = SystemClock().now().replace(minute=0, second=0, microsecond=0) - timedelta(hours=ago)
    return hour.isoformat()


def other(house: str) -> str:
    return HOUSES[1 - HOUSES.index(house)]


@dataclass(kw_only=True)
class World:
    """A running product with two houses, and keys of each scope in both."""

    server: Server
    operator: str
    keys: dict[tuple[str, str], str] = field(default_factory=dict)
    meter_ids: dict[str, str] = field(default_factory=dict)
    spare_meter_ids: dict[str, str] = field(default_factory=dict)
    subject_ids: dict[str, str] = field(default_factory=dict)
    customer_ids: dict[str, str] = field(default_factory=dict)
    spare_customer_ids: dict[str, str] = field(default_factory=dict)
    feature_ids: dict[str, str] = field(default_factory=dict)
    metered_feature_ids: dict[str, str] = field(default_factory=dict)
    spare_feature_ids: dict[str, str] = field(default_factory=dict)
    holder_ids: dict[str, str] = field(default_factory=dict)
    entitlement_ids: dict[str, str] = field(default_factory=dict)
    spare_entitlement_ids: dict[str, str] = field(default_factory=dict)
    grant_ids: dict[str, str] = field(default_factory=dict)
    key_ids: dict[str, str] = field(default_factory=dict)
    reservation_ids: dict[str, list[str]] = field(default_factory=dict)
    budget_ids: dict[str, str] = field(default_factory=dict)
    notification_ids: dict[str, dict[str, str]] = field(default_factory=dict)
    token: str = ""

    def call(self, method: str, path: str, key: str | None, **more: Any) -> httpx.Response:
        """A request with a key, which waits for all events."""
        headers = dict(more.pop("headers", {}))
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        if self.token and method != "DELETE":
            headers["Tollgate-Position"] = self.token
        return self.server.http.request(method, path, headers=headers, **more)

    def admin(self, house: str, method: str, path: str, body: Any = None) -> Any:
        """A request of a house's admin that must succeed."""
        answer = self.call(method, path, self.keys[house, "admin"], json=body)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def send(self, house: str, event_id: str, *, time: str | None = None, **data: Any) -> None:
        event = ({} if time is None else {"time": time}) | {
            "specversion": "1.0",
            "id": event_id,
            "source": "shared",
            "type": "usage",
            "subject": mark(house),
            "data": {"model": mark(house)} | data,
        }
        answer = self.server.http.post(
            "/api/v1/events",
            content=json.dumps(event),
            headers={
                "Content-Type": EVENT,
                "Authorization": f"Bearer {self.keys[house, 'ingest']}",
            },
        )
        assert answer.status_code == 204, answer.text
        self.token = answer.headers["Tollgate-Position"]


def broken_event(house: str, more: str = "") -> Encoded:
    """An event that becomes a dead letter: its time can't be read."""
    body = {"id": mark(house) + more, "source": "broken", "type": "usage", "subject": "s"}
    arrival = Arrival(
        namespace=house,
        received_us=SystemClock().now_us(),
        event_bytes_max=10_000,
    )
    envelopes = decode_envelopes(json.dumps(body).encode(), batch=False)
    (e,) = encode_all(envelopes, arrival, plain=False)
    line = e.line.replace(arrival.received_text.encode(), b"never" + b" " * 12, 1)
    assert len(line) == len(e.line)
    return Encoded(e.key_hash, line)


def append_broken_events(server: Server) -> None:
    server.data.mkdir()
    log = SegmentLog(server.data / "log", SystemClock())
    now_us = SystemClock().now_us()
    groups = [
        Group(house, now_us, [broken_event(house), broken_event(house, "-2")]) for house in HOUSES
    ]
    log.submit(0, [encode_record(groups)], lambda _: None)
    log.close()


def furnish(world: World, house: str) -> None:
    """Everything that an operation could show: its mark, or a count that differs by house."""
    meter = world.admin(house, "POST", "/api/v1/meters", SHARED_METER | {"name": mark(house)})
    world.meter_ids[house] = meter["id"]
    spare = {**SHARED_METER, "slug": f"spare_{house}", "name": "spare"}
    world.spare_meter_ids[house] = world.admin(house, "POST", "/api/v1/meters", spare)["id"]
    subjects = [{"key": mark(house)}, {"key": f"spare-{house}"}]
    world.subject_ids[house] = world.admin(house, "POST", "/api/v1/subjects", subjects)[0]["id"]
    for name, ids in ((mark(house), world.customer_ids), ("spare", world.spare_customer_ids)):
        usage = {"usageAttribution": {"subjectKeys": [f"subject-of-{name}"]}}
        customer = {"key": name, "name": mark(house), **usage}
        ids[house] = world.admin(house, "POST", "/api/v1/customers", customer)["id"]
    # Archived, or its meter could not be deleted.
    feature = {"key": "metered", "name": "metered", "meterSlug": "shared", "unitCost": UNIT_COST}
    made = world.admin(house, "POST", "/api/v1/features", feature)["id"]
    world.admin(house, "DELETE", f"/api/v1/features/{made}", None)
    world.metered_feature_ids[house] = made
    for name, feature_ids in (("shared", world.feature_ids), ("spare", world.spare_feature_ids)):
        feature = {"key": name, "name": mark(house)}
        feature_ids[house] = world.admin(house, "POST", "/api/v1/features", feature)["id"]
    furnish_entitlements(world, house)
    furnish_limits(world, house)
    world.notification_ids[house] = furnish_notifications(world, house)
    spare_key = {"scopes": ["read"], "name": mark(house)}
    world.key_ids[house] = world.admin(house, "POST", "/api/v1/access-keys", spare_key)["id"]
    # The same key with other content in the other house: no conflict, for it is another identity.
    world.send(house, "same", tokens=1)
    world.send(house, f"again-{mark(house)}", tokens=1)
    world.send(house, f"again-{mark(house)}", tokens=1)
    world.send(house, f"again-{mark(house)}", tokens=2)
    for number in range(3 + HOUSES.index(house)):
        world.send(house, f"more-{number}", tokens=1)
    seal = {"through": whole_hour(ago=1), "reason": mark(house)}
    world.admin(house, "POST", "/api/v1/seals", seal)
    world.send(house, "late", time="2019-06-01T12:30:00Z", tokens=1)
    void = {"action": "void", "source": "shared", "id": "gone", "reason": mark(house)}
    world.admin(house, "POST", "/api/v1/corrections", {"corrections": [void]})
    nothing = {"reason": mark(house), "filter": {"source": "nowhere"}}
    world.admin(house, "POST", "/api/v1/backfills", nothing | {"name": f"backfill-{house}"})
    key = world.keys[house, "read"]
    query = {"clientId": f"client-{house}"}
    assert world.call("GET", "/api/v1/meters/shared/query", key, params=query).is_success


def furnish_entitlements(world: World, house: str) -> None:
    """Of a customer of their own: one to be overridden, and one to go."""
    holder = {"key": f"holder-of-{house}", "name": mark(house)}
    world.holder_ids[house] = world.admin(house, "POST", "/api/v1/customers", holder)["id"]
    meter = SHARED_METER | {"slug": "entitled", "name": mark(house)}
    world.admin(house, "POST", "/api/v1/meters", meter)
    feature = {"key": "metered", "name": mark(house), "meterSlug": "entitled"}
    world.admin(house, "POST", "/api/v1/features", feature)
    path = f"/api/v2/customers/{world.holder_ids[house]}/entitlements"
    base = {"metadata": {"of": mark(house)}}
    metered = base | {
        "type": "metered",
        "featureKey": "metered",
        "usagePeriod": {"interval": "P100Y"},
        "issue": {"amount": 1},
    }
    world.entitlement_ids[house] = world.admin(house, "POST", path, metered)["id"]
    spare = base | {"type": "boolean", "featureKey": "spare"}
    world.spare_entitlement_ids[house] = world.admin(house, "POST", path, spare)["id"]
    grants = f"{path}/metered/grants"
    grant = base | {"amount": 1, "effectiveAt": "2030-01-01T00:00:00Z"}
    world.grant_ids[house] = world.admin(house, "POST", grants, grant)["id"]


def furnish_limits(world: World, house: str) -> None:
    """Of the same customer: a feature that only this house has, reservations and a budget of it."""
    key = f"limited_{house}"
    feature = {"key": key, "name": mark(house), "meterSlug": "entitled"}
    world.admin(house, "POST", "/api/v1/features", feature)
    metered = {
        "type": "metered",
        "featureKey": key,
        "usagePeriod": {"interval": "P100Y"},
        "issue": {"amount": 100},
    }
    path = f"/api/v2/customers/{world.holder_ids[house]}/entitlements"
    world.admin(house, "POST", path, metered)
    wanted = {"customer": f"holder-of-{house}", "amounts": [{"feature": key, "amount": 1}]}
    world.reservation_ids[house] = [
        world.admin(
            house,
            "POST",
            "/api/v1/limits/reservations",
            wanted | {"idempotencyKey": f"{number}-{mark(house)}", "ttlSeconds": 3600},
        )["id"]
        for number in range(2)
    ]
    budget = {"customer": f"holder-of-{house}", "feature": key, "amount": 1}
    budget["scope"] = {"model": mark(house)}
    made = world.admin(house, "POST", "/api/v1/limits/budgets", budget)
    world.budget_ids[house] = made["id"]


def furnish_notifications(world: World, house: str) -> dict[str, str]:
    """A channel that nothing can reach, a rule, an event, and a spare channel and rule."""
    made = {}
    for name in ("channel", "spare_channel"):
        channel = {"type": "WEBHOOK", "name": mark(house), "url": "https://hooks.invalid/"}
        answer = world.admin(house, "POST", "/api/v1/notification/channels", channel)
        made[name] = answer["id"]
    for name in ("rule", "spare_rule"):
        rule = {"type": "invoice.created", "name": mark(house), "channels": [made["channel"]]}
        answer = world.admin(house, "POST", "/api/v1/notification/rules", rule)
        made[name] = answer["id"]
    path = f"/api/v1/notification/rules/{made['rule']}/test"
    made["event"] = world.admin(house, "POST", path, None)["id"]
    return made


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    server = Server(tmp_path_factory.mktemp("houses") / "data", None, LATENESS)
    append_broken_events(server)
    with server:
        first = server.http.post("/api/v1/access-keys", json={"scopes": ["operator"]}).json()
        made = World(server=server, operator=first["key"])
        for house in HOUSES:
            for scope in ("admin", "read", "ingest"):
                wanted = {"namespace": house, "scopes": [scope]}
                answer = made.call("POST", "/api/v1/access-keys", made.operator, json=wanted)
                made.keys[house, scope] = answer.json()["key"]
        for house in HOUSES:
            furnish(made, house)
        yield made
