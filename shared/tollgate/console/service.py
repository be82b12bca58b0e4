"""The service of `functions/console`: landing page, API document and its viewer."""

import re
from functools import cache
from typing import Any

import msgspec

from tollgate.console.document import DOCUMENT
from tollgate.console.pages import Facts, landing_page
from tollgate.console.style import ICON, STYLE
from tollgate.console.viewer import docs_page
from tollgate.core.errors import TollgateError
from tollgate.platform.access import DEFAULT_NAMESPACE
from tollgate.platform.api import JSON, ApiService, Call, Operation, Reply
from tollgate.platform.keys import open_keys
from tollgate.platform.parts import Parts

_HOST = re.compile(r"[A-Za-z0-9.:\[\]-]{1,255}")
HTML = "text/html; charset=utf-8"
_HEADERS = (
    (
        "content-security-policy",
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
)
_FRESH = (*_HEADERS, ("cache-control", "no-store"))
_CACHED = (*_HEADERS, ("cache-control", "public, max-age=300"))


def show_landing_page(call: Call) -> Reply:
    """A page that says what runs here and how to begin."""
    open_to_all = call.parts.get(open_keys).open_to_all
    facts = Facts(
        url=_own_url(call),
        open_to_all=open_to_all,
        meters=_count_meters(call.parts) if open_to_all else None,
    )
    return Reply(body=landing_page(facts).encode(), media_type=HTML, headers=_FRESH)


def show_docs_page(call: Call) -> Reply:
    """A page that shows the API document, made on the server, without any script."""
    del call
    return Reply(body=_docs_page(), media_type=HTML, headers=_CACHED)


def get_document(call: Call) -> Reply:
    """This document."""
    del call
    return Reply(body=DOCUMENT.read_bytes(), media_type=JSON, headers=_CACHED)


def get_style(call: Call) -> Reply:
    """The pages' style."""
    del call
    return Reply(body=STYLE.encode(), media_type="text/css; charset=utf-8", headers=_CACHED)


def get_icon(call: Call) -> Reply:
    """The pages' icon."""
    del call
    return Reply(body=ICON.encode(), media_type="image/svg+xml", headers=_CACHED)


@cache
def _docs_page() -> bytes:
    document: dict[str, Any] = msgspec.json.decode(DOCUMENT.read_bytes())
    return docs_page(document).encode()


def _own_url(call: Call) -> str:
    """Where the reader found this page, as far as the request says."""
    scheme = "https" if call.headers.get("x-forwarded-proto") == "https" else "http"
    host = call.headers.get("host", "")
    # The name stands in commands to be copied: what no host is called stays out of them.
    return f"{scheme}://{host if _HOST.fullmatch(host) else 'localhost:8888'}"


def _count_meters(parts: Parts) -> int | None:
    """How many meters there are; None where the console runs alone, without a control plane."""
    if parts.settings.function:
        return None
    # Only the process that hosts every function has what this imports.
    from tollgate.metering.meter_reader import open_meters
    from tollgate.metering.store import MeterListing

    try:
        return len(parts.get(open_meters).list(DEFAULT_NAMESPACE, MeterListing(page_size=1000)))
    except TollgateError:
        return None


def _page(path: str, operation_id: str, summary: str, **more: Any) -> Operation:
    return Operation(
        method="GET",
        path=path,
        operation_id=operation_id,
        summary=summary,
        tag="Console",
        scope=None,
        wire="tollgate",
        **more,
    )


OPERATIONS: tuple[Operation, ...] = (
    _page("/", "showLandingPage", "Landing page", handler=show_landing_page, other_media=(HTML,)),
    _page("/docs", "showDocs", "API viewer", handler=show_docs_page, other_media=(HTML,)),
    _page(
        "/api/openapi.json",
        "getOpenApiDocument",
        "The API document",
        handler=get_document,
        response=dict[str, Any],
    ),
)
_ASSETS: tuple[Operation, ...] = (
    _page("/console.css", "getStyle", "Style", handler=get_style, other_media=("text/css",)),
    _page("/icon.svg", "getIcon", "Icon", handler=get_icon, other_media=("image/svg+xml",)),
)


class ConsoleService(ApiService):
    """Serves pages."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts, (*OPERATIONS, *_ASSETS))
