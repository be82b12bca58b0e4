"""Sends one webhook over HTTP: signed, bounded in time and size, to public addresses only.

The host is resolved once and the connection goes to the address that was looked at, so a name that
says another thing a moment later changes nothing. TLS is checked against the name. Redirects are
not followed, proxies of the environment not used, and no connection serves two requests: the pool
knows addresses, and two names may share one.
"""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING

from tollgate import __version__
from tollgate.core.clock import Clock
from tollgate.notify.address import PRIVATE, is_public
from tollgate.notify.channel import url_fault
from tollgate.notify.delivery import Attempt
from tollgate.notify.outbox_store import Claim
from tollgate.notify.retry import parse_retry_after
from tollgate.notify.signature import signatures

if TYPE_CHECKING:
    import httpx

SECONDS_MAX = 15
"""For all of it: resolving, connecting, sending, and the answer to its end or bound."""
ANSWER_BYTES_MAX = 2048
"""Of an answer's body, as it is kept."""
ADDRESSES_TRIED_MAX = 3
_CONNECT_SECONDS = 5
_NUL = "\x00"
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class _Unreachable(Exception):
    """There was no answer; says why."""


class Sender:
    """Sends webhooks; make one for a process, outside of any event loop."""

    def __init__(
        self, clock: Clock, *, private_addresses: bool, seconds_max: int = SECONDS_MAX
    ) -> None:
        self._clock = clock
        self._private_addresses = private_addresses
        self._seconds_max = seconds_max
        self._trust = ssl.create_default_context()

    async def send(self, claim: Claim) -> Attempt:
        """One attempt, whatever comes of it."""
        # It takes 40 ms to import: a start does without it.
        import httpx

        at, began = self._clock.now(), monotonic()
        status: int | None = None
        body, error, retry_after = "", "", None
        try:
            async with asyncio.timeout(self._seconds_max):
                answer, raw = await self._exchange(claim, int(at.timestamp()))
            status = answer.status_code
            body = raw.decode("utf-8", "replace").replace(_NUL, _REPLACEMENT)
            retry_after = parse_retry_after(answer.headers.get("retry-after"), self._clock.now())
        except TimeoutError:
            error = f"there was no whole answer within {self._seconds_max} s"
        except _Unreachable as problem:
            error = str(problem)
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as problem:
            error = f"{type(problem).__name__}: {problem}"[:300].replace(_NUL, _REPLACEMENT)
        return Attempt(
            url=claim.channel.url,
            status=status,
            body=body,
            error=error,
            duration_ms=round((monotonic() - began) * 1000),
            at=at,
            retry_after=retry_after,
        )

    async def _exchange(self, claim: Claim, timestamp: int) -> "tuple[httpx.Response, bytes]":
        import httpx

        url = httpx.URL(claim.channel.url)
        fault = url_fault(claim.channel.url)
        if fault:
            raise _Unreachable(f"the URL {fault}")
        addresses = await self._addresses(url)
        body = claim.payload.encode()
        secrets = claim.channel.secrets_at(self._clock.now())
        headers = {
            "user-agent": f"Tollgate/{__version__}",
            **{name.lower(): value for name, value in claim.channel.headers.items()},
            "host": url.netloc.decode("ascii"),
            "accept-encoding": "identity",
            "content-type": "application/json",
            "webhook-id": claim.event_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signatures(secrets, claim.event_id, timestamp, body),
        }
        limits = httpx.Limits(max_keepalive_connections=0)
        timeout = httpx.Timeout(self._seconds_max, connect=_CONNECT_SECONDS)
        async with httpx.AsyncClient(
            verify=self._trust, trust_env=False, limits=limits, timeout=timeout
        ) as client:
            for address in addresses[:-1]:
                try:
                    return await _post(client, url, address, headers, body)
                except (httpx.ConnectError, httpx.ConnectTimeout):
                    continue
            return await _post(client, url, addresses[-1], headers, body)

    async def _addresses(self, url: "httpx.URL") -> Sequence[str]:
        """Where the host is; all of it must be public, so that no half of a name slips through."""
        port = url.port or (443 if url.scheme == "https" else 80)
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(url.host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as problem:
            raise _Unreachable(f"the host {url.host} has no address: {problem}") from None
        addresses = list(dict.fromkeys(str(each[4][0]).partition("%")[0] for each in found))
        if not addresses:
            raise _Unreachable(f"the host {url.host} has no address")
        if not self._private_addresses and not all(
            is_public(ipaddress.ip_address(each)) for each in addresses
        ):
            raise _Unreachable(f"the host {url.host} {PRIVATE}")
        return addresses[:ADDRESSES_TRIED_MAX]


async def _post(
    client: "httpx.AsyncClient",
    url: "httpx.URL",
    address: str,
    headers: dict[str, str],
    body: bytes,
) -> "tuple[httpx.Response, bytes]":
    extensions = {"sni_hostname": url.host}
    request = client.build_request(
        "POST", url.copy_with(host=address), headers=headers, content=body, extensions=extensions
    )
    answer = await client.send(request, stream=True, follow_redirects=False)
    try:
        kept = bytearray()
        async for piece in answer.aiter_raw():
            kept += piece
            if len(kept) >= ANSWER_BYTES_MAX:
                break
        return answer, bytes(kept[:ANSWER_BYTES_MAX])
    finally:
        await answer.aclose()
