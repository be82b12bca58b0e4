"""Disks that fail as disks do: the edge to what is not ours."""

import os
import threading
from collections.abc import Sequence
from pathlib import Path

from tollgate.platform.disk import Disk


class PowerLoss(Exception):
    """Nothing more happens on this machine."""


class FaultyDisk(Disk):
    """A disk that refuses or dies when told.

    Attributes:
        refusal: raised by the next write.
        open: writes wait while it is not set.
        keeps: how many bytes of that write reach the disk all the same.
    """

    def __init__(self) -> None:
        super().__init__()
        self.refusal: Exception | None = None
        self.keeps = 0
        self.open = threading.Event()
        self.open.set()

    def write(self, descriptor: int, buffers: Sequence[bytes], position: int) -> None:
        """As `Disk.write`."""
        self.open.wait(20)
        if self.refusal is not None:
            refusal, self.refusal = self.refusal, None
            os.pwrite(descriptor, b"".join(buffers)[: self.keeps], position)
            raise refusal
        super().write(descriptor, buffers, position)


class StepDisk(Disk):
    """A disk that loses power before its n-th step: a write, a fill or a replaced file."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.left = steps

    def _step(self) -> None:
        if not self.left:
            raise PowerLoss
        self.left -= 1

    def write(self, descriptor: int, buffers: Sequence[bytes], position: int) -> None:
        """As `Disk.write`."""
        self._step()
        super().write(descriptor, buffers, position)

    def replace(self, path: Path, content: bytes) -> None:
        """As `Disk.replace`."""
        self._step()
        super().replace(path, content)
