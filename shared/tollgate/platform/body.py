"""Request bodies, bounded while they arrive and while they are unpacked."""

import zlib
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from tollgate.core.errors import Fault, InvalidInput, TooLarge, Unsupported

# A member costs its setup and a copy of what is left of its piece, however small it is.
_GZIP_MEMBERS_MAX = 1000
_GZIP_PIECE_BYTES = 64 << 10

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class ClientGone(Exception):
    """The client closed the connection before its request was complete."""


def header(scope: Scope, name: bytes) -> bytes | None:
    """The first header of a name (lower case)."""
    headers: Iterable[tuple[bytes, bytes]] = scope["headers"]
    for key, value in headers:
        if key == name:
            return value
    return None


async def read_body(scope: Scope, receive: Receive, bytes_max: int) -> bytes:
    """The body, unpacked.

    Raises:
        TooLarge: packed or unpacked it passes `bytes_max`; at most that much was held.
        Unsupported: an encoding other than gzip.
        InvalidInput: the gzip stream is broken or cut off.
        ClientGone: the rest never came.
    """
    length = header(scope, b"content-length")
    if length is not None and length.isdigit() and int(length) > bytes_max:
        raise _too_large(bytes_max)
    message = await receive()
    body: bytes = message.get("body", b"")
    if message.get("more_body"):
        chunks, total = [body], len(body)
        while message.get("more_body"):
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            chunk = message.get("body", b"")
            total += len(chunk)
            if total > bytes_max:
                raise _too_large(bytes_max)
            chunks.append(chunk)
        body = b"".join(chunks)
    elif message["type"] == "http.disconnect":
        raise ClientGone
    if len(body) > bytes_max:
        raise _too_large(bytes_max)
    encoding = header(scope, b"content-encoding")
    if encoding is None or encoding.strip().lower() in (b"", b"identity"):
        return body
    if encoding.strip().lower() not in (b"gzip", b"x-gzip"):
        raise Unsupported(
            f"Content-Encoding {encoding.decode('latin-1')!r} is not supported; use gzip or none"
        )
    return _gunzip(body, bytes_max)


def _gunzip(packed: bytes, bytes_max: int) -> bytes:
    parts: list[bytes] = []
    at, left = 0, bytes_max + 1
    try:
        for _ in range(_GZIP_MEMBERS_MAX):
            stream = zlib.decompressobj(wbits=31)
            while not stream.eof:
                piece = packed[at : at + _GZIP_PIECE_BYTES]
                if not piece:
                    raise zlib.error("the stream is cut off")  # noqa: TRY301 -- one kind of fault
                parts.append(stream.decompress(piece, left))
                left -= len(parts[-1])
                if left <= 0:
                    raise _too_large(bytes_max)
                at += len(piece) - len(stream.unused_data)
            if at == len(packed):
                return b"".join(parts)
        raise zlib.error(f"it has more than {_GZIP_MEMBERS_MAX} members")  # noqa: TRY301
    except zlib.error as problem:
        raise InvalidInput(
            (Fault(field="", code="invalid_gzip", message=f"the body is not gzip: {problem}"),)
        ) from None


def _too_large(bytes_max: int) -> TooLarge:
    return TooLarge(
        f"the body is larger than {bytes_max} bytes; send less per request "
        "(TOLLGATE_BODY_BYTES_MAX bounds bodies of events)"
    )
