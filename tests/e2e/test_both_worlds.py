"""The same traffic, byte for byte, in both worlds: the same answers, totals and outcomes.

A reading of the events in plain Python, which knows nothing of the product, says what must come out
of both. One client sends one request after another, so it is decided who comes first.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from confluent_kafka import Producer

from tests.support.dead_letters import append_to_folder, unreadable
from tests.support.seeded_traffic import (
    AGGREGATIONS,
    FIRST,
    SUBJECTS,
    Traffic,
    expected,
    make_traffic,
)
from tests.support.server import Server, World, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(240)]

METERS = "meters:\n" + "".join(
    f"  - {{slug: both_{a.lower()}, eventType: both, aggregation: {a},"
    + ("" if a == "COUNT" else " valueProperty: $.n,")
    + " groupBy: {model: $.model}}\n"
    for a in AGGREGATIONS
)


def rows_of(
    answer: str, key: Callable[[dict[str, Any]], tuple[object, ...]]
) -> dict[tuple[object, ...], Decimal]:
    rows = json.loads(answer, parse_float=Decimal, parse_int=Decimal)["data"]
    found = {key(row): row["value"] for row in rows}
    assert len(found) == len(rows)
    return found


def whole(_: object) -> tuple[object, ...]:
    """No groups."""
    return ()


def broken() -> list[bytes]:
    """A record with an event whose time the engine can't read, and bytes that are no record."""
    return [
        unreadable(b'{"id":"broken","source":"both","type":"both","subject":"s"}'),
        b"nothing",
    ]


def append_to_topic(world: World, records: list[bytes]) -> None:
    producer = Producer({"bootstrap.servers": world.place("kafka").removeprefix("kafka://")})
    for record in records:
        producer.produce("tollgate-events.1", record, partition=0)
    assert producer.flush(20) == 0


@pytest.fixture(scope="module")
def traffic() -> Traffic:
    return make_traffic()


@pytest.fixture(scope="module")
def worlds(
    tmp_path_factory: pytest.TempPathFactory, traffic: Traffic
) -> Iterator[tuple[Server, Server]]:
    """Both, after the traffic; all of it is loaded."""
    folder = tmp_path_factory.mktemp("both")
    meters = folder / "meters.yaml"
    meters.write_text(METERS)
    bad = broken()
    (folder / "embedded").mkdir()
    append_to_folder(folder / "embedded", bad)
    world = World(folder / "distributed", meters)
    with Server(folder / "embedded", meters) as embedded, world as distributed:
        append_to_topic(world, bad)
        for server in (embedded, distributed):
            for request in traffic.requests:
                answer = server.http.post(
                    "/api/v1/events", content=request.body, headers=request.headers
                )
                assert answer.status_code == 204, answer.text
        wanted = len(traffic.events) + 2
        wanted += sum(request.duplicate + request.conflict for request in traffic.requests)
        for server in (embedded, distributed):
            wait_until(partial(_has_accepted, server, wanted), what="all loaded")
        yield embedded, distributed


def _totals(server: Server) -> dict[str, Any]:
    """The ledger's totals, of what has a namespace and of what has none."""
    found = {}
    for name, query in (("named", {}), ("unattributed", {"unattributed": "true"})):
        answer = server.http.get("/api/v1/ledger", params=query)
        assert answer.status_code == 200, answer.text
        found[name] = answer.json()["totals"]
    return found


def _has_accepted(server: Server, count: int) -> bool:
    return sum(int(totals["accepted"]) for totals in _totals(server).values()) == count


