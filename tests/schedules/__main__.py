"""Runs fault schedules, one for each seed, and shows what fails with the least that it takes.

`python -m tests.schedules --seed N --count M [--real | --mirrored]`
"""

import argparse
import logging
import sys
from contextlib import ExitStack
from time import monotonic

from tests.schedules.drive import simulated_parts
from tests.schedules.real import real_parts
from tests.schedules.runner import NewParts, report, run_all, shrink

_SHOWN_MAX = 5


def main(arguments: list[str] | None = None) -> int:
    """See the module; 1 if a schedule fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.schedules", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of the first schedule")
    parser.add_argument("--count", type=int, default=1, help="how many, one seed after another")
    parts = parser.add_mutually_exclusive_group()
    parts.add_argument("--real", action="store_true", help="on segment files and the real engine")
    parts.add_argument(
        "--mirrored",
        action="store_true",
        help="the same, and the simulator of the engine must give each answer, too",
    )
    asked = parser.parse_args(arguments)
    logging.getLogger("tollgate").addHandler(logging.NullHandler())
    logging.getLogger("tollgate").propagate = False
    began, failed, faults = monotonic(), 0, 0
    with ExitStack() as stack:
        new_parts: NewParts = simulated_parts
        if asked.real or asked.mirrored:
            new_parts = stack.enter_context(real_parts(mirrored=asked.mirrored))
        for outcome in run_all(range(asked.seed, asked.seed + asked.count), new_parts):
            faults += len(outcome.fired)
            if outcome.problem is not None:
                failed += 1
                if failed <= _SHOWN_MAX:
                    print(report(shrink(outcome, new_parts)), flush=True)
    took = monotonic() - began
    print(
        f"{asked.count} schedules, {faults} faults, {failed} failed, {took:.1f} s,"
        f" {asked.count / took:.1f} a second"
    )
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
