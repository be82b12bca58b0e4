"""The filters of seen keys: none is ever missed, few are named wrongly, memory has a bound."""

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tollgate.events.dedupe import DAY_US, Filter, SeenKeys, numbers_of
from tollgate.events.identity import key_hash, key_prefix, partition_of

Hashes = npt.NDArray[np.uint64]
DAY = 20_760
NOON_US = DAY * DAY_US + DAY_US // 2


def hashes_of(seed: int, count: int) -> Hashes:
    generator = np.random.default_rng(seed)
    return generator.integers(0, 1 << 64, size=(count, 2), dtype=np.uint64)


def seen_of(hashes: Hashes, days: int, expected: dict[int, int] | None = None) -> SeenKeys:
    """Filters with the keys, as many on each day."""
    seen = SeenKeys(expected)
    for number, part in enumerate(np.array_split(hashes, days)):
        seen.add(part, NOON_US + number * DAY_US)
    return seen


def test_the_number_of_a_key_is_the_second_half_of_its_text() -> None:
    hashed = bytes(range(16))
    hashes = np.frombuffer(hashed, np.uint64).reshape(-1, 2)
    assert numbers_of(hashes).tolist() == [0x08090A0B0C0D0E0F]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1 << 32),
    cuts=st.lists(st.integers(0, 30_000), max_size=8),
    expected=st.dictionaries(st.integers(DAY, DAY + 8), st.integers(0, 100_000), max_size=8),
    again=st.booleans(),
)
def test_no_key_is_missed_however_they_are_cut(
    seed: int, cuts: list[int], expected: dict[int, int], again: bool
) -> None:
    hashes = hashes_of(seed, 30_000)
    seen = SeenKeys(expected)
    edges = [0, *sorted(cuts), len(hashes)]
    for number, (start, end) in enumerate(pairwise(edges)):
        for _ in range(1 + again):
            seen.add(hashes[start:end], NOON_US + number * DAY_US)
    assert seen.count == len(hashes) * (1 + again)
    assert seen.contains(hashes).all()
    days = seen.days_of(hashes)
    for number, (start, end) in enumerate(pairwise(edges)):
        assert set(range(start, end)) <= set(days.get(DAY + number, ()))


def test_keys_of_one_word_are_all_kept() -> None:
    # One word of every filter is hit by all: only the lowest bits differ.
    hashes = np.column_stack((np.zeros(500, np.uint64), np.arange(500, dtype=np.uint64)))
    hashes[:, 1] = hashes[:, 1].byteswap()
    assert seen_of(hashes, 1).contains(hashes).all()


def test_a_chain_that_grew_misses_no_key() -> None:
    hashes = hashes_of(7, 1_500_000)  # more than the first filters of both rows hold
    seen = SeenKeys()
    for start in range(0, len(hashes), 70_000):
        seen.add(hashes[start : start + 70_000], NOON_US)
    assert seen.contains(hashes).all()


@pytest.mark.parametrize("expected", [{}, {DAY + n: 100_000 for n in range(10)}])
def test_few_keys_are_named_that_were_never_added(expected: dict[int, int]) -> None:
    seen = seen_of(hashes_of(1, 1_000_000), 10, expected)
    named = seen.days_of(hashes_of(2, 400_000))
    assert sum(map(len, named.values())) < 400_000 // 1000


def test_keys_of_one_partition_are_told_apart_as_well_as_any() -> None:
    # All numbers of a partition share the bits that chose it.
    prefix = key_prefix("default")
    texts = (key_hash(prefix, "s", str(number)) for number in range(1_200_000))
    joined = b"".join(text for text in texts if partition_of(text, 8) == 3)
    hashes = np.frombuffer(joined, np.uint64).reshape(-1, 2)
    half = len(hashes) // 2
    seen = seen_of(hashes[:half], 5)
    assert seen.contains(hashes[:half]).all()
    assert np.count_nonzero(seen.contains(hashes[half:])) < half // 1000


def test_a_full_filter_names_few() -> None:
    seen = SeenKeys({DAY: 300_000})
    seen.add(hashes_of(1, 300_000), NOON_US)
    # 64 / 3 bits a key in two rows of one filter each.
    assert seen.size_bytes < 300_000 * 2 * 3
    assert np.count_nonzero(seen.contains(hashes_of(2, 200_000))) < 20


@settings(max_examples=30, deadline=None)
@given(capacity=st.integers(1, 60_000), share=st.integers(0, 100))
def test_a_filter_that_shrinks_keeps_its_keys(capacity: int, share: int) -> None:
    generator = np.random.default_rng(capacity)
    count = capacity * share // 100
    upper = generator.integers(0, 1 << 32, count, dtype=np.uint64)
    patterns = np.left_shift(np.uint64(1), generator.integers(0, 64, count, dtype=np.uint64))
    shrunk = Filter(capacity)
    before = shrunk.size_bytes
    shrunk.add(upper, patterns)
    shrunk.shrink()
    assert shrunk.holds(upper, patterns).all()
    assert shrunk.count <= shrunk.capacity <= capacity
    assert shrunk.size_bytes <= before


def test_a_day_that_is_over_gives_back_what_it_did_not_need() -> None:
    seen = SeenKeys({DAY: 1_600_000})
    hashes = hashes_of(3, 100_000)
    seen.add(hashes, NOON_US)
    before = seen.size_bytes
    seen.add(hashes_of(4, 1), NOON_US + DAY_US)
    assert seen.size_bytes < before
    assert seen.contains(hashes).all()


def test_memory_stays_in_proportion_to_keys_that_come_day_by_day() -> None:
    seen = SeenKeys()
    for day in range(12):
        for part in range(4):
            seen.add(hashes_of(day * 4 + part, 75_000), NOON_US + day * DAY_US)
    # 64 / 3 bits a key and row; growing filters are never more than half empty but for the last.
    assert seen.size_bytes < seen.count * 2 * 2 * 64 // 24 + (1 << 20)


def test_a_day_is_forgotten_once_it_is_over() -> None:
    seen, first, second = SeenKeys(), hashes_of(1, 100), hashes_of(2, 100)
    seen.add(first, NOON_US)
    seen.add(second, NOON_US + DAY_US)
    midnight = (DAY + 1) * DAY_US
    seen.forget_before(midnight - 1)
    assert seen.contains(first).all()
    seen.forget_before(midnight)
    assert not seen.contains(first).any()
    assert seen.contains(second).all()
    seen.forget_before(midnight + 10 * DAY_US)
    assert (seen.count, seen.size_bytes) == (0, 0)
    assert not seen.contains(second).any()


def test_nothing_seen_names_nothing() -> None:
    seen = SeenKeys()
    seen.add(hashes_of(1, 0), NOON_US)
    assert seen.days_of(hashes_of(2, 10)) == {}
    assert not seen.contains(hashes_of(2, 0)).any()
    assert seen.count == 0
