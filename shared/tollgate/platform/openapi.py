"""The OpenAPI 3.1 document, made from operations: what is served is what is described.

https://spec.openapis.org/oas/v3.1.1 -- schemas are pydantic's, shared under `components`;
parameters are written as `tollgate.platform.api.read_query` reads them.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter

from tollgate import __version__
from tollgate.platform.api import JSON, Operation

_REFERENCE = "#/components/schemas/"
_PARAMETER = re.compile(r"\{(\w+)\}")
_PROBLEM = "application/problem+json"
_REASONS = {
    200: "Success.",
    201: "Made.",
    202: "Taken.",
    204: "Done; there is nothing to say.",
    400: "The request can't be accepted as it is; every fault is listed.",
    401: "No access key, or one that is unknown, expired or revoked.",
    403: "The key lacks the scope.",
    404: "There is no such thing in the key's namespace.",
    409: "The request contradicts what is stored.",
    410: "The thing was deleted.",
    413: "The body is too large.",
    415: "The media type or encoding of the body is not supported.",
    429: "The limit is reached; `Retry-After` says when it begins anew.",
    503: "Not now. What a failed write did is unknown; sending it again is exact.",
}
_ABOUT = """\
Usage metering: events in, exact quantities out. OpenMeter's contract and what Tollgate adds.

Requests carry `Authorization: Bearer tg_...`; while no key was ever made, only this machine is
served and none is needed. Failures are RFC 9457 problems. Times are RFC 3339, periods
half-open: `to` is exclusive. Numbers keep all their digits.
"""
_TEXT = {"type": "string"}


def openapi_document(operations: Iterable[Operation]) -> dict[str, Any]:
    """The document of some operations, in the order of their paths."""
    ordered = sorted(operations, key=lambda o: (o.path, o.method))
    schemas, definitions = _schemas(ordered)
    definitions |= _problem_schemas()
    paths: dict[str, dict[str, Any]] = {}
    for operation in ordered:
        described = _operation(operation, schemas, definitions)
        paths.setdefault(operation.path, {})[operation.method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tollgate",
            "version": __version__,
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name} for name in sorted({o.tag for o in ordered})],
        "paths": paths,
        "components": {
            "schemas": _reachable(paths, definitions),
            "securitySchemes": {
                "accessKey": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An access key, `tg_<id>_<secret>`.",
                }
            },
        },
    }


Schemas = Mapping[tuple[str, str], dict[str, Any]]


def _schemas(operations: Sequence[Operation]) -> tuple[Schemas, dict[str, Any]]:
    """Schemas by (operation, role), and the definitions they refer to."""
    inputs: list[tuple[tuple[str, str], Any, TypeAdapter[Any]]] = []
    for operation in operations:
        key = operation.operation_id
        if operation.query is not None:
            inputs.append(((key, "query"), "validation", TypeAdapter(operation.query)))
        if operation.reader is not None:
            inputs.append(((key, "body"), "validation", operation.reader))
        if operation.writer is not None:
            inputs.append(((key, "response"), "serialization", operation.writer))
    found, shared = TypeAdapter.json_schemas(
        inputs, by_alias=True, ref_template=_REFERENCE + "{model}"
    )
    return {key: schema for (key, _), schema in found.items()}, dict(shared.get("$defs", {}))


def _operation(
    operation: Operation, schemas: Schemas, definitions: Mapping[str, Any]
) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.operation_id,
        "summary": operation.summary,
        "tags": [operation.tag],
    }
    text = operation.description or _docstring(operation)
    if operation.scope is not None:
        text = f"{text}\n\nNeeds the scope `{operation.scope}`.".strip()
        described["security"] = [{"accessKey": []}]
    else:
        described["security"] = []
    if text:
        described["description"] = text
    parameters = [_path_parameter(name) for name in _PARAMETER.findall(operation.path)]
    query = schemas.get((operation.operation_id, "query"))
    if query is not None:
        parameters += _query_parameters(query, definitions)
    if parameters:
        described["parameters"] = parameters
    body = schemas.get((operation.operation_id, "body"))
    if body is not None:
        described["requestBody"] = {
            "required": not operation.body_optional,
            "content": {JSON: {"schema": body}},
        }
    described["responses"] = _responses(operation, schemas)
    return _laid_over(described, operation.document)


def _docstring(operation: Operation) -> str:
    """The first paragraph of the handler's."""
    text = operation.handler.__doc__ or ""
    return " ".join(text.partition("\n\n")[0].split())


def _path_parameter(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {**_TEXT, "minLength": 1}}


