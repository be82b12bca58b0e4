"""Takes usage events (CloudEvents) and answers once they are on disk."""

from typing import Any

import functions_framework.aio
from starlette.requests import Request

from tollgate.events.api_ingest import IngestService
from tollgate.platform.application import Application

app = Application("ingest", IngestService)


@functions_framework.aio.http
async def ingest(request: Request) -> Any:
    """The functions-framework target: Starlette awaits whatever ASGI application it returns."""
    del request
    return app
