"""Accepted = billed, exactly, under every fault that a seed comes up with."""

import subprocess
import sys

from tests.schedules.runner import first_failure, report, run_all, shrink
from tests.support.server import ROOT

SCHEDULES = 200


def test_every_schedule_counts_what_was_accepted() -> None:
    failed = first_failure(range(SCHEDULES))
    assert failed is None, report(shrink(failed))


def test_a_seed_is_one_schedule() -> None:
    for once, again in zip(run_all(range(12)), run_all(range(12)), strict=True):
        assert (once.trace, once.fired, once.steps) == (again.trace, again.fired, again.steps)


def test_the_same_schedules_on_real_parts() -> None:
    """On segment files and the real engine, each of whose answers is the simulator's, too.

    In a process of its own: the engine has one data folder, which the other tests share.
    """
    ran = subprocess.run(
        [sys.executable, "-m", "tests.schedules", "--mirrored", "--seed", "6", "--count", "2"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
