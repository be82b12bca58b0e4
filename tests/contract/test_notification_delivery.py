"""Webhooks over real HTTP, to a receiver that takes them, fails, hangs, or wants no more."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from tests.support.notifications import NS, Office, balance
from tests.support.receiver import Answer, Received, Receiver, receiving
from tests.support.reservations import StandingClock
from tollgate.notify.channel import parse_channel
from tollgate.notify.deliver import Deliverer, Deliveries
from tollgate.notify.delivery import Delivery, State
from tollgate.notify.outbox_store import LEASE
from tollgate.notify.send import ANSWER_BYTES_MAX, Sender
from tollgate.platform.sql import Database

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture
def standing() -> StandingClock:
    return StandingClock()


@pytest.fixture
def office(database: Database, standing: StandingClock) -> Office:
    return Office(database, standing)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


def worker(office: Office, *, private: bool = True, seconds: int = 15) -> Deliverer:
    sender = Sender(office.clock, private_addresses=private, seconds_max=seconds)
    return Deliverer(office.outbox, sender, office.clock, lambda: 0)


def deliver(office: Office, **more: Any) -> Deliveries:
    return worker(office, **more).deliver(threading.Event())


def tell(office: Office, name: str = "e") -> str:
    (event_id,) = office.reporter.report_balance(balance(100, entitlement_id=name))
    return event_id


def only(office: Office, event_id: str) -> Delivery:
    (found,) = office.events.get(NS, event_id).deliveries
    return found


def test_a_webhook_is_signed_and_sent_as_it_was_written(
    office: Office, receiver: Receiver, standing: StandingClock
) -> None:
    headers = {"Authorization": "Bearer x", "User-Agent": "mine"}
    channel = office.channel(f"{receiver.url}?a=b%2Fc", customHeaders=headers, signingSecret=SECRET)
    office.rule(channel)
    event_id = tell(office)
    assert deliver(office) == Deliveries(succeeded=1)
    (got,) = receiver.received
    assert got.body.decode() == office.events.get(NS, event_id).payload
    assert got.path == "/hook?a=b%2Fc"
    assert got.headers["webhook-id"] == event_id
    assert got.headers["webhook-timestamp"] == str(int(standing.now().timestamp()))
    assert got.headers["content-type"] == "application/json"
    assert (got.headers["authorization"], got.headers["user-agent"]) == ("Bearer x", "mine")
    assert got.headers["host"] == f"127.0.0.1:{receiver.server_address[1]}"
    assert got.is_signed_by(SECRET)
    assert not got.is_signed_by("whsec_" + "A" * 32)
    done = only(office, event_id)
    assert (done.state, done.reason) == (State.SUCCESS, "delivered")
    (attempt,) = done.attempts
    assert (attempt.status, attempt.body, attempt.error) == (200, "ok", "")
    assert attempt.url == channel.url
    assert attempt.duration_ms >= 0
    # What arrived is not sent again.
    standing.move(days=9)
    assert deliver(office) == Deliveries()
    assert len(receiver.received) == 1


def test_both_secrets_sign_while_one_takes_over(office: Office, receiver: Receiver) -> None:
    channel = office.channel(receiver.url, signingSecret=SECRET)
    office.rule(channel)
    newer = "whsec_" + "A" * 32
    members = {"type": "WEBHOOK", "name": "n", "url": receiver.url, "signingSecret": newer}
    office.channels.replace(NS, channel.id, parse_channel(members, private_addresses=True))
    tell(office)
    deliver(office)
    office.clock.move(hours=24)
    tell(office, "later")
    deliver(office)
    first, second = receiver.received
    assert first.headers["webhook-signature"].count("v1,") == 2
    assert first.is_signed_by(newer)
    assert first.is_signed_by(SECRET)
    assert second.is_signed_by(newer)
    assert not second.is_signed_by(SECRET)


def test_what_fails_is_sent_again_under_its_id(
    office: Office, receiver: Receiver, standing: StandingClock
) -> None:
    receiver.answers(
        Answer(status=500, body=b"\xff\x00" + b"x" * ANSWER_BYTES_MAX),
        Answer(status=302, headers={"Location": "/other"}),
        Answer(status=204, body=b""),
    )
    office.rule(office.channel(receiver.url))
    event_id = tell(office)
    assert deliver(office) == Deliveries(failed=1)
    waiting = only(office, event_id)
    assert (waiting.state, waiting.next_attempt) == (
        State.SENDING,
        standing.now() + timedelta(seconds=5),
    )
    # What cannot be read or stored is replaced, and the rest is cut.
    assert waiting.attempts[0].body == "��" + "x" * (ANSWER_BYTES_MAX - 2)
    assert deliver(office) == Deliveries()
    standing.move(seconds=5)
    assert deliver(office) == Deliveries(failed=1)
    assert "redirects are not followed" in only(office, event_id).reason
    standing.move(minutes=5)
    assert deliver(office) == Deliveries(succeeded=1)
    assert [each.status for each in only(office, event_id).attempts] == [500, 302, 204]
    assert {each.headers["webhook-id"] for each in receiver.received} == {event_id}
    assert {each.path for each in receiver.received} == {"/hook"}
    assert len({each.body for each in receiver.received}) == 1
    # Signed anew each time: a receiver may refuse old timestamps.
    times = [int(each.headers["webhook-timestamp"]) for each in receiver.received]
    assert [after - times[0] for after in times] == [0, 5, 305]


def test_a_receiver_may_ask_for_time(
    office: Office, receiver: Receiver, standing: StandingClock
) -> None:
    receiver.answers(Answer(status=429, headers={"Retry-After": "3600"}), Answer())
    office.rule(office.channel(receiver.url))
    event_id = tell(office)
    assert deliver(office) == Deliveries(failed=1)
    assert only(office, event_id).next_attempt == standing.now() + timedelta(hours=1)
    standing.move(seconds=3599)
    assert deliver(office) == Deliveries()
    standing.move(seconds=1)
    assert deliver(office) == Deliveries(succeeded=1)


def test_a_receiver_that_wants_no_more_gets_no_more(office: Office, receiver: Receiver) -> None:
    receiver.answers(Answer(status=410))
    channel = office.channel(receiver.url)
    office.rule(channel)
    event_id = tell(office)
    assert deliver(office) == Deliveries(failed=1)
    assert only(office, event_id).state is State.FAILED
    assert office.channels.get(NS, channel.id).disabled
    tell(office, "later")
    assert deliver(office) == Deliveries()
    assert len(receiver.received) == 1


@pytest.mark.parametrize(
    "answer", [Answer(hangs=True), Answer(body=b"x" * 200, drips=True)], ids=["hangs", "drips"]
)
def test_a_receiver_that_never_ends_is_left(
    office: Office, receiver: Receiver, answer: Answer
) -> None:
    receiver.script = lambda got: answer if got.path == "/slow" else Answer()
    office.rule(
        office.channel(receiver.url.replace("/hook", "/slow")), office.channel(receiver.url)
    )
    event_id = tell(office)
    # The other one does not wait for it.
    assert deliver(office, seconds=1) == Deliveries(succeeded=1, failed=1)
    by_state = {each.state: each for each in office.events.get(NS, event_id).deliveries}
    assert "no whole answer within 1 s" in by_state[State.SENDING].reason
    assert by_state[State.SENDING].attempts[0].status is None
    assert State.SUCCESS in by_state


def refused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.parametrize(
    ("url", "why"),
    [
        (lambda: f"http://127.0.0.1:{refused_port()}/", "ConnectError"),
        (lambda: "http://nobody.invalid/", "has no address"),
    ],
)
def test_who_is_not_there_is_tried_again(office: Office, url: Callable[[], str], why: str) -> None:
    office.rule(office.channel(url()))
    event_id = tell(office)
    assert deliver(office) == Deliveries(failed=1)
    waiting = only(office, event_id)
    assert (waiting.state, waiting.attempts[0].status) == (State.SENDING, None)
    assert why in waiting.reason
    assert why in waiting.attempts[0].error


def test_what_is_no_http_and_no_tls_is_an_attempt_that_failed(office: Office) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def talk() -> None:
            for _ in range(2):
                connection, _address = listening.accept()
                with connection:
                    connection.recv(1 << 16)
                    connection.sendall(b"hello\r\n\r\n")

        thread = threading.Thread(target=talk, daemon=True)
        thread.start()
        place = f"127.0.0.1:{listening.getsockname()[1]}"
        office.rule(office.channel(f"http://{place}/"), office.channel(f"https://{place}/"))
        event_id = tell(office)
        assert deliver(office) == Deliveries(failed=2)
        thread.join(10)
    errors = [each.attempts[0].error for each in office.events.get(NS, event_id).deliveries]
    assert sorted(error.partition(":")[0] for error in errors) == [
        "ConnectError",
        "RemoteProtocolError",
    ]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "0177.0.0.1", "2130706433"])
def test_nothing_is_sent_to_addresses_that_are_not_public(
    office: Office, receiver: Receiver, host: str
) -> None:
    port = receiver.server_address[1]
    office.rule(office.channel(f"http://{host}:{port}/hook"))
    event_id = tell(office)
    assert deliver(office, private=False) == Deliveries(failed=1)
    assert receiver.received == []
    error = only(office, event_id).attempts[0].error
    assert "not public" in error or "Invalid IPv4 address" in error


@pytest.mark.skipif(not socket.has_ipv6, reason="NOT CHECKED: this machine has no IPv6")
def test_an_address_of_ipv6_is_reached(office: Office) -> None:
    with receiving(family=socket.AF_INET6) as receiver:
        office.rule(office.channel(receiver.url))
        tell(office)
        assert deliver(office) == Deliveries(succeeded=1)
        assert receiver.received[0].headers["host"] == f"[::1]:{receiver.server_address[1]}"


def test_a_name_is_resolved_once(
    office: Office, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name server of the attacker's says one thing to who looks, another to who connects."""
    asked = []
    real = socket.getaddrinfo

    def lying(host: Any, port: Any, *arguments: Any, **more: Any) -> Any:
        asked.append(host)
        answer = "1.1.1.1" if host == "two-faced.example" and len(asked) > 1 else "127.0.0.1"
        return real(answer, port, *arguments, **more)

    monkeypatch.setattr(socket, "getaddrinfo", lying)
    port = receiver.server_address[1]
    office.rule(office.channel(f"http://two-faced.example:{port}/hook"))
    tell(office)
    assert deliver(office) == Deliveries(succeeded=1)
    assert asked.count("two-faced.example") == 1
    assert receiver.received[0].headers["host"] == f"two-faced.example:{port}"


