"""Meters, usage queries, events, subjects, the ledger."""

from typing import Any

import functions_framework.aio
from starlette.requests import Request

from tollgate.metering.service import UsageService
from tollgate.platform.application import Application

app = Application("usage", UsageService)


@functions_framework.aio.http
async def usage(request: Request) -> Any:
    """The functions-framework target: Starlette awaits whatever ASGI application it returns."""
    del request
    return app
