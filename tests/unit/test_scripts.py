"""What the scripts say before anything is installed: help, and a clear word on a missing Python."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent.parent.parent / "scripts"
ENTRIES = ("bench", "check", "lock", "nightly", "test", "up")
TOOLS = ("bash", "cat", "cksum", "dirname", "env", "rm")

# An interpreter like ours but for one thing: it changes `sys`, then runs what it reads.
CHANGED_PYTHON = """#!/bin/sh
exec {python} -c 'import sys; {change}; exec(sys.stdin.read())'
"""
IS_OLD = "sys.version_info = (3, 9, 2)"
LACKS_ENSUREPIP = 'sys.modules["ensurepip"] = None'  # as Debian ships it without python3-venv


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A clone without an environment, and a `bin` that holds the usual tools but no Python."""
    shutil.copytree(SCRIPTS, tmp_path / "clone" / "scripts")
    (tmp_path / "bin").mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found is not None
        (tmp_path / "bin" / tool).symlink_to(found)
    return tmp_path


def put_python(machine: Path, name: str, change: str) -> None:
    path = machine / "bin" / name
    path.write_text(CHANGED_PYTHON.format(python=sys.executable, change=change), encoding="utf-8")
    path.chmod(0o755)


def run(machine: Path, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [machine / "clone" / "scripts" / script, *arguments],
        env={"PATH": str(machine / "bin"), "HOME": str(machine)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("script", ENTRIES)
def test_help_needs_nothing(machine: Path, script: str) -> None:
    done = run(machine, script, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"Usage: scripts/{script}")
    assert not (machine / "clone" / ".venv").exists()


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("up", ["--prot", "1"], "up: there is no option '--prot'; see scripts/up --help"),
        ("up", ["--port"], "up: --port needs a value; see scripts/up --help"),
        ("check", ["--quick"], "check: there is no option '--quick'; see scripts/check --help"),
        ("nightly", ["-r"], "nightly: there is no option '-r'; see scripts/nightly --help"),
        ("lock", ["-u"], "lock: there is no option '-u'; see scripts/lock --help"),
    ],
)
def test_a_wrong_option_is_named(
    machine: Path, script: str, arguments: list[str], message: str
) -> None:
    done = run(machine, script, *arguments)
    assert done.returncode == 1
    assert done.stderr.strip() == message


@pytest.mark.parametrize("script", ["up", "test", "check", "bench"])
def test_a_machine_without_python_is_told_what_to_install(machine: Path, script: str) -> None:
    done = run(machine, script)
    assert done.returncode == 1
    assert "needs Python 3.11 or later with its venv and ensurepip modules" in done.stderr
    assert "apt-get install python3 python3-venv" in done.stderr
    assert not (machine / "clone" / ".venv").exists()


def test_each_python_that_will_not_do_is_named_with_its_reason(machine: Path) -> None:
    put_python(machine, "python3", IS_OLD)
    put_python(machine, "python3.12", LACKS_ENSUREPIP)
    done = run(machine, "up")
    assert done.returncode == 1
    assert "  python3 will not do: it is Python 3.9.\n" in done.stderr
    assert "  python3.12 will not do: it has no module ensurepip.\n" in done.stderr


def test_a_later_python_is_taken_when_the_first_will_not_do(machine: Path) -> None:
    put_python(machine, "python3", IS_OLD)
    put_python(machine, "python3.11", "pass")
    done = run_function(machine, "find_python")
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_file()
    assert not done.stdout.startswith(sys.prefix + os.sep)  # the base, never the environment itself


def test_a_relative_path_is_taken_from_where_the_caller_stands(machine: Path) -> None:
    assert run_function(machine, "absolute_path data").stdout == f"{machine}/data\n"
    assert run_function(machine, "absolute_path /data").stdout == "/data\n"


def run_function(machine: Path, call: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [machine / "bin" / "bash", "-c", f". clone/scripts/environment.sh; {call}"],
        env={"PATH": str(machine / "bin"), "HOME": str(machine)},
        cwd=machine,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
