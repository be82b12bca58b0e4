"""Access keys in SQL: made, listed, revoked. What a request may do is decided in `access`.

A key reads `tg_<id>_<secret>`: the id finds the row, the secret (256 random bits) proves it. Only
the secret's SHA-256 is kept. A slow hash is for what people choose and others can guess; nobody
guesses 256 random bits, and a fast hash keeps the check cheap.
"""

import re
import secrets
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime

import sqlalchemy as sa

from tollgate.core.clock import Clock
from tollgate.core.errors import Conflict, Fault, InvalidInput, NotFound
from tollgate.core.ids import new_ulid
from tollgate.platform.access import NAMESPACE_RULE, ActiveKey, Scope, hash_secret, is_namespace
from tollgate.platform.sql import Database, Instant, Json, Text, metadata

NAME_LENGTH_MAX = 256
_SECRET_BYTES = 32
_MANAGING = frozenset((Scope.ADMIN, Scope.OPERATOR))
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

    def create(
        self, wanted: AccessKeyInput, *, first_must_manage: bool = False
    ) -> tuple[AccessKey, str]:
        """Makes a key.

        Args:
            wanted: what it is for.
            first_must_manage: refuse to make the first key of all unless it can make others.

        Returns:
            what is kept, and the text of the whole key: this is the only time that anybody sees it.

        Raises:
            InvalidInput: bad scopes, namespace or name, or an expiry in the past.
            Conflict: it would be the first key, and nobody could make another one with it.
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
            if first_must_manage and not _MANAGING & key.scopes:
                any_key = connection.execute(sa.select(access_keys.c.id).limit(1)).first()
                if any_key is None:
                    raise Conflict(
                        "from the first key on every request needs one, so the first must be able "
                        "to make others: give it the scope admin or operator"
                    )
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

    def get(self, key_id: str, namespace: str | None = None) -> AccessKey:
        """One key; `namespace` as in `revoke`.

        Raises:
            NotFound: no such key.
        """
        named = access_keys.c.id == key_id
        if namespace is not None:
            named = sa.and_(named, access_keys.c.namespace == namespace)
        with self._database.connect() as connection:
            row = connection.execute(sa.select(access_keys).where(named)).mappings().one_or_none()
        if row is None:
            raise NotFound(f"there is no access key {key_id}")
        return _key_from_row(row)

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

    def revoke(
        self,
        key_id: str,
        namespace: str | None = None,
        *,
        keep_managed: bool = False,
        others: Iterable[ActiveKey] = (),
    ) -> AccessKey:
        """Ends a key for good. Again: no effect, the first time stays.

        Args:
            key_id: the key's id.
            namespace: only a key of this namespace is found; None: of any.
            keep_managed: refuse if some namespace would be left with keys that nobody manages.
            others: keys that are in force and not in SQL; they may manage too.

        Raises:
            NotFound: no such key.
            Conflict: `keep_managed` forbids it.
        """
        c = access_keys.c
        named = c.id == key_id
        if namespace is not None:
            named = sa.and_(named, c.namespace == namespace)
        now = self._clock.now()
        with self._database.begin() as connection:
            row = connection.execute(sa.select(access_keys).where(named)).mappings().one_or_none()
            if row is None:
                raise NotFound(f"there is no access key {key_id}")
            if row["revoked_at"] is not None:
                return _key_from_row(row)
            if keep_managed:
                _refuse_to_lock_out(connection, key_id, now, others)
            revoke = access_keys.update().where(named, c.revoked_at.is_(None))
            connection.execute(revoke.values(revoked_at=now))
            found = connection.execute(sa.select(access_keys).where(named))
            return _key_from_row(found.mappings().one())


def _refuse_to_lock_out(
    connection: sa.Connection, key_id: str, now: datetime, others: Iterable[ActiveKey]
) -> None:
    # Locks all rows, so that of two last keys revoked at one moment the second sees the first.
    rows = connection.execute(sa.select(access_keys).with_for_update()).mappings()
    stored = [key for key in map(_key_from_row, rows) if key.is_active(now)]
    kept = [(k.namespace, k.scopes) for k in stored if k.id != key_id]
    gone = [(k.namespace, k.scopes) for k in stored if k.id == key_id]
    outside = [
        (k.namespace, frozenset(map(str, k.scopes)))
        for k in others
        if k.expires_at is None or now < k.expires_at
    ]
    lost = _managed([*kept, *gone, *outside]) - _managed([*kept, *outside], gone)
    if lost:
        raise Conflict(
            f"with this key gone nobody could manage the keys of {', '.join(sorted(lost))}: make "
            "another admin or operator key first, or add ?force=true (then only a key in "
            "TOLLGATE_KEYS_FILE lets anybody back in)"
        )


def _managed(
    keys: Collection[tuple[str, frozenset[str]]],
    gone: Collection[tuple[str, frozenset[str]]] = (),
) -> set[str]:
    """Namespaces of all these keys in which one of `keys` can make and revoke keys."""
    named = {namespace for namespace, _ in [*keys, *gone]}
    if any(Scope.OPERATOR in scopes for _, scopes in keys):
        return named
    return {namespace for namespace, scopes in keys if Scope.ADMIN in scopes}


def _check(wanted: AccessKeyInput, now: datetime) -> None:
    faults = []
    if not wanted.scopes or not set(wanted.scopes) <= set(Scope):
        message = f"must be one or more of {', '.join(Scope)}"
        faults.append(Fault(field="scopes", code="invalid_scope", message=message))
    if not is_namespace(wanted.namespace):
        faults.append(Fault(field="namespace", code="invalid_namespace", message=NAMESPACE_RULE))
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
