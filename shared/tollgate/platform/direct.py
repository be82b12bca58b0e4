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


@runtime_checkable
class Direct(Protocol):
    """A service that may answer so."""

    def take_at_once(self, path: str, headers: Headers, body: bytes, answer: Answer) -> bool:
        """Takes a POST without a query string whose body is whole.

        Args:
            path: one of the function's routes.
            headers: names in lower case.
            body: as sent.
            answer: to be called later.

        Returns:
            whether it was taken. If not, nothing has been done.
        """
        ...
