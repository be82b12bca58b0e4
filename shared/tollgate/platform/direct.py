"""Requests that a function answers without ASGI: no task, no messages, one write.

An offer, not another way in: whatever is not plainly good goes through ASGI, where every check and
every error answer stands. So both ways can never disagree about what is refused.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

Headers = Sequence[tuple[bytes, bytes]]
Answer = Callable[[bytes | Exception], None]
"""Called once, on the loop that took the request: the status line and own headers of an answer
without a body, each line ended; or what went wrong."""
Taker = Callable[[bytes, Answer], bool]
"""Takes the body of a request, as sent; whether it did. If not, nothing has been done."""


@runtime_checkable
class Direct(Protocol):
    """A service that may answer so."""

    def taker(self, path: str, headers: Headers) -> Taker | None:
        """Who takes requests with this head. It may be called for any number of them.

        Args:
            path: one of the function's routes, for a POST without a query string.
            headers: names in lower case.

        Returns:
            None: no such request is taken.
        """
        ...
