"""Which keys may have been seen, and on which days: Bloom filters over 64 bits of a key's hash.

They never miss a key that was added; they may name one that was not, so every hit is checked in
ClickHouse. Two rows of filters answer together. The first holds all keys in few large filters: most
new keys are turned away there. The second holds the keys of each append day by itself: a hit is
looked up in the table partitions of the days that it may stand in, not in all of them.

A filter is blocked: one 64-bit word per key, up to `_BITS` bits in it, and 64 / `_KEYS_PER_WORD`
bits of memory for each key (Putze, Sanders, Singler: "Cache-, Hash- and Space-Efficient Bloom
Filters", 2007). Full, it names some 2 in 1000 keys that it never saw; the rows draw different bits,
so that one is seldom wrong where the other is.

A key's number is the second half of its hash, big endian: what ClickHouse sorts UUIDs by. Its upper
half chooses the word, in order, so keys that come sorted from the engine fill a filter from front
to back. The partition is chosen by the lower half (`identity.partition_of`), so within a partition
the words are chosen evenly.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]
Hashes = npt.NDArray[np.uint64]
"""Shape (n, 2): both halves of 16-byte key hashes, little endian."""
Numbers = npt.NDArray[np.uint64]
"""Shape (n,): numbers of keys."""

DAY_US: Final = 86_400 * 1_000_000
# A filter made for keys that are known to come may be twice as large as one that may stay empty.
_CAPACITY_MAX: Final = 1 << 24
_GROWN_MAX: Final = 1 << 23
_CAPACITY_FIRST: Final = 1 << 18
_DAY_CAPACITY_FIRST: Final = 1 << 16
_GROWTH: Final = 4
_DAY_GROWTH: Final = 2
_KEYS_PER_WORD: Final = 3
_BITS: Final = 6
_PATTERN_BITS: Final = 12
_PATTERN_MASK: Final = np.uint64((1 << _PATTERN_BITS) - 1)
# Keys taken at a time: what they touch stays in the processor's second cache between two looks.
_SLICE: Final = 8192
_HALF: Final = np.uint64(32)
# 2^64 divided by the golden ratio (Knuth, The Art of Computer Programming 3, 6.4): the upper bits
# of a product with it depend on all bits of the number. Each row of filters draws from other bits.
_GOLDEN: Final = np.uint64(0x9E37_79B9_7F4A_7C15)
_DRAW_OF_ALL: Final = np.uint64(52)
_DRAW_OF_DAYS: Final = np.uint64(40)


def _make_patterns() -> Words:
    """Words of at most `_BITS` bits each; reading a table is faster than setting bit by bit."""
    # SplitMix64 (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators", 2014).
    mixed = np.arange(1, (1 << _PATTERN_BITS) + 1, dtype=np.uint64) * _GOLDEN
    for shift, factor in ((30, 0xBF58_476D_1CE4_E5B9), (27, 0x94D0_49BB_1331_11EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    patterns = np.zeros(len(mixed), np.uint64)
    for number in range(_BITS):
        patterns |= np.uint64(1) << ((mixed >> np.uint64(6 * number)) & np.uint64(63))
    return patterns


_PATTERNS: Final = _make_patterns()


def numbers_of(hashes: Hashes) -> Numbers:
    """The number of each key."""
    return hashes[:, 1].byteswap()


def _draw(numbers: Numbers, shift: np.uint64) -> Words:
    drawn = numbers * _GOLDEN
    drawn >>= shift
    drawn &= _PATTERN_MASK
    # Every index is in range: "clip" only leaves out the check.
    return _PATTERNS.take(drawn.view(np.int64), mode="clip")


class Filter:
    """One filter of a fixed capacity. Keys come as upper halves of their numbers, and patterns."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.count = 0
        self._words = np.zeros(max(64, -(-capacity // _KEYS_PER_WORD)), np.uint64)

    def add(self, upper: Words, patterns: Words) -> None:
        """Adds keys; the caller keeps to the capacity."""
        self.count += len(upper)
        words, places = self._words, self._places(upper)
        while len(places):
            joined = words.take(places, mode="clip")
            joined |= patterns
            words[places] = joined
            # Of several keys for one word only the last was written: the others come again. Every
            # turn writes at least one of them and takes no bit away, so this ends.
            joined = words.take(places, mode="clip")
            joined &= patterns
            lost = np.flatnonzero(joined != patterns)
            places, patterns = places[lost], patterns[lost]

    def holds(self, upper: Words, patterns: Words) -> npt.NDArray[np.bool_]:
        """For each key whether it may have been added."""
        words = self._words.take(self._places(upper), mode="clip")
        words &= patterns
        found: npt.NDArray[np.bool_] = words == patterns
        return found

    def shrink(self) -> None:
        """Gives back memory that its keys do not need: neighbouring words become one.

        Words are chosen in the order of numbers, so that half as many words are those that a filter
        of half the size would hold.
        """
        while self.count * 2 <= self.capacity and len(self._words) % 2 == 0:
            self._words = np.bitwise_or(self._words[::2], self._words[1::2])
            self.capacity //= 2

    def _places(self, upper: Words) -> npt.NDArray[np.int64]:
        """Multiply and shift (Lemire: "Fast Random Integer Generation in an Interval", 2019)."""
        places = upper * np.uint64(len(self._words))
        places >>= _HALF
        return places.view(np.int64)

    @property
    def size_bytes(self) -> int:
        """Memory of the words."""
        return int(self._words.nbytes)


class _Chain:
    """Filters that are filled one after another, each larger than the one before."""

    def __init__(self, first: int, growth: int, expected: int) -> None:
        self._first = first
        self._growth = growth
        self._expected = expected
        self.filters: list[Filter] = []
        self.newest_us: list[int] = []
        """Of each filter: latest append time of a key in it."""

    def add(self, upper: Words, patterns: Words, appended_us: int) -> None:
        while len(upper):
            if not self.filters or self.filters[-1].count >= self.filters[-1].capacity:
                self.filters.append(Filter(self._next_capacity()))
                self.newest_us.append(appended_us)
            last = self.filters[-1]
            room = last.capacity - last.count
            self.newest_us[-1] = max(self.newest_us[-1], appended_us)
            last.add(upper[:room], patterns[:room])
            self._expected -= min(room, len(upper))
            upper, patterns = upper[room:], patterns[room:]

    def _next_capacity(self) -> int:
        grown = self.filters[-1].capacity * self._growth if self.filters else self._first
        return max(min(grown, _GROWN_MAX), min(self._expected, _CAPACITY_MAX))

    def holds(self, upper: Words, patterns: Words) -> npt.NDArray[np.bool_]:
        found = np.zeros(len(upper), np.bool_)
        for each in self.filters:
            found |= each.holds(upper, patterns)
        return found

    def forget_before(self, appended_us: int) -> None:
        kept = [n for n, newest_us in enumerate(self.newest_us) if newest_us >= appended_us]
        self.filters = [self.filters[n] for n in kept]
        self.newest_us = [self.newest_us[n] for n in kept]


class SeenKeys:
    """The filters of one partition. A day is the number of days since 1970, UTC."""

    def __init__(self, expected: Mapping[int, int] | None = None) -> None:
        """Starts empty.

        Args:
            expected: by day, keys that are about to be added: filters are made large enough at
                once, so that a lookup asks few of them. More or fewer may come.
        """
        self._expected = dict(expected or {})
        self._all = _Chain(_CAPACITY_FIRST, _GROWTH, sum(self._expected.values()))
        self._days: dict[int, _Chain] = {}
        self._latest = -1

    def add(self, hashes: Hashes, appended_us: int) -> None:
        """Adds keys that were all appended on the day of `appended_us`, none of them later."""
        self.add_numbers(numbers_of(hashes), appended_us)

    def add_numbers(self, numbers: Numbers, appended_us: int) -> None:
        """The same by the keys' numbers; fastest in order."""
        if not len(numbers):
            return
        chain = self._chain_of(appended_us // DAY_US)
        for start in range(0, len(numbers), _SLICE):
            part = numbers[start : start + _SLICE]
            upper = part >> _HALF
            self._all.add(upper, _draw(part, _DRAW_OF_ALL), appended_us)
            chain.add(upper, _draw(part, _DRAW_OF_DAYS), appended_us)

    def _chain_of(self, day: int) -> _Chain:
        if day not in self._days:
            before = self._days.get(self._latest)
            if before is not None and before.filters and day > self._latest:
                before.filters[-1].shrink()
            self._days[day] = _Chain(_DAY_CAPACITY_FIRST, _DAY_GROWTH, self._expected.pop(day, 0))
            self._latest = max(self._latest, day)
        return self._days[day]

    def days_of(self, hashes: Hashes) -> dict[int, npt.NDArray[np.int64]]:
        """Which keys may have been added, by the day that they were appended on.

        Returns:
            by day, indices into `hashes` in order; a key may be named under several days, wrongly
            under all of them. Days without any are left out.
        """
        numbers = numbers_of(hashes)
        found = np.zeros(len(numbers), np.bool_)
        for start in range(0, len(numbers), _SLICE):
            part = numbers[start : start + _SLICE]
            found[start : start + _SLICE] = self._all.holds(
                part >> _HALF, _draw(part, _DRAW_OF_ALL)
            )
        events = np.flatnonzero(found)
        if not len(events):
            return {}
        upper, patterns = numbers[events] >> _HALF, _draw(numbers[events], _DRAW_OF_DAYS)
        days = {}
        for day, chain in self._days.items():
            named = events[chain.holds(upper, patterns)]
            if len(named):
                days[day] = named
        return days

    def contains(self, hashes: Hashes) -> npt.NDArray[np.bool_]:
        """For each key whether it may have been added on any day."""
        found = np.zeros(len(hashes), np.bool_)
        for events in self.days_of(hashes).values():
            found[events] = True
        return found

    def forget_before(self, appended_us: int) -> None:
        """Drops the days that ended before a time, and what holds no other keys."""
        self._all.forget_before(appended_us)
        for day in [day for day in self._days if (day + 1) * DAY_US <= appended_us]:
            del self._days[day]

    @property
    def count(self) -> int:
        """Keys held."""
        return sum(each.count for chain in self._chains() for each in chain.filters)

    @property
    def size_bytes(self) -> int:
        """Memory of all filters."""
        chains = (self._all, *self._chains())
        return sum(each.size_bytes for chain in chains for each in chain.filters)

    def _chains(self) -> list[_Chain]:
        # A copy: metrics are read by other threads.
        return list(self._days.values())
