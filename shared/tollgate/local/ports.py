"""TCP ports for servers that are started again and again."""

import contextlib
import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path

HOST = "127.0.0.1"
# Below the ports that the system gives to clients: one that looks for a server that is away could
# otherwise be given the server's own port.
_PORTS = range(20000, 32000)


_CLAIMS = Path(tempfile.gettempdir()) / f"tollgate-ports-{os.getuid()}"
_claimed: list[int] = []


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, all different.

    Another process that asks meanwhile is given others, as long as this one lives: a port is taken
    a while before somebody listens on it.
    """
    found: list[int] = []
    while len(found) < count:
        port = random.choice(_PORTS)  # noqa: S311 -- no secret
        if port not in found and _claim(port) and is_free(HOST, port):
            found.append(port)
    return found


def _claim(port: int) -> bool:
    """Whether the port is this process's; where nothing can be written, whether it may be."""
    try:
        _CLAIMS.mkdir(mode=0o700, exist_ok=True)
        claim = os.open(_CLAIMS / str(port), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:
        return True
    try:
        fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(claim)
        return False
    _claimed.append(claim)  # held until the process ends
    return True


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there."""
    with socket.socket() as probe, contextlib.suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        return True
    return False
