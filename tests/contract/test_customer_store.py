"""Customers and attributions in SQL."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import Any

import pytest

from tests.support.control_plane import NS, SteppingClock
from tollgate.core.errors import Conflict, Gone, NotFound
from tollgate.core.ids import new_ulid
from tollgate.customers.attribution import Attribution
from tollgate.customers.customer import Customer, CustomerInput, parse_customer
from tollgate.customers.customer_store import (
    CustomerField,
    CustomerListing,
    CustomerOrder,
    CustomerStore,
)
from tollgate.platform.filters import Comparison, Operator, Presence, contains
from tollgate.platform.sql import Database


@pytest.fixture
def customers(database: Database, clock: SteppingClock) -> CustomerStore:
    return CustomerStore(database, clock)


def wanted(key: str | None, *subjects: str, **more: Any) -> CustomerInput:
    usage = {"usageAttribution": {"subjectKeys": list(subjects)}}
    return parse_customer({"key": key, "name": key or "nameless"} | usage | more)


def rows(customers: CustomerStore, subject: str) -> list[Attribution]:
    return list(customers.attributions.of_subjects(NS, [subject]))


def test_a_customer_is_made_and_read_by_id_and_key(customers: CustomerStore) -> None:
    address = {"country": "DE", "line1": "Some Street 1"}
    made = customers.create(
        NS, wanted("acme", "b", "a", billingAddress=address, metadata={"crm": "1"})
    )
    assert customers.get(NS, "acme") == customers.get(NS, made.id.lower()) == made
    assert made.subject_keys == ("b", "a")
    assert made.billing_address == address
    assert made.metadata == {"crm": "1"}
    assert customers.find(NS, [made.id, new_ulid()]) == {made.id: made}
    with pytest.raises(NotFound):
        customers.get("other", made.id)
    with pytest.raises(NotFound):
        customers.get_by_id(NS, "acme")


def test_a_key_and_a_subject_have_one_customer(customers: CustomerStore) -> None:
    acme = customers.create(NS, wanted("acme", "s"))
    for taken, said in (
        (wanted("acme", "t"), f"customer {acme.id} has the key acme"),
        (wanted("other", "t", "s"), f"subject s belongs to the customer {acme.id} (acme)"),
        (wanted(None, "acme"), f"subject acme belongs to the customer {acme.id}"),
        (wanted("s"), f"subject s belongs to the customer {acme.id}"),
        (wanted(None, acme.id), f"subject {acme.id} belongs to"),
    ):
        with pytest.raises(Conflict) as caught:
            customers.create(NS, taken)
        assert said in caught.value.detail
    assert customers.list(NS, CustomerListing()) == ((acme,), 1)
    assert rows(customers, "t") == []
    customers.create("other", wanted("acme", "s"))


def test_a_replacement_is_whole_and_changes_only_what_differs(customers: CustomerStore) -> None:
    made = customers.create(NS, wanted("acme", "a", "b", description="d", currency="EUR"))
    same = customers.replace(NS, "acme", lambda stored: stored)
    assert same == made
    changed = customers.replace(NS, made.id, lambda _: wanted("acme-2", "b", "c"))
    assert (changed.key, changed.subject_keys) == ("acme-2", ("b", "c"))
    assert (changed.description, changed.currency) == (None, None)
    assert (changed.id, changed.created_at) == (made.id, made.created_at)
    assert changed.updated_at > made.updated_at
    assert rows(customers, "b")[0].ends_at is None
    other = customers.create(NS, wanted("acme", "a"))
    with pytest.raises(Conflict, match="belongs to the customer"):
        customers.replace(NS, other.id, lambda _: wanted("acme", "a", "c"))
    with pytest.raises(Conflict, match="has the key"):
        customers.replace(NS, other.id, lambda _: wanted("acme-2", "a"))
    assert customers.get(NS, other.id) == other


def test_a_subject_s_first_attribution_has_no_beginning_and_later_ones_do(
    customers: CustomerStore, clock: SteppingClock
) -> None:
    one = customers.create(NS, wanted("one", "s"))
    before = clock.now()
    customers.replace(NS, one.id, lambda _: wanted("one"))
    two = customers.create(NS, wanted("two"))
    customers.replace(NS, two.id, lambda _: wanted("two", "s"))
    first, second = rows(customers, "s")
    assert (first.customer_id, first.begins_at) == (one.id, None)
    assert (second.customer_id, second.ends_at) == (two.id, None)
    assert first.ends_at is not None
    assert second.begins_at is not None
    assert before < first.ends_at < second.begins_at
    owner = customers.owner(NS, "s", before)
    assert owner is not None
    assert owner.id == one.id
    assert customers.owner(NS, "s", first.ends_at) is None
    later = customers.owner(NS, "s", second.begins_at)
    assert later is not None
    assert later.id == two.id


def test_a_clock_that_is_set_back_gives_no_instant_to_two(
    customers: CustomerStore, clock: SteppingClock
) -> None:
    one = customers.create(NS, wanted("one", "s"))
    customers.replace(NS, one.id, lambda _: wanted("one"))
    (first,) = rows(customers, "s")
    clock.instant -= timedelta(days=1)
    two = customers.create(NS, wanted("two", "s"))
    assert rows(customers, "s")[1].begins_at == first.ends_at
    customers.delete(NS, two.id)
    assert rows(customers, "s")[1].ends_at == first.ends_at
    three = customers.create(NS, wanted("three", "s"))
    assert first.ends_at is not None
    owner = customers.owner(NS, "s", first.ends_at)
    assert owner is not None
    assert owner.id == three.id


def test_deleting_frees_key_and_subjects_and_ends_what_was_attributed(
    customers: CustomerStore,
) -> None:
    gone = customers.create(NS, wanted("acme", "s"))
    customers.delete(NS, "acme")
    for name in ("acme", gone.id):
        with pytest.raises(NotFound):
            customers.get(NS, name)
        with pytest.raises(NotFound):
            customers.delete(NS, name)
    with pytest.raises(Gone):
        customers.replace(NS, gone.id, lambda _: wanted("acme"))
    with pytest.raises(NotFound):
        customers.replace(NS, new_ulid(), lambda _: wanted("acme"))
    deleted = customers.find(NS, [gone.id])[gone.id]
    assert rows(customers, "s")[0].ends_at == deleted.deleted_at is not None
    again = customers.create(NS, wanted("acme", "s"))
    assert again.id != gone.id
    found, total = customers.list(NS, CustomerListing(include_deleted=True))
    assert ({each.id for each in found}, total) == ({gone.id, again.id}, 2)


def test_attributions_are_found_by_customer_and_time(
    customers: CustomerStore, clock: SteppingClock
) -> None:
    one = customers.create(NS, wanted("one", "s", "t"))
    customers.replace(NS, one.id, lambda _: wanted("one", "t"))
    moved = clock.now()
    two = customers.create(NS, wanted("two", "s"))
    store = customers.attributions

    def subjects(*arguments: Any) -> dict[str, set[str]]:
        found = store.of_customers(NS, [one.id, two.id, new_ulid()], *arguments)
        return {who: {each.subject_key for each in found[who]} for who in found}

    assert subjects() == {one.id: {one.id, "one", "s", "t"}, two.id: {two.id, "two", "s"}}
    assert subjects(moved) == {one.id: {one.id, "one", "t"}, two.id: {two.id, "two", "s"}}
    assert subjects(None, moved) == {one.id: {one.id, "one", "s", "t"}, two.id: {two.id, "two"}}
    assert store.of_customers("other", [one.id]) == {}
    everything = store.of_all(NS, None, None, 100)
    assert everything is not None
    assert len(everything) == 7
    assert store.of_all(NS, None, None, 6) is None


def test_lists_are_filtered_ordered_and_paged(customers: CustomerStore) -> None:
    made = [
        customers.create(NS, wanted(f"key-{n}", f"Subject-{n}", f"x-{n % 2}{n}", name=f"N{n % 2}"))
        for n in range(4)
    ]
    made.append(customers.create(NS, wanted(None, "lonely", primaryEmail="me@example.com")))

    def listed(field: CustomerField, asked: Any) -> list[int]:
        found, total = customers.list(
            NS,
            CustomerListing(filters=((field, asked),), orders=((CustomerOrder.ID, False),)),
        )
        assert total == len(found)
        return [made.index(each) for each in found]

    def equal(value: str, operator: Operator = Operator.EQUAL) -> Comparison:
        return Comparison(operator=operator, value=value)

    assert listed(CustomerField.KEY, contains("KEY-1")) == [1]
    assert listed(CustomerField.KEY, Presence(present=False)) == [4]
    assert listed(CustomerField.KEY, equal("key-1", Operator.NOT_EQUAL)) == [0, 2, 3, 4]
    assert listed(CustomerField.NAME, equal("N1")) == [1, 3]
    assert listed(CustomerField.PRIMARY_EMAIL, contains("EXAMPLE")) == [4]
    assert listed(CustomerField.SUBJECT, contains("subject-")) == [0, 1, 2, 3]
    assert listed(CustomerField.SUBJECT, equal("x-00", Operator.NOT_EQUAL)) == [1, 2, 3, 4]
    assert listed(CustomerField.NOTHING, contains("plan")) == []
    assert listed(CustomerField.NOTHING, Presence(present=False)) == [0, 1, 2, 3, 4]
    orders = ((CustomerOrder.NAME, True), (CustomerOrder.CREATED_AT, False))
    page, total = customers.list(NS, CustomerListing(orders=orders, page=2, page_size=2))
    assert ([made.index(each) for each in page], total) == ([3, 0], 5)


def race(*claims: Callable[[], Customer]) -> list[Customer]:
    """Runs them at once; the results of those that the database let through."""
    barrier = Barrier(len(claims))

    def run(claim: Callable[[], Customer]) -> Customer | None:
        barrier.wait()
        try:
            return claim()
        except Conflict:
            return None

    with ThreadPoolExecutor(len(claims)) as pool:
        return [found for found in pool.map(run, claims) if found is not None]


def test_of_two_that_claim_one_key_or_subject_at_once_one_wins(customers: CustomerStore) -> None:
    for number in range(10):
        by_key = [lambda n=number: customers.create(NS, wanted(f"key-{n}")) for _ in range(4)]
        assert len(race(*by_key)) == 1
        names = [f"{number}-{letter}" for letter in "abcd"]
        by_subject = [
            lambda own=name, n=number: customers.create(NS, wanted(own, f"s{n}-2", f"s{n}-1"))
            for name in names
        ]
        (winner,) = race(*by_subject)
        assert [each.customer_id for each in rows(customers, f"s{number}-1")] == [winner.id]
        others = [customers.create(NS, wanted(f"{number}-{end}")) for end in ("x", "y")]
        by_update = [
            lambda who=other, n=number: customers.replace(
                NS, who.id, lambda _: wanted(who.key, f"u{n}")
            )
            for other in others
        ]
        assert len(race(*by_update)) == 1
        (row,) = rows(customers, f"u{number}")
        assert row.begins_at is None
