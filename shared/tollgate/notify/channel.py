"""The channel: where notifications go, and how they are signed.

A channel is checked once, here; all faults are reported at once. Names and bounds are the
contract's (`NotificationChannelWebhookCreateRequest`); bounds on what it leaves open are ours.
"""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from tollgate.core.errors import InvalidInput
from tollgate.core.reading import NAME_LENGTH_MAX
from tollgate.notify.address import PRIVATE, is_public
from tollgate.notify.reading import Reading
from tollgate.notify.signature import secret_fault

WEBHOOK = "WEBHOOK"
URL_LENGTH_MAX = 2048
HEADER_COUNT_MAX = 32
HEADER_NAME_LENGTH_MAX = 128
HEADER_VALUE_LENGTH_MAX = 4096
ROTATION = timedelta(hours=24)
"""How long the secret before the present one signs too."""

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
_HEADER_VALUE = re.compile(r"[!-~](?:[ -~]*[!-~])?|", re.ASCII)
_URL = re.compile(r"[!-~]+", re.ASCII)
# What the request itself says, or what is only about one connection.
_OURS = frozenset(
    [
        "connection",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelInput:
    """A channel as a person describes it; one that exists is valid.

    Attributes:
        url: absolute, http or https.
        headers: sent with each webhook.
        secret: signs; None: the one that is there, or one that we make.
    """

    name: str
    disabled: bool
    metadata: Mapping[str, str]
    url: str
    headers: Mapping[str, str]
    secret: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """A channel as it is stored.

    Attributes:
        previous_secret: signs too, before `previous_until`.
        disabled_reason: why we disabled it; None: we did not.
    """

    id: str
    namespace: str
    name: str
    disabled: bool
    disabled_reason: str | None
    metadata: Mapping[str, str]
    url: str
    headers: Mapping[str, str]
    secret: str
    previous_secret: str | None
    previous_until: datetime | None
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None

    def secrets_at(self, instant: datetime) -> tuple[str, ...]:
        """Those that sign at an instant, the newest first."""
        if self.previous_secret is None or self.previous_until is None:
            return (self.secret,)
        return (
            (self.secret, self.previous_secret) if instant < self.previous_until else (self.secret,)
        )


def parse_channel(
    members: Mapping[str, object], *, private_addresses: bool = False
) -> ChannelInput:
    """Checks a channel, as JSON's plain values.

    Args:
        members: as sent.
        private_addresses: whether the URL may name an address that is not public.

    Raises:
        InvalidInput: every fault.
    """
    reading = Reading(members)
    if members.get("type") != WEBHOOK:
        reading.fault("type", "unknown_type", f"must be {WEBHOOK}")
    wanted = ChannelInput(
        name=reading.required_text("name", NAME_LENGTH_MAX),
        disabled=reading.flag("disabled"),
        metadata=reading.metadata(),
        url=_url(reading, private_addresses=private_addresses),
        headers=_headers(reading),
        secret=_secret(reading),
    )
    if reading.faults:
        raise InvalidInput(tuple(reading.faults))
    return wanted


def _url(reading: Reading, *, private_addresses: bool) -> str:
    url = reading.required_text("url", URL_LENGTH_MAX)
    if not url:
        return ""
    fault = url_fault(url)
    if not fault and not private_addresses and _names_private_address(url):
        fault = PRIVATE
    if fault:
        reading.fault("url", "invalid_url", fault)
    return url


def url_fault(url: str) -> str:
    """What is wrong with a webhook's URL; "" if nothing is. Where it leads is not looked at."""
    if not _URL.fullmatch(url):
        return "must be of ASCII characters without spaces: encode the others"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "is not a URL"
    if parts.scheme.lower() not in ("http", "https") or not parts.hostname:
        return "must be absolute, such as https://example.com/webhook"
    if parts.username is not None or parts.password is not None:
        return "must not hold a user or password: use customHeaders"
    if parts.fragment:
        return "must not have a fragment (#)"
    if port == 0:
        return "must not have port 0"
    return ""


def _names_private_address(url: str) -> bool:
    host = (urlsplit(url).hostname or "").rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return not is_public(ipaddress.ip_address(host))
    except ValueError:
        # A name: it is looked at when it is resolved.
        return False


def _headers(reading: Reading) -> dict[str, str]:
    found = reading.texts(
        "customHeaders", HEADER_COUNT_MAX, HEADER_NAME_LENGTH_MAX, HEADER_VALUE_LENGTH_MAX
    )
    seen: set[str] = set()
    for name, value in found.items():
        place, lower = f"customHeaders.{name[:64]}", name.lower()
        if not _HEADER_NAME.fullmatch(name):
            reading.fault(place, "invalid_header", "is not a name of a header")
        elif lower in _OURS or lower.startswith("webhook-"):
            reading.fault(place, "reserved_header", "is set by the webhook itself")
        elif lower in seen:
            reading.fault(place, "repeated_header", "is there twice, in another case")
        elif not _HEADER_VALUE.fullmatch(value):
            message = "must be visible ASCII, with spaces only inside"
            reading.fault(place, "invalid_header", message)
        seen.add(lower)
    return found


def _secret(reading: Reading) -> str | None:
    value = reading.members.get("signingSecret")
    if value is None:
        return None
    text = reading.checked("signingSecret", value, 200, empty=False)
    fault = "" if text is None else secret_fault(text)
    if fault:
        reading.fault("signingSecret", "invalid_secret", fault)
    return text
