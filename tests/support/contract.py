"""Checks real answers against the wire contract, OpenMeter's OpenAPI documents.

The documents are not ours to ship. Where they lie beside the clone (`../shared/contracts`) every
answer is held against them; everywhere it is held against our own models, which is all that is left
where they are missing: `test_contract_schemas.py` then says so as a skip.
"""

import json
from collections.abc import Mapping
from copy import deepcopy
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, Literal

import httpx
import yaml
from jsonschema import Draft202012Validator, FormatChecker
from pydantic import TypeAdapter
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from tollgate.console.document import api_operations
from tollgate.core.times import parse_instant
from tollgate.platform.api import Operation

Wire = Literal["v1", "v3"]
CONTRACTS = Path(__file__).resolve().parents[3] / "shared" / "contracts"
DOCUMENTS: Mapping[Wire, Path] = {
    "v1": CONTRACTS / "openmeter.v1.openapi.yaml",
    "v3": CONTRACTS / "openmeter.v3.openapi.yaml",
}
PROBLEM = "application/problem+json"
V3_PREFIX = "/api/v3"
# v3 lists a few statuses only; these may come from any operation, as a BaseError.
_ANY_TIME = frozenset((404, 405, 406, 409, 413, 415, 500, 503))
_METHODS = ("get", "put", "post", "delete", "patch")
_OWN_PROBLEM: Mapping[Wire, dict[str, Any]] = {
    "v1": {
        "type": "object",
        "required": ["type", "title", "status", "detail", "instance"],
        "properties": {
            "type": {"type": "string", "minLength": 1},
            "title": {"type": "string", "minLength": 1},
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": {"type": "string", "minLength": 1},
            "instance": {"type": "string", "pattern": "^urn:request:"},
            "extensions": {"type": "object"},
        },
    },
    "v3": {
        "type": "object",
        "required": ["type", "title", "status", "detail", "instance"],
        "properties": {
            "type": {"type": "string", "minLength": 1},
            "title": {"type": "string", "minLength": 1},
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": {"type": "string", "minLength": 1},
            "instance": {"type": "string", "pattern": "^kong:trace:"},
            "invalid_parameters": {
                "type": "array",
                "minItems": 1,
                "uniqueItems": True,
                "items": {
                    "type": "object",
                    "required": ["field", "reason"],
                    "properties": {"field": {"type": "string"}, "reason": {"type": "string"}},
                },
            },
        },
    },
}
_formats = FormatChecker(formats=())


@_formats.checks("date-time", raises=ValueError)
def _is_instant(value: object) -> bool:
    if isinstance(value, str):
        parse_instant(value)
        # The contract's own date-times are RFC 3339 with a T.
        return value[10] == "T"
    return True


@_formats.checks("uri")
def _is_uri(value: object) -> bool:
    return not isinstance(value, str) or bool(httpx.URL(value).scheme)


class ContractBroken(AssertionError):
    """An answer is not what the contract says."""


def checked(wire: Wire, operation: str, response: httpx.Response) -> httpx.Response:
    """The response, after `validate_response`.

    Args:
        wire: whose document.
        operation: the operation's id or path template.
        response: of the product.
    """
    method, status = response.request.method, response.status_code
    validate_response(wire, method, operation, status, response.headers, response.content)
    return response


def validate_response(
    wire: Wire,
    method: str,
    operation: str,
    status: int,
    headers: Mapping[str, str],
    body: bytes,
) -> None:
    """Holds an answer against the contract's document, where it lies here, and our own models.

    Args:
        wire: whose document.
        method: of the request.
        operation: the operation's id, or its path template as we serve it.
        status: of the answer.
        headers: of the answer.
        body: of the answer.

    Raises:
        ContractBroken: status or content type is not declared, or the body breaks its schema.
    """
    named = f"{method} {operation} -> {status}"
    content_type = httpx.Headers(dict(headers)).get("content-type", "")
    if status >= 400 and content_type != PROBLEM:
        raise ContractBroken(f"{named}: content type {content_type!r}, must be exactly {PROBLEM}")
    if has_contract(wire):
        _check_contract(wire, (method, operation), (status, content_type, body), named)
    _check_own(wire, (method, operation), (status, body), named)


def has_contract(wire: Wire) -> bool:
    """Whether the contract's document lies beside the clone."""
    return DOCUMENTS[wire].is_file()


@cache
def contract(wire: Wire) -> dict[str, Any]:
    """The contract's document, as it is."""
    with DOCUMENTS[wire].open(encoding="utf-8") as file:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        document: dict[str, Any] = yaml.load(file, Loader=loader)
    return document


def contract_operations(wire: Wire) -> dict[tuple[str, str], str]:
    """Ids of the document's operations, by method and path as we serve it."""
    prefix = V3_PREFIX if wire == "v3" else ""
    return {
        (method.upper(), prefix + path): item[method]["operationId"]
        for path, item in contract(wire)["paths"].items()
        for method in _METHODS
        if method in item
    }


