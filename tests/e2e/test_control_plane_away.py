"""PostgreSQL away: at a start, in between, refusing or hanging. Ingest and usage go on."""

import json
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.postgres import frozen
from tests.support.server import SAMPLE_METERS, Server, clean_environment, free_port, wait_until
from tollgate.core.ids import new_ulid
from tollgate.local.function_process import FunctionProcess
from tollgate.local.postgres import Postgres
from tollgate.metering.meter_memory import SNAPSHOT as METERS
from tollgate.metering.meter_reader import AGE_HEADER
from tollgate.platform.keys import SNAPSHOT as KEYS

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
EVENT = {"specversion": "1.0", "source": "s", "type": "prompt", "subject": "acme"}
QUERY = "/api/v1/meters/tokens_total/query"
PROMPT_SECONDS = 8
"""Two seconds, and what a busy machine adds; unbounded it would be minutes."""


class Process:
    """One function as a cluster runs it, and a client with a key."""

    def __init__(self, function: str, data: Path, url: str, key: str = "") -> None:
        self.port, self.log = free_port(), data.with_name(f"{data.name}-{function}.log")
        settings = {"TOLLGATE_DATA": str(data), "TOLLGATE_DATABASE_URL": url}
        if function == "usage":
            settings["TOLLGATE_METERS"] = str(SAMPLE_METERS)
        self._process = FunctionProcess(
            function,
            self.log,
            port=self.port,
            settings=clean_environment(settings),
            drain_seconds=5,
        )
        self.http = httpx.Client(base_url=self._process.url, timeout=30, headers=bearer(key))

    def __enter__(self) -> "Process":
        self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()
        self._process.kill()

    def figure(self, name: str) -> float | None:
        families = text_string_to_metric_families(self.http.get("/metrics").text)
        return next((f.samples[0].value for f in families if f.name == name), None)

    def is_ready(self) -> bool:
        return self.http.get("/readyz").status_code == 200

    def send(self, identity: str, key: str | None = None) -> httpx.Response:
        headers = {} if key is None else {"Authorization": f"Bearer {key or None}"}
        return self.http.post("/api/v1/events", json=EVENT | {"id": identity}, headers=headers)


def bearer(key: str) -> Mapping[str, str]:
    return {"Authorization": f"Bearer {key or None}"} if key else {}


@dataclass(kw_only=True)
class House:
    """A control plane, a data folder with events in it, and keys."""

    postgres: Postgres
    data: Path
    key: str
    revoked: str
    before: dict[str, Any]

    def copy(self, folder: Path, *names: str) -> Path:
        """A new data folder with some of this one's files."""
        folder.mkdir()
        for name in names:
            shutil.copy2(self.data / name, folder / name)
        return folder


ANSWERS: dict[str, tuple[str, dict[str, Any]]] = {
    "query": (QUERY, {"params": {"groupBy": "model", "clientId": "c"}}),
    "csv": (QUERY, {"params": {"groupBy": "subject"}, "headers": {"accept": "text/csv"}}),
    "meter": ("/api/v1/meters/tokens_total", {}),
    "meters": ("/api/v1/meters", {"params": {"orderBy": "key", "order": "DESC"}}),
    "meters of v3": ("/api/v3/openmeter/meters", {}),
    "subjects": ("/api/v1/meters/tokens_total/subjects", {}),
    "events": ("/api/v1/events", {}),
}


def answers_of(http: httpx.Client) -> dict[str, Any]:
    found = {}
    for name, (path, more) in ANSWERS.items():
        answer = http.get(path, **more)
        assert answer.status_code == 200, answer.text
        found[name] = answer.text
    return found


