"""The events list of v3, there and back, over HTTP on a running product."""

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.support.contract import checked
from tests.support.event_sender import V2, V3, Sender, ago, ids
from tests.support.server import Server


@pytest.fixture
def sender(server: Server) -> Sender:
    return Sender(server)


def follow(sender: Sender, uri: str) -> dict[str, Any]:
    answer = checked("v3", "list-metering-events", sender.http.get(uri))
    assert answer.status_code == 200, answer.text
    page: dict[str, Any] = answer.json()
    return page


@pytest.mark.embedded_only("events of one instant come in the order of one partition")
@pytest.mark.parametrize("order", ["time", "ingested_at", "stored_at"])
@pytest.mark.parametrize("suffix", ["", " asc", " desc"])
def test_v3_walks_there_and_back(sender: Sender, order: str, suffix: str) -> None:
    # Sent late to early: the order of time is the reverse of the order of arrival.
    for hours in range(1, 4):
        time = ago(hours=hours)
        sender.send(*(sender.event(f"{hours}{letter}", time=time) for letter in "abc"))
    every = [f"{hours}{letter}" for hours in range(1, 4) for letter in "abc"]
    if order == "time":
        every = [f"{hours}{letter}" for hours in (3, 2, 1) for letter in "abc"]
    if suffix != " asc":
        every.reverse()
    page = sender.v3(
        sort=order + suffix, page__size=2, filter__subject__contains=sender.name.upper()
    )
    first = page["meta"]["page"]["first"]
    assert page["meta"]["page"] | {"next": None} == {
        "first": first,
        "next": None,
        "previous": None,
        "size": 2,
    }
    there = [page]
    while (uri := page["meta"]["page"]["next"]) is not None:
        assert uri.startswith(V3 + "?")
        page = follow(sender, uri)
        there.append(page)
    assert [ids(each["data"]) for each in there] == [every[n : n + 2] for n in range(0, 9, 2)]
    back = [page]
    while (uri := page["meta"]["page"]["previous"]) is not None:
        page = follow(sender, uri)
        back.append(page)
    assert [each["data"] for each in back] == [each["data"] for each in reversed(there)]
    assert page["meta"]["page"]["next"] is not None
    assert follow(sender, first)["data"] == there[0]["data"]
    assert parse_qs(urlsplit(first).query)["sort"] == [order + suffix]


def test_v3_before_the_first_event(sender: Sender) -> None:
    sender.send(*(sender.event(f"e{n}", time=ago(hours=n)) for n in (1, 2, 3)))
    page = follow(sender, sender.v3(page__size=1)["meta"]["page"]["next"])
    before = page["meta"]["page"]["previous"]
    sender.send(sender.event("e0", time=ago(minutes=30)))
    assert sender.v3(page__size=1)["data"][0]["event"]["id"] == "e0"
    second = follow(sender, before)
    assert ids(second["data"]) == ["e1"]
    third = follow(sender, second["meta"]["page"]["previous"])
    assert ids(third["data"]) == ["e0"]
    assert third["meta"]["page"]["previous"] is None
    cursor = third["meta"]["page"]["next"]
    assert ids(follow(sender, cursor)["data"]) == ["e1"]
    # Before the first of all there is nothing, and what comes next is the first page.
    first = parse_qs(urlsplit(cursor).query)["page[after]"][0]
    nothing = sender.v3(page__size=1, page__before=first)
    assert nothing["data"] == []
    assert nothing["meta"]["page"]["previous"] is None
    assert ids(follow(sender, nothing["meta"]["page"]["next"])["data"]) == ["e0"]


def test_v3_a_cursor_belongs_to_its_order(sender: Sender) -> None:
    sender.send(*(sender.event(f"e{n}") for n in range(2)))
    uri = sender.v3(page__size=1)["meta"]["page"]["next"]
    cursor = parse_qs(urlsplit(uri).query)["page[after]"][0]
    answer = sender.get(V3, sort="stored_at", page__after=cursor)
    assert answer.status_code == 400
    assert sender.get(V2, cursor=cursor).status_code == 200


def test_v3_filters(sender: Sender) -> None:
    times = {"a": ago(hours=1), "b": ago(hours=2), "c": ago(hours=3)}
    for name, time in times.items():
        sender.send(sender.event(name, time=time, type=f"Type-{name}"))
        sender.v3()  # loaded: the next one is stored later
    (b,) = sender.v3(filter__id="b")["data"]
    wanted: tuple[tuple[dict[str, str], str], ...] = (
        ({"filter__id__eq": "a"}, "a"),
        ({"filter__id__neq": "a"}, "bc"),
        ({"filter__id__oeq": "a, c"}, "ac"),
        ({"filter__type__contains": "TYPE"}, "abc"),
        ({"filter__type__ocontains": "-a,-B"}, "ab"),
        ({"filter__type__exists": "false"}, ""),
        ({"filter__time": times["b"]}, "b"),
        ({"filter__time__gt": times["c"], "filter__time__lt": times["a"]}, "b"),
        ({"filter__ingested_at__lte": b["ingested_at"]}, "ab"),
        ({"filter__stored_at": b["stored_at"]}, "b"),
        ({"filter__stored_at__gt": b["stored_at"]}, "c"),
    )
    for parameters, expected in wanted:
        assert ids(sender.v3(**parameters)["data"]) == list(expected), parameters
