"""A backup over HTTP."""

from tollgate.events.backup import backup_pieces
from tollgate.platform.access import Scope
from tollgate.platform.api import Call, Operation, Reply

TAR = "application/x-tar"
_PROBLEM = {"$ref": "#/components/schemas/Problem"}


def make_backup(call: Call) -> Reply:
    """Streams a consistent copy of the data folder while Tollgate runs.

    Answers once the copy is made, so that what fails before is a problem with its reason.
    """
    pieces = backup_pieces(call.parts)
    next(pieces)
    stamp = call.parts.clock.now().strftime("%Y%m%dT%H%M%SZ")
    return Reply(
        stream=pieces,
        media_type=TAR,
        headers=(
            ("content-disposition", f'attachment; filename="tollgate-{stamp}.tar"'),
            ("cache-control", "no-store"),
        ),
    )


OPERATIONS: tuple[Operation, ...] = (
    Operation(
        method="POST",
        path="/api/v1/backups",
        operation_id="createBackup",
        summary="Back up",
        tag="Operations",
        scope=Scope.OPERATOR,
        handler=make_backup,
        wire="tollgate",
        other_media=(TAR,),
        description="Streams a tar of a consistent copy of the data folder while Tollgate runs. "
        "Every event acknowledged before is in it. `tollgate restore` reads it; one that was cut "
        "off lacks its manifest and is refused.",
        document={
            "responses": {
                "200": {"content": {TAR: {"schema": {"format": "binary"}}}},
                "409": {
                    "description": "A backup is being made, or the parts are not embedded.",
                    "content": {"application/problem+json": {"schema": _PROBLEM}},
                },
            }
        },
    ),
)
