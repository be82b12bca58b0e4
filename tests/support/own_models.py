"""Holds answers of operations that are ours alone against the models that document them."""

import json
from functools import cache

import httpx

from tests.support.contract import PROBLEM
from tollgate.console.document import api_operations
from tollgate.platform.api import Operation


@cache
def operation(operation_id: str) -> Operation:
    """An operation of ours by its id."""
    return next(o for o in api_operations() if o.operation_id == operation_id)


def held(operation_id: str, response: httpx.Response) -> httpx.Response:
    """The response, after a look at its status, content type and body.

    A success must read and write back through the model unchanged: no member goes undocumented.
    """
    asked = operation(operation_id)
    if response.status_code >= 400:
        assert response.headers["content-type"] == PROBLEM
        assert {"type", "title", "status", "detail", "instance"} <= response.json().keys()
        return response
    assert response.status_code == asked.status
    if asked.writer is None:
        assert response.content == b""
        return response
    assert response.headers["content-type"] == "application/json"
    read = asked.writer.validate_json(response.content)
    written = asked.writer.dump_json(read, by_alias=True, exclude_unset=True)
    assert json.loads(written) == json.loads(response.content)
    return response
