"""Servers under measurement as child processes: start, wait for an answer, memory, stop."""

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.bench.http_client import HttpClient
from tests.bench.load_generator import Target

ROOT: Final = Path(__file__).resolve().parents[2]

_POLL_SECONDS: Final = 0.005
_STOP_SECONDS: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server that answers.

    Attributes:
        target: Where it listens.
        pid: Leader of its process group.
        ready_seconds: From spawning it to its first 200.
        ingest: Where events go, if elsewhere.
        functions: Processes of a distributed product's functions, by name.
    """

    target: Target
    pid: int
    ready_seconds: float
    ingest: Target | None = None
    functions: Mapping[str, int] = field(default_factory=dict)

    @property
    def events(self) -> Target:
        """Where events are sent to."""
        return self.ingest or self.target

    def resident_mib(self) -> float:
        """Return resident MiB of all its processes; pages that two share count twice."""
        pids = self.functions.values() or _process_group(self.pid)
        return sum(_resident_kib(pid) for pid in pids) / 1024


def resident_mib() -> float:
    """Return resident MiB of this process."""
    return _resident_kib(os.getpid()) / 1024


def reset_peak() -> None:
    """Let `peak_mib` count from here on."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_mib() -> float:
    """Return the greatest resident MiB of this process since `reset_peak`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) / 1024


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def running_server(
    command: Sequence[str],
    *,
    port: int,
    log: Path,
    environment: Mapping[str, str] | None = None,
    ready_path: str = "/readyz",
    ready_seconds_max: float = 60,
) -> AsyncIterator[Server]:
    """Run `command` until the block ends, then SIGTERM and, when that takes too long, SIGKILL.

    Args:
        command: Argument vector; it becomes the leader of a process group of its own.
        port: Where it will listen.
        log: File that its output is appended to.
        environment: Settings on top of ours.
        ready_path: Path that answers 200 once it is ready.
        ready_seconds_max: Limit for that.

    Raises:
        RuntimeError: It ended before it was ready or took too long; says the end of its log.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    # `env` replaces itself by the command: the process we start is the server.
    settings = ["env", *(f"{name}={value}" for name, value in (environment or {}).items())]
    with log.open("ab") as output:
        started = time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            *settings,
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=ROOT,
            start_new_session=True,
        )
    try:
        target = Target(port=port)
        await _wait_until_ready(process, target, ready_path, started + ready_seconds_max, log)
        yield Server(target=target, pid=process.pid, ready_seconds=time.perf_counter() - started)
    finally:
        await _stop(process)


@asynccontextmanager
async def noop_server(kind: str, log: Path) -> AsyncIterator[Server]:
    """Run the no-op server of that kind (`asgi` or `bare`) on a free port."""
    port = free_port()
    command = (sys.executable, "-m", "tests.bench.noop_server", kind, "--port", str(port))
    path = "/" if kind == "asgi" else ""
    async with running_server(command, port=port, log=log, ready_path=path) as server:
        yield server


async def _wait_until_ready(
    process: asyncio.subprocess.Process, target: Target, path: str, deadline: float, log: Path
) -> None:
    while not await _answers(target, path):
        if process.returncode is not None:
            raise RuntimeError(
                f"ended with {process.returncode} before it was ready:\n{_tail(log)}"
            )
        if time.perf_counter() > deadline:
            raise RuntimeError(f"was not ready in time:\n{_tail(log)}")
        await asyncio.sleep(_POLL_SECONDS)


async def _answers(target: Target, path: str) -> bool:
    """Tell whether it answers 200 at the path; without a path, whether it accepts."""
    client = HttpClient(target)
    try:
        if not path:
            await client.connect()
            return True
        return (await client.get(path)).status == 200
    except (OSError, EOFError):
        return False
    finally:
        client.close()


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-4000:]


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        os.killpg(process.pid, signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), _STOP_SECONDS)
    except TimeoutError:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def _process_group(leader: int) -> list[int]:
    """Return the processes of the group that `leader` leads."""
    members = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.getpgid(int(entry.name)) == leader:
                    members.append(int(entry.name))
            except ProcessLookupError:
                continue
    return members


def _resident_kib(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    for line in status.splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0
