"""Access keys over HTTP: what they allow, and that they count from the moment they are made."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.own_models import held
from tests.support.server import Server

PATH = "/api/v1/access-keys"
NewServer = Callable[..., Server]


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def create(server: Server, key: str | None = None, **wanted: Any) -> httpx.Response:
    answer = server.http.post(PATH, json=wanted, headers=bearer(key) if key else {})
    return held("createAccessKey", answer)


def make(server: Server, key: str | None = None, **wanted: Any) -> dict[str, Any]:
    answer = create(server, key, **wanted)
    assert answer.status_code == 201, answer.text
    assert answer.headers["cache-control"] == "no-store"
    found: dict[str, Any] = answer.json()
    return found


def revoke(server: Server, key: str, key_id: str, query: str = "") -> httpx.Response:
    answer = server.http.delete(f"{PATH}/{key_id}{query}", headers=bearer(key))
    return held("revokeAccessKey", answer)


def list_keys(server: Server, key: str, query: str = "") -> list[dict[str, Any]]:
    answer = held("listAccessKeys", server.http.get(PATH + query, headers=bearer(key)))
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()
    return found


def secret_of(made: dict[str, Any]) -> str:
    """The secret alone; it is base64url, so underscores are part of it."""
    secret: str = made["key"].removeprefix(made["prefix"] + "_")
    assert len(secret) == 43
    return secret


def test_the_first_key_manages_and_keys_count_at_once(new_server: NewServer) -> None:
    server = new_server().start()
    assert server.http.get("/api/v1/meters").status_code == 200
    refused = create(server, scopes=["read", "ingest"])
    assert refused.status_code == 409
    assert "admin or operator" in refused.json()["detail"]
    assert server.http.get("/api/v1/meters").status_code == 200

    first = make(server, scopes=["admin"], name="first")
    assert server.http.get("/api/v1/meters").status_code == 401
    assert server.http.get("/api/v1/meters", headers=bearer(first["key"])).status_code == 200
    assert first["namespace"] == "default"
    assert first["key"].startswith(first["prefix"] + "_")
    assert first["key"].endswith(first["lastFour"])

    reader = make(server, first["key"], scopes=["read"])
    assert server.http.get("/api/v1/meters", headers=bearer(reader["key"])).status_code == 200
    assert revoke(server, first["key"], reader["id"]).status_code == 204
    assert server.http.get("/api/v1/meters", headers=bearer(reader["key"])).status_code == 401
    assert revoke(server, first["key"], reader["id"]).status_code == 204
    shown, ended = list_keys(server, first["key"])
    assert shown == {k: v for k, v in first.items() if k != "key"}
    assert "revokedAt" in ended

    server.stop()
    for kept in (server.log, *(server.data.glob("control.sqlite*"))):
        assert secret_of(first).encode() not in kept.read_bytes()
    assert "access key created" in server.log.read_text()
    assert "access key revoked" in server.log.read_text()


def test_the_last_key_that_manages_stays_unless_forced(new_server: NewServer) -> None:
    server = new_server().start()
    first = make(server, scopes=["admin"])
    refused = revoke(server, first["key"], first["id"])
    assert refused.status_code == 409
    assert "default" in refused.json()["detail"]
    second = make(server, first["key"], scopes=["admin"])
    assert revoke(server, first["key"], first["id"]).status_code == 204
    assert revoke(server, second["key"], second["id"]).status_code == 409
    assert revoke(server, second["key"], second["id"], "?force=true").status_code == 204
    # Nobody is let in again because no key is left.
    assert server.http.get(PATH).status_code == 401
    assert server.http.get(PATH, headers=bearer(second["key"])).status_code == 401


def test_an_operator_keeps_every_namespace_managed(new_server: NewServer) -> None:
    server = new_server().start()
    operator = make(server, scopes=["operator"], namespace="house")
    make(server, operator["key"], scopes=["ingest"], namespace="tenant")
    boss = make(server, operator["key"], scopes=["admin"], namespace="house")
    # The house has an admin of its own, the tenant would have none.
    refused = revoke(server, operator["key"], operator["id"])
    assert refused.status_code == 409
    assert "tenant" in refused.json()["detail"]
    assert "house" not in refused.json()["detail"]
    assert revoke(server, operator["key"], boss["id"]).status_code == 204
    make(server, operator["key"], scopes=["operator"])
    assert revoke(server, operator["key"], operator["id"]).status_code == 204


def test_an_admin_manages_its_own_namespace_only(new_server: NewServer) -> None:
    server = new_server().start()
    operator = make(server, scopes=["operator"])
    admin = make(server, operator["key"], scopes=["admin"], namespace="a")
    other = make(server, operator["key"], scopes=["read"], namespace="b")
    mighty = make(server, operator["key"], scopes=["operator"], namespace="a")
    key = admin["key"]
    assert make(server, key, scopes=["read"])["namespace"] == "a"
    assert create(server, key, scopes=["read"], namespace="b").status_code == 403
    assert create(server, key, scopes=["operator"]).status_code == 403
    assert revoke(server, key, other["id"]).status_code == 404
    assert revoke(server, key, mighty["id"]).status_code == 403
    assert {k["namespace"] for k in list_keys(server, key)} == {"a"}
    assert server.http.get(f"{PATH}?namespace=b", headers=bearer(key)).status_code == 403
    everything = list_keys(server, operator["key"])
    assert {k["namespace"] for k in everything} == {"default", "a", "b"}
    assert [k["id"] for k in list_keys(server, operator["key"], "?namespace=b")] == [other["id"]]
    assert all("key" not in k and "secretHash" not in k for k in everything)


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({"scopes": []}, "scopes"),
        ({"scopes": ["write"]}, "scopes"),
        ({"scopes": ["admin"], "namespace": "A b"}, "namespace"),
        ({"scopes": ["admin"], "namespace": "n" * 65}, "namespace"),
        ({"scopes": ["admin"], "name": "a\nb"}, "name"),
        ({"scopes": ["admin"], "expiresAt": "2020-01-01T00:00:00Z"}, "expiresAt"),
        ({"scopes": ["admin"], "expiresAt": "soon"}, "expiresAt"),
        ({}, "scopes"),
    ],
)
def test_a_wrong_wish_is_refused(server: Server, wanted: dict[str, Any], field: str) -> None:
    answer = create(server, **wanted)
    assert answer.status_code == 400
    assert [f["field"] for f in answer.json()["extensions"]["validationErrors"]] == [field]


def test_keys_of_a_file_manage_too_and_end_in_the_file(
    new_server: NewServer, tmp_path: Path
) -> None:
    secret = "s" * 43
    path = tmp_path / "keys.yaml"
    entry = {"key": f"tg_boss_{secret}", "namespace": "default", "scopes": ["admin"]}
    path.write_text(json.dumps([entry]))
    server = new_server({"TOLLGATE_KEYS_FILE": str(path)}).start()
    assert server.http.get(PATH).status_code == 401
    key = f"tg_boss_{secret}"
    reader = make(server, key, scopes=["read"])
    admin = make(server, key, scopes=["admin"])
    assert revoke(server, key, admin["id"]).status_code == 204
    refused = revoke(server, key, "boss")
    assert refused.status_code == 409
    assert "file" in refused.json()["detail"]
    assert server.http.get(PATH, headers=bearer(reader["key"])).status_code == 403
