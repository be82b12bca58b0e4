"""TCP ports for servers that are started again and again."""

import contextlib
import random
import socket

HOST = "127.0.0.1"
# Below the ports that the system gives to clients: one that looks for a server that is away could
# otherwise be given the server's own port.
_PORTS = range(20000, 32000)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, all different."""
    found: list[int] = []
    while len(found) < count:
        port = random.choice(_PORTS)  # noqa: S311 -- no secret
        if port not in found and is_free(HOST, port):
            found.append(port)
    return found


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there."""
    with socket.socket() as probe, contextlib.suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        return True
    return False
