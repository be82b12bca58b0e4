"""Subjects over HTTP, on the running product, held against the wire contract."""

from typing import Any

import pytest

from tests.support.contract import checked
from tests.support.server import Server
from tollgate.core.ids import new_ulid

PATH = "/api/v1/subjects"


def upsert(server: Server, *subjects: dict[str, Any]) -> list[dict[str, Any]]:
    answer = checked("v1", "upsertSubject", server.http.post(PATH, json=list(subjects)))
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()
    return found


def get(server: Server, name: str) -> dict[str, Any]:
    answer = checked("v1", "getSubject", server.http.get(f"{PATH}/{name}"))
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_subject_is_made_read_by_id_and_key_and_listed(server: Server) -> None:
    full = {
        "key": "subjects-full",
        "displayName": "Full & <Co>",
        "metadata": {"plan": "pro", "nested": {"none": None, "list": [1, 2.5]}},
        "currentPeriodStart": "2026-01-01T00:00:00Z",
        "currentPeriodEnd": "2026-02-01T00:00:00.123456Z",
        "stripeCustomerId": "cus_1",
    }
    made, bare = upsert(server, full, {"key": "subjects/bare ü"})
    assert {name: made[name] for name in full} == full
    assert set(bare) == {"id", "key", "createdAt", "updatedAt"}
    assert get(server, made["id"]) == get(server, "subjects-full") == made
    assert get(server, "subjects%2Fbare%20%C3%BC") == bare
    listed = checked("v1", "listSubjects", server.http.get(PATH)).json()
    assert [s for s in listed if s["id"] in (made["id"], bare["id"])] == [made, bare]


def test_an_upsert_changes_only_what_it_names_and_null_clears(server: Server) -> None:
    key = "subjects-partial"
    (made,) = upsert(server, {"key": key, "displayName": "Before", "metadata": {"a": 1}})
    (renamed,) = upsert(server, {"key": key, "displayName": "After"})
    assert (renamed["id"], renamed["createdAt"]) == (made["id"], made["createdAt"])
    assert (renamed["displayName"], renamed["metadata"]) == ("After", {"a": 1})
    assert renamed["updatedAt"] > made["updatedAt"]
    assert upsert(server, {"key": key, "displayName": "After"}) == [renamed]
    (cleared,) = upsert(server, {"key": key, "displayName": None, "metadata": None})
    assert "displayName" not in cleared
    assert "metadata" not in cleared


def test_a_deleted_subject_is_gone_and_its_key_free(server: Server) -> None:
    (first,) = upsert(server, {"key": "subjects-deleted"})
    gone = server.http.delete(f"{PATH}/subjects-deleted")
    assert checked("v1", "deleteSubject", gone).status_code == 204
    for name in ("subjects-deleted", first["id"], new_ulid()):
        for method in ("GET", "DELETE"):
            answer = server.http.request(method, f"{PATH}/{name}")
            checked("v1", "getSubject" if method == "GET" else "deleteSubject", answer)
            assert answer.status_code == 404
    (second,) = upsert(server, {"key": "subjects-deleted"})
    assert second["id"] != first["id"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ([{}], "key"),
        ([{"key": ""}], "key"),
        ([{"key": "a\u0000b"}], "key"),
        ([{"key": 5}], "key"),
        ([{"key": "k", "displayName": 5}], "displayName"),
        ([{"key": "k", "metadata": []}], "metadata"),
        ([{"key": "k", "currentPeriodStart": "yesterday"}], "currentPeriodStart"),
        ({"key": "k"}, ""),
    ],
)
def test_one_fault_refuses_all_and_is_named(server: Server, body: Any, field: str) -> None:
    whole = [{"key": "subjects-refused"}, *body] if isinstance(body, list) else body
    answer = checked("v1", "upsertSubject", server.http.post(PATH, json=whole))
    assert answer.status_code == 400
    (fault,) = answer.json()["extensions"]["validationErrors"]
    assert field in fault["field"]
    if isinstance(body, list):
        assert "1" in fault["field"]
    assert server.http.get(f"{PATH}/subjects-refused").status_code == 404
