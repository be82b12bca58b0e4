"""Takes usage events (CloudEvents) and answers once they are on disk."""

import functions_framework.aio
from starlette.requests import Request

from tollgate.events.api_ingest import IngestService
from tollgate.platform.application import Application

app = Application("ingest", IngestService)


@functions_framework.aio.http
async def ingest(request: Request) -> Application:
    """The functions-framework target: hands the request to the ASGI application."""
    del request
    return app
