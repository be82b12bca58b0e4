"""Who may do what: access keys, checked in constant time, in memory.

A key reads `tg_<id>_<secret>`; only the SHA-256 of the secret is kept. It carries one namespace and
scopes. As long as no key was ever made, a host that serves loopback only may let everyone who
reaches it be the operator of the namespace `default`.
"""

import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from hashlib import sha256

from tollgate.core.clock import Clock
from tollgate.core.errors import Forbidden, Transient, Unauthorized

DEFAULT_NAMESPACE = "default"
NAMESPACE_LENGTH_MAX = 64
# Narrow: a namespace goes into file names, labels of metrics and log lines.
_NAMESPACE = re.compile(r"[a-z0-9]+(?:[_-][a-z0-9]+)*", re.ASCII)
_KEY = re.compile(r"tg_([^_]+)_(.+)", re.DOTALL)
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
_UNKNOWN_KEYS = "it is not known yet which access keys are in force: the control plane is away"
_FIRST_KEY = (
    "no access key was ever made, and this server may be reached from other machines: name keys in "
    "TOLLGATE_KEYS_FILE, or make the first one on loopback (start with TOLLGATE_HOST=127.0.0.1, "
    "then `tollgate keys create --scope admin`), and send it as `Authorization: Bearer tg_...`"
)
_UNKNOWN = ActiveKey(id="", namespace="", scopes=frozenset(), secret_hash=b"\0" * 32)


def is_namespace(text: str) -> bool:
    """Whether `NAMESPACE_RULE` holds for a name."""
    return len(text) <= NAMESPACE_LENGTH_MAX and _NAMESPACE.fullmatch(text) is not None


def hash_secret(secret: str) -> bytes:
    """SHA-256. The secret has 256 random bits, so a slow password hash would add nothing."""
    return sha256(secret.encode("utf-8", "surrogateescape")).digest()


def split_key(text: str) -> tuple[str, str] | None:
    """The id and the secret of a key's text; None if the text is no key."""
    match = _KEY.fullmatch(text)
    return None if match is None else (match[1], match[2])


class KeyIndex:
    """The keys in force. Replaced as a whole, so that a lookup needs no lock."""

    def __init__(self) -> None:
        self._keys: dict[str, tuple[ActiveKey, Access]] = {}
        self._complete = False
        self._none_ever = False
        self._may_be_open = False
        self._open = False

    def replace(self, keys: Iterable[ActiveKey], *, none_ever: bool, complete: bool = True) -> None:
        """From now on these keys count, and no other.

        Args:
            keys: all that are in force.
            none_ever: no key was ever made.
            complete: False: there may be others, so who has none of these is asked to come again.
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
        self._complete = complete
        self._none_ever = none_ever and complete and not self._keys
        self._open = self._none_ever and self._may_be_open

    def allow_open(self) -> None:
        """Requests need no key while none was ever made. Only who serves loopback may call this."""
        self._may_be_open = True
        self._open = self._none_ever

    @property
    def none_ever(self) -> bool:
        """Whether it is known that no key was ever made."""
        return self._none_ever

    @property
    def open_to_all(self) -> bool:
        """Whether requests need no key."""
        return self._open

    def unreadiness(self) -> str:
        """Why keys can't be checked; "" when they can."""
        return "" if self._complete else _UNKNOWN_KEYS

    def check(self, authorization: bytes | None, clock: Clock) -> Access:
        """What the bearer of a header may do.

        Args:
            authorization: value of the `Authorization` header.
            clock: for expiry.

        Raises:
            Unauthorized: no key, or one that is unknown, wrong, expired or revoked; it is not said
                which.
            Transient: it is not known yet which keys are in force.
        """
        if self._open:
            return OPEN
        if self._none_ever:
            raise Unauthorized(_FIRST_KEY)
        if authorization is None:
            if not self._complete:
                raise Transient(_UNKNOWN_KEYS)
            raise Unauthorized("send an access key as `Authorization: Bearer tg_...`")
        scheme, _, text = authorization.decode("latin-1").partition(" ")
        identity, secret = split_key(text.strip()) or ("", "")
        known = self._keys.get(identity)
        key = known[0] if known else _UNKNOWN
        # The comparison runs for unknown ids too, so that its time tells nothing.
        right = hmac.compare_digest(hash_secret(secret), key.secret_hash)
        expired = key.expires_at is not None and key.expires_at <= clock.now()
        if known is None or not right or expired or scheme.lower() != "bearer":
            if known is None and not self._complete:
                raise Transient(_UNKNOWN_KEYS)
            raise Unauthorized("the access key is unknown, expired or revoked")
        return known[1]
