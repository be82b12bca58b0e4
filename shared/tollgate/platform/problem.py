"""Kinds of failure to HTTP: status codes and problem bodies (RFC 9457) of each wire version.

v1 and ours: `{type, title, status, detail, instance, extensions: {validationErrors}}`. v3:
`{type, title, status, detail, instance, invalid_parameters}`. The content type is exactly
`application/problem+json`: OpenMeter's JavaScript client reads nothing else.
"""

from dataclasses import dataclass
from typing import Literal

import msgspec

from tollgate.core.errors import (
    Conflict,
    Fault,
    Forbidden,
    Gone,
    InvalidInput,
    MethodNotAllowed,
    NotAcceptable,
    NotFound,
    PermanentFault,
    TollgateError,
    TooLarge,
    Transient,
    Unauthorized,
    Unsupported,
)
from tollgate.core.ids import new_ulid

Wire = Literal["v1", "v3", "tollgate"]
MEDIA_TYPE = b"application/problem+json"
_STATUS: dict[type[TollgateError], int] = {
    InvalidInput: 400,
    Unauthorized: 401,
    Forbidden: 403,
    NotFound: 404,
    MethodNotAllowed: 405,
    NotAcceptable: 406,
    Conflict: 409,
    Gone: 410,
    TooLarge: 413,
    Unsupported: 415,
    Transient: 503,
    PermanentFault: 500,
}
_TITLES = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    409: "Conflict",
    410: "Gone",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
_FAULTS_SHOWN = 1000
# v3's rules for our codes and pydantic's. Rules that need more than a word (bounds, choices) are
# left at `invalid`: the reason says them.
_RULES = {
    "missing": "required",
    "required": "required",
    "empty": "required",
    "bool_parsing": "is_boolean",
    "bool_type": "is_boolean",
    "invalid_time": "is_date_time",
    "int_parsing": "is_integer",
    "int_type": "is_integer",
    "list_type": "is_array",
    "dict_type": "is_object",
    "model_type": "is_object",
    "not_an_object": "is_object",
    "not_a_string": "is_string",
    "string_type": "is_string",
    "extra_forbidden": "unknown_property",
    "unknown_property": "unknown_property",
    "unknown_dimension": "missing_reference",
    "invalid_label": "is_label",
    "invalid_dimension": "matches_regex",
    "invalid_slug": "matches_regex",
    "invalid_ulid": "matches_regex",
    "string_pattern_mismatch": "matches_regex",
    "wrong_type": "type",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemReply:
    """A problem ready to be sent.

    Attributes:
        status: HTTP status code.
        body: JSON.
        headers: lower-case names and values, content type included.
        instance: the identifier that the body shows; for the log.
    """

    status: int
    body: bytes
    headers: list[tuple[bytes, bytes]]
    instance: str


def wire_of(path: str) -> Wire:
    """Which wire version a path belongs to."""
    return "v3" if path.startswith("/api/v3/") else "v1"


def status_of(error: TollgateError) -> int:
    """The HTTP status of a kind; 500 for kinds that name none."""
    return next((s for kind, s in _STATUS.items() if isinstance(error, kind)), 500)


def problem_reply(error: TollgateError, wire: Wire) -> ProblemReply:
    """The answer to a failed request."""
    status = status_of(error)
    faults = error.faults if isinstance(error, InvalidInput) else ()
    identity = new_ulid()
    instance = f"kong:trace:{identity}" if wire == "v3" else f"urn:request:{identity}"
    body: dict[str, object] = {
        "type": f"https://httpstatuses.com/{status}" if wire == "v3" else "about:blank",
        "title": _TITLES[status],
        "status": status,
        # What a broken dependency says belongs into the log, not to a caller.
        "detail": f"internal error, see the log for {identity}" if status == 500 else error.detail,
        "instance": instance,
    }
    if wire == "v3":
        if status == 400:
            body["invalid_parameters"] = _invalid_parameters(faults) or [
                {"field": "", "reason": error.detail}
            ]
    else:
        body["extensions"] = _extensions(error, faults)
    headers = [
        (b"content-type", MEDIA_TYPE),
        (b"cache-control", b"no-store"),
    ]
    if isinstance(error, Transient):
        headers.append((b"retry-after", str(error.retry_after_seconds).encode()))
    if status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="tollgate"'))
    return ProblemReply(
        status=status, body=msgspec.json.encode(body), headers=headers, instance=instance
    )


def _extensions(error: TollgateError, faults: tuple[Fault, ...]) -> dict[str, object]:
    extensions: dict[str, object] = {"code": error.code}
    if faults:
        extensions["validationErrors"] = [
            {"field": _place(f), "code": f.code, "message": f.message}
            | ({} if f.index is None else {"attributes": {"index": f.index}})
            for f in faults[:_FAULTS_SHOWN]
        ]
    return extensions


def _invalid_parameters(faults: tuple[Fault, ...]) -> list[dict[str, str]]:
    """Each once: the contract's list has unique items, whatever the codes are."""
    found = dict.fromkeys((_place(f), _RULES.get(f.code, "invalid"), f.message) for f in faults)
    return [
        {"field": field, "rule": rule, "reason": reason}
        for field, rule, reason in list(found)[:_FAULTS_SHOWN]
    ]


def _place(fault: Fault) -> str:
    if fault.index is None:
        return fault.field
    return f"[{fault.index}].{fault.field}" if fault.field else f"[{fault.index}]"
