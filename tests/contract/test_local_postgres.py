"""PostgreSQL from a wheel: what was committed stays, whatever ends the server."""

import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from tests.support.server import clean_environment, wait_until
from tollgate.core.errors import Transient
from tollgate.local.postgres import Postgres
from tollgate.platform.sql import Database, migrate

STARTER = """
import sys
from pathlib import Path
from tollgate.local.postgres import Postgres
server = Postgres(Path(sys.argv[1])).start()
print(server.pid, flush=True)
sys.stdin.read()
"""


def test_what_was_committed_stays_after_a_kill_and_a_stop(tmp_path: Path) -> None:
    with Postgres(tmp_path / "server") as server:
        address = server.create_database("one").replace("+psycopg", "")
        with psycopg.connect(address) as connection:
            connection.execute("CREATE TABLE t (n int)")
            connection.execute("INSERT INTO t VALUES (1)")
        server.kill()
        server.start()
        server.stop()
        server.start()
        with psycopg.connect(address) as connection:
            assert connection.execute("SELECT n FROM t").fetchall() == [(1,)]


def test_a_server_that_goes_away_is_transient_and_comes_back(tmp_path: Path) -> None:
    with Postgres(tmp_path / "server") as server:
        url = server.create_database("one")
        migrate(url)
        database = Database(url)
        with database.connect() as connection:
            assert connection.exec_driver_sql("SELECT 1").scalar() == 1
        server.kill()
        with pytest.raises(Transient), database.connect() as connection:
            connection.exec_driver_sql("SELECT 1")
        server.start()
        with database.connect() as connection:
            assert connection.exec_driver_sql("SELECT 1").scalar() == 1
        database.dispose()


def test_it_does_not_outlive_its_parent(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", STARTER, str(tmp_path / "server")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=clean_environment({}),
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), what="the server ended")