def _check_contract(
    wire: Wire, asked: tuple[str, str], answer: tuple[int, str, bytes], named: str
) -> None:
    status, content_type, body = answer
    responses = _declared(wire, *asked)["responses"]
    declared = responses.get(str(status)) or responses.get("default")
    if declared is None and wire == "v3" and status in _ANY_TIME:
        declared = {
            "content": {PROBLEM: {"schema": {"$ref": "#/components/schemas/BaseError"}}},
        }
    if declared is None:
        raise ContractBroken(f"{named}: the contract declares {sorted(responses)} only")
    if "$ref" in declared:
        declared = contract(wire)["components"]["responses"][declared["$ref"].rpartition("/")[2]]
    content = declared.get("content", {})
    if not content:
        if body:
            raise ContractBroken(f"{named}: the contract declares no body, there is {body[:80]!r}")
        return
    media_type = content_type.partition(";")[0].strip()
    if media_type not in content:
        raise ContractBroken(f"{named}: content type {content_type!r}, declared are {[*content]}")
    if media_type.endswith("json"):
        schema = _converted(deepcopy(content[media_type]["schema"]), wire)
        _check(Draft202012Validator(schema, registry=_registry(wire)), body, named)


@cache
def _declared_by_id(wire: Wire) -> dict[str, dict[str, Any]]:
    items = contract(wire)["paths"].values()
    return {each[m]["operationId"]: each[m] for each in items for m in _METHODS if m in each}


def _declared(wire: Wire, method: str, operation: str) -> dict[str, Any]:
    found: dict[str, Any] | None
    if "/" in operation:
        path = operation.removeprefix(V3_PREFIX) if wire == "v3" else operation
        found = contract(wire)["paths"].get(path, {}).get(method.lower())
    else:
        found = _declared_by_id(wire).get(operation)
    if found is None:
        raise LookupError(f"the {wire} contract has no {method} {operation}")
    return found


@cache
def _registry(wire: Wire) -> Registry[Any]:
    document = _converted(deepcopy(contract(wire)), wire)
    resource = DRAFT202012.create_resource(document)
    registry: Registry[Any] = Registry().with_resource(f"urn:contract:{wire}", resource)
    return registry


def _converted(schema: Any, wire: Wire) -> Any:
    """OpenAPI 3.0's dialect as JSON Schema: `nullable`, and `$ref` alone."""
    if isinstance(schema, list):
        return [_converted(each, wire) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if isinstance(schema.get("$ref"), str):
        return {"$ref": schema["$ref"].replace("#", f"urn:contract:{wire}#", 1)}
    found = {name: _converted(value, wire) for name, value in schema.items() if name != "nullable"}
    if schema.get("nullable") is True:
        return {"anyOf": [{"type": "null"}, found]}
    if isinstance(schema.get("nullable"), dict):
        found["nullable"] = _converted(schema["nullable"], wire)
    return found


def _check_own(wire: Wire, asked: tuple[str, str], answer: tuple[int, bytes], named: str) -> None:
    """What can be said without the document: our models are what we publish ourselves."""
    status, body = answer
    if status >= 400:
        _check(Draft202012Validator(_OWN_PROBLEM[wire]), body, named)
        return
    operation = _own_operation(wire, *asked)
    if operation is None:
        return
    if status != operation.status:
        raise ContractBroken(f"{named}: our own document says {operation.status}")
    if operation.response is None:
        if body and not operation.other_media:
            raise ContractBroken(f"{named}: our own document says no body, there is {body[:80]!r}")
    elif body[:1] in (b"{", b"["):
        _check(_own_validator(wire, operation.operation_id), body, named)


@cache
def _own_validator(wire: Wire, operation_id: str) -> Draft202012Validator:
    operation = _own_operation(wire, "", operation_id)
    assert operation is not None
    schema = TypeAdapter(operation.response).json_schema(mode="serialization", by_alias=True)
    return Draft202012Validator(schema)


def _own_operation(wire: Wire, method: str, operation: str) -> Operation | None:
    for each in api_operations():
        is_asked = operation == each.operation_id or (each.method, each.path) == (method, operation)
        if is_asked and (each.wire == "v3") == (wire == "v3"):
            return each
    return None


def _check(validator: Draft202012Validator, body: bytes, named: str) -> None:
    try:
        value = json.loads(body, parse_float=Decimal)
    except ValueError as problem:
        raise ContractBroken(f"{named}: not JSON: {problem}: {body[:200]!r}") from None
    checking = validator.evolve(format_checker=_formats)
    faults = sorted(checking.iter_errors(value), key=lambda fault: fault.json_path)
    if faults:
        shown = "; ".join(f"{fault.json_path}: {fault.message[:300]}" for fault in faults[:5])
        raise ContractBroken(f"{named}: {shown}")