def ask_both(worlds: tuple[Server, Server], path: str, **parameters: str | list[str]) -> str:
    """The answer of both, which is the same text."""
    answers = [server.http.get(path, params=parameters) for server in worlds]
    assert [answer.status_code for answer in answers] == [200, 200], answers[0].text
    one, other = answers
    assert one.text == other.text
    return one.text


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_totals_and_groups(
    worlds: tuple[Server, Server], traffic: Traffic, aggregation: str
) -> None:
    path = f"/api/v1/meters/both_{aggregation.lower()}/query"
    period = {"from": "2026-10-01T00:00:00Z", "to": "2026-12-01T00:00:00Z"}
    total = ask_both(worlds, path, **period)
    assert rows_of(total, whole) == expected(aggregation, traffic.events, whole)
    by_subject = ask_both(worlds, path, **period, groupBy="subject")
    assert rows_of(by_subject, lambda row: (row["subject"],)) == expected(
        aggregation, traffic.events, lambda e: (e.subject,)
    )
    by_model = ask_both(worlds, path, **period, groupBy=["model", "subject"])
    assert rows_of(by_model, lambda row: (row["groupBy"]["model"], row["subject"])) == expected(
        aggregation, traffic.events, lambda e: (e.model or "", e.subject)
    )
    only = [e for e in traffic.events if e.model == "größer" and e.subject != "acme"]
    subjects = [each for each in SUBJECTS if each != "acme"]
    some = ask_both(worlds, path, **period, subject=subjects, **{"filterGroupBy[model]": "größer"})
    assert rows_of(some, lambda row: (row["subject"],)) == expected(
        aggregation, only, lambda e: (e.subject,)
    )


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/St_Johns", "Asia/Kathmandu"])
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_windows(
    worlds: tuple[Server, Server], traffic: Traffic, aggregation: str, zone: str
) -> None:
    path = f"/api/v1/meters/both_{aggregation.lower()}/query"
    start, end = FIRST + timedelta(hours=5, minutes=7), FIRST + timedelta(days=8, minutes=3)
    inside = [e for e in traffic.events if start <= e.time < end]
    period = {"from": start.isoformat(), "to": end.isoformat(), "windowTimeZone": zone}
    for size in ("MINUTE", "HOUR", "DAY", "MONTH"):
        answer = ask_both(worlds, path, **period, windowSize=size)
        found = rows_of(answer, lambda row: (datetime.fromisoformat(row["windowStart"]),))
        starts = _window_start(size, ZoneInfo(zone))
        assert found == expected(aggregation, inside, lambda e, at=starts: (at(e.time),))  # type: ignore[misc]


def _window_start(size: str, zone: ZoneInfo) -> Callable[[datetime], datetime]:
    """When the window of an instant begins: by the clock on the wall, hours by elapsed time."""

    def start(instant: datetime) -> datetime:
        local = instant.astimezone(zone)
        if size in ("MINUTE", "HOUR"):
            offset = local.utcoffset()
            assert offset is not None
            step = timedelta(minutes=1 if size == "MINUTE" else 60)
            passed = (instant + offset - FIRST) // step
            return FIRST + passed * step - offset
        day = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
        first = day if size == "DAY" else day.replace(day=1)
        return first.astimezone(UTC)

    return start


def test_the_ledger(worlds: tuple[Server, Server], traffic: Traffic) -> None:
    duplicate = sum(request.duplicate for request in traffic.requests)
    conflict = sum(request.conflict for request in traffic.requests)
    assert min(duplicate, conflict) > 20
    named = {
        "accepted": len(traffic.events) + duplicate + conflict + 1,
        "stored": len(traffic.events),
        "duplicate": duplicate,
        "conflict": conflict,
        "dead": 1,
        "corrections": 0,
        "balanced": True,
    }
    unattributed = dict.fromkeys(named, 0) | {"accepted": 1, "dead": 1, "balanced": True}
    for server in worlds:
        assert _totals(server) == {"named": named, "unattributed": unattributed}


def test_conflicts_and_dead_letters(worlds: tuple[Server, Server]) -> None:
    found = []
    for server in worlds:
        conflicts = [[each["id"], each["event"]] for each in _all(server, "conflicts")]
        dead = _all(server, "dead-letters") + _all(server, "dead-letters", unattributed="true")
        found.append(
            (
                sorted(json.dumps(each, sort_keys=True) for each in conflicts),
                sorted(str([each.get("id"), each["code"]]) for each in dead),
            )
        )
    assert found[0] == found[1]
    assert len(found[0][1]) == 2


