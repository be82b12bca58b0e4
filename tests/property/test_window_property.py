"""What holds for windows of every size in every zone at every instant."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.zone_table import offset_changes
from tollgate.core.times import EARLIEST_US, LATEST_US
from tollgate.metering.window import Change, Windows, WindowSize, Zone, zone, zone_names

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
DAY_SECONDS = 86_400

zones = st.sampled_from(sorted(zone_names())).map(zone)
sizes = st.sampled_from(WindowSize)


@st.composite
def zone_and_instant(draw: st.DrawFn) -> tuple[Zone, datetime]:
    """A zone and an instant in it: anywhere, or close to a change of its clock."""
    asked = draw(zones)
    year = draw(st.integers(1900, 2298))
    low = (datetime(year, 1, 1, tzinfo=UTC) - EPOCH) // MICROSECOND
    high = (datetime(year + 1, 1, 1, tzinfo=UTC) - EPOCH) // MICROSECOND
    instant = draw(st.integers(low, high))
    changes = asked.changes(low, high)
    near_change = draw(st.booleans())
    if changes and near_change:
        around = draw(st.sampled_from(changes)).at
        instant = around + draw(
            st.sampled_from([-1, 0, 1]) | st.integers(-2 * DAY_SECONDS, 2 * DAY_SECONDS)
        ) * draw(st.sampled_from([1, 1_000_000]))
    instant = min(max(instant, EARLIEST_US), LATEST_US)
    return asked, EPOCH + instant * MICROSECOND


def local(windows: Windows, instant: datetime) -> datetime:
    return instant.astimezone(windows.zone.rules)


def label(windows: Windows, instant: datetime) -> object:
    """What is constant within an hour or minute: the offset and the local time, cut."""
    there = local(windows, instant)
    kept = there.replace(second=0, microsecond=0)
    if windows.size is WindowSize.HOUR:
        kept = kept.replace(minute=0)
    return there.utcoffset(), kept.replace(tzinfo=None)


def calendar(windows: Windows, instant: datetime) -> tuple[int, ...]:
    there = local(windows, instant)
    date = (there.year, there.month, there.day)
    return date[:2] if windows.size is WindowSize.MONTH else date


@given(zone_and_instant(), sizes)
def test_windows_tile_the_time_line(where: tuple[Zone, datetime], size: WindowSize) -> None:
    asked, instant = where
    windows = Windows(size=size, zone=asked)
    start, end = windows.start_of(instant), windows.end_of(instant)
    assert start <= instant < end
    assert windows.start_of(start) == start
    assert windows.end_of(start) == end
    assert windows.start_of(end - MICROSECOND) == start
    assert windows.start_of(end) == end
    assert windows.end_of(start - MICROSECOND) == start
    assert windows.bounds((start - EPOCH) // MICROSECOND) == (start, end)


@given(zone_and_instant(), st.sampled_from([WindowSize.MINUTE, WindowSize.HOUR]), st.data())
def test_an_hour_is_the_longest_stretch_of_one_local_hour_and_offset(
    where: tuple[Zone, datetime], size: WindowSize, data: st.DataObject
) -> None:
    asked, instant = where
    windows = Windows(size=size, zone=asked)
    start, end = windows.start_of(instant), windows.end_of(instant)
    inside = data.draw(st.datetimes(naive(start), naive(end - MICROSECOND), timezones=st.just(UTC)))
    same = label(windows, start)
    assert label(windows, inside) == label(windows, end - MICROSECOND) == same
    assert label(windows, start - MICROSECOND) != same
    assert label(windows, end) != same


@given(zone_and_instant(), st.sampled_from([WindowSize.DAY, WindowSize.MONTH]), st.data())
def test_a_day_begins_when_its_date_is_first_reached(
    where: tuple[Zone, datetime], size: WindowSize, data: st.DataObject
) -> None:
    asked, instant = where
    windows = Windows(size=size, zone=asked)
    start, end = windows.start_of(instant), windows.end_of(instant)
    reached = calendar(windows, start)
    earlier = data.draw(
        st.datetimes(
            naive(start - timedelta(days=40)), naive(start - MICROSECOND), timezones=st.just(UTC)
        )
    )
    inside = data.draw(st.datetimes(naive(start), naive(end - MICROSECOND), timezones=st.just(UTC)))
    assert calendar(windows, earlier) < reached
    assert calendar(windows, start - MICROSECOND) < reached
    assert calendar(windows, inside) <= reached
    assert calendar(windows, end) > reached


@given(zone_and_instant(), sizes, st.integers(0, 400), st.integers(1, 400))
@settings(max_examples=60)
def test_bounds_do_not_depend_on_the_asked_period(
    where: tuple[Zone, datetime], size: WindowSize, before: int, after: int
) -> None:
    asked, instant = where
    hours = timedelta(hours=1)
    windows = Windows(
        size=size, zone=asked, low=instant - before * hours, high=instant + after * hours
    )
    free = Windows(size=size, zone=asked)
    assert windows.start_of(instant) == free.start_of(instant)
    assert windows.end_of(instant) == free.end_of(instant)


@given(zone_and_instant(), sizes, st.integers(0, 300_000))
@settings(max_examples=60)
def test_tile_covers_the_period_without_a_gap(
    where: tuple[Zone, datetime], size: WindowSize, seconds: int
) -> None:
    asked, low = where
    span = timedelta(seconds=seconds // 60 if size is WindowSize.MINUTE else seconds)
    high = low + max(span, MICROSECOND)
    found = list(Windows(size=size, zone=asked, low=low, high=high).tile())
    assert found[0][0] <= low < found[0][1]
    assert found[-1][0] < high <= found[-1][1]
    assert all(one[1] == following[0] for one, following in pairwise(found))


def test_every_change_that_the_table_lists_is_found() -> None:
    low = -70 * 365 * DAY_SECONDS
    for name in sorted(zone_names())[::12]:
        listed = [
            Change(instant * 1_000_000, after * 1_000_000)
            for instant, _, after in offset_changes(name)
            if instant > low
        ]
        # From the last listed change on a rule repeats each year.
        last = max([low * 1_000_000, *(change.at for change in listed)])
        assert zone(name).changes(low * 1_000_000, last) == listed, name


def test_no_zone_undoes_a_change_within_a_day() -> None:
    """What probing once a day relies on."""
    for name in zone_names():
        for one, following in pairwise(offset_changes(name)):
            if one[1] == following[2]:
                assert following[0] - one[0] > DAY_SECONDS, name


def naive(instant: datetime) -> datetime:
    return instant.replace(tzinfo=None)
