"""Every function reads the keys that the store wrote, without the store."""

from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.control_plane import NS, START
from tollgate.core.errors import PermanentFault, Transient
from tollgate.local.ports import free_ports
from tollgate.local.postgres import Postgres
from tollgate.platform.access import ActiveKey, Scope
from tollgate.platform.access_store import AccessKey, AccessKeyInput, AccessKeyStore
from tollgate.platform.key_reader import read_keys


def kept(key: AccessKey) -> ActiveKey:
    return ActiveKey(
        id=key.id,
        namespace=key.namespace,
        scopes=frozenset(map(Scope, key.scopes)),
        secret_hash=key.secret_hash,
        expires_at=key.expires_at,
    )


def test_it_reads_what_the_store_wrote(keys: AccessKeyStore, database_url: str) -> None:
    assert read_keys(database_url) == ((), False)
    first, _ = keys.create(AccessKeyInput(namespace=NS, scopes=["admin", "read"], name="ä"))
    ending = AccessKeyInput(
        namespace="other", scopes=["ingest"], expires_at=START + timedelta(days=1, microseconds=1)
    )
    second, _ = keys.create(ending)
    found, ever = read_keys(database_url)
    assert ever
    assert sorted(found, key=lambda key: key.id) == sorted(
        [kept(first), kept(second)], key=lambda key: key.id
    )
    keys.revoke(first.id)
    keys.revoke(second.id)
    # Nobody gets in because all keys were revoked: there was one.
    assert read_keys(database_url) == ((), True)


def test_a_database_without_the_table_is_refused(database_url: str) -> None:
    path = Path(database_url.removeprefix("sqlite:///"))
    if database_url.startswith("sqlite:"):
        assert read_keys(database_url) == ((), False)
        path.touch()
    with pytest.raises(PermanentFault, match="refused"):
        read_keys(database_url)


def test_a_server_that_is_away_is_transient(postgres: Postgres) -> None:
    (nobody,) = free_ports(1)
    away = postgres.url.rpartition(":")[0] + f":{nobody}/postgres"
    with pytest.raises(Transient):
        read_keys(away)
