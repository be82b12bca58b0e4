"""The `tollgate` command as a person types it."""

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.server import Server, clean_environment, wait_until
from tollgate.cli.usage import events_of_hour, hours_until

NewServer = Callable[..., Server]


def tollgate(server: Server, *arguments: str, key: str = "") -> subprocess.CompletedProcess[str]:
    """Runs the command against a server."""
    settings = {"TOLLGATE_URL": server.url} | ({"TOLLGATE_KEY": key} if key else {})
    return subprocess.run(
        [str(Path(sys.executable).with_name("tollgate")), *arguments],
        env=clean_environment(settings),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def count_events(server: Server, meter: str) -> int:
    rows = server.http.get(f"/api/v1/meters/{meter}/query").json()["data"]
    return int(rows[0]["value"]) if rows else 0


@pytest.mark.both_worlds
def test_demo_twice_counts_once(new_server: NewServer) -> None:
    server = new_server().start()
    first = tollgate(server, "demo")
    assert first.returncode == 0, first.stderr
    for said in ("Tokens by model", "gpt-5-mini", "customer-01", "requests"):
        assert said in first.stdout
    requests = count_events(server, "api_requests_total")
    assert requests > 10_000
    again = tollgate(server, "demo")
    assert again.returncode == 0, again.stderr
    ledger = server.http.get("/api/v1/ledger").json()["totals"]
    assert ledger["balanced"] is True
    assert ledger["conflict"] == ledger["dead"] == 0
    # The running hour may have gone on between the two; nothing older is new.
    new = count_events(server, "api_requests_total") - requests
    assert 0 <= new <= 100
    assert ledger["accepted"] - ledger["stored"] == ledger["duplicate"] > 50_000


@pytest.mark.both_worlds
def test_a_gateway_is_blocked_at_its_quota_and_goes_on_after_the_reset(
    new_server: NewServer,
) -> None:
    server = new_server().start()
    found = tollgate(server, "demo", "--gateway")
    assert found.returncode == 0, found.stdout + found.stderr
    before, after = found.stdout.split("After the reset")
    assert before.count("blocked") == 1
    assert before.count("answered") >= 6
    assert after.count("answered") == 3
    held = server.http.get("/api/v1/limits/reservations", params={"limit": 1000}).json()["items"]
    assert {each["state"] for each in held} == {"settled"}


def test_demo_is_a_function_of_the_hour() -> None:
    now = datetime(2026, 3, 4, 5, 6, tzinfo=UTC)
    hours = list(hours_until(now))
    assert (hours[0], hours[-1]) == (datetime(2026, 1, 3, 5, tzinfo=UTC), now.replace(minute=0))
    events = [event for hour in hours for event in events_of_hour(hour, now)]
    assert len({event["id"] for event in events}) == len(events)
    later = datetime(2026, 3, 4, 7, tzinfo=UTC)
    assert list(events_of_hour(hours[30], now)) == list(events_of_hour(hours[30], later))
    running = [event["id"] for event in events_of_hour(hours[-1], now)]
    assert set(running) <= {event["id"] for event in events_of_hour(hours[-1], later)}


def test_demo_says_which_meters_it_lacks(new_server: NewServer) -> None:
    server = new_server(meters=None).start()
    done = tollgate(server, "demo")
    assert done.returncode == 1
    assert "api_requests_total" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.both_worlds
def test_keys_are_made_listed_and_revoked(new_server: NewServer) -> None:
    server = new_server().start()
    refused = tollgate(server, "keys", "create", "--scope", "read")
    assert refused.returncode == 1
    assert "409" in refused.stderr
    made = tollgate(server, "keys", "create", "--scope", "operator", "--name", "laptop")
    assert made.returncode == 0, made.stderr
    key = made.stdout.strip()
    assert key.startswith("tg_")
    assert "401" in tollgate(server, "keys", "list").stderr
    listed = tollgate(server, "keys", "list", key=key)
    assert "laptop" in listed.stdout
    assert key.split("_", 2)[2] not in listed.stdout
    second = tollgate(
        server, "keys", "create", "--scope", "ingest", "--namespace", "acme", key=key
    ).stdout.strip()
    identity = second.split("_")[1]
    assert tollgate(server, "keys", "revoke", identity, key=key).returncode == 0

    def refused_by_ingest() -> bool:
        bearer = {"Authorization": f"Bearer {second}"}
        return server.http.post("/api/v1/events", json=[], headers=bearer).status_code == 401

    # Other processes look for revoked keys every few seconds.
    wait_until(refused_by_ingest, what="the key is refused")


def test_openapi_version_and_help(server: Server) -> None:
    document = json.loads(tollgate(server, "openapi").stdout)
    assert document["openapi"].startswith("3.1")
    assert tollgate(server, "version").stdout.startswith("tollgate ")
    assert "demo" in tollgate(server, "--help").stdout
    assert tollgate(server, "nonsense").returncode == 2


def test_nobody_at_the_url_is_said(server: Server) -> None:
    done = tollgate(server, "--url", "http://127.0.0.1:1", "keys", "list")
    assert done.returncode == 1
    assert "scripts/up" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [("openapi", "--url", "URL"), ("--url", "URL", "openapi"), ("keys", "list", "--url", "URL")],
)
def test_the_url_may_stand_where_the_greeting_puts_it(
    server: Server, arguments: tuple[str, ...]
) -> None:
    """`scripts/up` and the landing page print `tollgate demo --url ...` to be copied."""
    given = [server.url if each == "URL" else each for each in arguments]
    elsewhere = "http://127.0.0.1:1"  # what TOLLGATE_URL says loses
    done = subprocess.run(
        [str(Path(sys.executable).with_name("tollgate")), *given],
        env=clean_environment({"TOLLGATE_URL": elsewhere}),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