def _query_parameters(
    schema: Mapping[str, Any], definitions: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Lists are repeated (`form`), objects are written in brackets (`deepObject`)."""
    model = _resolved(schema, definitions)
    required = model.get("required", ())
    found = []
    for name, member in model.get("properties", {}).items():
        plain = _without_null(member)
        parameter: dict[str, Any] = {"name": name, "in": "query"}
        if name in required:
            parameter["required"] = True
        if "description" in plain:
            parameter["description"] = plain.pop("description")
        nested = any(
            _resolved(each, definitions).get("type") == "object"
            for each in (plain, *plain.get("anyOf", ()))
        )
        parameter |= {"style": "deepObject" if nested else "form", "explode": True}
        parameter["schema"] = plain
        found.append(parameter)
    return found


def _resolved(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    while "$ref" in schema:
        schema = definitions[schema["$ref"].removeprefix(_REFERENCE)]
    return schema


def _without_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A parameter that is not sent is absent: a query string has no null."""
    plain = {k: v for k, v in schema.items() if k != "title" and (k, v) != ("default", None)}
    choices = [each for each in plain.get("anyOf", ()) if each.get("type") != "null"]
    if len(choices) == 1:
        del plain["anyOf"]
        return {**choices[0], **plain}
    if choices:
        plain["anyOf"] = choices
    return plain


def _responses(operation: Operation, schemas: Schemas) -> dict[str, Any]:
    success: dict[str, Any] = {"description": _REASONS.get(operation.status, "Success.")}
    content: dict[str, Any] = {}
    answer = schemas.get((operation.operation_id, "response"))
    if answer is not None:
        content[JSON] = {"schema": answer}
    content |= {media: {"schema": _TEXT} for media in operation.other_media}
    if content:
        success["content"] = content
    problem = "ProblemV3" if operation.path.startswith("/api/v3/") else "Problem"
    media = {_PROBLEM: {"schema": {"$ref": _REFERENCE + problem}}}
    responses = {str(operation.status): success}
    for status in _failures(operation):
        responses[str(status)] = {"description": _REASONS[status], "content": media}
        if status == 503:
            responses["503"]["headers"] = {
                "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}
            }
    return responses


def _failures(operation: Operation) -> list[int]:
    """The problems that an operation can answer with."""
    named = bool(_PARAMETER.search(operation.path))
    writes = operation.method != "GET"
    takes_body = operation.body is not None
    wanted = {
        400: takes_body or operation.query is not None or named,
        401: operation.scope is not None,
        403: operation.scope is not None,
        404: named,
        409: writes and takes_body and operation.method != "DELETE",
        413: takes_body,
        415: takes_body,
        503: operation.scope is not None,
    }
    implied = {status for status, can in wanted.items() if can}
    return sorted(implied | set(operation.failures))


def _laid_over(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Merges objects member by member and joins lists; all else is replaced, by None removed."""
    for name, value in above.items():
        found = below.get(name)
        if value is None:
            below.pop(name, None)
        elif isinstance(found, dict) and isinstance(value, Mapping):
            below[name] = _laid_over(dict(found), value)
        elif isinstance(found, list) and isinstance(value, Sequence):
            below[name] = [*found, *value]
        else:
            below[name] = value
    return below


def _reachable(paths: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """Only the definitions that something refers to: query models became parameters."""
    wanted: set[str] = set()
    waiting: list[Any] = [paths]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Mapping):
            reference = value.get("$ref")
            if isinstance(reference, str):
                name = reference.removeprefix(_REFERENCE)
                if name not in wanted:
                    wanted.add(name)
                    waiting.append(definitions[name])
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return {name: definitions[name] for name in sorted(wanted)}


def _problem_schemas() -> dict[str, Any]:
    """Problem bodies as `tollgate.platform.problem` writes them."""
    members = {
        "type": _TEXT,
        "title": _TEXT,
        "status": {"type": "integer"},
        "detail": _TEXT,
        "instance": _TEXT,
    }
    fault = {
        "type": "object",
        "properties": {
            "field": _TEXT,
            "code": _TEXT,
            "message": _TEXT,
            "attributes": {"type": "object", "properties": {"index": {"type": "integer"}}},
        },
        "required": ["field", "code", "message"],
    }
    extensions = {
        "type": "object",
        "properties": {"code": _TEXT, "validationErrors": {"type": "array", "items": fault}},
    }
    invalid = {
        "type": "object",
        "properties": {"field": _TEXT, "reason": _TEXT, "source": _TEXT, "rule": _TEXT},
        "required": ["field", "reason"],
    }
    shape = {"type": "object", "required": list(members)}
    return {
        "Problem": {**shape, "properties": {**members, "extensions": extensions}},
        "ProblemV3": {
            **shape,
            "properties": {**members, "invalid_parameters": {"type": "array", "items": invalid}},
        },
    }
