"""Subjects move between customers in one moment, whoever else moves them."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from threading import Barrier
from typing import Any

import pytest

from tests.contract.test_customer_store import wanted
from tests.support.control_plane import NS, SteppingClock
from tests.support.own_models import held
from tests.support.server import Server
from tests.support.usage import Usage, event, fresh
from tollgate.core.clock import us_from_datetime
from tollgate.core.errors import Conflict, NotFound
from tollgate.core.ids import new_ulid
from tollgate.customers.attribution import Attribution, Origin, owner_at
from tollgate.customers.customer_store import CustomerStore
from tollgate.customers.subject_moves import SubjectMoves
from tollgate.platform.sql import Database

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
V1 = "/api/v1/customers"


class Desk:
    """Customers of a test, and who has what."""

    def __init__(self, database: Database, clock: SteppingClock) -> None:
        self.clock = clock
        self.customers = CustomerStore(database, clock)
        self.moves = SubjectMoves(database, clock)

    def make(self, key: str | None, *subjects: str) -> str:
        return self.customers.create(NS, wanted(key, *subjects)).id

    def move(self, customer: str, *subjects: str) -> None:
        self.moves.add(NS, customer, subjects, move=True)

    def rows(self, subject: str) -> list[Attribution]:
        return list(self.customers.attributions.of_subjects(NS, [subject]))

    def listed(self, customer: str) -> tuple[str, ...]:
        return self.customers.get(NS, customer).subject_keys


@pytest.fixture
def desk(database: Database, clock: SteppingClock) -> Desk:
    return Desk(database, clock)


def test_a_move_ends_and_begins_at_one_instant(desk: Desk) -> None:
    one, two = desk.make("one", "s", "t"), desk.make("two", "u")
    before = desk.customers.get(NS, one)
    (moved,) = desk.moves.add(NS, "two", ["s"], move=True, reason="sold")
    assert (moved.moved_from, moved.held.reason, moved.held.origin) == (one, "sold", Origin.SUBJECT)
    first, second = desk.rows("s")
    assert (first.customer_id, first.begins_at, second.customer_id) == (one, None, two)
    assert first.ends_at == second.begins_at == moved.held.begins_at
    assert second.ends_at is None
    assert (desk.listed("one"), desk.listed("two")) == (("t",), ("u", "s"))
    # Whoever follows customers by their change sees both.
    assert first.ends_at is not None
    changed = [desk.customers.get(NS, each).updated_at for each in (one, two)]
    assert changed == [first.ends_at, first.ends_at]
    assert changed[0] > before.updated_at
    history = desk.moves.history(NS, "one", count_max=10)
    shown = [(each.subject_key, each.begins_at, each.ends_at) for each in history]
    assert shown[:3] == [("s", None, first.ends_at), ("t", None, None), ("one", None, None)]
    assert desk.moves.history(NS, "one", after=history[2].id, count_max=10) == history[3:]


def test_asked_again_nothing_changes(desk: Desk) -> None:
    one, two = desk.make("one", "s"), desk.make("two")
    desk.move(two, "s", "new")
    rows, known = desk.rows("s") + desk.rows("new"), desk.customers.get(NS, two)
    again = desk.moves.add(NS, two, ["s", "new", "two"])
    assert [each.moved_from for each in again] == [None, None, None]
    assert (desk.rows("s") + desk.rows("new"), desk.customers.get(NS, two)) == (rows, known)
    assert desk.rows("new") == [Attribution(customer_id=two, subject_key="new")]
    desk.move(one, "s")
    assert [each.customer_id for each in desk.rows("s")] == [one, two, one]


def test_a_clock_that_is_set_back_leaves_no_gap(desk: Desk) -> None:
    desk.make("one", "s")
    two = desk.make("two")
    desk.move("two", "s")
    at = desk.rows("s")[0].ends_at
    desk.clock.instant -= timedelta(days=1)
    desk.move("one", "s")
    rows = desk.rows("s")
    assert [(each.begins_at, each.ends_at) for each in rows] == [(None, at), (at, at), (at, None)]
    assert at is not None
    assert owner_at(rows, "s", at - timedelta(microseconds=1)) == rows[0].customer_id
    assert owner_at(rows, "s", at) == rows[2].customer_id != two


def test_what_is_refused_changes_nothing(desk: Desk) -> None:
    one, two = desk.make("one", "s"), desk.make("two")
    nameless = desk.make(None, "n", "m")
    for subjects, move, said in (
        (["new", "s"], False, f"belongs to the customer {one} (one) already"),
        (["new", "one"], True, f"names the customer {one} (one) itself"),
        (["new", nameless], True, f"names the customer {nameless} itself"),
        (["new", "n", "m"], True, f"{nameless} would be left without subjects"),
    ):
        with pytest.raises(Conflict) as caught:
            desk.moves.add(NS, two, subjects, move=move)
        assert said in caught.value.detail
        assert (desk.rows("new"), desk.listed(two)) == ([], ())
    desk.move(two, "n")
    with pytest.raises(NotFound):
        desk.move(new_ulid(), "m")
    with pytest.raises(NotFound):
        desk.moves.add("other", two, ["m"], move=True)


def at_once(*works: Callable[[], Any]) -> None:
    barrier = Barrier(len(works))

    def run(work: Callable[[], Any]) -> None:
        barrier.wait()
        with suppress(Conflict):
            work()

    with ThreadPoolExecutor(len(works)) as pool:
        list(pool.map(run, works))


def replace_with(desk: Desk, key: str, new: str) -> None:
    desk.customers.replace(NS, key, lambda _: wanted(key, "s", new))


def test_moved_by_many_at_once_it_is_one_s_at_every_instant(desk: Desk) -> None:
    names = [f"c{number}" for number in range(4)]
    for name in names:
        desk.make(name)
    desk.move("c0", "s", "t")
    for number in range(12):
        # Each pulls both its way, in another order, while one replaces and one claims what is new.
        pulls = [
            partial(desk.move, name, *order)
            for name, order in zip(names, (("s", "t"), ("t", "s")) * 2, strict=True)
        ]
        replaced = partial(replace_with, desk, names[number % 4], f"new{number}")
        at_once(*pulls, replaced, partial(desk.move, names[number % 3], f"new{number}"))
        assert len([each for each in desk.rows(f"new{number}") if each.ends_at is None]) <= 1
    for subject in ("s", "t"):
        lasted = [each for each in desk.rows(subject) if each.begins_at != each.ends_at]
        lasted.sort(key=lambda each: us_from_datetime(each.begins_at or EPOCH))
        assert len(lasted) > 10
        begins, ends = [each.begins_at for each in lasted], [each.ends_at for each in lasted]
        assert begins[0] is ends[-1] is None or subject == "t"
        pairs = list(zip(ends, begins[1:], strict=False))
        # A replacement that leaves out t makes it nobody's; s is always somebody's.
        assert all(end and begin and end <= begin for end, begin in pairs)
        assert subject == "t" or all(end == begin for end, begin in pairs)


def test_over_http_usage_stays_where_it_was(server: Server) -> None:
    usage, http = Usage(server), server.http
    meter, subject = usage.meter(), fresh("subject")
    one, two = fresh("one"), fresh("two")
    for key, subjects in ((one, [subject]), (two, [])):
        body = {"key": key, "name": key, "usageAttribution": {"subjectKeys": subjects}}
        assert http.post(V1, json=body).status_code == 201
    usage.send(event('{"v":3}', subject=subject))
    asked = {"subjects": [subject, subject], "move": True, "reason": "merged"}
    answer = held("addCustomerSubjects", http.post(f"{V1}/{two}/subjects", json=asked))
    (moved,) = answer.json()["items"]
    assert (moved["subject"], moved["origin"], moved["reason"]) == (subject, "subject", "merged")
    usage.send(event('{"v":4}', subject=subject, time=moved["from"]))

    def used(key: str) -> list[Any]:
        customer = http.get(f"{V1}/{key}").json()["id"]
        return usage.values(meter, filterCustomerId=[customer])

    assert (used(one), used(two)) == ([3], [4])
    page = held("listCustomerSubjects", http.get(f"{V1}/{one}/subjects", params={"limit": 2}))
    assert "next" in page.json()
    ended = [each for each in page.json()["items"] if each["subject"] == subject]
    assert [each["to"] for each in ended] == [moved["from"]]
    refused = http.post(f"{V1}/{one}/subjects", json={"subjects": [subject]})
    assert (held("addCustomerSubjects", refused).status_code, two in refused.text) == (409, True)
    wrong = http.post(f"{V1}/{one}/subjects", json={"subjects": ["a", "b\u0001"]})
    fault = held("addCustomerSubjects", wrong).json()["extensions"]["validationErrors"][0]
    assert fault["field"] == "subjects.1"
    assert http.post(f"{V1}/{fresh('no')}/subjects", json=asked).status_code == 404
