"""Copies of functions that run one at a time, from one call out of the process to the next.

Threads take turns: only the one that was given the turn runs, and it gives it back before each call
to a dependency. So the interleaving is chosen from outside, and the same choices give the same run.
"""

import _thread
import asyncio
import threading
from asyncio import events as asyncio_events
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self


class Crash(BaseException):
    """The process of a copy ends here: nothing of ours may catch it."""


WAIT_STEPS = 10
_own = threading.local()


def current_turn() -> "Turn | None":
    """The turn of the calling thread; None in a thread that such a one has started."""
    found: Turn | None = getattr(_own, "turn", None)
    return found


def pause(until: Callable[[], bool] | None = None) -> None:
    """Gives the caller's turn back; see `Turn.pause`. Nothing in a thread without turns."""
    turn = current_turn()
    if turn is not None:
        turn.pause(until)


class Turn:
    """A thread that runs only while it is given the turn."""

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        self.name = name
        self._work = work
        self._go = _thread.allocate_lock()
        self._back = _thread.allocate_lock()
        self._go.acquire()
        self._back.acquire()
        self._until: Callable[[], bool] | None = None
        self._killed = False
        self.ended = False
        self.problem: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        _own.turn = self
        self._go.acquire()
        try:
            if not self._killed:
                self._work()
        except Crash:
            pass
        except BaseException as problem:  # noqa: BLE001 -- told to who gave the turn
            self.problem = problem
        self.ended = True
        self._back.release()

    @property
    def runnable(self) -> bool:
        """Whether a step would do anything."""
        return not self.ended and (self._until is None or self._until())

    def step(self) -> None:
        """Lets the thread run to its next pause."""
        if self.ended:
            return
        self._go.release()
        self._back.acquire()
        if self.problem is not None:
            problem, self.problem = self.problem, None
            raise problem

    def pause(self, until: Callable[[], bool] | None = None) -> None:
        """Gives the turn back, called by the thread itself; `until`: it is not runnable before.

        Raises:
            Crash: the copy was killed meanwhile.
        """
        self._until = until
        if not self._killed:
            self._back.release()
            self._go.acquire()
        self._until = None
        if self._killed:
            raise Crash

    def kill(self) -> None:
        """Ends the thread at the place where it stands."""
        self._killed = True
        while not self.ended:
            self._go.release()
            self._back.acquire()
        self._thread.join()
        self.problem = None


class TurnEvent(threading.Event):
    """An event that takes no time: who waits for it is not runnable for some steps of others."""

    def __init__(self, steps: Callable[[], int]) -> None:
        super().__init__()
        self._steps = steps

    def wait(self, timeout: float | None = None) -> bool:  # tidy: allow-float -- a wait
        due = self._steps() + WAIT_STEPS
        pause(lambda: self._steps() >= due or self.is_set())
        return self.is_set()


class TurnLock:
    """A lock between threads that take turns."""

    def __init__(self) -> None:
        self._held = False

    def __enter__(self) -> Self:
        while self._held:
            pause(lambda: not self._held)
        self._held = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._held = False


class StepLoop(asyncio.BaseEventLoop):
    """An event loop that runs one callback when told: a copy may end between any two of them."""

    def __init__(self) -> None:
        super().__init__()
        self._due: deque[asyncio.Handle] = vars(self)["_ready"]
        self.problems: list[dict[str, Any]] = []

    @property
    def runnable(self) -> bool:
        """Whether a callback is due."""
        return bool(self._due)

    def step(self) -> None:
        """Runs the callback that is due."""
        handle = self._due.popleft()
        if handle.cancelled():
            return
        self.run(handle._run)

    def run(self, work: Callable[[], Any]) -> Any:
        """Calls `work` as a callback of the loop, at once."""
        asyncio_events._set_running_loop(self)
        try:
            return work()
        finally:
            asyncio_events._set_running_loop(None)

    def _write_to_self(self) -> None:
        """Nobody sleeps that would have to be woken."""

    def is_running(self) -> bool:
        return True

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.problems.append(context)

    def end(self) -> None:
        """Nothing of it runs any more."""
        self._due.clear()
        vars(self)["_closed"] = True
