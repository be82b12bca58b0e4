"""Signatures of the Standard Webhooks specification, version 1.0, symmetric (`v1`).

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md: the
base64 of HMAC-SHA256 over `id.timestamp.body`, by the bytes that a secret's base64 stands for.
While a secret rotates, there is one signature by each, with a space between.
"""

import binascii
import hashlib
import hmac
import re
from base64 import b64decode, b64encode
from collections.abc import Sequence

PREFIX = "whsec_"
FORM = r"^(whsec_)?[a-zA-Z0-9+/=]{32,100}$"
"""The contract's; 32 characters are 24 bytes."""
SECRET_BYTES = 32
"""Of a secret that we make; the specification allows 24 to 64."""

_SECRET = re.compile(r"(whsec_)?[a-zA-Z0-9+/=]{32,100}", re.ASCII)


def secret_from_bytes(random: bytes) -> str:
    """The text of a secret."""
    return PREFIX + b64encode(random).decode()


def secret_fault(text: str) -> str:
    """What is wrong with a secret; "" if nothing is."""
    if not _SECRET.fullmatch(text):
        return "must be 32 to 100 characters of base64, with or without whsec_ before them"
    try:
        _key(text)
    except binascii.Error:
        return "must be base64 whose length is a multiple of 4, padded by ="
    return ""


def signatures(secrets: Sequence[str], webhook_id: str, timestamp: int, body: bytes) -> str:
    """The header `webhook-signature`.

    Args:
        secrets: in force, the newest first; each passes `secret_fault`.
        webhook_id: the header `webhook-id`.
        timestamp: the header `webhook-timestamp`, seconds since 1970.
        body: as it is sent.
    """
    content = f"{webhook_id}.{timestamp}.".encode() + body
    made = (hmac.new(_key(secret), content, hashlib.sha256).digest() for secret in secrets)
    return " ".join(f"v1,{b64encode(each).decode()}" for each in made)


def _key(secret: str) -> bytes:
    return b64decode(secret.removeprefix(PREFIX), validate=True)
