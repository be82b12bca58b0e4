"""Problem bodies of both wires, and the status of every kind of failure."""

import json

import pytest

from tollgate.core.errors import (
    Conflict,
    Fault,
    Forbidden,
    InvalidInput,
    MethodNotAllowed,
    NotAcceptable,
    NotFound,
    PermanentFault,
    TollgateError,
    TooLarge,
    Transient,
    Unauthorized,
    Unsupported,
)
from tollgate.platform.problem import MEDIA_TYPE, Wire, problem_reply, status_of, wire_of

FAULTS = (
    Fault(field="id", code="required", message="is required", index=0),
    Fault(field="", code="invalid_json", message="is not JSON", index=2),
    Fault(field="windowSize", code="enum", message="must be a window"),
)
KINDS: list[tuple[TollgateError, int]] = [
    (InvalidInput(FAULTS), 400),
    (Unauthorized("x"), 401),
    (Forbidden("x"), 403),
    (NotFound("x"), 404),
    (MethodNotAllowed("x"), 405),
    (NotAcceptable("x"), 406),
    (Conflict("x"), 409),
    (TooLarge("x"), 413),
    (Unsupported("x"), 415),
    (PermanentFault("secret of a dependency"), 500),
    (Transient("x", retry_after_seconds=7), 503),
    (TollgateError("a kind of no status"), 500),
]


@pytest.mark.parametrize(("error", "status"), KINDS, ids=[type(e).__name__ for e, _ in KINDS])
@pytest.mark.parametrize("wire", ["v1", "v3"])
def test_every_kind_has_a_status_and_a_body(error: TollgateError, status: int, wire: Wire) -> None:
    reply = problem_reply(error, wire)
    body = json.loads(reply.body)
    assert (reply.status, body["status"], status_of(error)) == (status, status, status)
    assert {"type", "title", "detail", "instance"} <= body.keys()
    assert body["instance"] == reply.instance
    headers = dict(reply.headers)
    assert headers[b"content-type"] == b"application/problem+json" == MEDIA_TYPE
    assert headers.get(b"retry-after") == (b"7" if status == 503 else None)
    assert (b"www-authenticate" in headers) is (status == 401)


def test_v1_names_event_and_field() -> None:
    body = json.loads(problem_reply(InvalidInput(FAULTS), "v1").body)
    assert body["type"] == "about:blank"
    assert body["title"] == "Bad Request"
    assert body["extensions"]["validationErrors"] == [
        {
            "field": "[0].id",
            "code": "required",
            "message": "is required",
            "attributes": {"index": 0},
        },
        {
            "field": "[2]",
            "code": "invalid_json",
            "message": "is not JSON",
            "attributes": {"index": 2},
        },
        {"field": "windowSize", "code": "enum", "message": "must be a window"},
    ]
    assert "event 0: id: is required" in body["detail"]


def test_v3_names_event_and_field() -> None:
    body = json.loads(problem_reply(InvalidInput((*FAULTS, FAULTS[0])), "v3").body)
    assert body["type"] == "https://httpstatuses.com/400"
    assert body["instance"].startswith("kong:trace:")
    assert [(p["field"], p["reason"]) for p in body["invalid_parameters"]] == [
        ("[0].id", "is required"),
        ("[2]", "is not JSON"),
        ("windowSize", "must be a window"),
    ]
    assert "extensions" not in body


def test_v3_always_has_a_parameter_on_400_and_never_else() -> None:
    empty = InvalidInput((), "the request is wrong")
    assert json.loads(problem_reply(empty, "v3").body)["invalid_parameters"] == [
        {"field": "", "reason": "the request is wrong"}
    ]
    assert "invalid_parameters" not in json.loads(problem_reply(NotFound("x"), "v3").body)


@pytest.mark.parametrize("wire", ["v1", "v3"])
def test_what_a_dependency_said_stays_inside(wire: Wire) -> None:
    reply = problem_reply(PermanentFault("password=hunter2"), wire)
    assert b"hunter2" not in reply.body
    assert reply.instance.split(":")[-1] in json.loads(reply.body)["detail"]


def test_a_list_of_faults_is_bounded() -> None:
    faults = tuple(Fault(field=f"f{n}", code="x", message="x", index=n) for n in range(5000))
    v1 = json.loads(problem_reply(InvalidInput(faults), "v1").body)
    v3 = json.loads(problem_reply(InvalidInput(faults), "v3").body)
    assert len(v1["extensions"]["validationErrors"]) == 1000
    assert len(v3["invalid_parameters"]) == 1000
    assert "(and 4997 more)" in v1["detail"]


def test_instances_differ() -> None:
    assert len({problem_reply(NotFound("x"), "v1").instance for _ in range(100)}) == 100


@pytest.mark.parametrize(
    ("path", "wire"),
    [
        ("/api/v1/events", "v1"),
        ("/api/v2/events", "v1"),
        ("/api/v3/openmeter/events", "v3"),
        ("/api/v3", "v1"),
        ("/", "v1"),
        ("/x/api/v3/y", "v1"),
    ],
)
def test_a_path_tells_its_wire(path: str, wire: Wire) -> None:
    assert wire_of(path) == wire
