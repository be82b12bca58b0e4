"""Access keys in SQL."""

from datetime import timedelta

import pytest
import sqlalchemy as sa

from tests.support.control_plane import NS, START, SteppingClock
from tollgate.core.errors import (
    InvalidInput,
    NotFound,
)
from tollgate.core.ids import new_ulid
from tollgate.platform.access import hash_secret, split_key
from tollgate.platform.access_store import (
    AccessKeyInput,
    AccessKeyStore,
    access_keys,
)
from tollgate.platform.sql import Database


def test_a_key_is_shown_once_and_only_its_hash_is_kept(
    keys: AccessKeyStore, database: Database
) -> None:
    wanted = AccessKeyInput(
        namespace=NS,
        scopes=["read", "ingest", "read"],
        name="CI",
        expires_at=START.replace(year=2027),
    )
    key, text = keys.create(wanted)
    key_id, secret = split_key(text) or ("", "")
    assert text == f"tg_{key_id}_{secret}"
    assert len(secret) == 43
    assert (key.id, key.prefix, key.last_four) == (key_id, f"tg_{key_id}", text[-4:])
    assert key.secret_hash == hash_secret(secret)
    assert key.scopes == {"read", "ingest"}
    assert keys.list(NS) == keys.list() == keys.active() == (key,)
    assert secret not in repr(key)
    assert repr(key.secret_hash) not in repr(key)
    with database.connect() as connection:
        row = connection.execute(sa.select(access_keys)).mappings().one()
    assert all(secret not in str(value) for value in row.values())


def test_a_revoked_key_stays_listed_and_is_active_no_more(keys: AccessKeyStore) -> None:
    first, _ = keys.create(AccessKeyInput(namespace=NS, scopes=["admin"]))
    second, _ = keys.create(AccessKeyInput(namespace="other", scopes=["read"]))
    revoked = keys.revoke(first.id, NS)
    assert revoked.revoked_at is not None
    assert not revoked.is_active(revoked.created_at)
    assert keys.revoke(first.id) == revoked
    assert keys.active() == (second,)
    assert keys.list() == (revoked, second)
    assert keys.list(NS) == (revoked,)
    with pytest.raises(NotFound):
        keys.revoke(new_ulid())


def test_a_key_ends_at_its_expiry(keys: AccessKeyStore, clock: SteppingClock) -> None:
    expiry = START + timedelta(seconds=1)
    key, _ = keys.create(AccessKeyInput(namespace=NS, scopes=["read"], expires_at=expiry))
    assert key.is_active(expiry - timedelta(microseconds=1))
    assert not key.is_active(expiry)
    clock.instant = expiry - timedelta(microseconds=2)
    assert keys.active() == (key,)
    assert keys.active() == ()
    assert keys.list() == (key,)


def test_every_fault_of_a_key_is_told(keys: AccessKeyStore) -> None:
    wanted = AccessKeyInput(
        namespace="a/b", scopes=["read", "write"], name="a\nb", expires_at=START
    )
    with pytest.raises(InvalidInput) as caught:
        keys.create(wanted)
    assert [fault.field for fault in caught.value.faults] == [
        "scopes",
        "namespace",
        "name",
        "expiresAt",
    ]
    for scopes, namespace in (((), NS), (("read",), ""), (("read",), "n" * 65), (("read",), "n.")):
        with pytest.raises(InvalidInput):
            keys.create(AccessKeyInput(namespace=namespace, scopes=scopes))
    assert keys.list() == ()
