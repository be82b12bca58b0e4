"""Latency histogram of bounded size: buckets grow with the value, as in HdrHistogram."""

from typing import Final

_EXACT: Final = 128
_HALF_BITS: Final = 6
_MICROSECONDS_MAX: Final = (1 << 33) - 1
_BUCKETS: Final = ((_MICROSECONDS_MAX.bit_length() - 7) << _HALF_BITS) + _EXACT


def _bucket_of(microseconds: int) -> int:
    if microseconds < _EXACT:
        return microseconds
    shift = microseconds.bit_length() - 7
    return (shift << _HALF_BITS) + (microseconds >> shift)


def _highest_in(bucket: int) -> int:
    if bucket < _EXACT:
        return bucket
    shift = (bucket >> _HALF_BITS) - 1
    mantissa = bucket - (shift << _HALF_BITS)
    return ((mantissa + 1) << shift) - 1


class Histogram:
    """Counts of latencies in microseconds.

    Below 128 microseconds every value has its bucket; above, a bucket is at most 1/64 of its value
    wide, so a percentile is at most 1.6 % too high and never too low. The maximum is exact.
    """

    __slots__ = ("_counts", "maximum", "total")

    def __init__(self) -> None:
        """Start empty."""
        self._counts = [0] * _BUCKETS
        self.total = 0
        self.maximum = 0

    def record(self, microseconds: int) -> None:
        """Count one latency; what lies over two hours is counted as two hours."""
        bounded = min(max(microseconds, 0), _MICROSECONDS_MAX)
        self._counts[_bucket_of(bounded)] += 1
        self.total += 1
        if bounded > self.maximum:
            self.maximum = bounded

    def add(self, other: "Histogram") -> None:
        """Count everything that the other one counted."""
        self._counts = [
            mine + theirs for mine, theirs in zip(self._counts, other._counts, strict=True)
        ]
        self.total += other.total
        self.maximum = max(self.maximum, other.maximum)

    def percentile(self, percent: int) -> int:
        """Return the smallest bucket bound that holds `percent` of all latencies, 0 when empty."""
        wanted = -(-self.total * percent // 100)
        seen = 0
        for bucket, count in enumerate(self._counts):
            seen += count
            if count and seen >= wanted:
                return min(_highest_in(bucket), self.maximum)
        return 0
