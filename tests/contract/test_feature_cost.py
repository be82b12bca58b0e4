"""What a feature's usage costs, over HTTP on the running product."""

from typing import Any

import pytest

from tests.support.contract import checked
from tests.support.server import Server
from tests.support.usage import Usage, event, fresh
from tollgate.core.ids import new_ulid

V3 = "/api/v3/openmeter/features"
HOUR, NEXT = "2026-03-10T12:00:00Z", "2026-03-10T13:00:00Z"
PERIOD = {"from": HOUR, "to": NEXT}


@pytest.fixture
def usage(server: Server) -> Usage:
    found = Usage(server)
    found.send(
        event('{"v":0.1,"model":"a","kind":"in"}', subject="ann"),
        event('{"v":0.2,"model":"b","kind":"in"}', subject="bob"),
        event('{"v":1000,"model":"a","kind":"out"}', subject="ann"),
        event('{"v":7,"model":"a","kind":"in"}', time="2026-03-10T13:00:00Z"),
    )
    return found


def feature(usage: Usage, **more: Any) -> str:
    body = {"key": fresh("feature"), "name": "x", "unitCost": manual("0.003")} | more
    answer = usage.http.post("/api/v1/features", json=body)
    assert answer.status_code == 201, answer.text
    feature_id: str = answer.json()["id"]
    return feature_id


def manual(amount: str) -> dict[str, str]:
    return {"type": "manual", "amount": amount}


def cost(usage: Usage, feature_id: str, status: int = 200, **more: Any) -> dict[str, Any]:
    path = f"{V3}/{feature_id}/cost/query"
    answer = usage.http.post(path, headers=usage.waiting, **more)
    assert checked("v3", "query-feature-cost", answer).status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_usage_of_the_feature_is_priced_exactly(usage: Usage) -> None:
    inputs = feature(usage, meterSlug=usage.meter(), meterGroupByFilters={"kind": "in"})
    # 0.1 + 0.2 = 0.3 of the hour; times 0.003 is 0.0009.
    assert cost(usage, inputs, json=PERIOD) == PERIOD | {
        "data": [
            PERIOD | {"usage": "0.3", "cost": "0.0009", "currency": "USD", "dimensions": {}},
        ],
    }
    # Without a body it is all that ever was: 7.3 times 0.003.
    assert [row["cost"] for row in cost(usage, inputs)["data"]] == ["0.0219"]
    grouped = cost(
        usage, inputs, json={"group_by_dimensions": ["subject", "model"], "granularity": "PT1H"}
    )
    rows = [(row["from"], row["dimensions"], row["cost"]) for row in grouped["data"]]
    assert rows == [
        (HOUR, {"subject": "ann", "model": "a"}, "0.0003"),
        (HOUR, {"subject": "bob", "model": "b"}, "0.0006"),
        (NEXT, {"subject": "acme", "model": "a"}, "0.021"),
    ]


def test_filters_of_the_question_narrow_those_of_the_feature(usage: Usage) -> None:
    of_a = feature(
        usage,
        meterSlug=usage.meter(),
        meterGroupByFilters={"model": "a"},
        unitCost=manual("0.000000000000000001"),
    )

    def costs(**dimensions: Any) -> list[str]:
        found = cost(usage, of_a, json=PERIOD | {"filters": {"dimensions": dimensions}})
        return [row["cost"] for row in found["data"]]

    assert costs() == ["0.0000000000000010001"]
    assert costs(kind={"eq": "out"}) == ["0.000000000000001"]
    assert costs(model={"eq": "a"}) == ["0.0000000000000010001"]
    assert costs(model={"eq": "b"}) == costs(subject={"eq": "bob"}) == []


def test_without_a_price_the_cost_is_null_and_says_why(usage: Usage) -> None:
    llm = {"type": "llm", "provider": "openai", "modelProperty": "model", "tokenType": "input"}
    priced = feature(usage, meterSlug=usage.meter(), unitCost=llm)
    (row,) = cost(usage, priced, json=PERIOD)["data"]
    assert (row["usage"], row["cost"], row["currency"]) == ("1000.3", None, "USD")
    assert "no prices of language models" in row["detail"]


def test_what_has_no_cost_is_refused(usage: Usage) -> None:
    slug = usage.meter()
    for feature_id in (feature(usage), feature(usage, meterSlug=slug, unitCost=None)):
        refused = cost(usage, feature_id, status=400)
        assert [each["field"] for each in refused["invalid_parameters"]] == ["featureId"]
    metered = feature(usage, meterSlug=slug)
    for body, field in (
        ({"group_by_dimensions": ["size"]}, "group_by_dimensions"),
        ({"explain": True}, "explain"),
        ({"from": NEXT, "to": HOUR}, "to"),
    ):
        refused = cost(usage, metered, status=400, json=body)
        (fault,) = refused["invalid_parameters"]
        assert fault["field"].startswith(field), fault
    cost(usage, new_ulid(), status=404)
    cost(usage, "me", status=400)
    assert usage.http.delete(f"/api/v1/features/{metered}").status_code == 204
    assert [row["usage"] for row in cost(usage, metered)["data"]] == ["1007.3"]
