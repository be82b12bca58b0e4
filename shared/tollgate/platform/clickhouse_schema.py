"""Versioned migrations of the analytics store.

A migration is a template in `infra/migrations/clickhouse`; this module renders it for one server
(or the embedded engine) and for a cluster, and applies what is missing. Callers hold the migration
lock (`tollgate.platform.sql.migrate` runs first, under a lock in SQL).
"""

import re
from dataclasses import dataclass
from pathlib import Path

from tollgate.core.errors import PermanentFault
from tollgate.platform.clickhouse import DATABASE, ClickHouse
from tollgate.platform.paths import INFRA

FOLDER = INFRA / "migrations" / "clickhouse"
_ENGINE = re.compile(r"\{engine:(\w+)\}")
_MINIMUM = re.compile(r"^-- minimum server version: (\d+)\.(\d+)\s*$", re.MULTILINE)
_CREATE = re.compile(r"^(CREATE (?:TABLE|MATERIALIZED VIEW) )")
_NAME = re.compile(r"(\d{4})_(\w+)\.sql")


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One versioned file.

    Attributes:
        version: its number.
        name: what it is about.
        template: its text.
        minimum: lowest server version, (year, month).
    """

    version: int
    name: str
    template: str
    minimum: tuple[int, int]


def read_migrations(folder: Path = FOLDER) -> tuple[Migration, ...]:
    """All migrations by number.

    Raises:
        PermanentFault: a file without a stated minimum version, or a gap in the numbers.
    """
    found = []
    for path in sorted(folder.glob("*.sql")):
        named, template = _NAME.fullmatch(path.name), path.read_text()
        minimum = _MINIMUM.search(template)
        if named is None or minimum is None:
            raise PermanentFault(f"{path}: needs a name NNNN_name.sql and a minimum server version")
        found.append(
            Migration(
                version=int(named[1]),
                name=named[2],
                template=template,
                minimum=(int(minimum[1]), int(minimum[2])),
            )
        )
    if [m.version for m in found] != list(range(1, len(found) + 1)):
        raise PermanentFault(f"{folder}: the numbers must run from 1 without a gap")
    return tuple(found)


def render(template: str, *, cluster: str = "", durable: bool = False) -> tuple[str, ...]:
    """The statements of a template.

    Args:
        template: the migration's text.
        cluster: name of the cluster for the replicated variant; empty: plain.
        durable: fsync each inserted part before the insert is answered (one server: no replica
            has what it loses).
    """

    def engine(match: re.Match[str]) -> str:
        if not cluster:
            return f"{match[1]}()"
        path = "/clickhouse/tables/{shard}/{database}/{table}/{uuid}"
        return f"Replicated{match[1]}('{path}', '{{replica}}')"

    body = "\n".join(line for line in template.splitlines() if not line.startswith("--"))
    body = body.replace("{on_cluster}", f"ON CLUSTER '{cluster}'" if cluster else "")
    body = body.replace(
        "{durable}", ", fsync_after_insert = 1, fsync_part_directory = 1" if durable else ""
    )
    body = body.replace("{database}.", f"{DATABASE}.")
    body = _ENGINE.sub(engine, body)
    return tuple(s.strip() for s in body.split(";\n") if s.strip(" \n;"))


def migrate_clickhouse(clickhouse: ClickHouse, *, cluster: str = "") -> int:
    """Applies what is missing; running it twice is the same as once.

    Returns:
        the number of migrations applied.

    Raises:
        PermanentFault: the server is older than a migration needs.
    """
    on_cluster = f" ON CLUSTER '{cluster}'" if cluster else ""
    engine = " ENGINE = Atomic" if clickhouse.embedded else ""
    clickhouse.command(f"CREATE DATABASE IF NOT EXISTS {DATABASE}{on_cluster}{engine}")
    kind = "ReplicatedMergeTree" if cluster else "MergeTree"
    clickhouse.command(
        f"CREATE TABLE IF NOT EXISTS {DATABASE}.schema_migrations{on_cluster}"
        " (version UInt32, name String, applied_at DateTime DEFAULT now())"
        f" ENGINE = {kind} ORDER BY version"
    )
    rows = clickhouse.query(f"SELECT version FROM {DATABASE}.schema_migrations")
    done = {int(row[0]) for row in rows}
    pending = [m for m in read_migrations() if m.version not in done]
    if not pending:
        return 0
    server = _server_version(clickhouse)
    for migration in pending:
        if server < migration.minimum:
            raise PermanentFault(
                f"migration {migration.version} needs ClickHouse "
                f"{migration.minimum[0]}.{migration.minimum[1]}, the server is "
                f"{server[0]}.{server[1]}"
            )
        for statement in render(migration.template, cluster=cluster, durable=not cluster):
            # A crash between two statements leaves tables behind: creating them again is no fault.
            clickhouse.command(_CREATE.sub(r"\1IF NOT EXISTS ", statement))
        clickhouse.command(
            f"INSERT INTO {DATABASE}.schema_migrations (version, name)"
            f" VALUES ({migration.version}, '{migration.name}')"
        )
    return len(pending)


def _server_version(clickhouse: ClickHouse) -> tuple[int, int]:
    (row,) = clickhouse.query("SELECT version()")
    year, month = str(row[0]).split(".")[:2]
    return int(year), int(month)
