"""Landing page and API document."""

import functions_framework.aio
from starlette.requests import Request

from tollgate.console.service import ConsoleService
from tollgate.platform.application import Application

app = Application("console", ConsoleService)


@functions_framework.aio.http
async def console(request: Request) -> Application:
    """The functions-framework target: hands the request to the ASGI application."""
    del request
    return app
