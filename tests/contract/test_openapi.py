"""The API document: valid, the code's own, and true of what is read and answered."""

import json
from typing import Any

import pytest
from openapi_spec_validator import validate

from tests.support.server import Server
from tollgate.console.document import (
    DOCUMENT,
    api_operations,
    document_text,
    make_document,
)


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return make_document()


def test_it_is_valid_openapi(document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.1.0"
    validate(document)


def test_the_file_says_what_the_code_says() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == document_text(), (
        "run: .venv/bin/python -m tollgate.console.document"
    )


def test_every_operation_that_is_served_stands_in_it_once(document: dict[str, Any]) -> None:
    for operation in api_operations():
        assert operation.method.lower() in document["paths"][operation.path]
    ids = [o["operationId"] for p in document["paths"].values() for o in p.values()]
    assert len(ids) == len(set(ids))


def test_ingest_stands_in_it_with_every_form(document: dict[str, Any]) -> None:
    ingest = document["paths"]["/api/v1/events"]["post"]
    assert set(ingest["requestBody"]["content"]) == {
        "application/json",
        "application/cloudevents+json",
        "application/cloudevents-batch+json",
    }
    names = {(p["in"], p["name"]) for p in ingest["parameters"]}
    assert {("query", "partial"), ("header", "ce-id"), ("header", "ce-source")} <= names
    assert "Tollgate-Position" in ingest["responses"]["204"]["headers"]
    assert set(ingest["responses"]) == {"200", "204", "400", "401", "403", "413", "415", "503"}
    v3 = document["paths"]["/api/v3/openmeter/events"]["post"]
    assert "202" in v3["responses"]
    assert "204" not in v3["responses"]


def test_parameters_are_written_as_they_are_read(document: dict[str, Any]) -> None:
    query = document["paths"]["/api/v1/meters/{meterIdOrSlug}/query"]["get"]
    by_name = {p["name"]: p for p in query["parameters"]}
    assert by_name["filterGroupBy"]["style"] == "deepObject"
    assert by_name["subject"] == {
        "name": "subject",
        "in": "query",
        "style": "form",
        "explode": True,
        "schema": {"type": "array", "items": {"type": "string"}},
    }
    assert by_name["meterIdOrSlug"]["required"] is True
    assert "text/csv" in query["responses"]["200"]["content"]


def test_pages_need_no_key_and_everything_else_does(document: dict[str, Any]) -> None:
    free = {
        path
        for path, methods in document["paths"].items()
        for operation in methods.values()
        if operation["security"] == []
    }
    assert free == {"/", "/docs", "/api/openapi.json"}


def test_it_is_served(server: Server, document: dict[str, Any]) -> None:
    answer = server.http.get("/api/openapi.json")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == json.loads(json.dumps(document))
