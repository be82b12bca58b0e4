"""Access keys in SQL: made, listed, revoked. What a request may do is decided in `access`.

A key reads `tg_<id>_<secret>`: the id finds the row, the secret (256 random bits) proves it. Only
the secret's SHA-256 is kept. A slow hash is for what people choose and others can guess; nobody
guesses 256 random bits, and a fast hash keeps the check cheap.
"""

import hashlib
import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime

import sqlalchemy as sa

from tollgate.core.clock import Clock
from tollgate.core.errors import Fault, InvalidInput, NotFound
from tollgate.core.ids import new_ulid
from tollgate.platform.sql import Database, Instant, Json, Text, metadata

SCOPES = ("ingest", "read", "admin")
NAME_LENGTH_MAX = 256
NAMESPACE_LENGTH_MAX = 64
_SECRET_BYTES = 32
_KEY = re.compile(r"(tg_([0-7][0-9A-HJKMNP-TV-Z]{25}))_([A-Za-z0-9_-]{43})", re.ASCII)
# What may stand in a namespace is narrow: it goes into file names, labels of metrics and log lines.
_NAMESPACE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?", re.ASCII)
_UNSTORABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")

access_keys = sa.Table(
    "access_keys",
    metadata,
    sa.Column("id", Text, primary_key=True),
    sa.Column("namespace", Text, nullable=False, index=True),
    sa.Column("name", Text, nullable=False),
    sa.Column("scopes", Json, nullable=False),
    sa.Column("secret_hash", sa.LargeBinary, nullable=False),
    sa.Column("prefix", Text, nullable=False),
    sa.Column("last_four", Text, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("expires_at", Instant),
    sa.Column("revoked_at", Instant),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessKey:
    """What is kept of a key.

    Attributes:
        prefix: the key's text up to its secret, `tg_<id>`; safe to show.
        last_four: the last four characters of the secret, for a person who compares two keys. They
            tell 24 of its 256 bits.
        expires_at: the key is good before this instant; None: for ever.
    """

    id: str
    namespace: str
    name: str
    scopes: frozenset[str]
    secret_hash: bytes = field(repr=False)
    prefix: str
    last_four: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None

    def is_active(self, now: datetime) -> bool:
        """Whether the key is neither revoked nor expired at `now`."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessKeyInput:
    """What a person asks for; checked by `AccessKeyStore.create`."""

    namespace: str
    scopes: Collection[str]
    name: str = ""
    expires_at: datetime | None = None


class AccessKeyStore:
    """The access keys of every namespace."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def create(self, wanted: AccessKeyInput) -> tuple[AccessKey, str]:
        """Makes a key.

        Returns:
            what is kept, and the text of the whole key: this is the only time that anybody sees it.

        Raises:
            InvalidInput: bad scopes, namespace or name, or an expiry in the past.
        """
        now = self._clock.now()
        _check(wanted, now)
        secret = secrets.token_urlsafe(_SECRET_BYTES)
        key_id = new_ulid()
        key = AccessKey(
            id=key_id,
            namespace=wanted.namespace,
            name=wanted.name,
            scopes=frozenset(wanted.scopes),
            secret_hash=hash_secret(secret),
            prefix=f"tg_{key_id}",
            last_four=secret[-4:],
            created_at=now,
            expires_at=wanted.expires_at,
            revoked_at=None,
        )
        with self._database.begin() as connection:
            connection.execute(access_keys.insert().values(_row_from_key(key)))
        return key, f"{key.prefix}_{secret}"

    def list(self, namespace: str | None = None) -> tuple[AccessKey, ...]:
        """Every key, revoked and expired ones too, oldest first.

        Args:
            namespace: whose keys; None for those of every namespace.
        """
        query = sa.select(access_keys).order_by(access_keys.c.id)
        if namespace is not None:
            query = query.where(access_keys.c.namespace == namespace)
        with self._database.connect() as connection:
            return tuple(_key_from_row(row) for row in connection.execute(query).mappings())

    def active(self) -> tuple[AccessKey, ...]:
        """The keys of every namespace that are neither revoked nor expired now, oldest first.

        One that expires later is still in the list: who keeps it asks `AccessKey.is_active`.
        """
        now = self._clock.now()
        c = access_keys.c
        unexpired = sa.or_(c.expires_at.is_(None), c.expires_at > now)
        query = sa.select(access_keys).where(c.revoked_at.is_(None), unexpired).order_by(c.id)
        with self._database.connect() as connection:
            return tuple(_key_from_row(row) for row in connection.execute(query).mappings())

    def revoke(self, key_id: str, namespace: str | None = None) -> AccessKey:
        """Ends a key for good. Again: no effect, the first time stays.

        Args:
            key_id: the key's id.
            namespace: only a key of this namespace is found; None: of any.

        Raises:
            NotFound: no such key.
        """
        c = access_keys.c
        named = c.id == key_id
        if namespace is not None:
            named = sa.and_(named, c.namespace == namespace)
        revoke = access_keys.update().where(named, c.revoked_at.is_(None))
        with self._database.begin() as connection:
            connection.execute(revoke.values(revoked_at=self._clock.now()))
            found = connection.execute(sa.select(access_keys).where(named))
            row = found.mappings().one_or_none()
        if row is None:
            raise NotFound(f"there is no access key {key_id}")
        return _key_from_row(row)


def split_key(text: str) -> tuple[str, str] | None:
    """The id and the secret of a key's text; None if the text is no key."""
    match = _KEY.fullmatch(text)
    return None if match is None else (match[2], match[3])


def hash_secret(secret: str) -> bytes:
    """SHA-256 of a key's secret: 32 bytes, to be compared in constant time."""
    return hashlib.sha256(secret.encode()).digest()


def _check(wanted: AccessKeyInput, now: datetime) -> None:
    faults = []
    unknown = sorted(set(wanted.scopes) - set(SCOPES))
    if unknown or not wanted.scopes:
        message = f"must be one or more of {', '.join(SCOPES)}"
        faults.append(Fault(field="scopes", code="invalid_scope", message=message))
    if not _NAMESPACE.fullmatch(wanted.namespace) or len(wanted.namespace) > NAMESPACE_LENGTH_MAX:
        message = (
            "must start and end with a letter or digit and have letters, digits, dots, hyphens and "
            f"underscores between, at most {NAMESPACE_LENGTH_MAX} characters"
        )
        faults.append(Fault(field="namespace", code="invalid_namespace", message=message))
    if len(wanted.name) > NAME_LENGTH_MAX or _UNSTORABLE.search(wanted.name):
        message = f"must have at most {NAME_LENGTH_MAX} characters and no control characters"
        faults.append(Fault(field="name", code="invalid_name", message=message))
    if wanted.expires_at is not None and wanted.expires_at <= now:
        faults.append(Fault(field="expiresAt", code="in_the_past", message="must be in the future"))
    if faults:
        raise InvalidInput(tuple(faults))


def _row_from_key(key: AccessKey) -> dict[str, object]:
    return {
        "id": key.id,
        "namespace": key.namespace,
        "name": key.name,
        "scopes": sorted(key.scopes),
        "secret_hash": key.secret_hash,
        "prefix": key.prefix,
        "last_four": key.last_four,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
    }


def _key_from_row(row: sa.RowMapping) -> AccessKey:
    return AccessKey(**{**row, "scopes": frozenset(row["scopes"])})
