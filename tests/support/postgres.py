"""A PostgreSQL that hangs: its processes are stopped, and the kernel goes on taking connections."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tollgate.local.postgres import Postgres, _children_of


@contextmanager
def frozen(server: Postgres) -> Iterator[None]:
    os.kill(server.pid, signal.SIGSTOP)  # it begins no more processes
    stopped = [*_children_of(server.pid), server.pid]
    try:
        for pid in stopped:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in stopped:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
