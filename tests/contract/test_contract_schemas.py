"""The schema check itself, and that every operation of the contract is served."""

import json
import re

import pytest

from tests.support.contract import (
    PROBLEM,
    ContractBroken,
    Wire,
    contract_operations,
    has_contract,
    validate_response,
)
from tollgate.console.document import api_operations
from tollgate.platform.functions import FUNCTIONS

_LEFT_OUT = (
    "NOT CHECKED: the contract's OpenAPI documents do not lie in ../shared/contracts; answers are "
    "held against our own models only"
)
_WIRES: tuple[Wire, ...] = ("v1", "v3")
needs_contract = pytest.mark.skipif(not all(map(has_contract, _WIRES)), reason=_LEFT_OUT)
_JSON = {"Content-Type": "application/json"}
_METER = {
    "id": "01G65Z755AFWAKHE12NY0CQ9FH",
    "slug": "tokens_total",
    "name": "Tokens",
    "aggregation": "SUM",
    "eventType": "prompt",
    "valueProperty": "$.tokens",
    "groupBy": {"model": "$.model"},
    "createdAt": "2024-01-01T01:01:01.001Z",
    "updatedAt": "2024-01-01T01:01:01.001Z",
}
_ROW = {
    "value": 12,
    "windowStart": "2023-01-01T00:00:00Z",
    "windowEnd": "2023-01-02T00:00:00Z",
    "subject": None,
    "groupBy": {},
}
_V1_PROBLEM = {
    "type": "about:blank",
    "title": "Bad Request",
    "status": 400,
    "detail": "no",
    "instance": "urn:request:1",
}
_V3_PROBLEM = _V1_PROBLEM | {
    "instance": "kong:trace:1",
    "invalid_parameters": [{"field": "key", "reason": "is required"}],
}


def validate_meter(**members: object) -> None:
    body = json.dumps(_METER | members).encode()
    validate_response("v1", "GET", "getMeter", 200, _JSON, body)


def test_a_right_answer_passes() -> None:
    validate_meter()
    validate_meter(deletedAt="2024-01-01T01:01:01Z")
    validate_response("v1", "DELETE", "/api/v1/meters/{meterIdOrSlug}", 204, {}, b"")


@pytest.mark.parametrize(
    "members", [{"slug": None}, {"groupBy": []}, {"createdAt": 5}, {"aggregation": 7}]
)
def test_a_wrong_member_is_found(members: dict[str, object]) -> None:
    with pytest.raises(ContractBroken, match=next(iter(members))):
        validate_meter(**members)


@needs_contract
@pytest.mark.parametrize(
    "members",
    [
        {"createdAt": "2024-01-01 01:01:01"},
        {"createdAt": "2024-02-30T01:01:01Z"},
        {"slug": "Tokens"},
        {"aggregation": "sum"},
        {"name": ""},
        {"groupBy": {"model": None}},
    ],
)
def test_what_only_the_document_forbids_is_found(members: dict[str, object]) -> None:
    with pytest.raises(ContractBroken, match=next(iter(members))):
        validate_meter(**members)


def test_null_only_where_it_may_stand() -> None:
    body = json.dumps({"data": [_ROW]}).encode()
    validate_response("v1", "POST", "queryMeterPost", 200, _JSON, body)
    body = json.dumps({"data": [_ROW | {"value": None}]}).encode()
    with pytest.raises(ContractBroken, match="value"):
        validate_response("v1", "POST", "queryMeterPost", 200, _JSON, body)


def test_a_missing_member_is_found() -> None:
    body = json.dumps({name: value for name, value in _METER.items() if name != "id"}).encode()
    with pytest.raises(ContractBroken, match="'id' is a required property"):
        validate_response("v1", "GET", "getMeter", 200, _JSON, body)


@pytest.mark.parametrize(("wire", "problem"), [("v1", _V1_PROBLEM), ("v3", _V3_PROBLEM)])
def test_problems(wire: Wire, problem: dict[str, object]) -> None:
    path = "/api/v1/meters" if wire == "v1" else "/api/v3/openmeter/meters"
    body = json.dumps(problem).encode()
    validate_response(wire, "POST", path, 400, {"content-type": PROBLEM}, body)
    headers = {"content-type": PROBLEM + "; charset=utf-8"}
    with pytest.raises(ContractBroken, match="exactly"):
        validate_response(wire, "POST", path, 400, headers, body)
    for name in ("title", "detail", "instance"):
        rest = json.dumps({n: v for n, v in problem.items() if n != name}).encode()
        with pytest.raises(ContractBroken, match=name):
            validate_response(wire, "POST", path, 400, {"content-type": PROBLEM}, rest)


def test_undeclared_statuses_and_bodies_are_found() -> None:
    with pytest.raises(ContractBroken, match="200"):
        validate_response("v1", "POST", "createMeter", 200, _JSON, json.dumps(_METER).encode())
    with pytest.raises(ContractBroken, match="no body"):
        validate_response("v1", "DELETE", "deleteMeter", 204, _JSON, b"{}")


@needs_contract
def test_undeclared_content_types_and_operations_are_found() -> None:
    body = json.dumps(_METER).encode()
    with pytest.raises(ContractBroken, match="text/html"):
        validate_response("v1", "GET", "getMeter", 200, {"content-type": "text/html"}, body)
    with pytest.raises(LookupError):
        validate_response("v1", "GET", "/api/v1/metres", 200, _JSON, b"{}")


_AREAS = {
    "v1": (
        "/api/v1/meters",
        "/api/v1/subjects",
        "/api/v1/customers",
        "/api/v1/features",
        "/api/v1/notification",
        "/api/v1/events",
        "/api/v2/events",
        "/api/v1/debug",
        "/api/v1/info/progress",
    ),
    "v3": (
        "/api/v3/openmeter/events",
        "/api/v3/openmeter/meters",
        "/api/v3/openmeter/customers",
        "/api/v3/openmeter/features",
    ),
}
# Later parts of the contract keep paths under subjects and customers too.
_NOT_THESE = re.compile(
    "/(entitlements|entitlement-access|access|apps|stripe|subscriptions|billing|charges|credits)"
)


@needs_contract
@pytest.mark.parametrize("wire", _WIRES)
def test_every_operation_of_the_contract_is_served(wire: Wire) -> None:
    wanted = {
        place: operation_id
        for place, operation_id in contract_operations(wire).items()
        if place[1].startswith(_AREAS[wire]) and not _NOT_THESE.search(place[1])
    }
    served = {(each.method, each.path): each.operation_id for each in api_operations()}
    assert len(wanted) > 5
    missing = [
        f"{method} {path}"
        for method, path in wanted
        if (method, path) not in served and not _taken_by_ingest(method, path)
    ]
    assert not missing
    ids = {place: served[place] for place in wanted if place in served}
    assert ids == {place: wanted[place] for place in ids}


def _taken_by_ingest(method: str, path: str) -> bool:
    ingest = next(each for each in FUNCTIONS if each.name == "ingest")
    return (method, path) in ingest.routes
