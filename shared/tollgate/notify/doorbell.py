"""Tells the workers of this process that something is due: nobody waits for a schedule."""

import threading

from tollgate.platform.parts import Parts


class Line:
    """On which one worker hears the doorbell."""

    def __init__(self) -> None:
        self._rung = threading.Event()

    def ring(self) -> None:
        """Something is due."""
        self._rung.set()

    def wait(self, milliseconds: int) -> bool:
        """Waits for a ring, and forgets it; tells whether there was one."""
        heard = self._rung.wait(milliseconds / 1000)
        self._rung.clear()
        return heard


class Doorbell:
    """Rung by whoever made something due; heard by every worker of the same process, if any."""

    def __init__(self) -> None:
        self._lines: list[Line] = []

    def line(self) -> Line:
        """Another line; each hears every ring from here on."""
        self._lines.append(Line())
        return self._lines[-1]

    def ring(self) -> None:
        """Something is due."""
        for line in self._lines:
            line.ring()


def open_doorbell(parts: Parts) -> Doorbell:
    """The one of the process."""
    del parts
    return Doorbell()
