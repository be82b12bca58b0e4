"""One HTTP/1.1 connection on a blocking socket: heads, bodies as they come in, answers.

Python's own `http.server` reads a head with the mail parser and a body through a buffered file.
Here a body goes from the socket to its reader in large pieces.
"""

import http.client
import socket
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

from backports import zstd
from lz4.frame import LZ4FrameDecompressor  # type: ignore[import-untyped]

_HEAD_BYTES_MAX = 1 << 20
_PIECE_BYTES = 1 << 20
_CHUNK_LINE_BYTES_MAX = 1 << 10
_JOINED_BYTES_MAX = 64 << 10


class BrokenRequest(Exception):
    """The request can't be answered as HTTP demands; the connection ends after the answer."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Request line and header fields.

    Attributes:
        method: as sent.
        path: of the URL, without its query.
        arguments: of the URL's query; a name given twice has its last value.
        fields: header fields by lower-case name.
    """

    method: str
    path: str
    arguments: Mapping[str, str]
    fields: Mapping[str, str]

    @property
    def keep_alive(self) -> bool:
        """Whether the client may send another request on this connection."""
        return self.fields.get("connection", "").lower() != "close"

    @property
    def content_type(self) -> str:
        """Media type of the body, with its parameters."""
        return self.fields.get("content-type", "")


class Wire:
    """Reads requests and writes answers, one after the other. Belongs to one thread."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = bytearray()

    def read_head(self) -> Head | None:
        """The next request's head; None when the client has closed.

        Raises:
            BrokenRequest: it is no HTTP/1.1 head, or too long.
        """
        searched = 0
        while (end := self._buffer.find(b"\r\n\r\n", searched)) < 0:
            if len(self._buffer) > _HEAD_BYTES_MAX:
                raise BrokenRequest(431, "the request's head is too long")
            searched = max(0, len(self._buffer) - 3)
            piece = self._connection.recv(65536)
            if not piece:
                return None
            self._buffer += piece
        text = self._buffer[:end].decode("latin-1")
        del self._buffer[: end + 4]
        return _head(text)

    def read_body(self, head: Head) -> Iterator[bytes]:
        """The body in pieces as they arrive, decoded from its transfer and content encodings.

        Raises:
            BrokenRequest: it ends early or can't be decoded.
        """
        if head.fields.get("expect", "").lower() == "100-continue":
            self._connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if "chunked" in head.fields.get("transfer-encoding", "").lower():
            pieces = self._chunks()
        else:
            pieces = self._exactly(_size(head.fields.get("content-length", "0"), 10))
        encoding = head.fields.get("content-encoding", "")
        return _decoded(pieces, encoding) if encoding not in ("", "identity") else pieces

    def send(self, status: int, fields: Mapping[str, str], body: bytes) -> None:
        """A whole answer."""
        top = _top(status, {**fields, "Content-Length": str(len(body))})
        if len(body) < _JOINED_BYTES_MAX:
            self._connection.sendall(top + body)
            return
        self._connection.sendall(top)
        self._connection.sendall(body)

    def send_chunks(self, fields: Mapping[str, str], body: Iterator[bytes]) -> None:
        """An answer of 200 whose length nobody knows yet."""
        self._connection.sendall(_top(200, {**fields, "Transfer-Encoding": "chunked"}))
        for piece in body:
            if piece:
                self._connection.sendall(b"%x\r\n" % len(piece))
                self._connection.sendall(piece)
                self._connection.sendall(b"\r\n")
        self._connection.sendall(b"0\r\n\r\n")

    def _piece(self, most: int) -> bytes:
        """Between 1 and `most` bytes."""
        if self._buffer:
            piece = bytes(self._buffer[:most])
            del self._buffer[:most]
            return piece
        piece = self._connection.recv(min(most, _PIECE_BYTES))
        if not piece:
            raise BrokenRequest(400, "the request's body ends early")
        return piece

    def _exactly(self, left: int) -> Iterator[bytes]:
        while left:
            piece = self._piece(left)
            left -= len(piece)
            yield piece

    def _chunks(self) -> Iterator[bytes]:
        while size := _size(self._line().partition(b";")[0].decode("latin-1"), 16):
            yield from self._exactly(size)
            if self._line():
                raise BrokenRequest(400, "a chunk of the body is longer than it says")
        while self._line():
            # Trailers mean nothing here.
            pass

    def _line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            if len(self._buffer) > _CHUNK_LINE_BYTES_MAX:
                raise BrokenRequest(400, "a chunk of the body does not start with its size")
            self._buffer += self._piece(65536) if not self._buffer else self._more()
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    def _more(self) -> bytes:
        piece = self._connection.recv(65536)
        if not piece:
            raise BrokenRequest(400, "the request's body ends early")
        return piece


def _head(text: str) -> Head:
    first, *lines = text.split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise BrokenRequest(400, "this is not an HTTP/1.1 request")
    path, _, query = words[1].partition("?")
    fields = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise BrokenRequest(400, "a header field has no name")
        fields[name.lower()] = value.strip()
    arguments = dict(parse_qsl(query, keep_blank_values=True, errors="surrogateescape"))
    return Head(method=words[0], path=path, arguments=arguments, fields=fields)


def _size(text: str, base: int) -> int:
    try:
        size = int(text.strip(), base)
    except ValueError:
        size = -1
    if size < 0:
        raise BrokenRequest(400, "the size of the body is not a number")
    return size


def _top(status: int, fields: Mapping[str, str]) -> bytes:
    reason = http.client.responses.get(status, "")
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{k}: {v}" for k, v in fields.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1", "replace")


def _decoded(pieces: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    """Bounded pieces whatever the ratio of compression."""
    decoder = _DECODERS.get(encoding.lower())
    if decoder is None:
        raise BrokenRequest(415, f"the content encoding {encoding!r} is not known here")
    return decoder(pieces)


def _inflated(pieces: Iterator[bytes]) -> Iterator[bytes]:
    # 32 + 15: gzip or zlib, by the stream's own head.
    stream = zlib.decompressobj(wbits=47)
    try:
        for piece in pieces:
            yield stream.decompress(piece, _PIECE_BYTES)
            while stream.unconsumed_tail:
                yield stream.decompress(stream.unconsumed_tail, _PIECE_BYTES)
    except zlib.error as problem:
        raise BrokenRequest(400, f"the body can't be decompressed: {problem}") from problem
    if not stream.eof:
        raise BrokenRequest(400, "the compressed body ends early")


def _from_frames(pieces: Iterator[bytes], new: Callable[[], Any]) -> Iterator[bytes]:
    """One frame or several after each other: a client may send one per block."""
    stream = new()
    try:
        for piece in pieces:
            waiting = piece
            while waiting or not (stream.needs_input or stream.eof):
                if stream.eof:
                    stream = new()
                yield stream.decompress(waiting, _PIECE_BYTES)
                waiting = (stream.unused_data or b"") if stream.eof else b""
    except (RuntimeError, EOFError, zstd.ZstdError) as problem:
        raise BrokenRequest(400, f"the body can't be decompressed: {problem}") from problem
    if not stream.eof:
        raise BrokenRequest(400, "the compressed body ends early")


_DECODERS: Mapping[str, Callable[[Iterator[bytes]], Iterator[bytes]]] = {
    "gzip": _inflated,
    "deflate": _inflated,
    "lz4": partial(_from_frames, new=LZ4FrameDecompressor),
    "zstd": partial(_from_frames, new=zstd.ZstdDecompressor),
}
