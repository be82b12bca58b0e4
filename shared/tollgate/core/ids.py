"""Identifiers made in one place: ULIDs (https://github.com/ulid/spec)."""

import secrets
import threading
import time

ULID_PATTERN = r"^[0-7][0-9A-HJKMNP-TV-Z]{25}$"
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_RANDOM_BITS = 80


class _Monotonic:
    """Gives ascending ULIDs within a process, also inside one millisecond."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def next(self) -> int:
        with self._lock:
            fresh = (time.time_ns() // 1_000_000) << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS)
            self._last = fresh if fresh > self._last else self._last + 1
            return self._last


_monotonic = _Monotonic()


def new_ulid() -> str:
    """A new ULID: 26 characters, sortable by creation time."""
    value = _monotonic.next()
    return "".join(_ALPHABET[(value >> shift) & 31] for shift in range(125, -1, -5))


def new_number() -> int:
    """A new number of 63 bits that nobody has: seconds of its making, then 31 random bits."""
    return int(time.time()) << 31 | secrets.randbits(31)
