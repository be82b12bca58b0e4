"""Request bodies, bounded while they arrive and while they are unpacked."""

import zlib
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from tollgate.core.errors import Fault, InvalidInput, TooLarge, Unsupported

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
    if encoding is None or encoding == b"identity":
        return body
    if encoding.strip().lower() not in (b"gzip", b"x-gzip"):
        raise Unsupported(
            f"Content-Encoding {encoding.decode('latin-1')!r} is not supported; use gzip or none"
        )
    return _gunzip(body, bytes_max)


def _gunzip(packed: bytes, bytes_max: int) -> bytes:
    parts: list[bytes] = []
    left = bytes_max + 1
    try:
        while packed:
            stream = zlib.decompressobj(wbits=31)
            part = stream.decompress(packed, left)
            left -= len(part)
            if left <= 0:
                break
            if not stream.eof:
                raise zlib.error("the stream is cut off")  # noqa: TRY301 -- one kind of fault
            parts.append(part)
            packed = stream.unused_data
    except zlib.error as problem:
        raise InvalidInput(
            (Fault(field="", code="invalid_gzip", message=f"the body is not gzip: {problem}"),)
        ) from None
    if left <= 0:
        raise _too_large(bytes_max)
    return b"".join(parts)


def _too_large(bytes_max: int) -> TooLarge:
    return TooLarge(
        f"the body is larger than {bytes_max} bytes; send fewer events per request, "
        "or raise TOLLGATE_BODY_BYTES_MAX"
    )