def aged(http: httpx.Client) -> bool:
    answer = http.get(QUERY)
    assert answer.status_code == 200, answer.text
    return AGE_HEADER in answer.headers


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("away")
    with Postgres(folder / "postgres") as postgres:
        settings = {"TOLLGATE_DATABASE_URL": postgres.url, "TOLLGATE_LOAD_WAIT_MS": "10"}
        with Server(folder / "data", SAMPLE_METERS, settings) as server:
            subject = [{"key": "acme", "displayName": "Acme & Co"}]
            assert server.http.post("/api/v1/subjects", json=subject).is_success
            # A change of a meter has all read at once.
            meter = {"slug": "one_more", "eventType": "other", "aggregation": "COUNT"}
            assert server.http.post("/api/v1/meters", json=meter).status_code == 201
            data = {"tokens": "1.50", "model": "m", "type": "input"}
            events = [EVENT | {"id": str(n), "data": data} for n in range(7)]
            sent = server.http.post("/api/v1/events", json=[*events, EVENT | {"id": "bad"}])
            assert sent.status_code == 204, sent.text

            def made() -> Any:
                return server.http.post("/api/v1/access-keys", json={"scopes": ["admin"]}).json()

            first = made()
            server.http.headers.update(bearer(first["key"]))
            second = made()
            gone = server.http.delete(f"/api/v1/access-keys/{second['id']}?force=true")
            assert gone.status_code == 204
            waiting = {"tollgate-position": sent.headers["tollgate-position"]}
            assert server.http.get(QUERY, headers=waiting).status_code == 200
            before = answers_of(server.http)
            kept = folder / "data" / METERS
            wait_until(lambda: "Acme" in kept.read_text(), 10, "names are kept")
            assert server.stop() in (0, -signal.SIGTERM)
        assert '"value":10.5' in before["query"]
        assert "Acme & Co" in before["csv"]
        assert "validationError" in before["events"]
        yield House(
            postgres=postgres,
            data=folder / "data",
            key=first["key"],
            revoked=second["key"],
            before=before,
        )


def test_usage_that_starts_without_sql_answers_the_same_and_says_how_old_it_is(
    house: House,
) -> None:
    house.postgres.kill()
    try:
        with Process("usage", house.data, house.postgres.url, house.key) as usage:
            assert usage.is_ready()
            assert answers_of(usage.http) == house.before
            for path, more in ANSWERS.values():
                assert int(usage.http.get(path, **more).headers[AGE_HEADER]) >= 0, path
            for name in ("tollgate_meters_age_seconds", "tollgate_access_keys_age_seconds"):
                assert (usage.figure(name) or 0) > 0
            assert usage.http.get(QUERY, headers=bearer(house.revoked)).status_code == 401
            # What only SQL can say, or do, may succeed later.
            for method, path, body in (
                ("GET", "/api/v1/meters/no_such_meter", None),
                ("GET", "/api/v1/meters?includeDeleted=true", None),
                ("GET", "/api/v3/openmeter/meters?filter[key][eq]=x", None),
                ("GET", "/api/v1/meters/tokens_total/query?groupBy=customer_id", None),
                ("GET", f"/api/v1/events?customerId={new_ulid()}", None),
                ("GET", "/api/v1/info/progress/c", None),
                ("PUT", "/api/v1/meters/tokens_total", {"name": "x"}),
                ("DELETE", "/api/v1/meters/tokens_total", None),
            ):
                refused = usage.http.request(method, path, json=body)
                assert refused.status_code == 503, (path, refused.text)
                assert int(refused.headers["retry-after"]) >= 1
            wrong = usage.http.get(QUERY, params={"groupBy": "unheard_of"})
            assert wrong.status_code == 400
            assert AGE_HEADER in wrong.headers
            log = usage.log.read_text()
            assert "access keys are taken from the snapshot" in log
            assert "meters are taken from the snapshot" in log
            assert "the meters file waits" in log
            house.postgres.start()
            wait_until(lambda: not aged(usage.http), 10, "SQL answers")
            assert answers_of(usage.http) == house.before
            wait_until(lambda: (usage.figure("tollgate_meters_age_seconds") or 99) < 5)
            # Else what the file says would come after the change.
            wait_until(lambda: "the meters file was taken in" in usage.log.read_text())
            changed = {"name": "new", "groupBy": {"only": "$.model"}}
            assert usage.http.put("/api/v1/meters/tokens_total", json=changed).status_code == 200
            # What this process changed itself, it knows at once.
            house.postgres.kill()
            told = usage.http.get(QUERY, params={"groupBy": "only"})
            assert told.status_code == 200, told.text
            assert AGE_HEADER in told.headers
    finally:
        house.postgres.start()


