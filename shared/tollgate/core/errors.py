"""The kinds of failure that every part of Tollgate knows.

Pure: a kind says nothing of HTTP. `tollgate.platform.problem` maps kinds to status codes and
bodies.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that is wrong in an input.

    Attributes:
        field: path of the offending member, as the sender wrote it (`data.tokens`, `windowSize`).
        code: stable machine-readable code, snake case.
        message: what is wrong and what to do, for people.
        index: position in the batch, from 0; None outside batches.
    """

    field: str
    code: str
    message: str
    index: int | None = None


class TollgateError(Exception):
    """Root of the tree. `code` is stable; `detail` is for people."""

    code = "error"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class InvalidInput(TollgateError):
    """The caller sent something that can never be accepted as it is."""

    code = "invalid_input"

    def __init__(self, faults: tuple[Fault, ...], detail: str | None = None) -> None:
        super().__init__(detail or describe(faults))
        self.faults = faults


class Unauthorized(TollgateError):
    """No key, or one that is unknown, expired or revoked."""

    code = "unauthorized"


class Forbidden(TollgateError):
    """The key is good, its scopes do not cover the operation."""

    code = "forbidden"


class NotFound(TollgateError):
    """The thing named does not exist in the caller's namespace."""

    code = "not_found"


class MethodNotAllowed(TollgateError):
    """The path exists, the method does not."""

    code = "method_not_allowed"


class NotAcceptable(TollgateError):
    """None of the media types that the caller accepts can be given."""

    code = "not_acceptable"


class Conflict(TollgateError):
    """The request contradicts what is stored."""

    code = "conflict"


class Gone(TollgateError):
    """The thing named was there, and was deleted."""

    code = "gone"


class TooLarge(TollgateError):
    """A bound on size or count was passed."""

    code = "too_large"


class Unsupported(TollgateError):
    """The media type or encoding of the body is not supported."""

    code = "unsupported_media_type"


class Transient(TollgateError):
    """May succeed later. What the failed request did is unknown; sending it again is exact.

    Attributes:
        retry_after_seconds: how long to wait at least.
    """

    code = "transient"

    def __init__(self, detail: str, retry_after_seconds: int = 1) -> None:
        super().__init__(detail)
        self.retry_after_seconds = retry_after_seconds


class PermanentFault(TollgateError):
    """A dependency refuses for good, or an invariant is broken: a person has to look."""

    code = "permanent_fault"


def describe(faults: tuple[Fault, ...]) -> str:
    """One sentence for people from a list of faults: the first, and how many more there are."""
    shown = []
    for fault in faults[:3]:
        place = fault.field if fault.index is None else f"event {fault.index}: {fault.field}"
        shown.append(f"{place}: {fault.message}" if place else fault.message)
    more = f" (and {len(faults) - 3} more)" if len(faults) > 3 else ""
    return "; ".join(shown) + more
