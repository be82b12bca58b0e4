"""No key does what its scope does not say, and nothing opens without one: on every operation."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest

from tests.support.houses import World
from tests.support.server import wait_until
from tollgate.console.document import api_operations
from tollgate.core.ids import new_ulid
from tollgate.events.operations import OPERATIONS as INGEST_OPERATIONS
from tollgate.platform.access import Scope
from tollgate.platform.api import Operation

OPERATIONS = {o.operation_id: o for o in (*api_operations(), *INGEST_OPERATIONS)}


def bare_request(operation: Operation) -> tuple[str, str]:
    path = operation.path
    while "{" in path:
        path = path[: path.index("{")] + "x" + path[path.index("}") + 1 :]
    return operation.method, path


ALLOWED = {
    "read": {Scope.READ},
    "ingest": {Scope.INGEST},
    "admin": {Scope.READ, Scope.INGEST, Scope.ADMIN},
}


@pytest.mark.parametrize("operation_id", OPERATIONS)
def test_a_key_does_only_what_its_scope_says(world: World, operation_id: str) -> None:
    method, path = bare_request(OPERATIONS[operation_id])
    for scope, allowed in ALLOWED.items():
        answer = world.call(method, path, world.keys["alpha", scope])
        if OPERATIONS[operation_id].scope in allowed:
            assert answer.status_code not in (401, 403), answer.text
        else:
            assert answer.status_code == 403
            assert OPERATIONS[operation_id].scope in answer.json()["detail"]


def test_writes_need_more_than_read() -> None:
    """The scopes themselves, by hand: the test above takes each operation's word for it."""
    queries = {"queryMeterPost", "query-meter", "query-feature-cost", "checkLimits"}
    queries |= {"query-entitlement-access"}
    # Who sends usage may ask for room for it.
    ingests = {"ingestEvents", "ingest-metering-events"}
    ingests |= {"createReservation", "settleReservation", "releaseReservation"}
    admin_reads, for_operators = {"listAccessKeys"}, {"createBackup"}
    for name, operation in OPERATIONS.items():
        if name in ingests:
            assert operation.scope is Scope.INGEST
        elif name in for_operators:
            assert operation.scope is Scope.OPERATOR
        elif name in admin_reads or (operation.method != "GET" and name not in queries):
            assert operation.scope is Scope.ADMIN, name
        else:
            assert operation.scope is Scope.READ, name


@pytest.fixture(scope="module")
def useless_headers(world: World) -> Mapping[str, str | None]:
    """Authorization headers that open nothing, each close to one that would."""
    good = world.keys["alpha", "admin"]
    keys = {}
    expiry = datetime.now(UTC) + timedelta(seconds=2)
    for name, more in (("revoked", {}), ("expired", {"expiresAt": expiry.isoformat()})):
        wanted = {"scopes": ["admin"], "name": "useless"} | more
        keys[name] = world.admin("alpha", "POST", "/api/v1/access-keys", wanted)
        assert world.call("GET", "/api/v1/meters", keys[name]["key"]).status_code == 200
    world.admin("alpha", "DELETE", f"/api/v1/access-keys/{keys['revoked']['id']}")
    expired = keys["expired"]["key"]
    wait_until(lambda: world.call("GET", "/api/v1/meters", expired).status_code == 401)
    flipped = good[:-1] + ("A" if good[-1] != "A" else "B")
    return {
        "none": None,
        "empty": "",
        "no secret": f"Bearer {good.rpartition('_')[0]}",
        "wrong secret": f"Bearer {flipped}",
        "secret of another": f"Bearer {good[:30]}{world.keys['beta', 'admin'][30:]}",
        "unknown id": f"Bearer tg_{new_ulid()}_{good[30:]}",
        "no scheme": good,
        "other scheme": f"Basic {good}",
        "other prefix": f"Bearer xx{good[2:]}",
        "more after it": f"Bearer {good} x",
        "revoked": f"Bearer {keys['revoked']['key']}",
        "expired": f"Bearer {expired}",
    }


@pytest.mark.parametrize("operation_id", OPERATIONS)
def test_nothing_opens_without_a_key_in_force(
    world: World, useless_headers: Mapping[str, str | None], operation_id: str
) -> None:
    method, path = bare_request(OPERATIONS[operation_id])
    for name, value in useless_headers.items():
        headers = {} if value is None else {"Authorization": value}
        answer = world.server.http.request(method, path, headers=headers)
        assert answer.status_code == 401, name
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.json()["status"] == 401
    # The same request with a key is let in, or told what the key lacks.
    assert world.call(method, path, world.keys["alpha", "admin"]).status_code != 401


def test_the_loaders_doorbell_needs_an_admin(world: World) -> None:
    for key, status in ((None, 401), (world.keys["alpha", "read"], 403)):
        assert world.call("POST", "/_/load", key).status_code == status
    assert world.call("POST", "/_/load", world.keys["alpha", "admin"]).status_code == 204
