"""Processes that do not outlive their parent, however it ends.

PR_SET_PDEATHSIG would follow the thread that forked, not the process. Here a shell waits on a pipe
that only the parent holds open; when the kernel closes it, the process is killed.
"""

import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

# The command keeps the shell's process id. `read` fails at the end of the pipe only.
_SCRIPT = 'exec 3<&0 0</dev/null; { read -r _ <&3 || kill -KILL $$; } & exec 3<&-; exec "$@"'


def start_leashed(
    command: Sequence[str | Path], log: Path, environment: Mapping[str, str] | None = None
) -> "subprocess.Popen[bytes]":
    """Starts a command in a session of its own: a Ctrl-C in the terminal is its parent's to handle.

    Args:
        command: program and arguments.
        log: what it prints is appended here.
        environment: of the command; this process's own if None.
    """
    with log.open("ab") as output:
        return subprocess.Popen(  # noqa: S603 -- the caller's own constant command
            ["/bin/sh", "-c", _SCRIPT, "leash", *command],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env=None if environment is None else dict(environment),
            start_new_session=True,
        )


def release_leash(process: "subprocess.Popen[bytes]") -> None:
    """Lets the shell go once the process has ended: its id may be another's from then on."""
    if process.stdin is not None:
        with suppress(BrokenPipeError):
            process.stdin.write(b"\n")
            process.stdin.flush()
        with suppress(BrokenPipeError):
            process.stdin.close()
