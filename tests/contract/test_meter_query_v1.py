"""Quantities of v1 over HTTP, each against figures computed by hand."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from tests.support.server import Server, wait_until
from tests.support.usage import Usage, event, exact, fresh, quantities
from tollgate.events.position import HEADER

AGGREGATIONS = ("SUM", "COUNT", "AVG", "MIN", "MAX", "UNIQUE_COUNT", "LATEST")
SMALLEST = "0.000000000000000001"


@pytest.fixture
def usage(server: Server) -> Usage:
    return Usage(server)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["0.1"] * 10, {"SUM": "1", "COUNT": "10", "AVG": "0.1", "UNIQUE_COUNT": "1"}),
        (
            ["3", '"4.5"', "-2", "1e2", "0"],
            # 3 + 4.5 - 2 + 100 + 0 = 105.5; 105.5 / 5 = 21.1
            dict(zip(AGGREGATIONS, ("105.5", "5", "21.1", "-2", "100", "5", "0"), strict=True)),
        ),
        (["-5", "3"], {"SUM": "-2", "AVG": "-1", "MIN": "-5", "MAX": "3", "LATEST": "3"}),
        # 10 / 3 has no end; cut at 18 digits.
        (["1", "2", "7"], {"AVG": "3.333333333333333333", "LATEST": "7"}),
        # 2 / 3 is rounded up.
        (["1", "1", "0"], {"AVG": "0.666666666666666667"}),
        # Halves of the last digit go to the even neighbour: 0.5 to 0, 1.5 to 2, 2.5 to 2.
        ([SMALLEST, "0"], {"AVG": "0", "MAX": SMALLEST, "SUM": SMALLEST}),
        (["0.000000000000000003", "0"], {"AVG": "0.000000000000000002"}),
        (["0.000000000000000005", "0"], {"AVG": "0.000000000000000002"}),
        (["-0.000000000000000003", "0"], {"AVG": "-0.000000000000000002"}),
        # 20 digits before the point, 18 after it, and a sum that has one more.
        (
            ["99999999999999999999.123456789012345678", '"0.000000000000000001"', "1"],
            {
                "SUM": "100000000000000000000.123456789012345679",
                "MAX": "99999999999999999999.123456789012345678",
                "MIN": SMALLEST,
            },
        ),
        # 2^53 + 1 and 2^53 + 3 are no doubles.
        (
            ["9007199254740993", "9007199254740995"],
            {
                "SUM": "18014398509481988",
                "AVG": "9007199254740994",
                "MIN": "9007199254740993",
                "MAX": "9007199254740995",
                "LATEST": "9007199254740995",
                "UNIQUE_COUNT": "2",
            },
        ),
        (["7", '"7"', "7"], {"UNIQUE_COUNT": "1", "COUNT": "3", "SUM": "21"}),
        (['"ada"', '"bob"', '"ada"', "5"], {"UNIQUE_COUNT": "3", "SUM": "5", "COUNT": "4"}),
    ],
)
def test_quantities(usage: Usage, values: list[str], expected: dict[str, str]) -> None:
    slugs = {kind: usage.meter(kind) for kind in expected}
    usage.send_values(values)
    found = {kind: usage.values(slug) for kind, slug in slugs.items()}
    assert found == {kind: [Decimal(value)] for kind, value in expected.items()}


def test_what_is_no_number_never_counts(usage: Usage) -> None:
    slugs = {kind: usage.meter(kind) for kind in AGGREGATIONS}
    # The latest number is -2, though events without one come after it.
    usage.send_values(["3", "true", '"4.5"', '" 4"', "-2", "null", '"0x10"', "[1]", '{"v":1}'])
    usage.send(event("{}", time="2026-03-10T13:00:00Z"), event(time="2026-03-10T13:00:01Z"))
    found = {kind: usage.values(slug) for kind, slug in slugs.items()}
    # 3 + 4.5 - 2 = 5.5; 5.5 / 3; unique: 3, 4.5, " 4", -2, 0x10.
    expected = ("5.5", "11", "1.833333333333333333", "-2", "4.5", "5", "-2")
    assert found == {k: [Decimal(v)] for k, v in zip(AGGREGATIONS, expected, strict=True)}


@pytest.mark.parametrize("kind", [each for each in AGGREGATIONS if each != "COUNT"])
def test_nothing_that_counts_is_no_row(usage: Usage, kind: str) -> None:
    slug = usage.meter(kind)
    assert usage.values(slug) == []
    usage.send_values(["null", "true"])
    assert usage.values(slug) == []
    assert usage.values(slug, windowSize="DAY") == []


def test_the_latest_of_one_instant_is_the_one_received_last(usage: Usage) -> None:
    slug = usage.meter("LATEST")
    usage.send(event('{"v":1}', time="2026-03-10T12:00:00.000002Z"))
    usage.send(event('{"v":2}', time="2026-03-10T12:00:00.000001Z"))
    assert usage.values(slug) == [Decimal(1)]
    usage.send(event('{"v":3}', time="2026-03-10T12:00:00.000002Z"))
    assert usage.values(slug) == [Decimal(3)]
    usage.send(event('{"v":2}', time="2026-03-10T12:00:00.000002Z"))
    assert usage.values(slug) == [Decimal(2)]


def test_an_event_sent_twice_counts_once(usage: Usage) -> None:
    slug = usage.meter()
    text = event('{"v":5}', id=fresh("id"))
    usage.send(text, text)
    usage.send(text)
    assert usage.values(slug) == [Decimal(5)]


def test_a_meter_counts_what_came_before_it_from_its_start_on(usage: Usage) -> None:
    at = "2026-03-10T12:00:00.000001Z"
    usage.send(event('{"v":1}'), event('{"v":10}', time=at))
    assert usage.values(usage.meter()) == [Decimal(11)]
    late = usage.meter(eventFrom=at)
    assert usage.values(late) == [Decimal(10)]
    assert usage.values(late, start="2026-03-01T00:00:00Z") == [Decimal(10)]
    assert usage.values(late, windowSize="DAY") == [Decimal(10)]


@pytest.fixture(scope="module")
def by_model(server: Server) -> tuple[Usage, str]:
    """A meter with six events of two subjects, three models (one absent) and two kinds."""
    usage = Usage(server)
    slug = usage.meter()
    usage.send(
        event('{"v":1,"model":"a","kind":"in"}', subject="ada"),
        event('{"v":2,"model":"a","kind":"out"}', subject="ada"),
        event('{"v":4,"model":"b","kind":"in"}', subject="ada"),
        event('{"v":8,"model":"b","kind":"in"}', subject="bob"),
        event('{"v":16,"model":"it\'s 100%"}', subject="bob"),
        event('{"v":32,"kind":"out"}', subject="=cmd()"),
    )
    return usage, slug


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"filterGroupBy": {"model": ["a"]}}, 3),
        ({"filterGroupBy": {"model": ["a", "b"]}}, 15),
        ({"filterGroupBy": {"model": ["a", "b"], "kind": ["in"]}}, 13),
        ({"filterGroupBy": {"model": ["it's 100%"]}}, 16),
        ({"advancedMeterGroupByFilters": {"model": {"$eq": "a"}}}, 3),
        ({"advancedMeterGroupByFilters": {"model": {"$ne": "a"}}}, 60),
        ({"advancedMeterGroupByFilters": {"model": {"$in": ["a", "it's 100%"]}}}, 19),
        ({"advancedMeterGroupByFilters": {"model": {"$nin": ["a", "b"]}}}, 48),
        ({"advancedMeterGroupByFilters": {"model": {"$like": "it%"}}}, 16),
        ({"advancedMeterGroupByFilters": {"model": {"$ilike": "IT'S 100\\%"}}}, 16),
        ({"advancedMeterGroupByFilters": {"model": {"$gt": "a", "$lt": "c"}}}, 12),
        (
            {
                "advancedMeterGroupByFilters": {
                    "model": {"$or": [{"$eq": "a"}, {"$like": "b%"}]},
                    "kind": {"$eq": "in"},
                }
            },
            13,
        ),
        (
            {
                "filterGroupBy": {"kind": ["in"]},
                "advancedMeterGroupByFilters": {"kind": {"$ne": "out"}, "model": {"$eq": "b"}},
            },
            12,
        ),
    ],
)
def test_filters_of_dimensions(
    by_model: tuple[Usage, str], body: dict[str, Any], expected: int
) -> None:
    usage, slug = by_model
    assert usage.values(slug, **body) == [Decimal(expected)]


def test_the_same_filters_in_a_query_string(by_model: tuple[Usage, str]) -> None:
    usage, slug = by_model
    for query, expected in (
        ("filterGroupBy[model]=a", 3),
        ("filterGroupBy%5Bmodel%5D=it%27s+100%25&windowTimeZone=UTC", 16),
        ("filterGroupBy[model]=b&filterGroupBy[kind]=in", 12),
        ('advancedMeterGroupByFilters={"model":{"$ne":"a"}}', 60),
        ("from=2026-03-10T12:00:00Z&to=2026-03-10T12:00:01%2B00:00", 63),
    ):
        answer = usage.on_meters("GET", f"/{slug}/query?{query}", headers=usage.waiting)
        assert quantities(exact(answer.content), "value") == [(Decimal(expected),)]


def test_groups(by_model: tuple[Usage, str]) -> None:
    usage, slug = by_model
    found = usage.query(slug, groupBy=["subject"])
    expected = [("=cmd()", 32), ("ada", 7), ("bob", 24)]
    assert quantities(found, "subject", "value") == expected
    assert all(row["groupBy"] == {} for row in found["data"])
    found = usage.query(slug, groupBy=["model"])
    expected_models = [("", 32), ("a", 3), ("b", 12), ("it's 100%", 16)]
    assert quantities(found, "groupBy.model", "value") == expected_models
    assert {row["subject"] for row in found["data"]} == {None}
    found = usage.query(slug, groupBy=["subject", "kind"], filterGroupBy={"kind": ["in", "out"]})
    assert quantities(found, "subject", "groupBy.kind", "value") == [
        ("=cmd()", "out", 32),
        ("ada", "in", 5),
        ("ada", "out", 2),
        ("bob", "in", 8),
    ]


def test_subjects_asked_for_are_answered_apart(by_model: tuple[Usage, str]) -> None:
    usage, slug = by_model
    found = usage.query(slug, subject=["bob", "ada", "nobody"])
    assert quantities(found, "subject", "value") == [("ada", 7), ("bob", 24)]
    answer = usage.on_meters("GET", f"/{slug}/query?subject=ada&subject=bob&groupBy=kind")
    assert quantities(exact(answer.content), "subject", "groupBy.kind", "value") == [
        ("bob", "", 16),
        ("ada", "in", 5),
        ("bob", "in", 8),
        ("ada", "out", 2),
    ]


def test_csv(by_model: tuple[Usage, str]) -> None:
    usage, slug = by_model
    day = "2026-03-10T00:00:00Z,2026-03-11T00:00:00Z"
    body = {
        "from": "2026-03-10T00:00:00Z",
        "to": "2026-03-11T00:00:00Z",
        "windowSize": "DAY",
        "groupBy": ["subject", "kind"],
    }
    for accept in ("text/csv", "text/csv, application/json;q=0.5"):
        headers = {"accept": accept}
        answer = usage.on_meters("POST", f"/{slug}/query", json=body, headers=headers)
        assert answer.headers["content-type"].partition(";")[0] == "text/csv"
        assert answer.text.splitlines() == [
            "window_start,window_end,subject,subject_display_name,kind,value",
            f"{day},'=cmd(),,out,32",
            f"{day},ada,,in,5",
            f"{day},ada,,out,2",
            f"{day},bob,,,16",
            f"{day},bob,,in,8",
        ]
    plain = usage.on_meters("GET", f"/{slug}/query?windowSize=DAY", headers={"accept": "text/csv"})
    assert plain.text.splitlines() == ["window_start,window_end,value", f"{day},63"]


def test_subjects_and_values_of_a_meter(by_model: tuple[Usage, str]) -> None:
    usage, slug = by_model
    assert usage.on_meters("GET", f"/{slug}/subjects").json() == ["=cmd()", "ada", "bob"]
    later = {"from": "2026-03-10T12:00:01Z"}
    assert usage.on_meters("GET", f"/{slug}/subjects", params=later).json() == []
    path = f"/{slug}/group-by/model/values"
    period = {"from": "2026-03-01T00:00:00Z"}
    assert usage.on_meters("GET", path, params=period).json() == ["a", "b", "it's 100%"]
    ended = period | {"to": "2026-03-10T12:00:00Z"}
    assert usage.on_meters("GET", path, params=ended).json() == []
    answer = usage.on_meters("GET", f"/{slug}/group-by/nothing/values")
    assert answer.status_code == 404


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({"windowSize": "WEEK", "from": "now", "groupBy": "model"}, "windowSize from groupBy"),
        ({"groupBy": ["nothing"], "windowTimeZone": "Mars"}, "groupBy windowTimeZone"),
        ({"filterGroupBy": {"nothing": ["a"]}}, "filterGroupBy"),
        (
            {"advancedMeterGroupByFilters": {"model": {"$is": "a"}, "kind": {"$in": "a"}}},
            "advancedMeterGroupByFilters.model.$is advancedMeterGroupByFilters.kind.$in",
        ),
        ({"from": "2026-03-10T00:00:00Z", "to": "2026-03-10T00:00:00Z"}, "to"),
        ({"clientId": "c" * 37, "subject": ["s"] * 101}, "clientId subject"),
    ],
)
def test_faults_of_a_query_come_at_once(usage: Usage, body: dict[str, Any], fields: str) -> None:
    answer = usage.on_meters("POST", f"/{usage.meter()}/query", json=body)
    assert answer.status_code == 400
    found = {fault["field"] for fault in answer.json()["extensions"]["validationErrors"]}
    assert found == set(fields.split())


def test_progress_of_a_client(usage: Usage) -> None:
    slug, client = usage.meter(), fresh("c")[:36]
    path = f"/api/v1/info/progress/{client}"
    assert usage.call("v1", "getProgress", "GET", path).status_code == 404
    usage.query(slug, clientId=client)
    found = usage.call("v1", "getProgress", "GET", path).json()
    assert (found["success"], found["failed"], found["total"]) == (1, 0, 1)
    body = {"clientId": client, "groupBy": ["nothing"]}
    assert usage.on_meters("POST", f"/{slug}/query", json=body).status_code == 400
    found = usage.call("v1", "getProgress", "GET", path).json()
    assert (found["success"], found["failed"], found["total"]) == (0, 1, 1)


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Usage]:
    """A product that answers at most two rows and waits hardly at all."""
    settings = {"TOLLGATE_QUERY_ROWS_MAX": "2", "TOLLGATE_POSITION_WAIT_MS": "1"}
    with Server(tmp_path_factory.mktemp("narrow") / "data", settings=settings) as running:
        yield Usage(running)


def test_too_many_rows_and_positions_far_ahead(narrow: Usage) -> None:
    slug = narrow.meter()
    narrow.send(*(event('{"v":1}', subject=f"s{number}") for number in range(3)))
    generation = narrow.position.partition(";")[0]
    far = {HEADER: f"{generation};0:999999999"}
    answer = narrow.on_meters("POST", f"/{slug}/query", json={}, headers=far)
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    for token in ("x", "1", "1;0", "-1;0:1", "1;0:1;"):
        answer = narrow.on_meters("POST", f"/{slug}/query", json={}, headers={HEADER: token})
        assert answer.status_code == 400
        assert answer.json()["extensions"]["validationErrors"][0]["field"] == HEADER

    def loaded() -> bool:
        path = f"/{slug}/query"
        return narrow.on_meters("POST", path, json={}, headers=narrow.waiting).status_code == 200

    wait_until(loaded)
    assert narrow.values(slug) == [Decimal(3)]
    two = {"groupBy": ["subject"], "subject": ["s0", "s2"]}
    assert narrow.values(slug, **two) == [Decimal(1)] * 2
    answer = narrow.on_meters("POST", f"/{slug}/query", json={"groupBy": ["subject"]})
    assert answer.status_code == 400
    faults = answer.json()["extensions"]["validationErrors"]
    assert [fault["code"] for fault in faults] == ["too_many_rows"]
