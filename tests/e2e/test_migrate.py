"""An embedded data folder becomes a distributed world that says the same, however often cut off."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.seeded_traffic import AGGREGATIONS, Traffic, make_traffic
from tests.support.server import ROOT, Server, World, clean_environment, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(240)]
PERIOD = {"from": "2026-10-01T00:00:00Z", "to": "2026-11-10T00:00:00Z"}
SINGLE, BATCH = ({"Content-Type": f"application/cloudevents{kind}+json"} for kind in ("", "-batch"))
LATE = 50
OF_CUSTOMERS = ("customers", "features", "notification/channels", "notification/rules")


@dataclass
class Product:
    """The same questions to whatever runs on a folder."""

    server: Server
    headers: dict[str, str] = field(default_factory=dict)

    def ask(self, path: str, **parameters: str) -> str:
        answer = self.server.http.get(path, params=parameters, headers=self.headers)
        assert answer.status_code == 200, answer.text
        return answer.text

    def post(self, body: bytes, headers: dict[str, str]) -> dict[str, str]:
        """Sends events; gives the header that waits for them."""
        answer = self.server.http.post(
            "/api/v1/events", content=body, headers=headers | self.headers
        )
        assert answer.status_code == 204, answer.text
        return {"Tollgate-Position": answer.headers["Tollgate-Position"]}

    def send(self, traffic: Traffic) -> None:
        for request in traffic.requests:
            self.post(request.body, request.headers)

    def totals(self) -> dict[str, int]:
        found: dict[str, int] = json.loads(self.ask("/api/v1/ledger"))["totals"]
        return found

    def everything(self) -> dict[str, str]:
        """Meters, quantities, events and what became of them, as text."""
        found = {"meters": self.ask("/api/v1/meters")}
        for aggregation in AGGREGATIONS:
            path = f"/api/v1/meters/moved_{aggregation.lower()}/query"
            found[aggregation] = self.ask(path, **PERIOD, groupBy="model")
            found[f"{aggregation} by day"] = self.ask(path, **PERIOD, windowSize="DAY")
        for name in ("conflicts", "duplicates", "subjects", *OF_CUSTOMERS):
            found[name] = self.ask(f"/api/v1/{name}")
        right = "/api/v2/customers/acme/entitlements"
        found["entitlements"], found["grants"] = self.ask(right), self.ask(f"{right}/f/grants")
        found["events"] = self.ask("/api/v1/events", **PERIOD)
        return found


def migrate(data: Path, to: Path) -> "subprocess.Popen[str]":
    command = ["-m", "tollgate.cli.main", "migrate", "--data", str(data), "--to-data", str(to)]
    return subprocess.Popen(
        [sys.executable, *command],
        env=clean_environment({}),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finished(process: "subprocess.Popen[str]", status: int = 0) -> str:
    said, _ = process.communicate(timeout=120)
    assert process.returncode == status, said
    return said


def kill_at(process: "subprocess.Popen[str]", word: str) -> None:
    """Ends the command and all that it started as soon as it says the word."""
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if line.startswith(word):
            break
    else:
        raise AssertionError(f"it ended before: {said}")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)


def fill(server: Server, traffic: Traffic) -> Product:
    """An embedded product with meters and a key made over HTTP, and the traffic in it."""
    product = Product(server)
    for aggregation in AGGREGATIONS:
        meter = {
            "slug": f"moved_{aggregation.lower()}",
            "eventType": "both",
            "aggregation": aggregation,
            "groupBy": {"model": "$.model"},
        } | ({} if aggregation == "COUNT" else {"valueProperty": "$.n"})
        answer = server.http.post("/api/v1/meters", json=meter)
        assert answer.status_code == 201, answer.text
    answer = server.http.post("/api/v1/access-keys", json={"scopes": ["admin"]})
    assert answer.status_code == 201, answer.text
    product.headers = {"Authorization": f"Bearer {answer.json()['key']}"}
    furnish(product)
    product.send(traffic)
    wait_until(lambda: product.totals()["accepted"] == accepted(traffic), what="all loaded")
    return product


def furnish(product: Product) -> None:
    """A customer with a right that has a grant and a reservation, and who is told of it."""
    http, headers = product.server.http, product.headers

    def make(path: str, body: object) -> Any:
        answer = http.post(path, json=body, headers=headers)
        assert answer.is_success, f"{path}: {answer.text}"
        return answer.json()

    make("/api/v1/subjects", [{"key": "u", "displayName": "U"}])
    attribution = {"usageAttribution": {"subjectKeys": ["u"]}}
    make("/api/v1/customers", {"key": "acme", "name": "Acme"} | attribution)
    make("/api/v1/features", {"key": "f", "name": "F", "meterSlug": "moved_sum"})
    issue = {"issue": {"amount": 100000}, "usagePeriod": {"interval": "P100Y"}}
    right = "/api/v2/customers/acme/entitlements"
    make(right, {"type": "metered", "featureKey": "f"} | issue)
    make(f"{right}/f/grants", {"amount": 7, "effectiveAt": "2030-01-01T00:00:00Z"})
    held = {"customer": "acme", "amounts": [{"feature": "f", "amount": 3}], "ttlSeconds": 3600}
    make("/api/v1/limits/reservations", held)
    channel = {"type": "WEBHOOK", "name": "c", "url": "https://hooks.invalid/"}
    channels = [make("/api/v1/notification/channels", channel)["id"]]
    rule = {"type": "invoice.created", "name": "r", "channels": channels}
    make("/api/v1/notification/rules", rule)


def accepted(traffic: Traffic) -> int:
    return len(traffic.events) + sum(r.duplicate + r.conflict for r in traffic.requests)


def test_a_folder_moves_and_says_the_same(tmp_path: Path) -> None:
    data, to, traffic = tmp_path / "data", tmp_path / "distributed", make_traffic(events=400)
    with Server(data) as server:
        product = fill(server, traffic)
        before, totals = product.everything(), product.totals()
        assert "another process uses the data folder" in finished(migrate(data, to), 1)
        # Acknowledged and, since the process is gone at once, not loaded: it must not be lost.
        late = [{"id": f"{n}", "source": "m", "type": "t", "subject": "s"} for n in range(LATE)]
        product.post(json.dumps(late).encode(), BATCH)
        server.kill()

    kill_at(migrate(data, to), "ledger:")
    assert "generation 2 of the log takes events from now on" in finished(migrate(data, to))

    with World(to) as world:
        moved = Product(world, product.headers)
        assert moved.everything() == before
        check = {"customer": "acme", "features": [{"feature": "f"}]}
        answer = world.http.post("/api/v1/limits/check", json=check, headers=product.headers)
        assert answer.json()["limits"][0]["held"] == "3", answer.text
        assert moved.totals() == totals | {n: totals[n] + LATE for n in ("accepted", "stored")}
        # The same again is known, whichever generation it came with; what is new counts.
        moved.send(traffic)
        position = moved.post(
            b'{"id":"new","source":"m","type":"both","subject":"new","data":{"n":5}}', SINGLE
        )
        wanted = 2 * accepted(traffic) + LATE + 1
        wait_until(lambda: moved.totals()["accepted"] == wanted, what="all loaded")
        assert moved.totals()["stored"] == len(traffic.events) + LATE + 1
        path = "/api/v1/meters/moved_sum/query"
        counted = world.http.get(
            path, params={"subject": "new"}, headers=position | product.headers
        )
        assert [row["value"] for row in counted.json()["data"]] == [5]
        for aggregation in AGGREGATIONS:
            path = f"/api/v1/meters/moved_{aggregation.lower()}/query"
            assert moved.ask(path, **PERIOD, groupBy="model") == before[aggregation]
        assert world.stop() == 0
    assert "already migrated" in finished(migrate(data, to))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "is no data folder of the embedded world"),
        ({"TOLLGATE_DATA": "log", "TOLLGATE_LOG_URL": "kafka://127.0.0.1:1/x"}, "name all of"),
    ],
    ids=["no folder", "half a target"],
)
def test_what_can_not_be_moved_is_said(tmp_path: Path, settings: dict[str, str], said: str) -> None:
    (tmp_path / "log" / "log").mkdir(parents=True)
    process = subprocess.run(
        [sys.executable, "-m", "tollgate.local.migrate"],
        env=clean_environment(settings),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (process.returncode, process.stdout) == (1, "")
    assert said in process.stderr
    assert process.stderr.count("\n") == 1
