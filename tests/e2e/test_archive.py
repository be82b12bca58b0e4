"""The archive of a running product, and a new store made of it that says the same."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from confluent_kafka import ConsumerGroupTopicPartitions

from tests.support.loaders import BATCH, event
from tests.support.loaders import World as Loaders
from tests.support.s3 import S3
from tests.support.seeded_traffic import AGGREGATIONS, make_traffic
from tests.support.server import ROOT, Server, clean_environment, wait_until
from tollgate.core.clock import SystemClock, datetime_from_us
from tollgate.core.times import format_instant
from tollgate.events.archive_chain import LEDGER, RECORDS, Chain, Entry, partitions_of
from tollgate.events.migrate import differences
from tollgate.events.position import HEADER, parse_token
from tollgate.local.broker import Broker
from tollgate.local.clickhouse_http import ClickHouseServer
from tollgate.platform.clickhouse import ClickHouse
from tollgate.platform.objects import Objects
from tollgate.platform.objects_folder import FolderObjects

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]
PERIOD = {"from": "2026-10-01T00:00:00Z", "to": "2026-11-10T00:00:00Z"}
SOON = {"TOLLGATE_ARCHIVE_SECONDS": "1"}


def run_replay(*options: str, settings: dict[str, str], status: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tollgate.cli.main", "replay", *options],
        env=clean_environment(settings),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == status, said
    return said


def send(http: httpx.Client, events: int) -> str:
    """Sends seeded traffic; gives the position of the last request."""
    position = ""
    for request in make_traffic(events).requests:
        answer = http.post("/api/v1/events", content=request.body, headers=request.headers)
        assert answer.status_code == 204, answer.text
        position = answer.headers[HEADER]
    return position


def make_meters(http: httpx.Client) -> None:
    for aggregation in AGGREGATIONS:
        meter: dict[str, object] = {"slug": f"a_{aggregation.lower()}", "eventType": "both"}
        meter |= {"aggregation": aggregation, "groupBy": {"m": "$.model"}}
        meter |= {} if aggregation == "COUNT" else {"valueProperty": "$.n"}
        assert http.post("/api/v1/meters", json=meter).status_code == 201


def ask(http: httpx.Client, position: str, **more: str) -> dict[str, str]:
    """What the meters say, as text."""
    found = {}
    for aggregation in AGGREGATIONS:
        answer = http.get(
            f"/api/v1/meters/a_{aggregation.lower()}/query",
            params=PERIOD | {"groupBy": "m", "windowSize": "DAY"} | more,
            headers={HEADER: position},
        )
        assert answer.status_code == 200, answer.text
        found[aggregation] = answer.text
    return found


def await_archived(objects: Objects, position: str) -> None:
    token = parse_token(position)

    def archived() -> bool:
        return all(
            Chain(objects, kind, token.generation, partition).look() >= offset
            for partition, offset in token.offsets.items()
            for kind in (RECORDS, LEDGER)
        )

    wait_until(archived, what="records and ledger archived")


def entries(objects: FolderObjects) -> list[Entry]:
    keys = partitions_of(objects, RECORDS)
    return [entry for key in keys for entry in Chain(objects, RECORDS, *key).entries()]


def test_a_new_folder_is_made_of_the_archive(
    new_server: Callable[..., Server], tmp_path: Path
) -> None:
    url = f"file://{tmp_path}/objects"
    objects = FolderObjects(tmp_path / "objects")
    settings = {"TOLLGATE_OBJECTS_URL": url, "TOLLGATE_DEDUPE_WINDOW_DAYS": "0"}
    server = new_server(settings | SOON).start()
    make_meters(server.http)
    middle = send(server.http, 100)
    ask(server.http, middle)
    moment = format_instant(datetime_from_us(SystemClock().now_us()))
    # Killed where it stands: what it had at hand is archived by the next.
    server.kill()
    server.start()
    position = send(server.http, 300)
    before = ask(server.http, position)
    then = ask(server.http, position, asOf=moment)
    assert then != before
    await_archived(objects, position)
    assert "tollgate_archive_lag_records 0.0" in server.http.get("/metrics").text
    server.kill()

    # A folder that knows less than the archive would use offsets twice.
    fresh = new_server(settings, data=tmp_path / "fresh").start(wait=False)
    assert fresh.process.wait(60) != 0
    assert "tollgate replay" in fresh.log.read_text()

    new = tmp_path / "new"
    said = run_replay("--data", str(new), "--archive", url, settings={})
    assert "totals of" in said
    assert "are as archived" in said
    said = run_replay("--data", str(new), settings=settings)
    assert "are as archived" in said
    again = new_server(settings | SOON, data=new).start()
    make_meters(again.http)
    assert ask(again.http, position) == before
    assert ask(again.http, position, asOf=moment) == then
    # All of it is known: sent again, it counts once. The archive goes on where it was.
    position = send(again.http, 300)
    assert ask(again.http, position) == before
    await_archived(objects, position)
    assert [entry.is_gap for entry in entries(objects)].count(True) == 0
    again.kill()

    # What is no archive is refused.
    said = run_replay("--data", f"{new}x", "--archive", f"{url}x", settings={}, status=2)
    assert "no records to replay" in said


@pytest.fixture
def loaders(tmp_path: Path, broker: Broker, topic_prefix: str) -> Iterator[Loaders]:
    with ClickHouseServer(tmp_path / "clickhouse") as store:
        made = Loaders(tmp_path, broker.bootstrap, topic_prefix, store.url)
        made.set_up(2)
        yield made
        made.close()


@pytest.mark.slow
def test_archivers_on_a_broker_share_its_partitions(
    loaders: Loaders, tmp_path: Path, s3: S3, new_objects: Callable[[str], Objects]
) -> None:
    """Two of them, one killed; into S3; and a new ClickHouse made of that."""
    url = s3.new_bucket()
    objects = new_objects(url)
    ingest = loaders.process("ingest", objects_url=url).start()
    loaders.process("load").start()
    first, second = (
        loaders.process("archive", objects_url=url, archive_seconds="1").start() for _ in range(2)
    )
    wait_until(lambda: first.figures()["tollgate_archive_partitions"] == 1, what="shared")

    def send_events(start: int) -> str:
        body = [event(f"{start}-{n}", n % 7) for n in range(50)]
        answer = ingest.http.post("/api/v1/events", content=json.dumps(body), headers=BATCH)
        assert answer.status_code == 204, answer.text
        return str(answer.headers[HEADER])

    await_archived(objects, send_events(0))
    first.kill()
    await_archived(objects, send_events(1))
    # KEDA sees no lag, and ingest no record that must be kept.
    group = ConsumerGroupTopicPartitions(f"{loaders.prefix}.archive")

    def committed() -> dict[tuple[str, int], int]:
        (answer,) = loaders.admin.list_consumer_group_offsets([group]).values()
        return {(t.topic, t.partition): t.offset for t in answer.result().topic_partitions}

    wait_until(lambda: committed() == loaders.ends(), what="committed")
    assert second.figures()["tollgate_archive_partitions"] == 2

    with ClickHouseServer(tmp_path / "new") as new:
        settings = {"TOLLGATE_CLICKHOUSE_URL": new.url, "TOLLGATE_OBJECTS_URL": url}
        assert "are as archived" in run_replay(settings=settings)
        with ClickHouse(url=new.url) as target, ClickHouse(url=loaders.clickhouse_url) as source:
            # All but the times of loading are as before; in the ledger these, too.
            found = list(differences(source, target, 1))
            assert {each.table for each in found} <= {"events"}
            assert all(each.rows == each.rows_there > 0 for each in found)