def test_usage_goes_on_while_postgresql_hangs(house: House) -> None:
    with Process("usage", house.data, house.postgres.url, house.key) as usage:
        before = usage.http.get(QUERY)
        assert AGE_HEADER not in before.headers

        def timed(_: object) -> tuple[float, httpx.Response]:
            began = monotonic()
            answer = usage.http.get(QUERY, params={"clientId": "c"})
            return monotonic() - began, answer

        with frozen(house.postgres):
            with ThreadPoolExecutor(4) as pool:
                found = list(pool.map(timed, range(12)))
            assert max(seconds for seconds, _ in found) < PROMPT_SECONDS
            assert {answer.content for _, answer in found} == {before.content}
            assert all(AGE_HEADER in answer.headers for _, answer in found)
            began = monotonic()
            assert usage.http.delete("/api/v1/meters/tokens_total").status_code == 503
            assert monotonic() - began < PROMPT_SECONDS
        wait_until(lambda: not aged(usage.http), 10, "SQL answers")


def test_ingest_that_starts_without_sql_takes_the_last_known_keys(
    house: House, tmp_path: Path
) -> None:
    data = house.copy(tmp_path / "data", KEYS)
    house.postgres.kill()
    try:
        with Process("ingest", data, house.postgres.url, house.key) as ingest:
            assert ingest.is_ready()
            assert ingest.send("taken").status_code == 204
            assert ingest.send("refused", house.revoked).status_code == 401
            assert ingest.send("refused", "").status_code == 401
            assert (ingest.figure("tollgate_access_keys_age_seconds") or 0) > 0
    finally:
        house.postgres.start()


def damaged(path: Path) -> None:
    whole = bytearray(path.read_bytes())
    whole[-10] ^= 1
    path.write_bytes(whole)


@contextmanager
def killed(server: Postgres) -> Iterator[None]:
    server.kill()
    yield


@pytest.mark.parametrize(
    ("away", "spoil"), [(frozen, Path.unlink), (killed, damaged)], ids=["none", "damaged"]
)
def test_ingest_that_knows_no_keys_waits_and_is_never_open(
    house: House,
    tmp_path: Path,
    away: Callable[[Postgres], AbstractContextManager[None]],
    spoil: Callable[[Path], object],
) -> None:
    data = house.copy(tmp_path / "data", KEYS)
    spoil(data / KEYS)
    with away(house.postgres), Process("ingest", data, house.postgres.url, house.key) as ingest:
        ready = ingest.http.get("/readyz")
        assert ready.status_code == 503
        assert "access keys" in ready.text
        assert ingest.http.get("/healthz").status_code == 200
        for key in (house.key, house.revoked, ""):
            answer = ingest.send("early", key)
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) >= 1
        assert ingest.figure("tollgate_access_keys_age_seconds") is None
        house.postgres.kill()
        house.postgres.start()
        wait_until(ingest.is_ready, 10, "keys are known")
        assert ingest.send("early").status_code == 204
        assert ingest.send("late", house.revoked).status_code == 401
        assert (data / KEYS).stat().st_size > 0


def test_no_key_ever_made_is_believed_only_where_the_snapshot_says_so(
    house: House, tmp_path: Path
) -> None:
    url = house.postgres.create_database("without_keys")
    with Server(tmp_path / "data", None, {"TOLLGATE_DATABASE_URL": url}) as server:
        assert server.http.post("/api/v1/events", json=EVENT | {"id": "1"}).status_code == 204
        server.stop()
    house.postgres.kill()
    try:
        with Process("ingest", tmp_path / "data", url) as ingest:
            assert ingest.send("open").status_code == 204
        # The same file is nothing to another database.
        with Process("ingest", tmp_path / "data", house.postgres.url) as ingest:
            assert ingest.send("closed").status_code == 503
    finally:
        house.postgres.start()


def test_the_snapshots_hold_no_secret(house: House) -> None:
    for name in (KEYS, METERS):
        path = house.data / name
        assert path.stat().st_mode & 0o777 == 0o600
        text = path.read_text()
        assert json.loads(text.partition("\n")[2])["version"] == 1
        for key in (house.key, house.revoked):
            _, _, secret = key.split("_", 2)  # which may have one itself
            assert secret not in text
