"""Moves events from the log into ClickHouse, each counted once."""

import functions_framework.aio
from starlette.requests import Request

from tollgate.events.load_service import LoadService
from tollgate.platform.application import Application

app = Application("load", LoadService)


@functions_framework.aio.http
async def load(request: Request) -> Application:
    """The functions-framework target: hands the request to the ASGI application."""
    del request
    return app
