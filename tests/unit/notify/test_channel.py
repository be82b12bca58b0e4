"""What is a channel and what is not, where it may lead, and how it signs."""

import ipaddress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tollgate.core.errors import InvalidInput
from tollgate.notify.address import is_public
from tollgate.notify.channel import Channel, parse_channel
from tollgate.notify.signature import secret_fault, secret_from_bytes, signatures

CHANNEL: dict[str, Any] = {"type": "WEBHOOK", "name": "Sales", "url": "https://example.com/hook"}
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def test_a_whole_channel() -> None:
    more = {
        "disabled": True,
        "metadata": {"team": "sales"},
        "customHeaders": {"Authorization": "Bearer x y", "X-Empty": ""},
        "signingSecret": SECRET,
    }
    made = parse_channel(CHANNEL | more)
    assert (made.name, made.disabled, made.url) == ("Sales", True, CHANNEL["url"])
    assert made.headers == more["customHeaders"]
    assert (made.metadata, made.secret) == ({"team": "sales"}, SECRET)
    plain = parse_channel(CHANNEL)
    assert (plain.disabled, plain.headers, plain.secret) == (False, {}, None)


@pytest.mark.parametrize(
    ("more", "field", "code"),
    [
        ({"type": "EMAIL"}, "type", "unknown_type"),
        ({"name": ""}, "name", "empty"),
        ({"url": None}, "url", "required"),
        ({"url": "ftp://example.com"}, "url", "invalid_url"),
        ({"url": "/hook"}, "url", "invalid_url"),
        ({"url": "https://"}, "url", "invalid_url"),
        ({"url": "https://user:secret@example.com"}, "url", "invalid_url"),
        ({"url": "https://example.com/#part"}, "url", "invalid_url"),
        ({"url": "https://example.com:99999"}, "url", "invalid_url"),
        ({"url": "https://example.com:0"}, "url", "invalid_url"),
        ({"url": "https://exa mple.com"}, "url", "invalid_url"),
        ({"url": "https://[::1"}, "url", "invalid_url"),
        ({"url": "https://bücher.example"}, "url", "invalid_url"),
        ({"url": "https://e.com/" + "x" * 2048}, "url", "too_long"),
        ({"url": "http://127.0.0.1/"}, "url", "invalid_url"),
        ({"url": "http://localhost:8888/"}, "url", "invalid_url"),
        ({"url": "http://api.localhost./"}, "url", "invalid_url"),
        ({"url": "http://[::ffff:169.254.169.254]/latest"}, "url", "invalid_url"),
        ({"customHeaders": {"Host": "x"}}, "customHeaders.Host", "reserved_header"),
        ({"customHeaders": {"webhook-id": "x"}}, "customHeaders.webhook-id", "reserved_header"),
        ({"customHeaders": {"a b": "x"}}, "customHeaders.a b", "invalid_header"),
        ({"customHeaders": {"a": "x\r\nb: c"}}, "customHeaders.a", "invalid_header"),
        ({"customHeaders": {"a": "1", "A": "2"}}, "customHeaders.A", "repeated_header"),
        ({"customHeaders": {"a": 1}}, "customHeaders.a", "not_a_string"),
        ({"signingSecret": "short"}, "signingSecret", "invalid_secret"),
        ({"signingSecret": "whsec_" + "a" * 33}, "signingSecret", "invalid_secret"),
        ({"signingSecret": "whsec_" + "=" * 32}, "signingSecret", "invalid_secret"),
    ],
)
def test_every_fault_is_told(more: dict[str, Any], field: str, code: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        parse_channel(CHANNEL | more)
    assert [(fault.field, fault.code) for fault in refusal.value.faults] == [(field, code)]


def test_a_private_address_is_taken_in_development() -> None:
    url = "http://127.0.0.1:9000/hook"
    assert parse_channel(CHANNEL | {"url": url}, private_addresses=True).url == url


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "192.168.1.1",
        "192.0.2.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::7f00:1",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
        "64:ff9b:1::1",
        "2002:7f00:1::",
        "2001:db8::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fec0::1",
        "ff02::1",
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "172.32.0.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]
)
def test_addresses_that_are_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


def test_the_signature_is_that_of_the_specification() -> None:
    # The example of the reference libraries.
    body = b'{"test": 2432232314}'
    made = signatures([SECRET], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    # Without the prefix it is the same key.
    bare = SECRET.removeprefix("whsec_")
    both = signatures([bare, SECRET], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert both == f"{made} {made}"


def test_a_secret_that_we_make_is_a_good_one() -> None:
    made = secret_from_bytes(bytes(range(32)))
    assert made == "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
    assert secret_fault(made) == ""


def test_the_secret_before_signs_for_a_day() -> None:
    then = datetime(2026, 3, 1, tzinfo=UTC)
    channel = Channel(
        id="c",
        namespace="acme",
        name="n",
        disabled=False,
        disabled_reason=None,
        metadata={},
        url=CHANNEL["url"],
        headers={},
        secret="new",
        previous_secret="old",
        previous_until=then,
        created_at=then,
        updated_at=then,
        deleted_at=None,
    )
    assert channel.secrets_at(then - timedelta(microseconds=1)) == ("new", "old")
    assert channel.secrets_at(then) == ("new",)