def _all(server: Server, path: str, **parameters: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        answer = server.http.get(f"/api/v1/{path}", params=parameters | cursor)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        items += page["items"]
        if not page.get("nextCursor"):
            return items
        cursor = {"cursor": page["nextCursor"]}


def test_events(worlds: tuple[Server, Server], traffic: Traffic) -> None:
    """What is listed of each event is what was sent first, but for the times of this machine."""
    found = []
    for server in worlds:
        listed: dict[str, Any] = {}
        for subject in SUBJECTS:
            for day in range(10):
                start = FIRST + timedelta(days=day)
                query: dict[str, str] = {
                    "from": start.isoformat(),
                    "to": (start + timedelta(days=1) - timedelta(microseconds=1)).isoformat(),
                    "subject": subject,
                    "limit": "100",
                }
                answer = server.http.get("/api/v1/events", params=query)
                assert answer.status_code == 200, answer.text
                page = json.loads(answer.text, parse_float=str, parse_int=str)
                assert len(page) < 100
                listed |= {each["event"]["id"]: each["event"] for each in page}
        found.append(listed)
    assert found[0] == found[1]
    assert set(found[0]) == {event.id for event in traffic.events}


def test_a_dead_letter_is_sent_again(worlds: tuple[Server, Server]) -> None:
    shown = []
    for server in worlds:
        (letter,) = _all(server, "dead-letters", open="true")
        event = letter["event"] | {"time": "2026-01-01T00:00:00Z", "data": {"n": "7.5"}}
        answer = server.http.post(
            f"/api/v1/dead-letters/{letter['letter']}/replay",
            json={"event": event, "reason": "its time was no time"},
        )
        assert answer.status_code == 200, answer.text
        found = server.http.get(
            "/api/v1/meters/both_sum/query",
            params={"from": "2026-01-01T00:00:00Z", "to": "2026-01-01T00:01:00Z"},
            headers={"tollgate-position": answer.headers["tollgate-position"]},
        )
        shown.append([row["value"] for row in found.json()["data"]])
        assert _all(server, "dead-letters", open="true") == []
    assert shown == [[7.5], [7.5]]


def test_corrected_alike(worlds: tuple[Server, Server], traffic: Traffic) -> None:
    """Every fifth event is void, every seventh another one; the rest is as it was."""
    period = {"from": "2026-10-01T00:00:00Z", "to": "2026-12-01T00:00:00Z"}
    paths = {a: f"/api/v1/meters/both_{a.lower()}/query" for a in AGGREGATIONS}
    items, left = [], []
    for number, event in enumerate(traffic.events):
        key = f'"source":"both","id":{json.dumps(event.id)},"reason":"seeded"'
        if number % 5 == 0:
            items.append(f'{{"action":"void",{key}}}')
            continue
        if number % 7 == 0:
            later = event.time + timedelta(hours=number % 50)
            event = replace(event, n="0.000000000000000003", subject="beta", time=later)  # noqa: PLW2901
            items.append(f'{{"action":"amend",{key},"event":{event.text()}}}')
        left.append(event)
    body = f'{{"corrections":[{",".join(items)}]}}'
    known = []
    for server in worlds:
        answer = server.http.post(
            "/api/v1/corrections",
            content=body.encode(),
            headers={"content-type": "application/json"},
        )
        assert answer.status_code == 202, answer.text
        known.append({"tollgate-position": answer.headers["tollgate-position"]})
    for aggregation, path in paths.items():
        shown = [
            server.http.get(path, params=period | {"groupBy": "subject"}, headers=position)
            for server, position in zip(worlds, known, strict=True)
        ]
        assert shown[0].text == shown[1].text
        assert rows_of(shown[0].text, lambda row: (row["subject"],)) == expected(
            aggregation, left, lambda e: (e.subject,)
        )
