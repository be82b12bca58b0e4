"""The `tollgate` command. Every subcommand talks to a running Tollgate over HTTP."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from tollgate import __version__
from tollgate.cli.http import CommandError, Connection
from tollgate.core.clock import SystemClock
from tollgate.core.errors import InvalidInput
from tollgate.platform.settings import read_client_settings

_PIECE_BYTES = 1 << 20


def main(arguments: list[str] | None = None) -> int:
    """The command. Returns the exit code: 0 done, 1 refused or failed, 2 wrong usage."""
    client = read_client_settings()
    parser = _parser(client.url)
    given = parser.parse_args(arguments)
    try:
        connection = Connection(given.url, client.key)
        run = {
            "demo": _demo,
            "keys": _keys,
            "backup": _backup,
            "restore": _restore,
            "migrate": _migrate,
            "replay": _replay,
            "openapi": _openapi,
            "version": _version,
        }[given.command]
        return run(given, connection)
    except InvalidInput as problem:
        _say(problem.detail)
        return 2
    except CommandError as problem:
        _say(str(problem))
        return 1
    except KeyboardInterrupt:
        return 130


def _parser(url: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tollgate",
        description="Talks to a running Tollgate. The access key is read from TOLLGATE_KEY.",
    )
    where = f"where it runs (TOLLGATE_URL; {url})"
    parser.add_argument("--url", default=url, help=where)
    # After the command, too; where it is left out there, it must not undo the one before.
    place = argparse.ArgumentParser(add_help=False)
    place.add_argument("--url", default=argparse.SUPPRESS, help=where)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo = commands.add_parser(
        "demo", help="send two months of made-up usage and show what it sums to", parents=[place]
    )
    demo.add_argument(
        "--gateway",
        action="store_true",
        help="instead be an AI gateway whose customer is blocked at its quota",
    )
    keys = commands.add_parser("keys", help="access keys").add_subparsers(
        dest="action", required=True, metavar="ACTION"
    )
    create = keys.add_parser("create", help="make a key; it is shown once", parents=[place])
    create.add_argument("--name", default="", help="what it is for")
    create.add_argument("--namespace", help="for operators; else the key's own")
    create.add_argument(
        "--scope",
        action="append",
        required=True,
        choices=("ingest", "read", "admin", "operator"),
        help="may be given several times",
    )
    create.add_argument("--expires-at", help="RFC 3339; left out: never")
    keys.add_parser("list", help="keys without their secrets", parents=[place])
    revoke = keys.add_parser("revoke", help="end a key at once", parents=[place])
    revoke.add_argument("id", help="the id that `keys list` shows")
    revoke.add_argument("--force", action="store_true", help="even the last that manages keys")
    backup = commands.add_parser(
        "backup", help="copy everything into a file while it runs", parents=[place]
    )
    backup.add_argument("file", type=Path)
    restore = commands.add_parser("restore", help="put a copy into a new data folder")
    restore.add_argument("file", type=Path)
    restore.add_argument("--data", type=Path, required=True, help="new or empty folder")
    migrate = commands.add_parser("migrate", help="move a data folder into the distributed world")
    migrate.add_argument("--data", type=Path, help="embedded data folder (TOLLGATE_DATA, .data)")
    migrate.add_argument("--to-data", type=Path, help="data folder of scripts/up --distributed")
    replay = commands.add_parser("replay", help="rebuild ClickHouse from the archive")
    replay.add_argument("--data", type=Path, help="new or unfinished data folder (TOLLGATE_DATA)")
    replay.add_argument("--archive", help="where the archive is (TOLLGATE_OBJECTS_URL)")
    replay.add_argument("--from", dest="since", help="what was appended from then on, RFC 3339")
    replay.add_argument("--to", dest="until", help="what was appended before then, RFC 3339")
    commands.add_parser("openapi", help="print the API document", parents=[place])
    commands.add_parser("version", help="print the version of this command")
    return parser


def _say(text: str) -> None:
    print(f"tollgate: {text}", file=sys.stderr)


def _print(text: str) -> None:
    print(text)


def _demo(given: argparse.Namespace, connection: Connection) -> int:
    if given.gateway:
        from tollgate.cli.gateway import run_gateway

        run_gateway(connection, SystemClock())
        return 0
    from tollgate.cli.demo import run_demo

    run_demo(connection, SystemClock())
    return 0


def _keys(given: argparse.Namespace, connection: Connection) -> int:
    path = "/api/v1/access-keys"
    if given.action == "create":
        body = {"name": given.name, "scopes": given.scope}
        if given.namespace:
            body["namespace"] = given.namespace
        if given.expires_at:
            body["expiresAt"] = given.expires_at
        made = json.loads(connection.request("POST", path, body=body).body)
        _print(made["key"])
        _say(f"key {made['id']} of namespace {made['namespace']}; it is not shown again")
    elif given.action == "list":
        found = json.loads(connection.request("GET", path).body)
        for key in found:
            state = "revoked" if "revokedAt" in key else key.get("expiresAt", "in force")
            scopes = ",".join(key["scopes"])
            _print(f"{key['id']}  {key['namespace']}  {scopes}  {state}  {key['name']}")
    else:
        query = {"force": "true"} if given.force else None
        connection.request("DELETE", f"{path}/{given.id}", query=query)
        _say(f"key {given.id} is revoked")
    return 0


def _backup(given: argparse.Namespace, connection: Connection) -> int:
    target: Path = given.file
    if target.exists():
        raise CommandError(f"{target} exists; name a new file")
    partial = target.with_name(target.name + ".part")
    try:
        with connection.stream("POST", "/api/v1/backups") as answer, partial.open("wb") as out:
            while piece := answer.read(_PIECE_BYTES):
                out.write(piece)
        partial.rename(target)
    except OSError as problem:
        raise CommandError(f"{target}: {problem}") from None
    finally:
        partial.unlink(missing_ok=True)
    _say(f"{target}: {target.stat().st_size:,} bytes")
    return 0


def _restore(given: argparse.Namespace, connection: Connection) -> int:
    del connection
    # A process of its own: this command knows no engine.
    command = [sys.executable, "-m", "tollgate.events.restore", str(given.file)]
    return subprocess.run(  # noqa: S603 -- our own module
        [*command, "--data", str(given.data)], check=False
    ).returncode


def _migrate(given: argparse.Namespace, connection: Connection) -> int:
    del connection
    command = [sys.executable, "-m", "tollgate.local.migrate"]
    for option in ("data", "to_data"):
        if (folder := getattr(given, option)) is not None:
            command += [f"--{option.replace('_', '-')}", str(folder)]
    return subprocess.run(command, check=False).returncode  # noqa: S603 -- our own module


def _replay(given: argparse.Namespace, connection: Connection) -> int:
    del connection
    command = [sys.executable, "-m", "tollgate.local.replay"]
    options = {"data": "--data", "archive": "--archive", "since": "--from", "until": "--to"}
    for name, option in options.items():
        if (value := getattr(given, name)) is not None:
            command += [option, str(value)]
    return subprocess.run(command, check=False).returncode  # noqa: S603 -- our own module


def _openapi(given: argparse.Namespace, connection: Connection) -> int:
    del given
    _print(connection.request("GET", "/api/openapi.json").body.decode())
    return 0


def _version(given: argparse.Namespace, connection: Connection) -> int:
    del given, connection
    _print(f"tollgate {__version__}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
