"""Two namespaces never see each other's data, on every operation: one that is not probed fails."""

import json
from typing import Any

import httpx
import pytest

from tests.support.houses import EVENT, HOUSES, World, mark, other
from tests.support.probe import Probe
from tests.support.probes import PROBES, by_shared_slug
from tollgate.console.document import api_operations
from tollgate.events.operations import OPERATIONS as INGEST_OPERATIONS
from tollgate.platform.access import Scope
from tollgate.platform.api import Operation
from tollgate.platform.functions import BY_NAME

OPERATIONS = {o.operation_id: o for o in (*api_operations(), *INGEST_OPERATIONS)}
BY_INGEST = {operation.operation_id for operation in INGEST_OPERATIONS}


def ask(world: World, operation: Operation, probe: Probe, asker: str, named: str) -> httpx.Response:
    """The asker's request, about a thing of the house named."""
    path = operation.path
    for name, value in (probe.path(world, named) if probe.path else {}).items():
        path = path.replace(f"{{{name}}}", value)
    scope = "ingest" if operation.scope is Scope.INGEST else "admin"
    more: dict[str, Any] = {"params": probe.query(named)}
    more["headers"] = dict(probe.headers(asker))
    body = probe.body(asker) if probe.body else None
    body = probe.naming(world, asker) if probe.naming else body
    if body is not None:
        more["content"] = json.dumps(body)
        takes_events = operation.operation_id in BY_INGEST
        more["headers"]["Content-Type"] = EVENT if takes_events else "application/json"
    return world.call(operation.method, path, world.keys[asker, scope], **more)


def sees_only_its_own(world: World, operation: Operation, probe: Probe, asker: str) -> None:
    answer = ask(world, operation, probe, asker, asker)
    assert answer.is_success, answer.text
    assert probe.own(answer, asker), answer.text
    assert mark(other(asker)) not in answer.text


def sees_nothing_of_the_other(world: World, operation: Operation, probe: Probe, asker: str) -> None:
    """Names a thing of the other house: there is none for the asker, or its own of that name."""
    named = other(asker)
    if probe.path is None and not probe.query(named):
        return  # It names nothing, so it is the request of `sees_only_its_own`.
    answer = ask(world, operation, probe, asker, named)
    if probe.path not in (None, by_shared_slug) and not probe.names:
        assert answer.status_code == 404, answer.text
    elif answer.is_success:
        assert mark(named) not in answer.text
    else:
        assert answer.status_code in (403, 404), answer.text


def test_every_operation_is_probed() -> None:
    # What only operators may ask for is about all namespaces; `test_scopes.py` keeps others out.
    for_operators = {n for n, o in OPERATIONS.items() if o.scope is Scope.OPERATOR}
    assert PROBES.keys() == OPERATIONS.keys() - for_operators
    served = {(o.method, o.path) for o in INGEST_OPERATIONS}
    assert set(BY_NAME["ingest"].routes) == served


@pytest.mark.parametrize("operation_id", [n for n, ps in PROBES.items() if not ps[0].ends])
def test_neither_house_sees_the_other(world: World, operation_id: str) -> None:
    operation = OPERATIONS[operation_id]
    for probe in PROBES[operation_id]:
        for house in HOUSES:
            sees_nothing_of_the_other(world, operation, probe, house)
            sees_only_its_own(world, operation, probe, house)


@pytest.mark.parametrize("operation_id", [n for n, ps in PROBES.items() if ps[0].ends])
def test_neither_house_ends_what_the_other_has(world: World, operation_id: str) -> None:
    operation = OPERATIONS[operation_id]
    for probe in PROBES[operation_id]:
        for house in HOUSES:
            answer = ask(world, operation, probe, other(house), house)
            assert answer.status_code == 404, answer.text
            # It is still there: its owner can end it.
            assert ask(world, operation, probe, house, house).status_code == 204


def test_records_of_nobody_are_for_operators(world: World) -> None:
    for path in ("dead-letters", "conflicts", "duplicates", "ledger"):
        query = {"unattributed": "true"}
        for house in HOUSES:
            answer = world.call("GET", f"/api/v1/{path}", world.keys[house, "admin"], params=query)
            assert answer.status_code == 403
        answer = world.call("GET", f"/api/v1/{path}", world.operator, params=query)
        assert answer.status_code == 200
        assert "mark-of" not in answer.text
