"""Meters, usage queries, events, subjects, the ledger."""

import functions_framework.aio
from starlette.requests import Request

from tollgate.metering.service import UsageService
from tollgate.platform.application import Application

app = Application("usage", UsageService)


@functions_framework.aio.http
async def usage(request: Request) -> Application:
    """The functions-framework target: hands the request to the ASGI application."""
    del request
    return app
