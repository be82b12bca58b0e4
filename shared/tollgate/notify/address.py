"""Which addresses a webhook may be sent to: those of the public internet, and no others.

A caller names the URL, so without this a webhook would reach whatever our network reaches: metadata
services, databases, other functions (https://owasp.org/www-community/attacks/Server_Side_Request_Forgery).
"""

from ipaddress import IPv4Address, IPv6Address, IPv6Network

PRIVATE = (
    "leads to an address that is not public; set TOLLGATE_NOTIFY_PRIVATE_ADDRESSES=true to allow it"
    " in development"
)
# Forms of IPv6 that carry an IPv4 address which a gateway may reach (RFC 6052, RFC 4291 2.5.5.1).
_CARRIERS = (IPv6Network("64:ff9b::/96"), IPv6Network("::/96"))
_LOCAL_CARRIER = IPv6Network("64:ff9b:1::/48")
_WORD = 0xFFFF_FFFF


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address is one of the public internet, however it is written."""
    if isinstance(address, IPv6Address):
        inner = _carried(address)
        if inner is not None:
            return is_public(inner)
        if address in _LOCAL_CARRIER or address.is_site_local:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def _carried(address: IPv6Address) -> IPv4Address | None:
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if any(address in network for network in _CARRIERS):
        return IPv4Address(int(address) & _WORD)
    return None
