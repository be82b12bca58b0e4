"""What is known of a server that does not answer, so that not every caller waits for it.

One that refuses at once is asked again by everybody: that costs nothing. One that hangs is asked by
one caller at a time, and the others are told at once.
"""

import threading
from time import monotonic

from tollgate.core.errors import Transient

_PAUSE_SECONDS = 1
_JUST_NOW_SECONDS = 0.5
_TURN_SECONDS = 4


class Outage:
    """Of one server. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._silent_at: float | None = None  # tidy: allow-float -- seconds
        self._again_at: float | None = None  # tidy: allow-float -- seconds

    def enter(self) -> None:
        """Lets a caller ask.

        Raises:
            Transient: the server did not answer a moment ago, or somebody is asking right now.
        """
        with self._lock:
            now = monotonic()
            if self._again_at is None:
                return
            if now < self._again_at:
                raise Transient("the control-plane database does not answer")
            # Whoever asks now tells the others by its outcome.
            self._again_at = now + _TURN_SECONDS

    def silent(self) -> None:
        """The server did not answer in time."""
        with self._lock:
            self._silent_at = monotonic()
            self._again_at = self._silent_at + _PAUSE_SECONDS

    def answered(self) -> None:
        """The server is there."""
        with self._lock:
            self._again_at = None

    @property
    def was_silent_just_now(self) -> bool:
        """Whether another try can't be worth its wait."""
        silent_at = self._silent_at
        return silent_at is not None and monotonic() - silent_at < _JUST_NOW_SECONDS
