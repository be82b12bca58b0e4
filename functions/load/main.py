"""Moves events from the log into ClickHouse, each counted once."""

from typing import Any

import functions_framework.aio
from starlette.requests import Request

from tollgate.events.load_service import LoadService
from tollgate.platform.application import Application

app = Application("load", LoadService)


@functions_framework.aio.http
async def load(request: Request) -> Any:
    """The functions-framework target: Starlette awaits whatever ASGI application it returns."""
    del request
    return app
