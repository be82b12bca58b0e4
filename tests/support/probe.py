"""One way to call an operation, and what shows whose data were reached."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from tests.support.houses import World, mark


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One way to call an operation, and what shows that it reached the caller's own data.

    Attributes:
        path: path parameters that name a thing of a house; {}: none is named.
        query, body, headers: of the request, by the house whose thing is named.
        naming: a body that names other things of the asker.
        own: whether an answer shows the house's own data; by default it has its mark.
        ends: the thing named is gone after it; tried last.
        names: what is named may be the asker's own too, as slugs and subjects may.
    """

    path: Callable[[World, str], Mapping[str, str]] | None = None
    query: Callable[[str], Mapping[str, Any]] = lambda _house: {}
    body: Callable[[str], Any] | None = None
    naming: Callable[[World, str], Any] | None = None
    headers: Callable[[str], Mapping[str, str]] = lambda _house: {}
    own: Callable[[httpx.Response, str], bool] = lambda answer, house: mark(house) in answer.text
    ends: bool = False
    names: bool = False


def done(answer: httpx.Response, _house: str) -> bool:
    return answer.is_success


PLAIN = Probe()
