"""Landing page and API document."""

from typing import Any

import functions_framework.aio
from starlette.requests import Request

from tollgate.console.service import ConsoleService
from tollgate.platform.application import Application

app = Application("console", ConsoleService)


@functions_framework.aio.http
async def console(request: Request) -> Any:
    """The functions-framework target: Starlette awaits whatever ASGI application it returns."""
    del request
    return app
