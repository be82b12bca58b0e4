"""Which keys may have been seen: blocked Bloom filters over key hashes.

A filter never misses a key that was added; it may name one that was not (about 1 in 100), so every
hit is checked in ClickHouse. One 64-bit word per key, five bits in it (Putze, Sanders, Singler:
"Cache-, Hash- and Space-Efficient Bloom Filters", 2007), some 21 bits per key. Filters are kept by
week of append time, so that a week beyond the dedupe window is dropped whole.
"""

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
"""Shape (n, 2): both halves of 16-byte key hashes, little endian."""

WEEK_US = 7 * 86_400 * 1_000_000
_FIRST_CAPACITY = 1 << 18
_LARGEST_CAPACITY = 1 << 26
_ONE = np.uint64(1)
_SIX_BITS = np.uint64(63)


class Filter:
    """One filter of a fixed capacity."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.count = 0
        words = 1 << max(10, (capacity // 3).bit_length())
        self._words = np.zeros(words, dtype=np.uint64)
        self._mask = np.uint64(words - 1)

    def add(self, hashes: Hashes) -> None:
        """Adds keys; the caller keeps to the capacity."""
        np.bitwise_or.at(self._words, hashes[:, 0] & self._mask, _bits(hashes[:, 1]))
        self.count += len(hashes)

    def contains(self, hashes: Hashes) -> npt.NDArray[np.bool_]:
        """For each key whether it may have been added."""
        bits = _bits(hashes[:, 1])
        found: npt.NDArray[np.bool_] = (self._words[hashes[:, 0] & self._mask] & bits) == bits
        return found

    @property
    def size_bytes(self) -> int:
        """Memory of the words."""
        return int(self._words.nbytes)


def _bits(half: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    bits = np.zeros(len(half), dtype=np.uint64)
    for shift in (0, 6, 12, 18, 24):
        bits |= _ONE << ((half >> np.uint64(shift)) & _SIX_BITS)
    return bits


class SeenKeys:
    """The filters of one partition."""

    def __init__(self) -> None:
        self._weeks: dict[int, list[Filter]] = {}

    def add(self, hashes: Hashes, appended_us: int) -> None:
        """Adds keys that were appended at about one time (the same week)."""
        chain = self._weeks.setdefault(appended_us // WEEK_US, [])
        while len(hashes):
            if not chain or chain[-1].count >= chain[-1].capacity:
                capacity = chain[-1].capacity * 2 if chain else _FIRST_CAPACITY
                chain.append(Filter(min(capacity, _LARGEST_CAPACITY)))
            room = chain[-1].capacity - chain[-1].count
            chain[-1].add(hashes[:room])
            hashes = hashes[room:]

    def contains(self, hashes: Hashes) -> npt.NDArray[np.bool_]:
        """For each key whether any filter names it."""
        found = np.zeros(len(hashes), dtype=np.bool_)
        for chain in self._weeks.values():
            for each in chain:
                found |= each.contains(hashes)
        return found

    def forget_before(self, appended_us: int) -> None:
        """Drops the weeks that ended before a time."""
        for week in [w for w in self._weeks if (w + 1) * WEEK_US <= appended_us]:
            del self._weeks[week]

    @property
    def count(self) -> int:
        """Keys held."""
        return sum(each.count for chain in self._weeks.values() for each in chain)

    @property
    def size_bytes(self) -> int:
        """Memory of all filters."""
        return sum(each.size_bytes for chain in self._weeks.values() for each in chain)
