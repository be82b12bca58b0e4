"""Ingest as the API document shows it. It is served by `api_ingest`, on bare ASGI."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tollgate.core.errors import PermanentFault
from tollgate.events.position import HEADER
from tollgate.platform.access import Scope
from tollgate.platform.api import Call, Operation

_EVENT = {"$ref": "#/components/schemas/CloudEvent"}
_EVENTS = {"type": "array", "items": _EVENT}
_POSITION = {
    HEADER: {
        "description": "Where the last of these events stands in the log. A query that sends "
        "it back waits until they are counted.",
        "schema": {"type": "string", "pattern": r"^\d+;\d+:\d+(,\d+:\d+)*$"},
    }
}
_ABOUT = """\
Takes usage events and answers once they are on disk. All or none: one fault refuses the request,
and every fault is listed; with `partial=true` the good ones are stored and the answer says which
were not.

The body is one event (`application/cloudevents+json`), a batch
(`application/cloudevents-batch+json`), either of them as `application/json`, or,
in binary mode, an event's data alone while its attributes come as `ce-` headers.
`Content-Encoding: gzip` is read.

The same event again, same source and id, has no effect and is answered as success.
"""


class CloudEvent(BaseModel):
    """A usage event (CloudEvents 1.0). Further members are its extensions and are kept."""

    model_config = ConfigDict(extra="allow")

    specversion: Annotated[Literal["1.0"], Field(description="1.0 if left out")] = "1.0"
    id: Annotated[str, Field(min_length=1, description="unique within its source")]
    source: Annotated[str, Field(min_length=1, description="who made the event")]
    type: Annotated[str, Field(min_length=1, description="what meters select events by")]
    subject: Annotated[str, Field(min_length=1, description="whom the usage is attributed to")]
    time: Annotated[
        datetime | None, Field(description="when it happened; the time of arrival if left out")
    ] = None
    datacontenttype: Annotated[Literal["application/json"] | None, Field()] = None
    dataschema: Annotated[str | None, Field(min_length=1, description="a URI")] = None
    data: Annotated[
        dict[str, Any] | None,
        Field(description="what meters read; numbers keep every digit, also inside strings"),
    ] = None


class RejectedEvent(BaseModel):
    """One fault of one event."""

    index: Annotated[int, Field(description="place in the request, from 0")]
    field: str
    code: str
    detail: str


class IngestResult(BaseModel):
    """What became of a request with `partial=true`."""

    accepted: int
    rejected: list[RejectedEvent]


def _answered_elsewhere(call: Call) -> object:
    raise PermanentFault(f"{call.target} is answered by functions/ingest")


def _attribute(name: str, about: str) -> dict[str, Any]:
    return {
        "name": f"ce-{name}",
        "in": "header",
        "description": f"Binary mode: {about}.",
        "schema": {"type": "string", "minLength": 1},
    }


def _ingest(path: str, operation_id: str, status: int) -> Operation:
    problem = "ProblemV3" if path.startswith("/api/v3/") else "Problem"
    result = {"$ref": "#/components/schemas/IngestResult"}
    media = {
        "application/cloudevents+json": {"schema": _EVENT},
        "application/cloudevents-batch+json": {"schema": _EVENTS},
    }
    parameters: list[dict[str, Any]] = [
        {
            "name": "partial",
            "in": "query",
            "description": "Store the good events of a request even if others are not.",
            "schema": {"type": "boolean", "default": False},
        },
        _attribute("specversion", "always 1.0"),
        _attribute("id", "the event's id; with it the body is the event's data"),
        _attribute("source", "the event's source"),
        _attribute("type", "the event's type"),
        _attribute("subject", "the event's subject"),
        _attribute("time", "the event's time"),
    ]
    taken = {"description": "All events are on disk.", "headers": _POSITION}
    return Operation(
        method="POST",
        path=path,
        operation_id=operation_id,
        summary="Ingest events",
        description=_ABOUT,
        tag="Events",
        scope=Scope.INGEST,
        handler=_answered_elsewhere,
        body=CloudEvent | list[CloudEvent],
        response=IngestResult,
        status=200,
        wire="v3" if problem == "ProblemV3" else "v1",
        document={
            "parameters": parameters,
            "requestBody": {"content": media},
            "responses": {
                "200": {
                    "description": "Answers `partial=true`: what was stored and what was not.",
                    "headers": _POSITION,
                    "content": {"application/json": {"schema": result}},
                },
                str(status): taken,
                "409": None,
            },
        },
    )


OPERATIONS: tuple[Operation, ...] = (
    _ingest("/api/v1/events", "ingestEvents", 204),
    _ingest("/api/v3/openmeter/events", "ingest-metering-events", 202),
)
