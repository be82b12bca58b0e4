"""Heads of requests that need not be parsed again: a client sends the same bytes over and over.

The parser begins each message of a connection in the same state, so the same bytes mean the same.
A head is learned only from a message that the parser found to be whole, and to end where it ended.
"""

from dataclasses import dataclass

from tollgate.platform.direct import Direct, Headers, Taker

_HEAD_BYTES_MAX = 2048
_HEADS_MAX = 1024
END_OF_HEAD = b"\r\n\r\n"
# What gives a message another end or the connection another state.
_UNUSUAL = frozenset(
    (b"connection", b"expect", b"transfer-encoding", b"upgrade", b"http2-settings", b"trailer")
)


@dataclass(frozen=True, slots=True)
class Known:
    """What a head means.

    Attributes:
        path: of the request.
        service: that gave the taker.
        take: takes the body.
        length: of the body.
    """

    path: str
    service: Direct
    take: Taker
    length: int


class KnownHeads:
    """The heads that one host has learned, a bounded number of short ones."""

    def __init__(self) -> None:
        self._known: dict[bytes, Known] = {}

    def find(self, message: bytes) -> tuple[Known, bytes] | None:
        """What a message means, and its body, if its head is known and its body is whole."""
        end = message.find(END_OF_HEAD, 0, _HEAD_BYTES_MAX) + len(END_OF_HEAD)
        known = self._known.get(message[:end])
        if known is None or known.length != len(message) - end:
            return None
        return known, message[end:]

    def learn(self, message: bytes, headers: Headers, known: Known) -> None:
        """Keeps the head of a message if nothing about it is unusual.

        Args:
            message: what one read brought to an idle connection. The parser found in it a POST of
                HTTP/1.1 that keeps the connection, with a body of `known.length` bytes.
            headers: that the parser found, names in lower case.
            known: what it means.
        """
        end = len(message) - known.length
        if end > _HEAD_BYTES_MAX or message.find(END_OF_HEAD) != end - len(END_OF_HEAD):
            return  # more than one message, or a body that began elsewhere
        if message.count(b"\n", 0, end) != message.count(b"\r\n", 0, end):
            return
        names = [name for name, _ in headers]
        if names.count(b"content-length") != 1 or not _UNUSUAL.isdisjoint(names):
            return
        if len(self._known) >= _HEADS_MAX:
            self._known.clear()
        self._known[message[:end]] = known
