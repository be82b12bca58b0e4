"""Who may do what: access keys, checked in constant time, in memory.

A key reads `tg_<id>_<secret>`; only the SHA-256 of the secret is kept. It carries one namespace and
scopes. Without any key configured, everyone who reaches the host (loopback only) is the operator of
the namespace `default`.
"""

import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from hashlib import sha256

from tollgate.core.clock import Clock
from tollgate.core.errors import Forbidden, Unauthorized

DEFAULT_NAMESPACE = "default"
NAMESPACE_LENGTH_MAX = 64
# Narrow: a namespace goes into file names, labels of metrics and log lines.
_NAMESPACE = re.compile(r"[a-z0-9]+(?:[_-][a-z0-9]+)*", re.ASCII)
NAMESPACE_RULE = (
    "must have lower-case letters and digits, with single hyphens and underscores between, at most "
    f"{NAMESPACE_LENGTH_MAX} characters"
)


class Scope(StrEnum):
    """What a key may do. Admin includes ingest and read; operator all, in any namespace."""

    INGEST = "ingest"
    READ = "read"
    ADMIN = "admin"
    OPERATOR = "operator"


_INCLUDED = {
    Scope.INGEST: frozenset((Scope.INGEST,)),
    Scope.READ: frozenset((Scope.READ,)),
    Scope.ADMIN: frozenset((Scope.INGEST, Scope.READ, Scope.ADMIN)),
    Scope.OPERATOR: frozenset(Scope),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What a request may do.

    Attributes:
        namespace: the only one that the request sees.
        scopes: all that are granted, inclusions resolved.
        key_id: of the key; "" without keys.
    """

    namespace: str
    scopes: frozenset[Scope]
    key_id: str

    def require(self, scope: Scope) -> None:
        """Raises Forbidden unless the scope is granted."""
        if scope not in self.scopes:
            raise Forbidden(f"this key lacks the scope `{scope}`")


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveKey:
    """A key as the index keeps it. `expires_at`: good before this instant; None: for ever."""

    id: str
    namespace: str
    scopes: frozenset[Scope]
    secret_hash: bytes
    expires_at: datetime | None = None


OPEN = Access(namespace=DEFAULT_NAMESPACE, scopes=frozenset(Scope), key_id="")
_UNKNOWN = ActiveKey(id="", namespace="", scopes=frozenset(), secret_hash=b"\0" * 32)


def is_namespace(text: str) -> bool:
    """Whether `NAMESPACE_RULE` holds for a name."""
    return len(text) <= NAMESPACE_LENGTH_MAX and _NAMESPACE.fullmatch(text) is not None


def hash_secret(secret: str) -> bytes:
    """SHA-256. The secret has 256 random bits, so a slow password hash would add nothing."""
    return sha256(secret.encode("utf-8", "surrogateescape")).digest()


class KeyIndex:
    """The keys in force. Replaced as a whole, so that a lookup needs no lock."""

    def __init__(self) -> None:
        self._keys: dict[str, tuple[ActiveKey, Access]] = {}
        self._open = False

    def replace(self, keys: Iterable[ActiveKey], *, open_to_all: bool) -> None:
        """From now on these keys count, and no other.

        Args:
            keys: all that are in force.
            open_to_all: no key was ever made, so requests without one are the operator's.
        """
        self._keys = {
            key.id: (
                key,
                Access(
                    namespace=key.namespace,
                    scopes=frozenset().union(*(_INCLUDED[s] for s in key.scopes)),
                    key_id=key.id,
                ),
            )
            for key in keys
        }
        self._open = open_to_all and not self._keys

    @property
    def open_to_all(self) -> bool:
        """Whether requests need no key."""
        return self._open

    def check(self, authorization: bytes | None, clock: Clock) -> Access:
        """What the bearer of a header may do.

        Args:
            authorization: value of the `Authorization` header.
            clock: for expiry.

        Raises:
            Unauthorized: no key, or one that is unknown, wrong, expired or revoked; it is not said
                which.
        """
        if self._open:
            return OPEN
        if authorization is None:
            raise Unauthorized("send an access key as `Authorization: Bearer tg_...`")
        scheme, _, text = authorization.decode("latin-1").partition(" ")
        prefix, _, rest = text.strip().partition("_")
        identity, _, secret = rest.partition("_")
        known = self._keys.get(identity)
        key = known[0] if known else _UNKNOWN
        # The comparison runs for unknown ids too, so that its time tells nothing.
        right = hmac.compare_digest(hash_secret(secret), key.secret_hash)
        expired = key.expires_at is not None and key.expires_at <= clock.now()
        if known is None or not right or expired or prefix != "tg" or scheme.lower() != "bearer":
            raise Unauthorized("the access key is unknown, expired or revoked")
        return known[1]
