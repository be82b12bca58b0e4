"""Lists of meters: order, pages and filters."""

import pytest

from tests.support.control_plane import NS, meter_input, renamed
from tollgate.metering.store import MeterListing, MeterOrder, MeterStore
from tollgate.platform import filters as f


def listed(meters: MeterStore, listing: MeterListing) -> list[str]:
    return [meter.slug for meter in meters.list(NS, listing)]


@pytest.fixture
def four_meters(meters: MeterStore) -> MeterStore:
    meters.create(NS, meter_input("b", name="Beta 100%", aggregation="SUM"))
    meters.create(NS, meter_input("a_2", name="alpha", aggregation="MIN", eventType="request"))
    meters.create(NS, meter_input("c", name="Alpha_x", aggregation="AVG"))
    meters.create(NS, meter_input("a", name="gamma\\", aggregation="MIN"))
    meters.update(NS, "b", lambda stored: renamed(stored.name + "!"))
    return meters


@pytest.mark.parametrize(
    ("order_by", "descending", "expected"),
    [
        (MeterOrder.SLUG, False, ["a", "a_2", "b", "c"]),
        (MeterOrder.SLUG, True, ["c", "b", "a_2", "a"]),
        (MeterOrder.NAME, False, ["c", "b", "a_2", "a"]),  # by code point: capitals first
        (MeterOrder.AGGREGATION, False, ["c", "a_2", "a", "b"]),  # ties by id
        (MeterOrder.AGGREGATION, True, ["b", "a", "a_2", "c"]),
        (MeterOrder.CREATED_AT, False, ["b", "a_2", "c", "a"]),
        (MeterOrder.UPDATED_AT, False, ["a_2", "c", "a", "b"]),
    ],
)
def test_order(
    four_meters: MeterStore, order_by: MeterOrder, descending: bool, expected: list[str]
) -> None:
    whole = MeterListing(order_by=order_by, descending=descending)
    assert listed(four_meters, whole) == expected
    pages = [
        listed(
            four_meters,
            MeterListing(order_by=order_by, descending=descending, page=page, page_size=3),
        )
        for page in (1, 2, 3)
    ]
    assert pages == [expected[:3], expected[3:], []]


def test_a_page_beyond_all_numbers_is_empty(four_meters: MeterStore) -> None:
    assert listed(four_meters, MeterListing(page=10**30, page_size=1000)) == []


SLUG, NAME = MeterOrder.SLUG, MeterOrder.NAME


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ([(SLUG, f.Comparison(operator=f.Operator.EQUAL, value="a"))], "a"),
        ([(SLUG, f.Comparison(operator=f.Operator.NOT_EQUAL, value="a"))], "b a_2 c"),
        ([(SLUG, f.Comparison(operator=f.Operator.GREATER, value="a"))], "b a_2 c"),
        ([(SLUG, f.Comparison(operator=f.Operator.LESS_OR_EQUAL, value="a_2"))], "a_2 a"),
        ([(NAME, f.Comparison(operator=f.Operator.LESS, value="a"))], "b c"),
        ([(SLUG, f.Membership(values=("a", "c", "'"), negated=False))], "c a"),
        ([(SLUG, f.Membership(values=("a", "c"), negated=True))], "b a_2"),
        ([(SLUG, f.Membership(values=(), negated=False))], ""),
        ([(NAME, f.contains("ALPHA"))], "a_2 c"),
        ([(NAME, f.contains("ALPHA", negated=True))], "b a"),
        ([(NAME, f.contains("%"))], "b"),
        ([(NAME, f.contains("_"))], "c"),
        ([(NAME, f.contains("\\"))], "a"),
        ([(NAME, f.Match(pattern="a\\mma%", ignore_case=True, negated=False))], ""),
        ([(NAME, f.Match(pattern="%a\\", ignore_case=True, negated=False))], "a"),
        ([(NAME, f.Presence(present=True))], "b a_2 c a"),
        ([(NAME, f.Presence(present=False))], ""),
        ([(SLUG, f.And(filters=()))], "b a_2 c a"),
        ([(SLUG, f.Or(filters=()))], ""),
        ([(SLUG, f.Or(filters=(f.contains("b"), f.contains("c"))))], "b c"),
        ([(SLUG, f.And(filters=(f.contains("a"), f.contains("2"))))], "a_2"),
        ([(SLUG, f.contains("a")), (NAME, f.contains("gamma"))], "a"),
    ],
)
def test_filters(
    four_meters: MeterStore, filters: list[tuple[MeterOrder, f.Filter]], expected: str
) -> None:
    listing = MeterListing(filters=tuple(filters))
    assert listed(four_meters, listing) == expected.split()
    assert four_meters.count(NS, listing) == len(expected.split())


def test_meters_are_found_by_slugs_and_event_types(four_meters: MeterStore) -> None:
    four_meters.delete(NS, "c")
    assert sorted(four_meters.find(NS, ["a", "c", "none"])) == ["a"]
    assert [m.slug for m in four_meters.live_of_event_types(NS, ["prompt", "x"])] == ["a", "b"]
    assert four_meters.live_of_event_types(NS, []) == ()
    assert [m.slug for m in four_meters.live(NS)] == ["a", "a_2", "b"]
