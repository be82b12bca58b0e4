"""The service of `functions/console`: landing page and API document."""

from tollgate.platform.access import Scope
from tollgate.platform.api import ApiService, Call, Operation, Reply
from tollgate.platform.parts import Parts


def landing_page(call: Call) -> Reply:
    """The page at `/`."""
    del call
    return Reply(body=b"<h1>Tollgate</h1>", media_type="text/html; charset=utf-8")


class ConsoleService(ApiService):
    """Serves pages."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(
            parts,
            (
                Operation(
                    method="GET",
                    path="/",
                    operation_id="getLandingPage",
                    summary="Landing page",
                    tag="Console",
                    scope=Scope.READ,
                    handler=landing_page,
                ),
            ),
        )
