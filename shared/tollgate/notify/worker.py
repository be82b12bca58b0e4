"""A thread that does what is due, and sleeps while nothing is."""

import threading
from collections.abc import Callable
from datetime import datetime, timedelta

from tollgate.core.clock import Clock
from tollgate.core.errors import TollgateError
from tollgate.notify.doorbell import Doorbell

_PAUSE_MS = 60_000
_PAUSE_MS_MIN = 1000
"""Where something is due that another process has the turn of, or SQL refuses."""


class Worker:
    """Works for as long as the process lives; woken by the doorbell, or when something is due."""

    def __init__(
        self,
        name: str,
        work: Callable[[], None],
        next_due: Callable[[], datetime | None],
        bell: Doorbell,
        clock: Clock,
    ) -> None:
        """Takes what to do; nothing is done yet.

        Args:
            name: of the thread.
            work: does all that is due; raises nothing.
            next_due: when something is due next; None: nothing is.
            bell: is rung when something new is due, and at the end.
            clock: the present.
        """
        self._work = work
        self._next_due = next_due
        self._bell = bell
        self._line = bell.line()
        self._clock = clock
        self._stopped = threading.Event()
        self._at_once = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begins with what is due."""
        self._thread.start()

    def stop(self) -> None:
        """Waits until what is at hand has ended."""
        self._stopped.set()
        self._bell.ring()
        self._thread.join()

    def work(self) -> None:
        """Does now what is due, after what the thread has at hand."""
        with self._at_once:
            self._work()

    def pause_ms(self) -> int:
        """How long there is nothing to do, if nobody rings."""
        try:
            due = self._next_due()
        except TollgateError:
            return _PAUSE_MS
        if due is None:
            return _PAUSE_MS
        wait = (due - self._clock.now()) // timedelta(milliseconds=1) + 1
        return min(max(wait, _PAUSE_MS_MIN), _PAUSE_MS)

    def _run(self) -> None:
        while not self._stopped.is_set():
            self.work()
            self._line.wait(self.pause_ms())
