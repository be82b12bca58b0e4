"""Keeps a service running: started again whenever it ends, until told to stop."""

import logging
import os
import select
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from tollgate.core.errors import PermanentFault

_log = logging.getLogger(__name__)
_PAUSE_SECONDS = 0.1
_PAUSE_SECONDS_MAX = 10
# Who lived so long did not end because of how it was started.
_SOUND_SECONDS = 20


class Service(Protocol):
    """A process of the world."""

    log: Path

    @property
    def pid(self) -> int:
        """Process id while it runs."""
        ...

    @property
    def url(self) -> str:
        """Where it answers."""
        ...

    def start(self) -> object:
        """Returns when it runs; no effect if it does."""
        ...

    def stop(self) -> None:
        """Ends it in good order."""
        ...

    def kill(self) -> None:
        """Ends it with kill -9, or takes note that it has ended."""
        ...


class Keeper:
    """One service and the thread that watches over it."""

    def __init__(self, name: str, service: Service, changed: Callable[[], None]) -> None:
        """Nothing is started.

        Args:
            name: for the log.
            service: what is kept.
            changed: called whenever it has started or ended, from any thread.
        """
        self.name = name
        self.service = service
        self._changed = changed
        self._pid: int | None = None
        self._stopping = threading.Event()
        self._wake_out, self._wake_in = os.pipe()
        self._thread: threading.Thread | None = None

    @property
    def pid(self) -> int | None:
        """Process id; None while it does not run."""
        return self._pid

    def start(self) -> None:
        """Starts it for the first time, then watches it.

        Raises:
            PermanentFault: it did not come up.
        """
        self._start_service()
        self._thread = threading.Thread(target=self._watch, name=f"keep-{self.name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends it for good, in good order."""
        self._stopping.set()
        os.write(self._wake_in, b"\0")
        # Also what is being started right now: its start then fails, and the thread ends.
        self.service.stop()
        if self._thread is not None:
            self._thread.join()
            self.service.stop()
        self._pid = None

    def _start_service(self) -> None:
        self.service.start()
        if self._stopping.is_set():
            # Told to end before there was a process that could be told.
            self.service.stop()
            raise PermanentFault("told to end")
        self._pid = self.service.pid
        self._changed()

    def _watch(self) -> None:
        pause = _PAUSE_SECONDS
        while True:
            began = time.monotonic()
            if not self._wait_for_end():
                return
            if time.monotonic() - began > _SOUND_SECONDS:
                pause = _PAUSE_SECONDS
            self.service.kill()
            self._pid = None
            self._changed()
            _log.warning("ended, is started again", extra={"service": self.name})
            while not self._stopping.wait(pause):
                pause = min(2 * pause, _PAUSE_SECONDS_MAX)
                try:
                    self._start_service()
                except Exception as problem:  # noqa: BLE001 -- if the thread ended, it stayed away
                    if not self._stopping.is_set():
                        why = str(problem) or repr(problem)
                        _log.warning("did not start", extra={"service": self.name, "why": why})
                else:
                    _log.info("runs again", extra={"service": self.name, "pid": self._pid})
                    break

    def _wait_for_end(self) -> bool:
        """Whether it has ended by itself; False: it is to be stopped."""
        if self._pid is None or self._stopping.is_set():
            return False
        # Readable once the process has ended, before anybody has taken note of it.
        try:
            process = os.pidfd_open(self._pid)
        except ProcessLookupError:
            return not self._stopping.is_set()
        try:
            select.select([process, self._wake_out], [], [])
        finally:
            os.close(process)
        return not self._stopping.is_set()
