"""Notifications over HTTP, on the running product, held against the wire contract."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.contract import checked
from tests.support.entitlements import Desk
from tests.support.receiver import Answer, Receiver, receiving
from tests.support.server import Server, wait_until
from tests.support.usage import Usage
from tollgate.core.ids import new_ulid
from tollgate.core.times import parse_instant

ROOT = "/api/v1/notification"
KINDS = (
    "entitlements.balance.threshold",
    "entitlements.reset",
    "invoice.created",
    "invoice.updated",
)
NEARLY_AND_WHOLLY = [{"type": "usage_percentage", "value": value} for value in (80, 100)]
NAMES = {
    ("GET", "channels"): "getNotificationChannel",
    ("PUT", "channels"): "updateNotificationChannel",
    ("DELETE", "channels"): "deleteNotificationChannel",
    ("GET", "rules"): "getNotificationRule",
    ("PUT", "rules"): "updateNotificationRule",
    ("DELETE", "rules"): "deleteNotificationRule",
    ("GET", "events"): "getNotificationEvent",
}
CREATE = {"channels": "createNotificationChannel", "rules": "createNotificationRule"}
LIST = {
    "channels": "listNotificationChannels",
    "rules": "listNotificationRules",
    "events": "listNotificationEvents",
}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


def create(server: Server, what: str, body: Any, status: int = 201) -> dict[str, Any]:
    answer = server.http.post(f"{ROOT}/{what}", **body_of(body))
    assert checked("v1", CREATE[what], answer).status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


def body_of(body: Any) -> dict[str, Any]:
    if isinstance(body, str):
        return {"content": body, "headers": {"Content-Type": "application/json"}}
    return {"json": body}


def on(
    server: Server, method: str, what: str, name: str, status: int = 200, body: Any = None
) -> dict[str, Any]:
    more = {} if body is None else body_of(body)
    answer = server.http.request(method, f"{ROOT}/{what}/{name}", **more)
    assert checked("v1", NAMES[method, what], answer).status_code == status, answer.text
    found: dict[str, Any] = answer.json() if answer.content else {}
    return found


def listed(server: Server, what: str, **query: Any) -> dict[str, Any]:
    answer = server.http.get(f"{ROOT}/{what}", params=query)
    assert checked("v1", LIST[what], answer).status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def channel(url: str = "https://hooks.invalid/", **more: Any) -> dict[str, Any]:
    return {"type": "WEBHOOK", "name": "Sales", "url": url} | more


def rule(*channels: str, kind: str = KINDS[0], **more: Any) -> dict[str, Any]:
    levels = {"thresholds": [{"type": "usage_percentage", "value": 80}]}
    made = {"type": kind, "name": "Nearly used up", "channels": list(channels)}
    return made | (levels if kind == KINDS[0] else {}) | more


def try_out(server: Server, rule_id: str) -> dict[str, Any]:
    answer = server.http.post(f"{ROOT}/rules/{rule_id}/test")
    assert checked("v1", "testNotificationRule", answer).status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def resend(server: Server, event_id: str, status: int = 202, **more: Any) -> httpx.Response:
    answer = server.http.post(f"{ROOT}/events/{event_id}/resend", **more)
    assert checked("v1", "resendNotificationEvent", answer).status_code == status, answer.text
    return answer


def fields(answer: dict[str, Any]) -> list[str]:
    return [fault["field"] for fault in answer["extensions"]["validationErrors"]]


def test_a_channel_is_made_read_replaced_and_deleted(server: Server) -> None:
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    sent = channel(customHeaders={"X-Key": "k"}, metadata={"a": "b"}, signingSecret=secret)
    made = create(server, "channels", sent)
    assert {name: made[name] for name in sent} == sent
    assert set(made) == {*sent, "id", "disabled", "createdAt", "updatedAt"}
    assert on(server, "GET", "channels", made["id"]) == made
    # The answer of one request is the body of the next.
    assert on(server, "PUT", "channels", made["id"], body=made) == made
    changed = on(server, "PUT", "channels", made["id"], body=channel(name="N", disabled=True))
    assert (changed["name"], changed["disabled"]) == ("N", True)
    assert changed["signingSecret"] == secret
    assert "customHeaders" not in changed
    on(server, "DELETE", "channels", made["id"], 204)
    for method, body in (("GET", None), ("PUT", channel()), ("DELETE", None)):
        on(server, method, "channels", made["id"], 404, body)


def test_what_is_no_channel_is_refused(server: Server) -> None:
    wrong = channel("ftp://x", name="", customHeaders={"Host": "x"}, signingSecret="x")
    answer = create(server, "channels", wrong, 400)
    assert fields(answer) == ["name", "url", "customHeaders.Host", "signingSecret"]
    assert fields(create(server, "channels", {}, 400)) == ["type", "name", "url"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_rule_is_made_read_replaced_and_deleted(server: Server, kind: str) -> None:
    made_channel = create(server, "channels", channel())["id"]
    sent = rule(made_channel, kind=kind, metadata={"a": "b"})
    made = create(server, "rules", sent)
    shown = sent | {"channels": [{"id": made_channel, "type": "WEBHOOK"}], "disabled": False}
    assert {name: made[name] for name in shown} == shown
    assert set(made) == {*shown, "id", "createdAt", "updatedAt"}
    assert on(server, "GET", "rules", made["id"]) == made
    assert on(server, "PUT", "rules", made["id"], body=sent) == made
    off = on(server, "PUT", "rules", made["id"], body=sent | {"disabled": True})
    assert off["disabled"]
    other = rule(made_channel, kind=KINDS[KINDS.index(kind) - 1])
    assert fields(on(server, "PUT", "rules", made["id"], 400, other)) == ["type"]
    in_use = on(server, "DELETE", "channels", made_channel, 409)
    assert made["id"] in in_use["detail"]
    on(server, "DELETE", "rules", made["id"], 204)
    on(server, "DELETE", "channels", made_channel, 204)
    on(server, "GET", "rules", made["id"], 404)


def test_levels_keep_their_digits(server: Server) -> None:
    made_channel = create(server, "channels", channel())["id"]
    exact = "12345678901234567890.123456789012345678"
    body = (
        '{"type":"entitlements.balance.threshold","name":"n","channels":["%s"],'
        '"thresholds":[{"type":"balance_value","value":%s},{"type":"NUMBER","value":1.50}]}'
    )
    made = create(server, "rules", body % (made_channel, exact))
    text = server.http.get(f"{ROOT}/rules/{made['id']}").text
    assert f'[{{"value":{exact},"type":"balance_value"}},{{"value":1.5,"type":"NUMBER"}}]' in text


def test_features_are_found_by_id_and_key(server: Server) -> None:
    made_channel = create(server, "channels", channel())["id"]
    key = f"notified_{new_ulid().lower()}"
    feature = server.http.post("/api/v1/features", json={"key": key, "name": "n"}).json()["id"]
    made = create(server, "rules", rule(made_channel, features=[key, feature.lower()]))
    assert made["features"] == [{"id": feature, "key": key}]
    for query in ({"feature": key}, {"feature": feature}, {"channel": made_channel}):
        assert listed(server, "rules", **query)["items"] == [made]
    wrong = rule(made_channel, new_ulid(), features=[key, "nowhere", new_ulid()])
    assert fields(create(server, "rules", wrong, 400)) == ["features.1", "features.2"]
    assert fields(create(server, "rules", rule(new_ulid()), 400)) == ["channels.0"]
    answer = create(server, "rules", rule(thresholds=[{"type": "share"}]), 400)
    assert fields(answer) == ["thresholds.0.type", "channels"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_test_is_delivered_and_sent_again(server: Server, receiver: Receiver, kind: str) -> None:
    made_channel = create(server, "channels", channel(receiver.url))
    made = create(server, "rules", rule(made_channel["id"], kind=kind))
    event = try_out(server, made["id"])
    assert (event["type"], event["rule"]) == (kind, made)
    assert event["annotations"] == {"notification.rule.test": True}
    assert event["deliveryStatus"][0]["channel"] == {"id": made_channel["id"], "type": "WEBHOOK"}
    (got,) = receiver.wait_for(1)
    assert got.is_signed_by(made_channel["signingSecret"])
    assert got.payload == event["payload"]
    assert got.payload["id"] == got.headers["webhook-id"] == event["id"]

    def ended() -> dict[str, Any]:
        (status,) = on(server, "GET", "events", event["id"])["deliveryStatus"]
        return status if status["state"] == "SUCCESS" else {}

    status: dict[str, Any] = wait_until(ended, what="delivered")
    (attempt,) = status["attempts"]
    assert attempt["response"] | {"durationMs": 0} == {
        "statusCode": 200,
        "body": "ok",
        "durationMs": 0,
        "url": receiver.url,
    }
    assert (attempt["state"], status["reason"]) == ("SUCCESS", "delivered")
    resend(server, event["id"])
    resent = receiver.wait_for(2)[1]
    assert (resent.body, resent.headers["webhook-id"]) == (got.body, event["id"])
    for query in ({"rule": made["id"]}, {"channel": made_channel["id"]}):
        page = listed(server, "events", **query)
        assert ([each["id"] for each in page["items"]], page["totalCount"]) == ([event["id"]], 1)
    later = {"rule": made["id"], "from": event["createdAt"], "orderBy": "createdAt"}
    assert listed(server, "events", **later)["totalCount"] == 1
    earlier = {"rule": made["id"], "to": event["createdAt"]}
    assert listed(server, "events", **earlier)["totalCount"] == 0


def test_a_failure_is_shown_and_tried_again(server: Server, receiver: Receiver) -> None:
    receiver.answers(Answer(status=503, body=b"later"), Answer())
    made_channel = create(server, "channels", channel(receiver.url))["id"]
    made = create(server, "rules", rule(made_channel, kind="invoice.created"))
    event = try_out(server, made["id"])

    def failed() -> dict[str, Any]:
        (status,) = on(server, "GET", "events", event["id"])["deliveryStatus"]
        return status if status["attempts"] else {}

    status: dict[str, Any] = wait_until(failed, what="attempted")
    assert (status["attempts"][0]["state"], status["state"]) == ("FAILED", "SENDING")
    assert status["attempts"][0]["response"]["body"] == "later"
    assert status["nextAttempt"] > status["updatedAt"]
    # Asked for, it need not wait.
    resend(server, event["id"], json={"channels": [made_channel]})
    receiver.wait_for(2)


def test_what_is_not_there_is_not_sent_again(server: Server) -> None:
    made_channel = create(server, "channels", channel())["id"]
    other = create(server, "channels", channel())["id"]
    made = create(server, "rules", rule(made_channel, kind="invoice.created"))
    event = try_out(server, made["id"])["id"]
    assert fields(resend(server, event, 400, json={"channels": [other]}).json()) == ["channels.0"]
    resend(server, event, 400, json={"channels": "x"})
    resend(server, new_ulid(), 404, json={})
    on(server, "GET", "events", new_ulid(), 404)
    answer = server.http.post(f"{ROOT}/rules/{new_ulid()}/test")
    assert checked("v1", "testNotificationRule", answer).status_code == 404


def test_lists_are_paged_and_sorted(server: Server) -> None:
    ids = [create(server, "channels", channel(disabled=n == 1))["id"] for n in range(3)]
    found = listed(server, "channels", includeDisabled=True, pageSize=1000)["items"]
    assert [each["id"] for each in found if each["id"] in ids] == ids
    shown = {each["id"] for each in listed(server, "channels", pageSize=1000)["items"]}
    assert shown & set(ids) == {ids[0], ids[2]}
    last = {"order": "DESC", "orderBy": "createdAt", "pageSize": 1}
    page = listed(server, "channels", **last)
    assert (page["items"][0]["id"], page["page"], page["pageSize"]) == (ids[2], 1, 1)
    assert page["totalCount"] >= 2
    for what, operation in LIST.items():
        answer = server.http.get(f"{ROOT}/{what}", params={"pageSize": 0})
        assert checked("v1", operation, answer).status_code == 400


def test_what_is_told_is_an_event_of_the_log(server: Server) -> None:
    desk = Desk(server)
    desk.create()
    desk.grant(100)
    made_channel = create(server, "channels", channel(disabled=True))["id"]
    sent = rule(made_channel, features=[desk.feature], thresholds=NEARLY_AND_WHOLLY)
    made = create(server, "rules", sent)
    desk.use(("2026-03-10T12:00:00Z", "100"))

    def told() -> Any:
        assert server.http.post("/_/notify").status_code == 204
        found = listed(server, "events", rule=made["id"])["items"]
        return found if len(found) == 2 else None

    for event in wait_until(told, what="told"):

        def logged(event_id: str = event["id"]) -> Any:
            return server.http.get("/api/v1/events", params={"id": event_id}).json()

        (found,) = wait_until(logged, what="in the log")
        assert found["event"] | {"data": event["payload"]} == {
            "specversion": "1.0",
            "id": event["id"],
            "source": "tollgate/notify",
            "type": f"tollgate.{KINDS[0]}",
            "subject": desk.key,
            "time": found["event"]["time"],
            "data": event["payload"],
        } | {"datacontenttype": "application/json"}
        assert parse_instant(found["event"]["time"]) == parse_instant(event["createdAt"])
        assert found["event"]["data"] == event["payload"]
    # A meter counts it, and it is the customer's usage.
    usage = Usage(server)
    body = {"eventType": f"tollgate.{KINDS[0]}", "groupBy": {"level": "$.data.threshold.value"}}
    slug = usage.meter("COUNT", **body)
    answer = server.http.get(
        f"/api/v1/meters/{slug}/query", params={"filterCustomerId": desk.id, "groupBy": "level"}
    )
    # Rules of other tests, of all features, may tell of this customer too.
    assert {"80", "100"} <= {row["groupBy"]["level"] for row in answer.json()["data"]}


def test_a_reset_is_told(server: Server, receiver: Receiver) -> None:
    desk = Desk(server)
    desk.create()
    desk.grant(100)
    made_channel = create(server, "channels", channel(receiver.url))["id"]
    made = create(server, "rules", rule(made_channel, kind=KINDS[1], features=[desk.feature]))
    desk.use(("2026-03-10T12:00:00Z", "60"))
    desk.on("POST", f"/{desk.feature}/reset", 204, json={})

    def told() -> Any:
        assert server.http.post("/_/notify").status_code == 204
        return listed(server, "events", rule=made["id"])["items"]

    (event,) = wait_until(told, what="told")
    (got,) = receiver.wait_for(1)
    assert got.payload == event["payload"]
    assert (event["type"], got.payload["type"]) == (KINDS[1], KINDS[1])
    data = got.payload["data"]
    assert data["customer"]["key"] == desk.key
    assert data["feature"]["key"] == data["entitlement"]["featureKey"] == desk.feature
    assert (data["value"]["usage"], data["entitlement"]["type"]) == (0, "metered")
    assert data["entitlement"]["currentUsagePeriod"]["from"] == data["entitlement"]["lastReset"]
    assert len(told()) == len(receiver.received) == 1


def test_a_ring_tells_nothing(server: Server) -> None:
    answer = server.http.post("/_/notify")
    assert (answer.status_code, answer.content) == (204, b"")
