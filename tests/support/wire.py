"""HTTP as bytes on a socket: for requests that no client library would send."""

import socket
from collections.abc import Iterable
from dataclasses import dataclass

from tests.support.server import Server

HOST = b"host: tollgate\r\n"
CLOSE = b"connection: close\r\n"
JSON = b"content-type: application/json\r\n"
EVENT = b'{"id":"wire","source":"wire","type":"wire","subject":"wire"}'
POST = b"POST /api/v1/events HTTP/1.1\r\n" + HOST


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer: status, headers by lower-case name, body."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes


def get(target: bytes, *headers: bytes) -> bytes:
    """A GET request."""
    return b"GET " + target + b" HTTP/1.1\r\n" + HOST + b"".join(headers) + b"\r\n"


def post(body: bytes, *headers: bytes, target: bytes = b"/api/v1/events") -> bytes:
    """A POST request with its content length; JSON unless a header says otherwise."""
    kind = b"" if any(b"content-type" in each for each in headers) else JSON
    head = b"POST " + target + b" HTTP/1.1\r\n" + HOST + kind + b"".join(headers)
    return head + b"content-length: %d\r\n\r\n" % len(body) + body


def talk(
    server: Server, request: bytes | Iterable[bytes], *, finish: bool = False, seconds: int = 15
) -> list[Answer]:
    """Sends bytes and reads answers until the server closes.

    Args:
        server: whom to talk to.
        request: what to send, in one piece or several.
        finish: whether to end the sending side after it, as a client that dies does.
        seconds: how long silence may last; a longer one is a hang and fails the test.
    """
    received = bytearray()
    with socket.create_connection(("127.0.0.1", server.port), timeout=seconds) as connection:
        try:
            for piece in [request] if isinstance(request, bytes) else request:
                connection.sendall(piece)
            if finish:
                connection.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass  # a server may refuse before it has read all
        try:
            while piece := connection.recv(1 << 16):
                received += piece
        except ConnectionResetError:
            pass
    return parse(bytes(received))


def parse(received: bytes) -> list[Answer]:
    """Takes a stream of answers apart; each must be whole."""
    answers = []
    while received:
        head, mark, rest = received.partition(b"\r\n\r\n")
        assert mark, f"a head without end: {head[:200]!r}"
        status, *lines = head.split(b"\r\n")
        pairs = (line.partition(b":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        length = int(headers.get(b"content-length", b"0"))
        assert len(rest) >= length, f"a body cut off: {received[:200]!r}"
        version, _, code = status.partition(b" ")
        assert version.startswith(b"HTTP/1."), status
        answers.append(Answer(status=int(code[:3]), headers=headers, body=rest[:length]))
        received = rest[length:]
    return answers
