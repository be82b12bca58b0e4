"""Pages, gaps and explanations of v1's queries over HTTP."""

from decimal import Decimal
from typing import Any

import pytest

from tests.support.server import Server, wait_until
from tests.support.usage import V1, V3, Usage, event, exact, quantities

pytestmark = pytest.mark.both_worlds
PERIOD = {"start": "2026-03-09T00:00:00Z", "end": "2026-03-13T00:00:00Z", "windowSize": "DAY"}


@pytest.fixture
def usage(server: Server) -> Usage:
    """Two subjects with usage on the 10th, one of them on the 12th too."""
    usage = Usage(server)
    usage.send(
        event('{"v":1}', time="2026-03-10T01:00:00Z"),
        event('{"v":2}', time="2026-03-10T02:00:00Z", subject="other"),
        event('{"v":4}', time="2026-03-12T23:59:59.999999Z"),
    )
    return usage


def test_pages_are_the_whole(usage: Usage) -> None:
    slug = usage.meter()
    asked = PERIOD | {"groupBy": ["subject"]}
    whole = quantities(usage.query(slug, **asked), "windowStart", "subject", "value")
    assert [row[1:] for row in whole] == [("acme", 1), ("other", 2), ("acme", 4)]
    found, cursor = [], None
    while True:
        more: dict[str, str] = {"cursor": cursor} if cursor else {}
        page = usage.query(slug, **asked, limit=1, **more)
        found += quantities(page, "windowStart", "subject", "value")
        cursor = page.get("nextCursor")
        if cursor is None:
            break
    assert found == whole


def test_faults_of_pages(usage: Usage) -> None:
    slug = usage.meter()
    cursor = usage.query(slug, **PERIOD, limit=1)["nextCursor"]
    asked = {"from": PERIOD["start"], "to": PERIOD["end"], "windowSize": "DAY"}
    for change, field in (
        ({"limit": 0}, "limit"),
        ({"limit": 10_000_000}, "limit"),
        ({"cursor": cursor}, "limit"),
        ({"cursor": "?", "limit": 1}, "cursor"),
        ({"cursor": cursor, "limit": 1, "windowSize": "HOUR"}, "cursor"),
    ):
        answer = usage.on_meters("POST", f"/{slug}/query", json=asked | change)
        assert answer.status_code == 400, change
        faults = answer.json()["extensions"]["validationErrors"]
        assert [fault["field"] for fault in faults] == [field], change


def test_pages_of_csv_go_on_by_a_header(usage: Usage) -> None:
    slug = usage.meter()
    path = f"/{slug}/query?windowSize=DAY&limit=1"
    head = usage.waiting | {"accept": "text/csv"}
    first = usage.http.get(f"/api/v1/meters{path}", headers=head)
    cursor = first.headers["tollgate-next-cursor"]
    second = usage.http.get(f"/api/v1/meters{path}&cursor={cursor}", headers=head)
    assert "tollgate-next-cursor" not in second.headers
    assert [each.text.split(",")[-1].strip() for each in (first, second)] == ["3", "4"]


@pytest.mark.parametrize(
    ("aggregation", "values"),
    [("SUM", [0, 3, 0, 4]), ("MAX", [None, 2, None, 4]), ("UNIQUE_COUNT", [0, 2, 0, 1])],
)
def test_gaps_are_filled_on_request(
    usage: Usage, aggregation: str, values: list[int | None]
) -> None:
    # OpenMeter's contract has no null.
    path = f"{V1}/{usage.meter(aggregation)}/query"

    def ask(**more: Any) -> Any:
        body = {"from": PERIOD["start"], "to": PERIOD["end"], "windowSize": "DAY", "fill": True}
        return exact(usage.http.post(path, json=body | more, headers=usage.waiting).content)

    assert usage_of(ask()) == values
    page = ask(limit=3)
    assert usage_of(page) == values[:3]
    assert usage_of(ask(limit=3, cursor=page["nextCursor"])) == values[3:]


def test_gaps_of_groups(usage: Usage) -> None:
    slug = usage.meter()
    found = usage.query(slug, **PERIOD, fill=True, subject=["acme", "nobody"])
    assert quantities(found, "subject", "value") == [
        *(("acme", 0), ("nobody", 0), ("acme", 1), ("nobody", 0)),
        *(("acme", 0), ("nobody", 0), ("acme", 4), ("nobody", 0)),
    ]
    # Without a period, from the first to the last window with usage.
    open_ended = usage.query(slug, windowSize="DAY", fill=True)
    assert usage_of(open_ended) == [3, 0, 4]
    assert usage_of(usage.query(slug, fill=True, groupBy=["model"])) == [7]


def usage_of(answer: dict[str, Any]) -> list[Decimal | None]:
    return [value for (value,) in quantities(answer, "value")]


def test_an_answer_says_what_was_read_for_it(usage: Usage) -> None:
    slug = usage.meter()
    (read,) = usage.query(slug, **PERIOD, explain=True)["explain"]
    assert read == {
        "source": "events",
        "why": "all",
        "from": PERIOD["start"],
        "to": PERIOD["end"],
    }

    def is_rolled_up() -> bool:
        assert usage.http.post("/_/rollup", timeout=60).status_code == 204
        answer = usage.http.get(f"/api/v1/meters/{slug}/query?explain=true")
        sources = [each["source"] for each in answer.json()["explain"]]
        return "rollup" in sources

    wait_until(is_rolled_up, what="rolled up")
    usage.send(event('{"v":8}', time="2026-03-11T00:00:00Z"))
    found = usage.query(slug, **PERIOD, explain=True)
    assert usage_of(found) == [3, 8, 4]
    rollup, *beyond = found["explain"]
    assert (rollup["source"], rollup["why"], rollup["level"]) == ("rollup", "whole", "minute")
    assert [(read["source"], read["why"]) for read in beyond] in ([], [("events", "beyond")])
    meter = usage.on_meters("GET", f"/{slug}").json()["id"]
    # OpenMeter's contract has no such member.
    v3 = usage.http.post(f"{V3}/{meter}/query", json={"explain": True}, headers=usage.waiting)
    assert v3.json()["explain"][0]["source"] == "rollup"
    assert v3.json()["data"][0]["value"] == "15"