def test_tls_is_checked_against_the_name(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the client hello names is the host, though the connection goes to an address."""
    names: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda _host, *rest, **more: real("127.0.0.1", *rest, **more)
    )
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def talk() -> None:
            connection, _address = listening.accept()
            with connection, suppress(OSError):
                context.wrap_socket(connection, server_side=True)

        thread = threading.Thread(target=talk, daemon=True)
        thread.start()
        office.rule(office.channel(f"https://hooks.example:{listening.getsockname()[1]}/"))
        tell(office)
        assert deliver(office) == Deliveries(failed=1)
        thread.join(10)
    assert names == ["hooks.example"]


def test_two_workers_send_each_once(office: Office, database: Database, receiver: Receiver) -> None:
    for _ in range(3):
        office.rule(office.channel(receiver.url))
    for number in range(10):
        office.reporter.report_balance(balance(100, entitlement_id=f"e{number}"))
    workers = [worker(Office(database, office.clock)) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        counts = list(pool.map(lambda each: each.deliver(threading.Event()), workers))
    assert (sum(each.succeeded for each in counts), counts[0].failed) == (30, 0), counts
    ids = [each.headers["webhook-id"] for each in receiver.received]
    assert (len(ids), len(set(ids))) == (30, 30)


def test_a_worker_that_died_is_followed(
    office: Office, receiver: Receiver, standing: StandingClock
) -> None:
    office.rule(office.channel(receiver.url))
    event_id = tell(office)
    office.outbox.claim(1)
    assert deliver(office) == Deliveries()
    standing.instant += LEASE
    assert deliver(office) == Deliveries(succeeded=1)
    assert receiver.received[0].headers["webhook-id"] == event_id


def test_a_worker_that_stood_still_sends_nothing(
    office: Office, receiver: Receiver, standing: StandingClock
) -> None:
    office.rule(office.channel(receiver.url))
    event_id = tell(office)
    asleep = worker(office)
    claim = office.outbox.claim

    def slow_claim(count_max: int) -> Any:
        found = claim(count_max)
        standing.move(seconds=80)
        return found

    office.outbox.claim = slow_claim  # type: ignore[method-assign]  # the process is stopped here
    assert asleep.deliver(threading.Event()) == Deliveries(lost=1)
    assert receiver.received == []
    assert only(office, event_id).state is State.SENDING


def test_a_stop_lets_what_is_under_way_arrive(office: Office, receiver: Receiver) -> None:
    stop = threading.Event()

    def script(_got: Received) -> Answer:
        stop.set()
        return Answer()

    receiver.script = script
    office.rule(office.channel(receiver.url))
    for number in range(20):
        office.reporter.report_balance(balance(100, entitlement_id=f"e{number}"))
    counts = worker(office).deliver(stop)
    assert 0 < counts.succeeded == len(receiver.received) < 20
    assert worker(office).deliver(stop) == Deliveries()
    assert deliver(office).succeeded == 20 - counts.succeeded
